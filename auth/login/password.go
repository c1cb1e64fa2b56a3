package login

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// ErrNoUser is what a Lookup returns for a user that does not exist or may
// not log in. The client cannot tell it from a wrong password.
var ErrNoUser = errors.New("login: no such user")

// Record is what a user database keeps of one user.
type Record struct {
	// Hash is the password's hash, as Hash makes it, or bcrypt's.
	Hash string
	// User is the account that the session acts as; "" = the name that was
	// looked up. It makes several names open one account.
	User string
	// Value is handed on as Identity.Value.
	Value any
}

// Passwords is an Authenticator over a user database: mechanisms PLAIN
// (RFC 4616) and LOGIN. Only Lookup is needed:
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

	once   sync.Once
	users  *counter
	addrs  *counter
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
		decay := p.FailureDecay
		if decay <= 0 {
			decay = defaultDecay
		}
		p.users = newCounter(orDefault(p.UserFailures, defaultUserFailures), decay)
		p.addrs = newCounter(orDefault(p.AddrFailures, defaultAddrFailures), decay)
		p.gate = newGate(orDefault(p.HashMemory, defaultHashMemory))
	})
}

func orDefault[T int | int64](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// Mechanisms returns PLAIN and LOGIN. Both show the password to the wire
// (see Cleartext): a server offers them without TLS only when it is told to.
func (p *Passwords) Mechanisms(*Conn) []string { return []string{"PLAIN", "LOGIN"} }

// Start implements Authenticator.
func (p *Passwords) Start(ctx context.Context, mech string, c *Conn) (Exchange, error) {
	switch strings.ToUpper(mech) {
	case "PLAIN":
		return &plain{password{ctx: ctx, p: p, c: c, mech: "PLAIN"}}, nil
	case "LOGIN":
		return &loginMech{password: password{ctx: ctx, p: p, c: c, mech: "LOGIN"}}, nil
	}
	return nil, ErrMechanism
}

// check verifies name and pass; authzid "" = the user's own account.
func (p *Passwords) check(ctx context.Context, c *Conn, mech, authzid, name, pass string) (Identity, error) {
	p.init()
	if p.Lookup == nil {
		return Identity{}, errors.New("login: Passwords without Lookup")
	}
	user, nameErr := PrepareUser(name)
	if nameErr != nil {
		user = name // counted under what was sent
	}
	addr := addrKey(c)
	pair := user + "\x00" + addr
	if addr == "" {
		pair = ""
	}

	// Failures are counted before the check and taken back after a success,
	// so that attempts made at the same time cannot slip through together.
	if addr != "" && !p.addrs.take(addr) {
		return Identity{}, ErrTooMany
	}
	known := p.users.trusted(pair)
	if !known && !p.users.take(user) {
		if addr != "" {
			p.addrs.giveBack(addr)
		}
		return Identity{}, ErrTooMany
	}
	id, err := p.verify(ctx, user, nameErr, pass)
	if err == nil {
		id.Mechanism = mech
		id, err = p.authorize(ctx, id, authzid)
	}
	if err == nil {
		p.users.trust(pair)
	}
	if !errors.Is(err, ErrCredentials) {
		if addr != "" {
			p.addrs.giveBack(addr)
		}
		if !known {
			p.users.giveBack(user)
		}
	}
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
		if h, err = parseHash(rec.Hash); err != nil {
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
	id := Identity{User: rec.User, Login: user, Value: rec.Value}
	if id.User == "" {
		id.User = user
	}
	return id, nil
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
