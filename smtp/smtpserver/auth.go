package smtpserver

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/internal/lineio"
)

const (
	authLine     = 12288            // RFC 4954 §4
	authRounds   = 32               // responses in one exchange
	authDelayMax = 30 * time.Second // after any number of failures
)

// loginConn is what the authenticator may know.
func (c *Conn) loginConn() *login.Conn {
	return &login.Conn{Protocol: "smtp", Local: c.local, Remote: c.remote, TLS: c.tls, Cert: c.cert}
}

// mechanisms are those offered now.
func (c *Conn) mechanisms() []string {
	if c.srv.Auth == nil {
		return nil
	}
	all := c.srv.Auth.Mechanisms(c.loginConn())
	if c.tls != nil || c.srv.InsecureAuth {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), showsSecret)
}

// showsSecret reports a mechanism that may not run in plain text: all that
// are not known to keep the secret.
func showsSecret(mech string) bool { return !strings.HasPrefix(mech, "SCRAM-") }

// auth does AUTH (RFC 4954 §4).
func (c *Conn) auth(arg []byte) {
	mech, initial, hasInitial := strings.Cut(string(arg), " ")
	mech = strings.ToUpper(mech)
	switch {
	case c.loggedIn:
		c.bad(503, "5.5.1", "Already authenticated")
		return
	case c.srv.Auth == nil || !c.extended:
		c.bad(502, "5.5.1", "AUTH not offered")
		return
	case mech == "":
		c.bad(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]")
		return
	case !slices.Contains(c.ext.auth, mech):
		if c.tls == nil && !c.srv.InsecureAuth && showsSecret(mech) && c.srv.TLS != nil {
			c.bad(538, "5.7.11", "Encryption required for this mechanism")
			return
		}
		c.bad(504, "5.5.4", "Authentication mechanism not offered")
		return
	}
	ex, err := c.srv.Auth.Start(c.ctx, mech, c.loginConn())
	if err != nil {
		c.authFailed(mech, err)
		return
	}
	var response []byte // nil: none was sent
	if hasInitial {
		if response, err = decodeResponse(initial); err != nil {
			c.bad(501, "5.5.2", "Malformed base64")
			return
		}
	}
	for range authRounds {
		challenge, done, err := ex.Next(response)
		switch {
		case err != nil:
			c.authFailed(mech, err)
			return
		case done:
			c.identity, c.loggedIn = ex.Identity(), true
			c.log().Debug("smtp: login", "user", c.identity.User, "mechanism", mech)
			if t := c.srv.Trace; t != nil && t.Login != nil {
				t.Login(c, mech, nil)
			}
			c.reply(235, "2.7.0", "Authentication successful")
			return
		}
		c.reply(334, "", base64.StdEncoding.EncodeToString(challenge))
		line, err, ok := c.readLine(authLine)
		switch {
		case !ok:
			return
		case errors.Is(err, lineio.ErrTooLong):
			c.bad(500, "5.5.6", "Authentication exchange line is too long")
			return
		case err != nil:
			c.badLine(err)
			return
		case string(line) == "*":
			c.bad(501, "5.7.0", "Authentication cancelled")
			return
		}
		if response, err = decodeResponse(string(line)); err != nil {
			c.bad(501, "5.5.2", "Malformed base64")
			return
		}
	}
	c.authFailed(mech, login.ErrMalformed)
}

// decodeResponse decodes base64; "=" is the empty initial response, and as
// an answer to a challenge an empty line is.
func decodeResponse(s string) ([]byte, error) {
	if s == "" || s == "=" {
		return []byte{}, nil
	}
	return base64.StdEncoding.DecodeString(s)
}

// authFailed answers a failed login, late when it was a guess.
func (c *Conn) authFailed(mech string, err error) {
	if t := c.srv.Trace; t != nil && t.Login != nil {
		t.Login(c, mech, err)
	}
	switch {
	case errors.Is(err, login.ErrCredentials), errors.Is(err, login.ErrTooMany):
		c.authFailures++
		c.log().Info("smtp: login failed", "mechanism", mech, "attempt", c.authFailures, "err", err)
		c.holdBack()
		c.errors++
		c.write(c.replyFor(err))
		if c.lim.authAttempts > 0 && c.authFailures >= c.lim.authAttempts && !c.closing {
			c.hangUp("Too many failed logins, closing connection")
		}
	case errors.Is(err, login.ErrMechanism), errors.Is(err, login.ErrMalformed):
		c.errors++
		c.write(c.replyFor(err))
	default:
		c.log().Error("smtp: login not possible", "mechanism", mech, "err", err)
		c.reply(454, "4.7.0", "Temporary authentication failure")
	}
}

// holdBack waits AuthDelay, doubled with each failure, or until the server
// stops.
func (c *Conn) holdBack() {
	d := c.lim.authDelay
	if d <= 0 {
		return
	}
	for i := 1; i < c.authFailures && d < authDelayMax; i++ {
		d *= 2
	}
	c.Hold(c.ctx, min(d, authDelayMax))
}
