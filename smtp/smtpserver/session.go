package smtpserver

import (
	"context"
	"io"

	"github.com/postrider/postrider/smtp"
)

// Backend makes a session for each connection. It is used from many
// goroutines.
type Backend interface {
	// NewSession is called once per connection, before the banner. An error
	// is the banner instead (554, or 421 when it is temporary), and the
	// connection ends. ctx ends when the connection does.
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
	// for it: nothing is accepted by default.
	Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error
	// Data reads the message, CRLF line ends, dot-stuffing removed. r ends
	// with io.EOF only when the whole message was there; after any other
	// error nothing may be kept. A nil error means that the message is
	// durable and ours now; the Reply is what is answered then, and the
	// zero Reply means 250 2.0.0 OK. Data may return before r's end: the rest
	// is read away.
	Data(ctx context.Context, r io.Reader) (smtp.Reply, error)
	// Reset ends the transaction: RSET, a new EHLO, STARTTLS, and after Data.
	Reset()
	// Close ends the session, whatever state it is in. Called exactly once.
	Close() error
}

// LMTPSession is a Session that answers for each recipient (RFC 2033 §4.2).
// Without it Data's answer is repeated.
type LMTPSession interface {
	Session
	// DataLMTP is Data with one Result for each accepted RCPT, in order.
	DataLMTP(ctx context.Context, r io.Reader) []smtp.Result
}
