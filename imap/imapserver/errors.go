package imapserver

import (
	"context"
	"errors"

	"github.com/emersion/go-sasl"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/internal/imapwire"
	"github.com/postrider/postrider/store"
)

// bad returns a BAD reply.
func bad(text string) error { return &imap.Error{Type: imap.BAD, Text: text} }

// no returns a NO reply.
func no(code imap.Code, text string) error { return &imap.Error{Type: imap.NO, Code: code, Text: text} }

// errTryCreate is how APPEND, COPY and MOVE say that the target is missing.
func errTryCreate() error { return no(imap.CodeTryCreate, "No such mailbox") }

// errNoMailbox is how all others say it.
func errNoMailbox() error { return no(imap.CodeNonExistent, "No such mailbox") }

// errExpunged says that messages went away under the client (RFC 5530 §3).
func errExpunged() error {
	return no(imap.CodeExpungeIssued, "Some of the messages no longer exist")
}

// replyTo turns any error into a status response; what it does not know is
// logged and becomes a neutral text.
func (s *session) replyTo(err error) *imap.Error {
	var e *imap.Error
	if errors.As(err, &e) {
		if e.Err != nil {
			s.log.Warn("command failed", "command", s.name, "user", s.id.User, "error", e.Err)
		}
		out := *e
		out.Text = oneLine(e.Text)
		return &out
	}
	var syntax *imapwire.SyntaxError
	reply := func(t imap.StatusType, c imap.Code, text string) *imap.Error {
		return &imap.Error{Type: t, Code: c, Text: text}
	}
	switch {
	case errors.As(err, &syntax):
		return reply(imap.BAD, "", oneLine("Syntax error: "+syntax.Text))
	case errors.Is(err, imapwire.ErrLineTooLong):
		return reply(imap.BAD, "", "Command line too long")
	case errors.Is(err, imapwire.ErrLiteralTooBig):
		return reply(imap.NO, imap.CodeTooBig, "Literal too big")
	case errors.Is(err, store.ErrNotExist):
		return reply(imap.NO, imap.CodeNonExistent, "No such mailbox or message")
	case errors.Is(err, store.ErrExist):
		return reply(imap.NO, imap.CodeAlreadyExists, "It exists already")
	case errors.Is(err, store.ErrPermission):
		return reply(imap.NO, imap.CodeNoPerm, "Permission denied")
	case errors.Is(err, store.ErrQuota):
		return reply(imap.NO, imap.CodeOverQuota, "Over quota")
	case errors.Is(err, store.ErrLimit):
		return reply(imap.NO, imap.CodeLimit, "A limit was reached")
	case errors.Is(err, store.ErrTooBig):
		return reply(imap.NO, imap.CodeTooBig, "Message too big")
	case errors.Is(err, login.ErrCredentials):
		return reply(imap.NO, imap.CodeAuthenticationFailed, "Invalid credentials")
	case errors.Is(err, login.ErrTooMany):
		return reply(imap.NO, imap.CodeAuthenticationFailed, "Too many attempts; wait")
	case errors.Is(err, login.ErrMechanism):
		return reply(imap.NO, imap.CodeCannot, "Mechanism not offered")
	case errors.Is(err, login.ErrMalformed), errors.Is(err, sasl.ErrUnexpectedClientResponse):
		return reply(imap.BAD, "", "Malformed response")
	case errors.Is(err, store.ErrDamaged): // may be ErrUnavailable, too
		s.log.Error("command failed", "command", s.name, "user", s.id.User, "error", err)
		return reply(imap.NO, imap.CodeCorruption, "Some of it is damaged")
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		s.log.Warn("command failed", "command", s.name, "user", s.id.User, "error", err)
		return reply(imap.NO, imap.CodeUnavailable, "Temporarily unavailable; try again")
	}
	s.log.Error("command failed", "command", s.name, "user", s.id.User, "error", err)
	return reply(imap.NO, imap.CodeServerBug, "Internal error")
}

// isBad tells whether replyTo answers err with BAD.
func isBad(err error) bool {
	var e *imap.Error
	if errors.As(err, &e) {
		return e.Type == imap.BAD
	}
	var syntax *imapwire.SyntaxError
	return errors.As(err, &syntax) || errors.Is(err, imapwire.ErrLineTooLong)
}

// isWireError tells errors of the connection from those of a command.
func isWireError(err error) bool {
	var syntax *imapwire.SyntaxError
	var e *imap.Error
	return err != nil && !errors.As(err, &syntax) && !errors.As(err, &e) &&
		!errors.Is(err, imapwire.ErrLineTooLong) && !errors.Is(err, imapwire.ErrLiteralTooBig) && !isStoreError(err)
}

// isStoreError knows what a handler may have put into the decoder.
func isStoreError(err error) bool {
	var r *refusal
	return errors.As(err, &r)
}

// refusal carries any error through the decoder: a literal was not wanted.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }
