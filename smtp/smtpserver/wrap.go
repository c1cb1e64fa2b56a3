package smtpserver

import (
	"context"
	"io"

	"github.com/postrider/postrider/smtp"
)

// Wrapper puts a session of its own around another: greylisting, a filter, a
// rate limit. It is called once per connection, from the innermost outwards.
// On an error the inner session is closed and the error is the banner, as
// NewSession's is.
//
// What it returns usually embeds an Inner and overrides some of its methods:
//
//	type session struct {
//		smtpserver.Inner
//		…
//	}
//
// One that reads messages implements DataLMTP beside Data.
type Wrapper func(ctx context.Context, c *Conn, inner Session) (Session, error)

// Wrap returns a Backend whose sessions are those of b inside the wrappers;
// the first is the outermost, and is asked first.
func Wrap(b Backend, w ...Wrapper) Backend {
	return BackendFunc(func(ctx context.Context, c *Conn) (Session, error) {
		s, err := b.NewSession(ctx, c)
		for i := len(w) - 1; i >= 0 && err == nil && s != nil; i-- {
			outer, werr := w[i](ctx, c, s)
			if werr != nil {
				s.Close()
				return nil, werr
			}
			if outer != nil { // nil: nothing to do for this connection
				s = outer
			}
		}
		return s, err
	})
}

// Inner is the session within, to be embedded in that of a Wrapper. It passes
// every call on, keeps the optional interfaces of that session visible (see
// As), and lets it answer for each recipient in LMTP. What overrides Mail or
// Rcpt calls them.
type Inner struct {
	Session
	rcpts int // accepted in this transaction
}

// Unwrap returns the session within.
func (s *Inner) Unwrap() Session { return s.Session }

// Mail implements Session.
func (s *Inner) Mail(ctx context.Context, from smtp.Address, o smtp.MailOptions) error {
	s.rcpts = 0
	return s.Session.Mail(ctx, from, o)
}

// Rcpt implements Session.
func (s *Inner) Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error {
	err := s.Session.Rcpt(ctx, to, o)
	if err == nil {
		s.rcpts++
	}
	return err
}

// DataLMTP implements LMTPSession.
func (s *Inner) DataLMTP(ctx context.Context, r io.Reader) []smtp.Result {
	return DataLMTP(ctx, s.Session, r, s.rcpts)
}

// As returns the outermost of s and the sessions that it wraps which is a T,
// for the optional interfaces of this package and those of an adopter. The
// server finds all of them so but LMTPSession: a wrapper that reads messages
// must not be passed by.
func As[T any](s Session) (T, bool) {
	for s != nil {
		if t, ok := s.(T); ok {
			return t, true
		}
		u, ok := s.(interface{ Unwrap() Session })
		if !ok {
			break
		}
		s = u.Unwrap()
	}
	var none T
	return none, false
}

// DataLMTP gives a message to s for n accepted recipients: through DataLMTP
// when s has it, else through Data, whose answer is repeated.
func DataLMTP(ctx context.Context, s Session, r io.Reader, n int) []smtp.Result {
	if l, ok := s.(LMTPSession); ok {
		return l.DataLMTP(ctx, r)
	}
	reply, err := s.Data(ctx, r)
	if err == nil && reply.Code >= 400 {
		err = &smtp.Error{Code: reply.Code, Enhanced: reply.Enhanced, Text: reply.Text}
	}
	results := make([]smtp.Result, n)
	for i := range results {
		results[i] = smtp.Result{Err: err, Reply: reply}
	}
	return results
}
