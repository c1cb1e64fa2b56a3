package pop3server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/internal/lineio"
	"github.com/postrider/postrider/internal/netserve"
	"github.com/postrider/postrider/pop3"
	"github.com/postrider/postrider/store"
)

// conn is one connection and its session.
type conn struct {
	srv  *Server
	nc   *netserve.Conn
	ctx  context.Context
	net  net.Conn // nc, or TLS over it
	r    *lineio.Reader
	w    *bufio.Writer
	tls  *tls.ConnectionState
	cert *x509.Certificate // what we sent, if it is known

	user     string // of USER, "" = none
	drop     *drop  // nil before login
	id       login.Identity
	bad      int
	failures int
	done     bool // the connection ends after this command
	loginBy  time.Time
}

func newConn(s *Server, nc *netserve.Conn) *conn {
	c := &conn{srv: s, nc: nc, ctx: nc.Context(), net: nc}
	c.attach()
	if d := limit(s.LoginTimeout, 2*time.Minute); d > 0 {
		c.loginBy = time.Now().Add(d)
	}
	return c
}

// attach makes new buffers: what the old ones hold is dropped.
func (c *conn) attach() {
	c.r = lineio.NewReader(c.net, readSize)
	c.w = bufio.NewWriterSize(timedWriter{c.net, limit(c.srv.WriteTimeout, 2*time.Minute)}, writeSize)
}

// timedWriter gives each write its own time.
type timedWriter struct {
	net.Conn
	timeout time.Duration
}

func (w timedWriter) Write(p []byte) (int, error) {
	if w.timeout > 0 {
		w.SetWriteDeadline(time.Now().Add(w.timeout))
	}
	return w.Conn.Write(p)
}

func (c *conn) close() {
	if c.drop != nil {
		if err := c.drop.close(); err != nil {
			c.srv.log().Error("pop3: closing the maildrop", "user", c.id.User, "error", err)
		}
		c.drop = nil
	}
	c.net.Close() // TLS says that nothing follows
}

// startTLS runs the handshake; false when it failed.
func (c *conn) startTLS() bool {
	if c.srv.TLS == nil {
		c.srv.log().Error("pop3: ImplicitTLS without TLS")
		return false
	}
	ctx, cancel := context.WithTimeout(c.ctx, handshakeTime)
	defer cancel()
	t, cert, err := c.srv.handshakes.Handshake(ctx, c.nc, c.srv.TLS)
	if err != nil {
		c.srv.log().Debug("pop3: TLS handshake", "remote", c.nc.RemoteAddr(), "error", err)
		return false
	}
	state := t.ConnectionState()
	c.tls, c.net, c.cert = &state, t, cert
	c.attach()
	return true
}

func (c *conn) serve() {
	c.line("+OK POP3 server ready")
	for !c.done {
		line, err := c.readLine(limit(c.srv.MaxLine, 1024))
		switch {
		case err == nil:
			c.command(line)
		case errors.Is(err, lineio.ErrTooLong), errors.Is(err, lineio.ErrBareCR),
			errors.Is(err, lineio.ErrBareLF), errors.Is(err, lineio.ErrNUL):
			c.reject(err.Error())
		default: // gone, too slow, or the server shuts down
			c.w.Flush()
			return
		}
	}
	c.w.Flush()
}

var errDraining = errors.New("server is shutting down")

// readLine flushes what was written, unless a whole line is there already:
// the replies to pipelined commands leave together.
func (c *conn) readLine(max int) ([]byte, error) {
	if max == 0 {
		max = lineio.SkipLimit
	}
	if buffered, _ := c.r.Peek(c.r.Buffered()); bytes.IndexByte(buffered, '\n') >= 0 {
		select {
		case <-c.nc.Drain:
			return nil, errDraining
		default:
			return c.r.ReadLine(max)
		}
	}
	if err := c.w.Flush(); err != nil {
		return nil, err
	}
	deadline := c.loginBy
	if c.drop != nil {
		deadline = time.Time{}
		if d := limit(c.srv.IdleTimeout, 10*time.Minute); d > 0 {
			deadline = time.Now().Add(d)
		}
	}
	c.nc.SetReadDeadline(deadline)
	if !c.srv.conns.Idle(c.nc, func() { c.nc.SetReadDeadline(time.Unix(1, 0)) }) {
		return nil, errDraining
	}
	defer c.srv.conns.Busy(c.nc)
	return c.r.ReadLine(max)
}

// line writes a reply line.
func (c *conn) line(s string) {
	c.w.WriteString(s)
	c.w.WriteString("\r\n")
}

// reject answers a command that is wrong in itself.
func (c *conn) reject(text string) {
	c.bad++
	if m := limit(c.srv.MaxErrors, 20); m > 0 && c.bad >= m {
		c.line("-ERR too many bad commands, goodbye")
		c.done = true
		return
	}
	c.line("-ERR " + text)
}

// fail answers a command that could not be done.
func (c *conn) fail(err error) {
	e := replyFor(err)
	if e.Code == pop3.SysTemp || e.Code == pop3.SysPerm {
		c.srv.log().Warn("pop3: command failed", "user", c.id.User, "remote", c.nc.RemoteAddr(), "error", err)
	}
	c.line(e.Status())
}

// replyFor turns any error into the reply: the only place that does.
func replyFor(err error) *pop3.Error {
	var e *pop3.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, login.ErrCredentials):
		return &pop3.Error{Code: pop3.Auth, Text: "wrong user name or password"}
	case errors.Is(err, login.ErrTooMany):
		return &pop3.Error{Code: pop3.SysTemp, Text: "too many attempts, try again later"}
	case errors.Is(err, login.ErrMechanism):
		return &pop3.Error{Text: "mechanism not offered"}
	case errors.Is(err, login.ErrMalformed):
		return &pop3.Error{Text: "malformed response"}
	case errors.Is(err, store.ErrNotExist):
		return &pop3.Error{Code: pop3.SysPerm, Text: "there is no such maildrop or message any more", Err: err}
	case errors.Is(err, store.ErrPermission):
		return &pop3.Error{Code: pop3.SysPerm, Text: "permission denied", Err: err}
	}
	return &pop3.Error{Code: pop3.SysTemp, Text: "not possible now, try again later", Err: err}
}
