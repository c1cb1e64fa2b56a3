package smtpclient

import (
	"crypto/tls"

	"github.com/postrider/postrider/smtp"
)

// Trace has hooks into a connection's conversation; nil funcs are not called.
// They run on the goroutines that use the connection, and must not block.
// Hooks of one Dialer may run at the same time, for different connections and
// for messages that follow one another on one.
type Trace struct {
	// Command is called with each command before it is sent, without CRLF.
	// What AUTH would show is replaced by "***".
	Command func(line string)
	// Reply is called with each reply; its Text has one line for each of
	// the reply's.
	Reply func(r smtp.Reply)
	// TLS is called after each handshake, err nil if it succeeded.
	TLS func(s tls.ConnectionState, err error)
	// Sent is called when the final dot has been sent, with the size of the
	// message in octets.
	Sent func(size int64)
}

func (t *Trace) command(line string) {
	if t != nil && t.Command != nil {
		t.Command(line)
	}
}

func (t *Trace) reply(r smtp.Reply) {
	if t != nil && t.Reply != nil {
		t.Reply(r)
	}
}

func (t *Trace) sent(size int64) {
	if t != nil && t.Sent != nil {
		t.Sent(size)
	}
}

func (t *Trace) tls(s tls.ConnectionState, err error) {
	if t != nil && t.TLS != nil {
		t.TLS(s, err)
	}
}
