package login

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-sasl"
)

// Certificates is an Authenticator for TLS client certificates: mechanism
// EXTERNAL (RFC 4422 appendix A), offered where crypto/tls has verified one
// (tls.VerifyClientCertIfGiven, tls.RequireAndVerifyClientCert).
type Certificates struct {
	// Identify says whose certificate c.TLS.PeerCertificates[0] is, and
	// whether it may act as user, the name that the client asked for,
	// prepared by PrepareUser; "" = the certificate's own. ErrCredentials
	// refuses. Identity's Login and Mechanism are filled in when they are
	// empty. It is called from many goroutines.
	Identify func(ctx context.Context, c *Conn, user string) (Identity, error)
}

// Mechanisms implements Authenticator.
func (e *Certificates) Mechanisms(c *Conn) []string {
	if c == nil || c.TLS == nil || len(c.TLS.VerifiedChains) == 0 {
		return nil
	}
	return []string{sasl.External}
}

// Start implements Authenticator.
func (e *Certificates) Start(ctx context.Context, mech string, c *Conn) (Exchange, error) {
	if !strings.EqualFold(mech, sasl.External) || len(e.Mechanisms(c)) == 0 {
		return nil, ErrMechanism
	}
	if e.Identify == nil {
		return nil, errors.New("login: Certificates without Identify")
	}
	return &oneStep{mech: sasl.External, check: func(response string) (Identity, error) {
		user := ""
		if response != "" {
			var err error
			if user, err = PrepareUser(response); err != nil {
				return Identity{}, ErrCredentials
			}
		}
		return e.Identify(ctx, c, user)
	}}, nil
}

// Anonymous is an Authenticator for guests: mechanism ANONYMOUS (RFC 4505).
// Add it where there is something for them.
type Anonymous struct {
	// Admit gives a guest an identity; trace is what the client says of
	// itself, often an e-mail address, to be logged and not believed.
	Admit func(ctx context.Context, c *Conn, trace string) (Identity, error)
}

// Mechanisms implements Authenticator.
func (a *Anonymous) Mechanisms(*Conn) []string { return []string{sasl.Anonymous} }

// Start implements Authenticator.
func (a *Anonymous) Start(ctx context.Context, mech string, c *Conn) (Exchange, error) {
	if !strings.EqualFold(mech, sasl.Anonymous) {
		return nil, ErrMechanism
	}
	if a.Admit == nil {
		return nil, errors.New("login: Anonymous without Admit")
	}
	return &oneStep{mech: sasl.Anonymous, check: func(trace string) (Identity, error) {
		if utf8.RuneCountInString(trace) > 255 { // RFC 4505 §2
			return Identity{}, ErrMalformed
		}
		return a.Admit(ctx, c, trace)
	}}, nil
}

// oneStep is a mechanism of one response.
type oneStep struct {
	mech  string
	check func(response string) (Identity, error)
	done  bool
	id    Identity
}

func (x *oneStep) Identity() Identity { return x.id }

func (x *oneStep) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case x.done:
		return nil, false, sasl.ErrUnexpectedClientResponse
	case response == nil:
		return []byte{}, false, nil
	}
	x.done = true
	if len(response) > maxName || !utf8.Valid(response) || strings.IndexByte(string(response), 0) >= 0 {
		return nil, false, ErrMalformed
	}
	id, err := x.check(string(response))
	if err == nil && id.User == "" {
		err = ErrCredentials
	}
	if err != nil {
		return nil, false, err
	}
	if id.Login == "" {
		id.Login = id.User
	}
	if id.Mechanism == "" {
		id.Mechanism = x.mech
	}
	x.id = id
	return nil, true, nil
}

// All is several Authenticators as one: each mechanism is the first's that
// offers it, and they are offered in that order.
type All []Authenticator

// Mechanisms implements Authenticator.
func (l All) Mechanisms(c *Conn) []string {
	var list []string
	seen := map[string]bool{}
	for _, a := range l {
		for _, m := range a.Mechanisms(c) {
			if !seen[m] {
				seen[m] = true
				list = append(list, m)
			}
		}
	}
	return list
}

// Start implements Authenticator.
func (l All) Start(ctx context.Context, mech string, c *Conn) (Exchange, error) {
	for _, a := range l {
		for _, m := range a.Mechanisms(c) {
			if strings.EqualFold(m, mech) {
				return a.Start(ctx, mech, c)
			}
		}
	}
	return nil, ErrMechanism
}
