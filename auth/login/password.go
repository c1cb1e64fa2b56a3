package login

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
)

// ErrNoUser is what a Lookup returns for a user that does not exist or may
// not log in. The client cannot tell it from a wrong password.
var ErrNoUser = errors.New("login: no such user")

// Record is what a user database keeps of one user.
type Record struct {
	// Hash is the password's hash, as Hash makes it, or bcrypt's.
	Hash string
	// SCRAM are the keys for SCRAM, as the func SCRAM derives them, one for
	// each mechanism. PLAIN and LOGIN use the first of them when Hash is "".
	SCRAM []string
	// Password is the password itself: CRAM-MD5 needs it, and PLAIN and
	// LOGIN use it when there is nothing else. Better leave it empty.
	Password string
	// User is the account that the session acts as; "" = the name that was
	// looked up. It makes several names open one account.
	User string
	// Value is handed on as Identity.Value.
	Value any
}

// hash returns what PLAIN checks against.
func (r *Record) hash() (hash, error) {
	switch {
	case r.Hash == "" && len(r.SCRAM) > 0:
		return parseSCRAM(r.SCRAM[0])
	case r.Hash == "" && r.Password != "":
		return plaintext(r.Password), nil
	}
	return parseHash(r.Hash)
}

// scram returns the keys for a mechanism, nil if there are none.
func (r *Record) scram(mech string) (*scramKeys, error) {
	for _, s := range r.SCRAM {
		if strings.HasPrefix(s, mech+"$") {
			return parseSCRAM(s)
		}
	}
	return nil, nil
}

// identity is the record's, under the name that was looked up.
func (r *Record) identity(name string) Identity {
	id := Identity{User: r.User, Login: name, Value: r.Value}
	if id.User == "" {
		id.User = name
	}
	return id
}

// Passwords is an Authenticator over a user database: mechanisms PLAIN
// (RFC 4616) and LOGIN, and if they are wanted SCRAM-SHA-256 and SCRAM-SHA-1
// (RFC 5802, RFC 7677), with channel binding, and CRAM-MD5 (RFC 2195). Only
// Lookup is needed:
//
//	&login.Passwords{Lookup: lookup}
//
// A user that does not exist costs the client as much time as a wrong
// password: the hash that was seen last is computed in its place. Failures
// are counted by user and by address (IPv6 by /64); whoever has too many
// waits, and gets ErrTooMany before anything is looked up or computed. An
// address from which a user has logged in before is not held up by what
// others tried on that user.
//
// Fields are read-only once it is used. A Passwords must not be copied.
type Passwords struct {
	// Lookup finds a user by the name that PrepareUser returned: ErrNoUser
	// when there is none. Any other error means that the database could not
	// be asked, and reaches the server as it is. It is called from many
	// goroutines and should take as long for an unknown user as for a known
	// one.
	Lookup func(ctx context.Context, user string) (Record, error)

	// ActAs decides whether id, whose password was right, may act as user,
	// the authorization identity that the client asked for, and returns the
	// identity to use then; an error, usually ErrCredentials, refuses. nil
	// refuses every user but id's own.
	ActAs func(ctx context.Context, id Identity, user string) (Identity, error)

	// UserFailures and AddrFailures are how many failures a user or an
	// address may have before it waits. 0 = 10 and 50; negative = no limit.
	UserFailures, AddrFailures int
	// FailureDecay is the time after which one failure is forgotten.
	// 0 = one minute.
	FailureDecay time.Duration

	// HashMemory bounds the memory, in octets, of the hashes that are
	// computed at the same time; further ones wait their turn. A single hash
	// over it is computed alone. 0 = 256 MiB; negative = no limit.
	HashMemory int64

	// Offer are the mechanisms to offer, best first; nil = PLAIN and LOGIN.
	// SCRAM-SHA-256 and SCRAM-SHA-1 bring their -PLUS forms with them, which
	// are offered where the connection can be bound to TLS, and need
	// Record.SCRAM: offer them when nearly everybody has it, since clients
	// prefer them and do not try another. CRAM-MD5 needs Record.Password.
	// Other names are left out.
	Offer []string
	// Secret makes up the salt that SCRAM shows for users that do not
	// exist: servers of the same users have the same one, of 32 random
	// octets, or they can be told from real ones. nil = a random one.
	Secret []byte
	// Iterations is the count that is shown for them, which should be that
	// of most Record.SCRAM; 0 = what SCRAM uses.
	Iterations int

	once   sync.Once
	limits limits
	secret []byte
	gate   *gate
	sample sampleHash
}

const (
	defaultUserFailures = 10
	defaultAddrFailures = 50
	defaultDecay        = time.Minute
	defaultHashMemory   = 256 << 20
)

func (p *Passwords) init() {
	p.once.Do(func() {
		p.limits.init(p.UserFailures, p.AddrFailures, p.FailureDecay)
		if p.secret = p.Secret; len(p.secret) == 0 {
			p.secret = make([]byte, 32)
			rand.Read(p.secret) // never fails
		}
		p.gate = newGate(orDefault(p.HashMemory, defaultHashMemory))
	})
}

