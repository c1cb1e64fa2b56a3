package login

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/emersion/go-sasl"
)

// Credentials are what a client logs in with, to any server. Its fields are
// read-only once it is used, and it may serve many connections.
type Credentials struct {
	// User and Password log in with the best mechanism that the server
	// offers: SCRAM with channel binding, SCRAM, then PLAIN, LOGIN and
	// CRAM-MD5, this one first where there is no TLS.
	User, Password string
	// ActAs is the user to act as, the authorization identity; "" = User.
	// LOGIN and CRAM-MD5 are not used when it is set.
	ActAs string
	// Token, when set, gives an OAuth 2.0 bearer token for OAUTHBEARER or
	// XOAUTH2, and Password is not used. It is called for each login.
	Token func(ctx context.Context) (string, error)
	// Certificate logs in with the client certificate of the TLS
	// configuration (EXTERNAL), and nothing else.
	Certificate bool
}

// Client returns an exchange for the best of the mechanisms that a server
// offers, named as it names them; s is the connection's TLS, nil if it has
// none. It is for one login. ErrMechanism when none suits. Whether the wire
// may see the secret is for the caller to judge: see Cleartext.
func (c *Credentials) Client(ctx context.Context, offered []string, s *tls.ConnectionState) (sasl.Client, error) {
	has := func(mech string) bool {
		for _, m := range offered {
			if strings.EqualFold(m, mech) {
				return true
			}
		}
		return false
	}
	switch {
	case c.Certificate:
		if s != nil && has(sasl.External) {
			return sasl.NewExternalClient(c.ActAs), nil
		}
		return nil, ErrMechanism
	case c.Token != nil:
		if !has(oauthBearer) && !has(xoauth2) {
			return nil, ErrMechanism
		}
		token, err := c.Token(ctx)
		if err != nil {
			return nil, err
		}
		user := c.User
		if c.ActAs != "" {
			user = c.ActAs
		}
		b := &bearerClient{mech: oauthBearer, user: user, token: token}
		if s != nil {
			b.host = s.ServerName
		}
		if !has(oauthBearer) {
			b.mech = xoauth2
		}
		return b, nil
	}
	for _, mech := range [...]string{scramSHA256, scramSHA1} {
		if !has(mech + plus) {
			continue
		}
		if kind, data := clientBinding(s); kind != "" {
			return &scramClient{ctx: ctx, c: c, mech: mech, flag: "p=" + kind, bound: data}, nil
		}
	}
	for _, mech := range [...]string{scramSHA256, scramSHA1} {
		if !has(mech) {
			continue
		}
		// "y" says that we would have bound, had it been offered, so that
		// the server notices who struck it from the list.
		flag := "n"
		if kind, _ := clientBinding(s); kind != "" && !has(mech+plus) {
			flag = "y"
		}
		return &scramClient{ctx: ctx, c: c, mech: mech, flag: flag}, nil
	}
	switch {
	case s == nil && has(cramMD5) && c.ActAs == "":
		return &cramClient{c: c}, nil
	case has(sasl.Plain):
		return sasl.NewPlainClient(c.ActAs, c.User, c.Password), nil
	case c.ActAs != "":
	case has(sasl.Login):
		return &loginClient{answers: []string{c.User, c.Password}}, nil
	case has(cramMD5):
		return &cramClient{c: c}, nil
	}
	return nil, ErrMechanism
}

// Proven reports whether the server has shown, as far as c's mechanism asks
// it to, that it knows the user as well: with SCRAM, a client that is told of
// success before that talks to somebody else (RFC 5802 §3), and closes the
// connection. Exchanges of other packages count as proven unless they have a
// method of the same name.
func Proven(c sasl.Client) bool {
	p, ok := c.(interface{ Proven() bool })
	return !ok || p.Proven()
}

// clientBinding is the binding that a client uses: the exporter with TLS 1.3,
// which is RFC 9266's default for it, and else the server's certificate.
func clientBinding(s *tls.ConnectionState) (kind string, data []byte) {
	if s == nil || !s.HandshakeComplete {
		return "", nil
	}
	kind = bindExporter
	if s.Version < tls.VersionTLS13 {
		kind = bindEndPoint
	}
	var err error
	if kind == bindEndPoint {
		if len(s.PeerCertificates) == 0 {
			return "", nil
		}
		data, err = endPoint(s.PeerCertificates[0])
	} else {
		data, err = binding(kind, s, nil)
	}
	if err != nil {
		return "", nil
	}
	return kind, data
}

// ErrServer: the server's side of an exchange is not what the mechanism
// says, or it does not know the user's keys. It is somebody else's, or broken.
var ErrServer = errors.New("login: server failed to prove itself")

// scramClient is the client's side of a SCRAM mechanism.
type scramClient struct {
	ctx    context.Context
	c      *Credentials
	mech   string // without -PLUS
	flag   string // n, y or p=…
	bound  []byte
	step   int
	header string
	bare   string
	nonce  string
	proof  []byte // the server's, to be compared
	proven bool
}

func (x *scramClient) Proven() bool { return x.proven }

