package smtpserver

import (
	"bytes"
	"errors"

	"github.com/postrider/postrider/internal/lineio"
)

// state is where in RFC 5321 §4.1.4's order of commands a connection is.
type state uint8

const (
	stateNew     state = 1 << iota // no EHLO yet
	stateReady                     // said hello, no transaction
	stateMail                      // MAIL was accepted
	stateRcpt                      // at least one RCPT was accepted
	stateRefused                   // the banner was 554

	stateAny = stateNew | stateReady | stateMail | stateRcpt
)

// command is one row of the command table.
type command struct {
	run func(c *Conn, arg []byte)
	// states are those in which it may run; in others it gets a 503.
	states state
	// bare commands take no argument.
	bare bool
	// grouped commands may have their reply wait for those of the commands
	// after it (RFC 2920 §3.2 (4)).
	grouped bool
}

// lookup is the command table.
func lookup(verb []byte) (command, bool) {
	switch string(verb) {
	case "MAIL":
		return command{run: (*Conn).mail, states: stateReady, grouped: true}, true
	case "RCPT":
		return command{run: (*Conn).rcpt, states: stateMail | stateRcpt, grouped: true}, true
	case "DATA":
		return command{run: (*Conn).data, states: stateMail | stateRcpt, bare: true}, true
	case "RSET":
		return command{run: (*Conn).rset, states: stateAny, bare: true, grouped: true}, true
	case "QUIT":
		return command{run: (*Conn).quit, states: stateAny | stateRefused, bare: true}, true
	case "EHLO":
		return command{run: (*Conn).ehlo, states: stateAny}, true
	case "LHLO":
		return command{run: (*Conn).lhlo, states: stateAny}, true
	case "HELO":
		return command{run: (*Conn).helo, states: stateAny}, true
	case "STARTTLS":
		return command{run: (*Conn).starttls, states: stateReady, bare: true}, true
	case "AUTH":
		return command{run: (*Conn).auth, states: stateReady}, true
	case "NOOP":
		return command{run: (*Conn).noop, states: stateAny}, true
	case "HELP":
		return command{run: (*Conn).help, states: stateAny}, true
	case "VRFY":
		return command{run: (*Conn).vrfy, states: stateAny}, true
	case "BDAT":
		return command{run: (*Conn).bdat, states: stateAny | stateRefused}, true
	case "EXPN":
		return command{run: (*Conn).expn, states: stateAny}, true
	case "ETRN":
		return command{run: (*Conn).etrn, states: stateReady}, true
	case "XCLIENT":
		return command{run: (*Conn).xclient, states: stateNew | stateReady}, true
	case "XFORWARD":
		return command{run: (*Conn).xforward, states: stateReady}, true
	case "TURN", "SEND", "SOML", "SAML":
		return command{run: (*Conn).notOffered, states: stateAny}, true
	}
	return command{}, false
}

// loop reads and runs commands until the connection ends.
func (c *Conn) loop() {
	for !c.closing {
		if c.draining() {
			c.shutdownReply()
			return
		}
		limit := c.lim.line
		if limit > 0 && len(c.ext.auth) > 0 && !c.loggedIn {
			limit = max(limit, authLine) // an initial response may be long
		}
		line, err, ok := c.readLine(limit)
		if !ok {
			return
		}
		if err != nil {
			c.badLine(err)
		} else if !c.run(line) {
			c.flush()
		}
		c.overLimits()
	}
}

// overLimits hangs up when a limit on the session is reached, and reports
// whether the connection ends.
func (c *Conn) overLimits() bool {
	switch {
	case c.closing:
	case c.expired:
		c.timeoutReply()
	case c.lim.errors > 0 && c.errors >= c.lim.errors:
		c.hangUp("Too many errors, closing connection")
	case c.lim.commands > 0 && c.commands >= c.lim.commands:
		c.hangUp("Too many commands without a message, closing connection")
	}
	return c.closing
}

// hangUp ends the connection of a peer that has gone over a limit, and may
// still be sending.
func (c *Conn) hangUp(text string) {
	c.cutShort = true
	c.reply(421, "4.7.0", text)
}

func (c *Conn) badLine(err error) {
	text := "Line must end with CRLF and have no other control characters"
	if errors.Is(err, lineio.ErrTooLong) || errors.Is(err, lineio.ErrEndless) {
		text = "Line too long"
	}
	c.bad(500, "5.5.2", text)
	c.flush()
}

// run runs one command line and reports whether its reply may wait.
func (c *Conn) run(line []byte) (grouped bool) {
	// RFC 5321 §4.1.1: trailing white space is tolerated.
	line = bytes.TrimRight(line, " \t")
	verb, arg, _ := bytes.Cut(line, []byte{' '})
	var upper [8]byte
	n := copy(upper[:], verb)
	for i, b := range upper[:n] {
		if b >= 'a' && b <= 'z' {
			upper[i] = b - ('a' - 'A')
		}
	}
	c.commands++
	c.replyUTF8 = false
	c.traceCommand(line)
	cmd, ok := lookup(upper[:n])
	switch {
	case !ok || len(verb) > len(upper):
		if c.state == stateRefused {
			c.bad(503, "5.5.1", "Only QUIT is possible here")
			return false
		}
		c.bad(500, "5.5.1", "Command not recognized")
		return false
	case cmd.states&c.state == 0:
		c.misplaced()
		return false
	case cmd.bare && len(arg) > 0:
		c.bad(501, "5.5.4", "This command takes no argument")
		return false
	}
	cmd.run(c, arg)
	return cmd.grouped
}

func (c *Conn) misplaced() { c.bad(503, "5.5.1", c.misplacedText()) }

func (c *Conn) misplacedText() string {
	switch c.state {
	case stateNew:
		if c.srv.LMTP {
			return "Say LHLO first"
		}
		return "Say EHLO first"
	case stateReady:
		return "Say MAIL first"
	case stateRefused:
		return "Only QUIT is possible here"
	}
	return "Not during a transaction: finish it or say RSET"
}

// traceCommand shows a command line to the Trace, without what AUTH may have
// of a secret.
func (c *Conn) traceCommand(line []byte) {
	t := c.srv.Trace
	if t == nil || t.Command == nil {
		return
	}
	if len(line) > 5 && bytes.EqualFold(line[:5], []byte("AUTH ")) {
		if i := bytes.IndexByte(line[5:], ' '); i >= 0 {
			line = append(append([]byte(nil), line[:5+i]...), " (hidden)"...)
		}
	}
	t.Command(c, line)
}

func (c *Conn) rset(arg []byte) {
	c.resetTransaction()
	c.reply(250, "2.0.0", "OK")
}

// resetTransaction ends what MAIL began, if it did.
func (c *Conn) resetTransaction() {
	open := c.tx.open
	c.tx = transaction{}
	if c.state == stateMail || c.state == stateRcpt {
		c.state = stateReady
	}
	if open {
		c.session.Reset()
	}
}

func (c *Conn) quit(arg []byte) {
	c.reply(221, "2.0.0", "Goodbye")
	c.closing = true
}

func (c *Conn) noop(arg []byte) { c.reply(250, "2.0.0", "OK") }

func (c *Conn) notOffered(arg []byte) { c.bad(502, "5.5.1", "Command not implemented") }
