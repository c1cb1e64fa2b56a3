package pop3client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/emersion/go-sasl"
	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/pop3"
)

// Login logs in with USER and PASS (RFC 1939 §7). A refusal is a *pop3.Error;
// its code pop3.Auth says that user or password are wrong.
func (c *Client) Login(ctx context.Context, user, password string) error {
	for _, s := range []string{user, password} {
		if strings.ContainsAny(s, "\r\n\x00") || len(s) > 1000 {
			return ErrArgument
		}
	}
	if user == "" || strings.ContainsRune(user, ' ') {
		return ErrArgument
	}
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	if _, err := c.command("USER " + user); err != nil {
		return err
	}
	_, err := c.command("PASS " + password)
	return err
}

// Auth logs in with a SASL mechanism (RFC 5034), such as
// sasl.NewPlainClient("", user, password), or the best that the server offers:
// login.Credentials chooses it from Capabilities and TLS.
func (c *Client) Auth(ctx context.Context, mech sasl.Client) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	name, initial, err := mech.Start()
	if err != nil {
		return fmt.Errorf("pop3client: %w", err)
	}
	line := "AUTH " + name
	if initial != nil {
		enc := base64.StdEncoding.EncodeToString(initial)
		if enc == "" {
			enc = "="
		}
		// A longer one would be over what a command line may have.
		if len(line)+len(enc)+3 <= 255 {
			line += " " + enc
			initial = nil
		}
	}
	if err := c.send(line); err != nil {
		return err
	}
	for {
		reply, err := c.line()
		if err != nil {
			return err
		}
		rest, more := strings.CutPrefix(reply, "+ ")
		if reply == "+" {
			rest, more = "", true
		}
		if !more {
			_, err := pop3.ParseStatus(reply)
			if errors.Is(err, pop3.ErrStatus) {
				return c.fail(fmt.Errorf("%w: %.80q in AUTH", ErrProtocol, reply))
			}
			if err == nil && !login.Proven(mech) {
				return c.fail(fmt.Errorf("%w: %w", ErrProtocol, login.ErrServer))
			}
			return err
		}
		challenge, err := base64.StdEncoding.DecodeString(rest)
		if err != nil {
			return c.fail(fmt.Errorf("%w: challenge is not base64", ErrProtocol))
		}
		var response []byte
		if initial != nil {
			response, initial = initial, nil
		} else if response, err = mech.Next(challenge); err != nil {
			// Cancelled (RFC 5034 §4): the server answers -ERR.
			if _, cerr := c.command("*"); cerr == nil {
				return c.fail(fmt.Errorf("%w: +OK to a cancelled AUTH", ErrProtocol))
			}
			return fmt.Errorf("pop3client: %w", err)
		}
		if err := c.send(base64.StdEncoding.EncodeToString(response)); err != nil {
			return err
		}
	}
}