func (x *scramClient) Start() (mech string, ir []byte, err error) {
	x.header = x.flag + ","
	if x.c.ActAs != "" {
		x.header += "a=" + encodeName(x.c.ActAs)
	}
	x.header += ","
	x.nonce = rand.Text()
	x.bare = "n=" + encodeName(x.c.User) + ",r=" + x.nonce
	mech = x.mech
	if x.flag[0] == 'p' {
		mech += plus
	}
	return mech, []byte(x.header + x.bare), nil
}

func (x *scramClient) Next(challenge []byte) ([]byte, error) {
	x.step++
	switch x.step {
	case 1:
		return x.final(challenge)
	case 2:
		text, isV := strings.CutPrefix(string(challenge), "v=")
		text, _, _ = strings.Cut(text, ",")
		got, err := base64.StdEncoding.DecodeString(text)
		if !isV || err != nil || subtle.ConstantTimeCompare(got, x.proof) != 1 {
			return nil, ErrServer
		}
		x.proven = true
		return []byte{}, nil
	}
	return nil, sasl.ErrUnexpectedServerChallenge
}

// final answers server-first-message.
func (x *scramClient) final(challenge []byte) ([]byte, error) {
	if len(challenge) > maxSCRAM {
		return nil, ErrServer
	}
	f := strings.SplitN(string(challenge), ",", 4)
	if len(f) < 3 {
		return nil, ErrServer
	}
	nonce, ok1 := strings.CutPrefix(f[0], "r=")
	enc, ok2 := strings.CutPrefix(f[1], "s=")
	count, ok3 := strings.CutPrefix(f[2], "i=")
	salt, err1 := base64.StdEncoding.DecodeString(enc)
	n, err2 := strconv.Atoi(count)
	if !ok1 || !ok2 || !ok3 || err1 != nil || err2 != nil || len(salt) == 0 ||
		!strings.HasPrefix(nonce, x.nonce) || len(nonce) == len(x.nonce) || !validNonce(nonce) {
		return nil, ErrServer
	}
	// Fewer iterations would give whoever plays the server a cheaper guess,
	// more would keep us busy for long.
	if n < minIterations || n > maxIterations {
		return nil, fmt.Errorf("%w: %d iterations", ErrServer, n)
	}
	if err := x.ctx.Err(); err != nil {
		return nil, err
	}
	pw, err := preparePassword(x.c.Password)
	if err != nil {
		return nil, err
	}
	k, clientKey := deriveClient(x.mech, pw, salt, n)
	h := scramHash(x.mech)
	without := "c=" + base64.StdEncoding.EncodeToString(append([]byte(x.header), x.bound...)) + ",r=" + nonce
	auth := x.bare + "," + string(challenge) + "," + without
	proof := mac(h, k.stored, auth)
	subtle.XORBytes(proof, proof, clientKey)
	x.proof = mac(h, k.serverKey, auth)
	return []byte(without + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

// bearerClient is OAUTHBEARER and XOAUTH2.
type bearerClient struct{ mech, user, host, token string }

func (x *bearerClient) Start() (mech string, ir []byte, err error) {
	if strings.ContainsAny(x.user+x.host+x.token, "\x00\x01") {
		return "", nil, ErrMalformed
	}
	var b bytes.Buffer
	if x.mech == xoauth2 {
		b.WriteString("user=" + x.user + "\x01")
	} else {
		b.WriteString("n,")
		if x.user != "" {
			b.WriteString("a=" + encodeName(x.user))
		}
		b.WriteString(",\x01")
		if x.host != "" {
			b.WriteString("host=" + x.host + "\x01")
		}
	}
	b.WriteString("auth=Bearer " + x.token + "\x01\x01")
	return x.mech, b.Bytes(), nil
}

// Next answers what the server says of the failure that follows.
func (x *bearerClient) Next([]byte) ([]byte, error) {
	if x.mech == xoauth2 {
		return []byte{}, nil
	}
	return []byte{1}, nil
}

// loginClient is LOGIN: name and password, each when asked. The prompts
// differ from server to server, and old ones take no initial response.
type loginClient struct{ answers []string }

func (l *loginClient) Start() (mech string, ir []byte, err error) { return sasl.Login, nil, nil }

func (l *loginClient) Next([]byte) ([]byte, error) {
	if len(l.answers) == 0 {
		return nil, sasl.ErrUnexpectedServerChallenge
	}
	a := l.answers[0]
	l.answers = l.answers[1:]
	return []byte(a), nil
}

// cramClient is CRAM-MD5.
type cramClient struct {
	c    *Credentials
	done bool
}

func (x *cramClient) Start() (mech string, ir []byte, err error) { return cramMD5, nil, nil }

func (x *cramClient) Next(challenge []byte) ([]byte, error) {
	if x.done {
		return nil, sasl.ErrUnexpectedServerChallenge
	}
	x.done = true
	m := hmac.New(md5.New, []byte(x.c.Password))
	m.Write(challenge)
	return []byte(x.c.User + " " + hex.EncodeToString(m.Sum(nil))), nil
}
