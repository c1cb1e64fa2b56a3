package login

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-sasl"
)

const (
	oauthBearer = "OAUTHBEARER"
	xoauth2     = "XOAUTH2"
	maxToken    = 16 << 10 // octets of a response
)

// Tokens is an Authenticator for OAuth 2.0 bearer tokens: mechanisms
// OAUTHBEARER (RFC 7628) and XOAUTH2, which is the same in older words. Its
// fields are read-only once it is used, and it must not be copied.
type Tokens struct {
	// Verify says whose token it is. user is the name that the client gave,
	// prepared by PrepareUser, "" if it gave none: when it is given, it is
	// Verify that compares. ErrCredentials for a token that is expired, made
	// for somebody else, or none of ours; any other error means that it
	// could not be found out. Identity's Login and Mechanism are filled in
	// when they are empty. It is called from many goroutines.
	Verify func(ctx context.Context, c *Conn, user, token string) (Identity, error)

	// UserFailures, AddrFailures and FailureDecay are as in Passwords.
	UserFailures, AddrFailures int
	FailureDecay               time.Duration

	once   sync.Once
	limits limits
}

// Mechanisms implements Authenticator.
func (t *Tokens) Mechanisms(*Conn) []string { return []string{oauthBearer, xoauth2} }

// Start implements Authenticator.
func (t *Tokens) Start(ctx context.Context, mech string, c *Conn) (Exchange, error) {
	t.once.Do(func() { t.limits.init(t.UserFailures, t.AddrFailures, t.FailureDecay) })
	switch m := strings.ToUpper(mech); m {
	case oauthBearer, xoauth2:
		if t.Verify == nil {
			return nil, errors.New("login: Tokens without Verify")
		}
		return &bearer{ctx: ctx, t: t, c: c, mech: m}, nil
	}
	return nil, ErrMechanism
}

// bearer is OAUTHBEARER and XOAUTH2.
type bearer struct {
	ctx    context.Context // of Start
	t      *Tokens
	c      *Conn
	mech   string
	done   bool
	failed error // told to the client, whose empty word ends it
	id     Identity
}

func (x *bearer) Identity() Identity { return x.id }

func (x *bearer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case x.failed != nil:
		err, x.failed = x.failed, nil
		return nil, false, err
	case x.done:
		return nil, false, sasl.ErrUnexpectedClientResponse
	case response == nil:
		return []byte{}, false, nil
	}
	x.done = true
	user, token, ok := parseBearer(x.mech, response)
	if !ok {
		return nil, false, ErrMalformed
	}
	if x.id, err = x.verify(user, token); err == nil {
		return nil, true, nil
	}
	if !errors.Is(err, ErrCredentials) {
		return nil, false, err
	}
	// RFC 7628 §3.2.2: what is wrong is told before the failure.
	x.failed = err
	status := "invalid_token"
	if x.mech == xoauth2 {
		status = "401"
	}
	return []byte(`{"status":"` + status + `","schemes":"bearer"}`), false, nil
}

func (x *bearer) verify(name, token string) (Identity, error) {
	user := ""
	var nameErr error
	if name != "" {
		if user, nameErr = PrepareUser(name); nameErr != nil {
			user = name
		}
	}
	a, err := x.t.limits.enter(x.c, user)
	if err != nil {
		return Identity{}, err
	}
	var id Identity
	if err = ErrCredentials; nameErr == nil {
		id, err = x.t.Verify(x.ctx, x.c, user, token)
	}
	if err == nil && id.User == "" {
		err = ErrCredentials
	}
	a.leave(err)
	if err != nil {
		return Identity{}, err
	}
	if id.Login == "" {
		id.Login = id.User
	}
	if id.Mechanism == "" {
		id.Mechanism = x.mech
	}
	return id, nil
}

// parseBearer reads "n,a=user,^Ahost=…^Aauth=Bearer token^A^A" and XOAUTH2's
// "user=…^Aauth=Bearer token^A^A".
func parseBearer(mech string, b []byte) (user, token string, ok bool) {
	if len(b) > maxToken || !utf8.Valid(b) {
		return "", "", false
	}
	head, rest, found := strings.Cut(string(b), "\x01")
	rest, end := strings.CutSuffix(rest, "\x01\x01")
	if !found || !end {
		return "", "", false
	}
	if mech == xoauth2 {
		user, ok = strings.CutPrefix(head, "user=")
	} else {
		// The flag of channel binding: neither mechanism has one.
		flag, more, comma := strings.Cut(head, ",")
		name, empty, comma2 := strings.Cut(more, ",")
		ok = comma && comma2 && empty == "" && (flag == "n" || flag == "y")
		if name != "" {
			name, isName := strings.CutPrefix(name, "a=")
			user, isName = decodeName(name, isName)
			ok = ok && isName
		}
	}
	if !ok || len(user) > maxName {
		return "", "", false
	}
	for kv := range strings.SplitSeq(rest, "\x01") {
		k, v, eq := strings.Cut(kv, "=")
		if !eq {
			return "", "", false
		}
		if strings.EqualFold(k, "auth") {
			scheme, t, _ := strings.Cut(v, " ")
			if !strings.EqualFold(scheme, "Bearer") || token != "" {
				return "", "", false
			}
			token = strings.TrimLeft(t, " ")
		}
	}
	for i := range len(token) { // RFC 6750 §2.1
		if token[i] <= ' ' || token[i] >= 0x7f {
			return "", "", false
		}
	}
	return user, token, token != ""
}
