package smtpclient

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/emersion/go-sasl"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/smtp"
)

// Auth is how to log in. Its fields are read-only once it is in use; one Auth
// may serve many connections, and connections are reused only for the same
// one.
type Auth struct {
	// User and Password log in with the best mechanism that the peer
	// offers: SCRAM-SHA-256 and SCRAM-SHA-1, bound to TLS where it can be
	// (-PLUS), which do not show the password, then PLAIN, LOGIN and
	// CRAM-MD5. See login.Credentials.
	User, Password string
	// ActAs is the user to act as; "" = User.
	ActAs string
	// Token, when set, gives an OAuth 2.0 bearer token for OAUTHBEARER
	// (RFC 7628) or XOAUTH2, and Password is not used. It is called for each
	// login.
	Token func(ctx context.Context) (string, error)
	// Certificate logs in with the client certificate of the Dialer's TLS
	// (EXTERNAL).
	Certificate bool
	// Client, when set, makes the exchange for one of the mechanisms that
	// the peer announces, in its order and in upper case, and the fields
	// above are not used. It is called for each login; ErrNoMechanism says
	// that none suits.
	Client func(mechanisms []string, state *tls.ConnectionState) (sasl.Client, error)
	// Insecure shows the password also to a peer whose certificate was not
	// verified, and in plain text.
	Insecure bool
}

// maxAuthRounds bounds a peer that never ends its questions.
const maxAuthRounds = 16

func (a *Auth) client(ctx context.Context, c *Conn, mechs []string) (sasl.Client, error) {
	if a.Client != nil {
		return a.Client(mechs, c.tls)
	}
	cred := login.Credentials{User: a.User, Password: a.Password, ActAs: a.ActAs, Token: a.Token, Certificate: a.Certificate}
	client, err := cred.Client(ctx, mechs, c.tls)
	if errors.Is(err, login.ErrMechanism) {
		return nil, ErrNoMechanism
	}
	return client, err
}

// login runs AUTH (RFC 4954).
func (c *Conn) login(ctx context.Context, a *Auth) error {
	params, _ := c.Extension(smtp.ExtAuth)
	client, err := a.client(ctx, c, strings.Fields(strings.ToUpper(params)))
	if err != nil {
		return authError("No way to log in to host", err)
	}
	mech, ir, err := client.Start()
	if err != nil {
		return authError("No way to log in to host", err)
	}
	mech = strings.ToUpper(mech)
	if !validHello(mech) {
		return authError("No way to log in to host", fmt.Errorf("%w: bad name %q", ErrNoMechanism, mech))
	}
	if c.proven != Verified && !a.Insecure && login.Cleartext(mech) {
		return authError("Not logging in without verified TLS", ErrInsecureAuth)
	}
	line := "AUTH " + mech
	shown := line
	// RFC 4954 §4: nil = none, and an empty one is "=". One that makes the
	// line too long waits for the server's empty challenge.
	pending := false
	if ir != nil {
		enc := "="
		if len(ir) > 0 {
			enc = base64.StdEncoding.EncodeToString(ir)
		}
		if pending = len(line)+1+len(enc) > 510; !pending {
			line += " " + enc
			shown += " ***"
		}
	}
	c.trace.command(shown)
	r, err := c.exchange(c.tmo.Command, line)
	for round := 0; err == nil && r.Code == 334; round++ {
		if round == maxAuthRounds {
			return violation("endless AUTH exchange")
		}
		var resp []byte
		challenge, derr := base64.StdEncoding.DecodeString(strings.TrimSpace(r.Text))
		switch {
		case derr != nil:
			err = violation("AUTH challenge is not base64")
		case pending:
			resp, pending = ir, false
		default:
			resp, err = client.Next(challenge)
		}
		if err != nil {
			// Cancel, so that the peer is not left waiting.
			c.command(c.tmo.Command, "*")
			return authError("Login failed", fmt.Errorf("%w: %w", ErrAuth, err))
		}
		c.trace.command("***")
		r, err = c.exchange(c.tmo.Command, base64.StdEncoding.EncodeToString(resp))
	}
	if err != nil {
		return err
	}
	switch {
	case r.Code == 235 && !login.Proven(client):
		return authError("Login failed", fmt.Errorf("%w: %w", ErrAuth, login.ErrServer))
	case r.Code == 235:
		c.authed = true
		return nil
	case r.Code == 421:
		return hostRefusal(r)
	case r.Code >= 400:
		return authError("Login refused: "+r.String(), fmt.Errorf("%w: %w", ErrAuth, refusal(r, smtp.ScopeRoute)))
	}
	return hostRefusal(r)
}

// authError: mail waits for somebody to mend the configuration.
func authError(text string, err error) *smtp.Error {
	var e *smtp.Error
	if errors.As(err, &e) && !errors.Is(err, ErrAuth) {
		return e
	}
	return &smtp.Error{Code: 454, Enhanced: smtp.EnhancedCode{4, 7, 0}, Text: text, Scope: smtp.ScopeRoute, Err: err}
}
