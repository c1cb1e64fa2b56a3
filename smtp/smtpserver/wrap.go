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
// What it returns usually embeds the inner Session and overrides some of its
// methods, and has
//
//	Unwrap() Session
//
// so that the optional interfaces of the inner session stay visible: see As.
// A wrapper that reads messages implements DataLMTP beside Data; one that has
// to do with neither passes DataLMTP on with the function of that name.
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
