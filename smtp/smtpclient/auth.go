package smtpclient

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/emersion/go-sasl"

	"github.com/postrider/postrider/smtp"
)

// Auth is how to log in. Its fields are read-only once it is in use; one Auth
// may serve many connections, and connections are reused only for the same
// one.
type Auth struct {
	// User and Password log in with the best mechanism that the peer
	// offers: PLAIN (RFC 4616), else LOGIN.
	User, Password string
	// Token, when set, gives an OAuth 2.0 bearer token for OAUTHBEARER
	// (RFC 7628), and Password is not used. It is called for each login.
	Token func(ctx context.Context) (string, error)
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
	has := func(m string) bool {
		for _, s := range mechs {
			if s == m {
				return true
			}
		}
		return false
	}
	switch {
	case a.Client != nil:
		return a.Client(mechs, c.tls)
	case a.Token != nil && has(sasl.OAuthBearer):
		token, err := a.Token(ctx)
		if err != nil {
			return nil, err
		}
		o := &sasl.OAuthBearerOptions{Username: a.User, Token: token, Host: c.hop.Name}
		if _, port, err := net.SplitHostPort(c.target.Addr); err == nil {
			o.Port, _ = strconv.Atoi(port)
		}
		return sasl.NewOAuthBearerClient(o), nil
	case a.Token == nil && has(sasl.Plain):
		return sasl.NewPlainClient("", a.User, a.Password), nil
	case a.Token == nil && has(sasl.Login):
		return &loginClient{answers: []string{a.User, a.Password}}, nil
	}
	return nil, ErrNoMechanism
}

// loginClient is the mechanism LOGIN: name and password, each when asked. The
// prompts differ from server to server, and old ones take no initial response.
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

// hidesPassword lists the mechanisms whose exchange does not give away what
// is needed to log in elsewhere.
func hidesPassword(mech string) bool {
	switch mech {
	case sasl.External, sasl.Anonymous, "CRAM-MD5":
		return true
	}
	return strings.HasPrefix(mech, "SCRAM-")
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
	if c.proven != Verified && !a.Insecure && !hidesPassword(mech) {
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
