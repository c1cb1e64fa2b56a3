package smtpserver

import "github.com/postrider/postrider/smtp"

// Trace is a set of hooks, for metrics and transcripts; each may be nil. They
// are called on the connection's goroutine and hold it up. What they are given
// is theirs until they return.
type Trace struct {
	// Open is called before the session is made, Close at the very end.
	Open, Close func(c *Conn)
	// Command is called with each command line, without its CRLF, before it
	// is run; of AUTH only the mechanism is shown.
	Command func(c *Conn, line []byte)
	// Reply is called with each reply as it goes to the wire. A challenge of
	// AUTH is not shown.
	Reply func(c *Conn, wire []byte)
	// Handshake is called after a TLS handshake.
	Handshake func(c *Conn, err error)
	// Login is called after an AUTH; Conn.Identity tells who, when err is nil.
	Login func(c *Conn, mechanism string, err error)
	// Message is called when a message was answered, or cut.
	Message func(c *Conn, m MessageEvent)
}

// MessageEvent is what Trace.Message is told.
type MessageEvent struct {
	From       smtp.Address
	Recipients int
	Size       int64      // octets received
	Reply      smtp.Reply // zero when there was nobody to answer
	Err        error      // the message was cut
}
