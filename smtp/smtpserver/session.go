package smtpserver

import (
	"context"
	"io"

	"github.com/postrider/postrider/smtp"
)

// Backend makes a session for each connection. It is used from many
// goroutines.
type Backend interface {
	// NewSession is called once per connection, before the banner and after
	// the handshake of ImplicitTLS. An error is the banner instead: 554, or 521
	// if that is its code (RFC 7504), after which only QUIT is answered, or 421
	// when it is temporary, and the connection ends. ctx ends when the
	// connection does.
	NewSession(ctx context.Context, c *Conn) (Session, error)
}

// BackendFunc makes a function a Backend.
type BackendFunc func(ctx context.Context, c *Conn) (Session, error)

// NewSession calls f.
func (f BackendFunc) NewSession(ctx context.Context, c *Conn) (Session, error) { return f(ctx, c) }

// Session receives one connection's transactions. Its methods are called one
// at a time, on the connection's goroutine. An error becomes the reply as
// smtp.ReplyFor says: return an *smtp.Error to choose it.
//
// ctx ends when the server is closed, at the connection's deadline, or after
// an I/O error. Between the end of a message and Data's return only Close and
// the deadline end it: a peer that is gone does not cancel a commit.
type Session interface {
	// Mail begins a transaction. The Conn tells who logged in.
	Mail(ctx context.Context, from smtp.Address, o smtp.MailOptions) error
	// Rcpt adds a recipient. nil means that this server takes the message
	// for it: nothing is accepted by default, and a session that says nil to
	// any address makes an open relay. The Domain of to is empty in the bare
	// <Postmaster>, which every server must take (RFC 5321 §4.5.1).
	Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error
	// Data reads the message, CRLF line ends, dot-stuffing removed. r ends
	// with io.EOF only when the whole message was there; after any other
	// error nothing may be kept. A nil error means that the message is
	// durable and ours now; the Reply is what is answered then, and the
	// zero Reply means 250 2.0.0 OK; one with a 4xx or 5xx code refuses as an
	// error with it would. Data may return before r's end: the rest is read
	// away, up to MaxMessageBytes more, and when that does not reach the
	// end, or what was not read is malformed, the message is refused: only
	// io.EOF says that it is good. r is of no use after Data returned; it
	// implements io.WriterTo.
	Data(ctx context.Context, r io.Reader) (smtp.Reply, error)
	// Reset ends the transaction that a Mail without an error began: at RSET,
	// at a new EHLO, and after Data. A connection that ends first, or whose
	// message is cut, has Close alone.
	Reset()
	// Close ends the session, whatever state it is in. Called exactly once,
	// also after a panic. Its error is only logged.
	Close() error
}

// LMTPSession is a Session that answers for each recipient (RFC 2033 §4.2).
// Without it Data's answer is repeated.
type LMTPSession interface {
	Session
	// DataLMTP is Data with one Result for each accepted RCPT, in order. The
	// Reply of one without an error is answered; zero means 250 2.0.0 OK.
	DataLMTP(ctx context.Context, r io.Reader) []smtp.Result
}

// ExtensionSession is a Session that declines some of the extensions that
// the server would announce: DSN, say, when it cannot keep that promise
// (RFC 3461 §5), or AUTH on one network and not on another.
type ExtensionSession interface {
	Session
	// Extensions is called at each EHLO and LHLO with the keywords that would
	// be announced, and returns those to keep. Parameters of the others are
	// answered with 555 then.
	Extensions(offered []string) []string
}