func orDefault[T int | int64](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// Mechanisms returns those of Offer that can run on c. PLAIN and LOGIN show
// the password to the wire (see Cleartext): a server offers them without TLS
// only when it is told to.
func (p *Passwords) Mechanisms(c *Conn) []string {
	if p.Offer == nil {
		return []string{sasl.Plain, sasl.Login}
	}
	list := make([]string, 0, len(p.Offer)+2)
	for _, m := range p.Offer {
		switch m = strings.ToUpper(m); m {
		case sasl.Plain, sasl.Login, cramMD5:
			list = append(list, m)
		case scramSHA1, scramSHA256:
			if bindable(c) {
				list = append(list, m+plus)
			}
			list = append(list, m)
		}
	}
	return list
}

// Start implements Authenticator.
func (p *Passwords) Start(ctx context.Context, mech string, c *Conn) (Exchange, error) {
	mech = strings.ToUpper(mech)
	if !slices.Contains(p.Mechanisms(c), mech) {
		return nil, ErrMechanism
	}
	p.init()
	if p.Lookup == nil {
		return nil, errors.New("login: Passwords without Lookup")
	}
	switch mech {
	case sasl.Plain:
		return &plain{password{ctx: ctx, p: p, c: c, mech: mech}}, nil
	case sasl.Login:
		return &loginMech{password: password{ctx: ctx, p: p, c: c, mech: mech}}, nil
	case cramMD5:
		return &cram{ctx: ctx, p: p, c: c}, nil
	}
	base, bound := strings.CutSuffix(mech, plus)
	return &scram{ctx: ctx, p: p, c: c, mech: base, plus: bound}, nil
}

// check verifies name and pass; authzid "" = the user's own account.
func (p *Passwords) check(ctx context.Context, c *Conn, mech, authzid, name, pass string) (Identity, error) {
	user, nameErr := PrepareUser(name)
	if nameErr != nil {
		user = name // counted under what was sent
	}
	a, err := p.limits.enter(c, user)
	if err != nil {
		return Identity{}, err
	}
	id, err := p.verify(ctx, user, nameErr, pass)
	if err == nil {
		id.Mechanism = mech
		id, err = p.authorize(ctx, id, authzid)
	}
	a.leave(err)
	if err != nil {
		return Identity{}, err
	}
	return id, nil
}

// verify looks the user up and computes one hash, whatever was found.
func (p *Passwords) verify(ctx context.Context, user string, nameErr error, pass string) (Identity, error) {
	var rec Record
	err := nameErr
	if err == nil {
		rec, err = p.Lookup(ctx, user)
		if err != nil && !errors.Is(err, ErrNoUser) {
			return Identity{}, fmt.Errorf("login: look-up: %w", err)
		}
	}
	exists := err == nil
	var h hash
	if exists {
		if h, err = rec.hash(); err != nil {
			return Identity{}, err
		}
		p.sample.store(h)
	} else {
		h = p.sample.load()
	}
	prepared, err := preparePassword(pass)
	usable := err == nil
	if !usable {
		prepared = "-" // the same work as for a password that may be right
	}
	leave, err := p.gate.enter(ctx, h.memory())
	if err != nil {
		return Identity{}, fmt.Errorf("login: waiting to check a password: %w", err)
	}
	match := h.matches(prepared)
	leave()
	if !match || !exists || !usable {
		return Identity{}, ErrCredentials
	}
	return rec.identity(user), nil
}

// authorize applies the authorization identity (RFC 4616 §2).
func (p *Passwords) authorize(ctx context.Context, id Identity, authzid string) (Identity, error) {
	if authzid == "" {
		return id, nil
	}
	want, err := PrepareUser(authzid)
	if err != nil {
		return Identity{}, ErrCredentials
	}
	if want == id.Login || want == id.User {
		return id, nil
	}
	if p.ActAs == nil {
		return Identity{}, ErrCredentials
	}
	return p.ActAs(ctx, id, want)
}

// Password checks a user name and a password that came without SASL, in
// IMAP's LOGIN command or POP3's USER and PASS, by running PLAIN on a.
// ErrMechanism when a does not offer it on c.
func Password(ctx context.Context, a Authenticator, c *Conn, user, pass string) (Identity, error) {
	if strings.IndexByte(user, 0) >= 0 || strings.IndexByte(pass, 0) >= 0 {
		return Identity{}, ErrMalformed
	}
	ex, err := a.Start(ctx, "PLAIN", c)
	if err != nil {
		return Identity{}, err
	}
	_, done, err := ex.Next([]byte("\x00" + user + "\x00" + pass))
	if err != nil {
		return Identity{}, err
	}
	if !done {
		return Identity{}, ErrMalformed
	}
	return ex.Identity(), nil
}
