package imapserver

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/store"
)

// handshake is implicit TLS.
func (s *session) handshake() error {
	if s.srv.TLS == nil {
		return errors.New("imapserver: ImplicitTLS without TLS")
	}
	var err error
	s.tls, s.cert, err = s.t.startTLS(s.srv, s.loginBy)
	return err
}

// startTLS is STARTTLS (RFC 9051 §6.2.1). What the client sent in plain text
// after it is dropped: it may be an attacker's.
func (s *session) startTLS() (result, error) {
	if !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	if s.srv.TLS == nil || s.tls != nil {
		return result{}, bad("STARTTLS is not offered")
	}
	s.enc.Atom(s.tag).Atom(" OK Begin TLS\r\n")
	if err := s.enc.Flush(); err != nil {
		return result{}, &fatalError{err}
	}
	st, cert, err := s.t.startTLS(s.srv, s.loginBy)
	if err != nil {
		return result{}, &fatalError{err}
	}
	s.tls, s.cert = st, cert
	s.t.hasFirst = false
	s.br.Reset(&s.t)
	s.dec.Reset(s.br)
	return result{silent: true}, nil
}

// login is LOGIN (RFC 9051 §6.2.3): PLAIN by another name.
func (s *session) login() (result, error) {
	var user, password string
	if !s.dec.ExpectSP() || !s.dec.ExpectAString(&user) || !s.dec.ExpectSP() || !s.dec.ExpectAString(&password) || !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	offered := false
	for _, m := range s.mechanisms() {
		offered = offered || strings.EqualFold(m, "PLAIN")
	}
	if !offered {
		return result{}, s.loginDisabled()
	}
	id, err := login.Password(s.ctx, s.srv.Auth, s.loginConn(), user, password)
	if err != nil {
		return result{}, s.loginFailed(err)
	}
	return s.loggedIn(id)
}

func (s *session) loginDisabled() error {
	if s.tls == nil && s.srv.TLS != nil {
		return no(imap.CodePrivacyRequired, "Start TLS first")
	}
	return no(imap.CodeCannot, "LOGIN is disabled")
}

// loginFailed logs a failed attempt; the password is in no error.
func (s *session) loginFailed(err error) error {
	s.log.Info("login failed", "command", s.name, "error", err)
	return err
}

// maxSASL is the longest response of a mechanism, in octets of base64.
const maxSASL = 32 << 10

// authenticate is AUTHENTICATE (RFC 9051 §6.2.2, RFC 4959).
func (s *session) authenticate() (result, error) {
	var mech, initial string
	var response []byte
	if !s.dec.ExpectSP() || !s.dec.ExpectKeyword(&mech) {
		return result{}, s.dec.Err()
	}
	if s.dec.SP() {
		if !s.dec.Text(&initial) {
			return result{}, s.dec.Err()
		}
		if response = []byte{}; initial != "=" {
			var err error
			if response, err = base64.StdEncoding.DecodeString(initial); err != nil {
				s.dec.ExpectCRLF()
				return result{}, bad("Malformed base64")
			}
		}
	}
	if !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	offered := false
	for _, m := range s.mechanisms() {
		offered = offered || strings.EqualFold(m, mech)
	}
	if !offered {
		if s.tls == nil && s.srv.TLS != nil && login.Cleartext(mech) {
			return result{}, s.loginDisabled()
		}
		return result{}, no(imap.CodeCannot, "Mechanism not offered")
	}
	x, err := s.srv.Auth.Start(s.ctx, mech, s.loginConn())
	if err != nil {
		return result{}, s.loginFailed(err)
	}
	for {
		challenge, done, err := x.Next(response)
		if err != nil {
			return result{}, s.loginFailed(err)
		}
		if done {
			// IMAP has no place for data with success (RFC 4422 §3.1 item
			// 2a): it goes as a challenge that is answered with nothing.
			if len(challenge) > 0 {
				if _, err := s.exchange(challenge); err != nil {
					return result{}, err
				}
			}
			return s.loggedIn(x.Identity())
		}
		if response, err = s.exchange(challenge); err != nil {
			return result{}, err
		}
	}
}

// exchange sends a challenge and reads the response.
func (s *session) exchange(challenge []byte) ([]byte, error) {
	s.enc.Atom("+ ").Atom(base64.StdEncoding.EncodeToString(challenge)).Atom("\r\n")
	var line string
	s.dec.Begin()
	if !s.dec.Text(&line) || !s.dec.ExpectCRLF() {
		return nil, s.dec.Err()
	}
	if line == "*" {
		return nil, bad("Cancelled")
	}
	if len(line) > maxSASL {
		return nil, bad("Response too long")
	}
	b, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		return nil, bad("Malformed base64")
	}
	return b, nil
}

// loggedIn opens the account.
func (s *session) loggedIn(id login.Identity) (result, error) {
	acc, err := s.srv.account(s.ctx, id)
	switch {
	case errors.Is(err, store.ErrNotExist):
		return result{}, &imap.Error{Type: imap.NO, Code: imap.CodeAuthorizationFailed, Text: "No such account", Err: err}
	case err != nil:
		return result{}, err
	}
	s.id, s.acc, s.state = id, acc, authenticated
	s.dec.MaxLiteral = s.srv.literalLimit()
	s.loginBy = time.Time{}
	s.t.wait(false, time.Time{})
	s.errors = 0
	if !id.Expires.IsZero() {
		// A token's end ends the session's work, too.
		ctx, cancel := context.WithDeadline(s.ctx, id.Expires)
		s.ctx, s.expire = ctx, cancel
	}
	s.log = s.log.With("user", id.User)
	return result{code: imap.CodeCapability, arg: s.capabilities(), text: "Logged in"}, nil
}
