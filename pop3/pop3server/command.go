package pop3server

import (
	"bytes"

	"github.com/postrider/postrider/pop3"
)

// state is where a command is allowed (RFC 1939 §3).
type state uint8

const (
	authorization state = 1 << iota
	transaction
)

type command struct {
	states state
	run    func(c *conn, arg []byte)
}

// lookup finds a command by its name in upper case.
func lookup(name []byte) (command, bool) {
	switch string(name) {
	case "USER":
		return command{authorization, (*conn).cmdUser}, true
	case "PASS":
		return command{authorization, (*conn).cmdPass}, true
	case "AUTH":
		return command{authorization, (*conn).cmdAuth}, true
	case "STLS":
		return command{authorization, (*conn).cmdSTLS}, true
	case "CAPA":
		return command{authorization | transaction, (*conn).cmdCapa}, true
	case "QUIT":
		return command{authorization | transaction, (*conn).cmdQuit}, true
	case "STAT":
		return command{transaction, (*conn).cmdStat}, true
	case "LIST":
		return command{transaction, (*conn).cmdList}, true
	case "UIDL":
		return command{transaction, (*conn).cmdUIDL}, true
	case "RETR":
		return command{transaction, (*conn).cmdRetr}, true
	case "TOP":
		return command{transaction, (*conn).cmdTop}, true
	case "DELE":
		return command{transaction, (*conn).cmdDele}, true
	case "RSET":
		return command{transaction, (*conn).cmdRset}, true
	case "NOOP":
		return command{transaction, (*conn).cmdNoop}, true
	}
	return command{}, false
}

// command runs one line.
func (c *conn) command(line []byte) {
	name, arg, _ := bytes.Cut(line, []byte{' '})
	var upper [4]byte
	if len(name) > len(upper) {
		c.reject("unknown command")
		return
	}
	for i, b := range name {
		if 'a' <= b && b <= 'z' {
			b -= 'a' - 'A'
		}
		upper[i] = b
	}
	cmd, ok := lookup(upper[:len(name)])
	now := authorization
	if c.drop != nil {
		now = transaction
	}
	switch {
	case !ok:
		c.reject("unknown command")
	case cmd.states&now != 0:
		cmd.run(c, arg)
	case now == authorization:
		c.reject("log in first")
	default:
		c.reject("already logged in")
	}
}

// noArg rejects a command that came with an argument.
func (c *conn) noArg(arg []byte) bool {
	if len(bytes.TrimRight(arg, " ")) > 0 {
		c.reject("no argument expected")
		return false
	}
	return true
}

func (c *conn) cmdCapa(arg []byte) {
	if !c.noArg(arg) {
		return
	}
	c.line("+OK capabilities follow")
	caps := pop3.Capabilities{
		{Name: pop3.CapTop}, {Name: pop3.CapUIDL}, {Name: pop3.CapRespCodes}, {Name: pop3.CapAuthRespCode},
		{Name: pop3.CapPipelining}, {Name: pop3.CapExpire, Args: []string{"NEVER"}},
	}
	if mechs := c.mechanisms(); len(mechs) > 0 {
		caps = append(caps, pop3.Capability{Name: pop3.CapSASL, Args: mechs})
		if c.offers("PLAIN") {
			caps = append(caps, pop3.Capability{Name: pop3.CapUser})
		}
	}
	if c.drop == nil && c.srv.TLS != nil && c.tls == nil {
		caps = append(caps, pop3.Capability{Name: pop3.CapSTLS})
	}
	for _, cp := range caps {
		c.line(cp.String())
	}
	c.line(".")
}

// cmdQuit ends the session. In the transaction state it enters UPDATE: what
// was marked is removed, all or nothing (RFC 1939 §6).
func (c *conn) cmdQuit(arg []byte) {
	if !c.noArg(arg) {
		return
	}
	c.done = true
	if c.drop != nil {
		if err := c.drop.expunge(c.ctx); err != nil {
			c.srv.log().Error("pop3: messages could not be removed", "user", c.id.User, "error", err)
			c.line((&pop3.Error{Code: pop3.SysTemp, Text: "messages could not be removed; all are kept"}).Status())
			return
		}
	}
	c.line("+OK goodbye")
}
