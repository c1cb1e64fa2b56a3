package login

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	stdhash "hash"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-sasl"
)

// The SCRAM mechanisms (RFC 5802, RFC 7677), without their -PLUS forms.
const (
	scramSHA1   = "SCRAM-SHA-1"
	scramSHA256 = "SCRAM-SHA-256"
	plus        = "-PLUS"
)

const (
	scramIterations = 65_536    // of SCRAM
	minIterations   = 4096      // RFC 7677 §4
	maxIterations   = 5_000_000 // what a stored credential or a server may ask for
	maxSCRAM        = 8 << 10   // octets of a message
)

// scramHash returns the hash function of a mechanism, nil if there is none.
func scramHash(mech string) func() stdhash.Hash {
	switch mech {
	case scramSHA1:
		return sha1.New
	case scramSHA256:
		return sha256.New
	}
	return nil
}

// SCRAM derives what Record.SCRAM keeps of password for a mechanism,
// "SCRAM-SHA-256" or "SCRAM-SHA-1", with a random salt: in RFC 5803's form,
// "SCRAM-SHA-256$65536:salt$StoredKey:ServerKey", which other servers know
// too. The password is prepared as for Hash. Neither the password nor
// anything to log in with can be had from it but by guessing. ErrPassword,
// ErrMechanism.
func SCRAM(mechanism, password string) (string, error) {
	mech := strings.ToUpper(mechanism)
	if scramHash(mech) == nil {
		return "", ErrMechanism
	}
	pw, err := preparePassword(password)
	if err != nil {
		return "", err
	}
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails
	return deriveSCRAM(mech, pw, salt, scramIterations).String(), nil
}

// scramKeys is a stored credential.
type scramKeys struct {
	mech              string
	iterations        int
	salt              []byte
	stored, serverKey []byte
}

// deriveSCRAM takes a prepared password.
func deriveSCRAM(mech, password string, salt []byte, iterations int) *scramKeys {
	k, _ := deriveClient(mech, password, salt, iterations)
	return k
}

// deriveClient also returns the key that the server does not keep.
func deriveClient(mech, password string, salt []byte, iterations int) (k *scramKeys, clientKey []byte) {
	h := scramHash(mech)
	salted, err := pbkdf2.Key(h, password, salt, iterations, h().Size())
	if err != nil {
		salted = make([]byte, h().Size()) // FIPS mode's refusal: nothing matches
		rand.Read(salted)
	}
	clientKey = mac(h, salted, "Client Key")
	return &scramKeys{
		mech: mech, iterations: iterations, salt: salt,
		stored:    digest(h, clientKey),
		serverKey: mac(h, salted, "Server Key"),
	}, clientKey
}

