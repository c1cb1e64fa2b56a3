package imapclient

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/emersion/go-sasl"
	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/internal/imapwire"
)

// Login logs in with LOGIN (RFC 9051 §6.2.3). A refusal is an *imap.Error;
// its code imap.CodeAuthenticationFailed says that user or password are
// wrong.
func (c *Client) Login(ctx context.Context, user, password string) error {
	if strings.ContainsRune(user+password, 0) {
		return ErrArgument
	}
	told := false
	return c.run(ctx, &command{
		name: "LOGIN",
		args: func(e *imapwire.Encoder) { e.SP().String(user).SP().String(password) },
		code: func(code imap.Code, _ string) { told = told || code == imap.CodeCapability },
		after: func() error {
			if !told {
				c.caps = nil
			}
			return nil
		},
	})
}

// Authenticate logs in with a SASL mechanism (RFC 9051 §6.2.2), such as
// sasl.NewPlainClient("", user, password), or the best that the server offers:
// login.Credentials chooses it from Capabilities and TLS.
func (c *Client) Authenticate(ctx context.Context, mech sasl.Client) error {
	caps, err := c.Capabilities(ctx)
	if err != nil {
		return err
	}
	name, initial, err := mech.Start()
	if err != nil {
		return fmt.Errorf("imapclient: %w", err)
	}
	if !areWords(name) {
		return ErrArgument
	}
	told := false
	var cancelled error
	cmd := &command{
		name: "AUTHENTICATE",
		code: func(code imap.Code, _ string) { told = told || code == imap.CodeCapability },
		after: func() error {
			if !told {
				c.caps = nil
			}
			return nil
		},
	}
	cmd.args = func(e *imapwire.Encoder) {
		e.SP().Atom(name)
		if initial != nil && caps.Has(imap.CapSASLIR) {
			enc := base64.StdEncoding.EncodeToString(initial)
			if enc == "" {
				enc = "="
			}
			e.SP().Atom(enc)
			initial = nil
		}
	}
	cmd.resume = func(text string) error {
		challenge, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return c.fail(fmt.Errorf("%w: challenge is not base64", ErrProtocol))
		}
		line := "*" // cancels; the server answers BAD
		if initial != nil {
			line = base64.StdEncoding.EncodeToString(initial)
			initial = nil
		} else if cancelled == nil {
			var response []byte
			if response, cancelled = mech.Next(challenge); cancelled == nil {
				line = base64.StdEncoding.EncodeToString(response)
			}
		}
		c.arm()
		c.bw.WriteString(line + "\r\n")
		if err := c.bw.Flush(); err != nil {
			return c.fail(err)
		}
		return nil
	}
	err = c.run(ctx, cmd)
	if cancelled != nil && c.err == nil {
		if err == nil {
			return c.fail(fmt.Errorf("%w: OK to a cancelled AUTHENTICATE", ErrProtocol))
		}
		return fmt.Errorf("imapclient: %w", cancelled)
	}
	if err == nil && !login.Proven(mech) {
		return c.fail(fmt.Errorf("%w: %w", ErrProtocol, login.ErrServer))
	}
	return err
}