func mac(h func() stdhash.Hash, key []byte, text string) []byte {
	m := hmac.New(h, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

func digest(h func() stdhash.Hash, b []byte) []byte {
	d := h()
	d.Write(b)
	return d.Sum(nil)
}

func (k *scramKeys) String() string {
	enc := base64.StdEncoding.EncodeToString
	return k.mech + "$" + strconv.Itoa(k.iterations) + ":" + enc(k.salt) + "$" + enc(k.stored) + ":" + enc(k.serverKey)
}

// parseSCRAM reads what SCRAM makes.
func parseSCRAM(s string) (*scramKeys, error) {
	bad := func(what string) (*scramKeys, error) { return nil, fmt.Errorf("%w: SCRAM: %s", ErrHash, what) }
	if len(s) > 1024 {
		return bad("too long")
	}
	f := strings.Split(s, "$")
	if len(f) != 3 || scramHash(f[0]) == nil {
		return bad("fields")
	}
	count, salt, ok1 := strings.Cut(f[1], ":")
	stored, server, ok2 := strings.Cut(f[2], ":")
	if !ok1 || !ok2 {
		return bad("fields")
	}
	k := &scramKeys{mech: f[0]}
	var err error
	if k.iterations, err = strconv.Atoi(count); err != nil || k.iterations < 1 || k.iterations > maxIterations {
		return bad("iterations")
	}
	size := scramHash(k.mech)().Size()
	for _, v := range [...]struct {
		to       *[]byte
		s        string
		min, max int
	}{{&k.salt, salt, 1, maxSaltSize}, {&k.stored, stored, size, size}, {&k.serverKey, server, size, size}} {
		if *v.to, err = base64.StdEncoding.Strict().DecodeString(v.s); err != nil || len(*v.to) < v.min || len(*v.to) > v.max {
			return bad("salt or key")
		}
	}
	return k, nil
}

// matches makes a stored credential serve PLAIN and LOGIN too.
func (k *scramKeys) matches(password string) bool {
	return subtle.ConstantTimeCompare(deriveSCRAM(k.mech, password, k.salt, k.iterations).stored, k.stored) == 1
}

func (k *scramKeys) memory() int64 { return 1 << 20 } // nominal, as bcrypt's

// fakeKeys is what is shown of a user that does not exist, or has no keys for
// mech: the same salt each time, so that it looks like any other.
func (p *Passwords) fakeKeys(mech, user string) *scramKeys {
	n := p.Iterations
	if n == 0 {
		n = scramIterations
	}
	seed := p.secret
	return &scramKeys{
		mech: mech, iterations: n,
		salt:      mac(sha256.New, seed, "salt\x00"+mech+"\x00"+user)[:saltSize],
		stored:    mac(scramHash(mech), seed, "key\x00"+mech+"\x00"+user),
		serverKey: make([]byte, scramHash(mech)().Size()),
	}
}

// scram is the server's side of a SCRAM mechanism (RFC 5802 §3, §7).
type scram struct {
	ctx  context.Context // of Start
	p    *Passwords
	c    *Conn
	mech string // without -PLUS
	plus bool

	step    int
	attempt attempt
	keys    *scramKeys
	real    bool // keys are not fake
	rec     Record
	user    string
	authzid string
	bound   []byte // what c= has to be
	nonce   string
	auth    string // AuthMessage as far as it is known
	id      Identity
	final   Identity // the identity once the client has read our proof
}

func (x *scram) Identity() Identity { return x.id }

func (x *scram) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil && x.step == 0 {
		return []byte{}, false, nil
	}
	x.step++
	switch x.step {
	case 1:
		if challenge, err = x.first(response); err != nil {
			x.step = 3
		}
		return challenge, false, err
	case 2:
		if challenge, err = x.last(response); err != nil {
			x.step = 3
		}
		// Our proof leaves as a challenge: none of our protocols has a place
		// for data with success.
		return challenge, false, err
	case 3:
		if len(response) != 0 {
			return nil, false, ErrMalformed
		}
		x.id = x.final
		return nil, true, nil
	}
	return nil, false, sasl.ErrUnexpectedClientResponse
}

// first answers client-first-message with server-first-message.
func (x *scram) first(msg []byte) ([]byte, error) {
	if len(msg) > maxSCRAM || !utf8.Valid(msg) {
		return nil, ErrMalformed
	}
	flag, rest, ok1 := strings.Cut(string(msg), ",")
	authzid, bare, ok2 := strings.Cut(rest, ",")
	if !ok1 || !ok2 {
		return nil, ErrMalformed
	}
	if authzid != "" {
		enc, ok := strings.CutPrefix(authzid, "a=")
		if x.authzid, ok = decodeName(enc, ok); !ok {
			return nil, ErrMalformed
		}
	}
	// An attribute m= before the name is an extension that must be known
	// (RFC 5802 §5.1): it fails here, as it is no n=.
	name, rest, ok := strings.Cut(bare, ",")
	enc, isName := strings.CutPrefix(name, "n=")
	if name, isName = decodeName(enc, ok && isName); !isName || name == "" || len(name) > maxName || len(x.authzid) > maxName {
		return nil, ErrMalformed
	}
	nonce, _, _ := strings.Cut(rest, ",")
	nonce, ok = strings.CutPrefix(nonce, "r=")
	if !ok || !validNonce(nonce) {
		return nil, ErrMalformed
	}
	var err error
	if x.bound, err = x.bind(flag, msg[:len(msg)-len(bare)]); err != nil {
		return nil, err
	}

	user, nameErr := PrepareUser(name)
	if nameErr != nil {
		user = name
	}
	x.user = user
	if x.attempt, err = x.p.limits.enter(x.c, user); err != nil {
		return nil, err
	}
	fake := x.p.fakeKeys(x.mech, user) // made for everybody: it takes its time
	x.keys = fake
	if nameErr == nil {
		x.rec, err = x.p.Lookup(x.ctx, user)
		if err != nil && !errors.Is(err, ErrNoUser) {
			err = fmt.Errorf("login: look-up: %w", err)
			x.attempt.leave(err)
			return nil, err
		}
		if err == nil {
			if k, err := x.rec.scram(x.mech); err != nil {
				x.attempt.leave(err)
				return nil, err
			} else if k != nil {
				x.keys, x.real = k, true
			}
		}
	}
	random := make([]byte, 18)
	rand.Read(random) // never fails
	x.nonce = nonce + base64.StdEncoding.EncodeToString(random)
	server := "r=" + x.nonce + ",s=" + base64.StdEncoding.EncodeToString(x.keys.salt) + ",i=" + strconv.Itoa(x.keys.iterations)
	x.auth = bare + "," + server + ","
	return []byte(server), nil
}

// bind checks the flag of channel binding (RFC 5802 §6) and returns what the
// client's c= has to be.
func (x *scram) bind(flag string, header []byte) ([]byte, error) {
	switch {
	case flag == "n" && !x.plus:
		return header, nil
	case flag == "y" && !x.plus:
		// The client can bind and saw no -PLUS. If one was offered, somebody
		// took it out of the list.
		for _, m := range x.p.Mechanisms(x.c) {
			if m == x.mech+plus {
				return nil, fmt.Errorf("%w: the list of mechanisms was tampered with", ErrCredentials)
			}
		}
		return header, nil
	case strings.HasPrefix(flag, "p=") && x.plus:
		data, err := binding(flag[2:], x.c.TLS, x.c.Cert)
		if err != nil {
			return nil, fmt.Errorf("%w: channel binding %.40q", ErrMechanism, flag[2:])
		}
		return append(bytes.Clone(header), data...), nil
	}
	return nil, ErrMalformed
}

// last answers client-final-message with server-final-message.
func (x *scram) last(msg []byte) (_ []byte, err error) {
	defer func() { x.attempt.leave(err) }()
	malformed := fmt.Errorf("%w (%w)", ErrCredentials, ErrMalformed) // it costs an attempt all the same
	if len(msg) > maxSCRAM {
		return nil, malformed
	}
	cut := bytes.LastIndex(msg, []byte(",p="))
	if cut < 0 {
		return nil, malformed
	}
	proof, err := base64.StdEncoding.DecodeString(string(msg[cut+3:]))
	h := scramHash(x.mech)
	if err != nil || len(proof) != h().Size() {
		return nil, malformed
	}
	without := string(msg[:cut])
	c, rest, ok := strings.Cut(without, ",")
	enc, isC := strings.CutPrefix(c, "c=")
	bound, err := base64.StdEncoding.DecodeString(enc)
	if !ok || !isC || err != nil {
		return nil, malformed
	}
	nonce, _, _ := strings.Cut(rest, ",")
	if nonce != "r="+x.nonce {
		return nil, malformed
	}
	if subtle.ConstantTimeCompare(bound, x.bound) != 1 {
		return nil, fmt.Errorf("%w: the channel binding does not match", ErrCredentials)
	}
	auth := x.auth + without
	key := mac(h, x.keys.stored, auth)
	subtle.XORBytes(key, key, proof)
	match := subtle.ConstantTimeCompare(digest(h, key), x.keys.stored) == 1
	if !match || !x.real {
		return nil, ErrCredentials
	}
	id := x.rec.identity(x.user)
	id.Mechanism = x.mech
	if x.plus {
		id.Mechanism += plus
	}
	if x.final, err = x.p.authorize(x.ctx, id, x.authzid); err != nil {
		return nil, err
	}
	return []byte("v=" + base64.StdEncoding.EncodeToString(mac(h, x.keys.serverKey, auth))), nil
}

// decodeName decodes a saslname, in which "," and "=" are =2C and =3D.
func decodeName(s string, ok bool) (string, bool) {
	if !ok || !strings.Contains(s, "=") {
		return s, ok
	}
	var b strings.Builder
	for {
		head, tail, more := strings.Cut(s, "=")
		b.WriteString(head)
		switch {
		case !more:
			return b.String(), true
		case strings.HasPrefix(tail, "2C"):
			b.WriteByte(',')
		case strings.HasPrefix(tail, "3D"):
			b.WriteByte('=')
		default:
			return "", false
		}
		s = tail[2:]
	}
}

func encodeName(s string) string { return strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s) }

// validNonce: printable ASCII but the comma.
func validNonce(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e || s[i] == ',' {
			return false
		}
	}
	return s != ""
}
