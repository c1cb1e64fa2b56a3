package smtpserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/internal/lineio"
	"github.com/postrider/postrider/internal/netserve"
	"github.com/postrider/postrider/smtp"
)

// Conn is what a session may know of its connection. Its methods may be
// called from NewSession and the session's methods only.
type Conn struct {
	srv  *Server
	base *netserve.Conn
	nc   net.Conn // base.Conn, or TLS over it
	r    *lineio.Reader
	w    *bufio.Writer
	lim  limits

	ctx    context.Context
	cancel context.CancelFunc
	end    time.Time // of SessionTimeout; zero = none

	remote, local netip.AddrPort
	tls           *tls.ConnectionState
	session       Session
	state         state
	hello         string
	extended      bool           // EHLO or LHLO, not HELO
	ext           extensions     // what was announced
	identity      login.Identity // valid when loggedIn
	loggedIn      bool
	tx            transaction
	dot           lineio.DotReader

	deadline time.Time // as last set on nc
	waiting  bool      // the next command's time has begun
	inData   bool      // a message is read: Shutdown waits for its end
	final    bool      // the deadline is that of the last reply
	expired  bool      // SessionTimeout has passed
	cutShort bool      // the peer is still sending what nobody will read
	wake     func()

	closing      bool // end after this command
	errors       int
	commands     int
	authFailures int
}

// transaction is what MAIL began.
type transaction struct {
	open  bool // Session.Mail said nil, and Reset was not called since
	from  smtp.Address
	utf8  bool
	rcpts int
	began time.Time
}

// Hello returns the name given in EHLO, HELO or LHLO, "" before it. It is
// what the peer claims, printable but nothing more.
func (c *Conn) Hello() string { return c.hello }

// Hostname returns the server's own name.
func (c *Conn) Hostname() string { return c.srv.name }

// Remote returns the peer's address, zero when the connection is not TCP.
func (c *Conn) Remote() netip.AddrPort { return c.remote }

// Local returns our own address, zero when the connection is not TCP.
func (c *Conn) Local() netip.AddrPort { return c.local }

// TLS returns the state of TLS, nil in plain text.
func (c *Conn) TLS() *tls.ConnectionState { return c.tls }

// Identity returns who logged in.
func (c *Conn) Identity() (login.Identity, bool) { return c.identity, c.loggedIn }

// serve runs the connection from banner to end.
func (c *Conn) serve() {
	ctx := c.base.Context()
	if c.lim.session > 0 {
		c.end = time.Now().Add(c.lim.session)
		c.ctx, c.cancel = context.WithDeadline(ctx, c.end)
	} else {
		c.ctx, c.cancel = context.WithCancel(ctx)
	}
	c.wake = func() { c.nc.SetReadDeadline(time.Unix(1, 0)) }
	defer c.cancel()
	defer c.closeSession()
	defer c.recoverPanic("session")
	if c.srv.ImplicitTLS && !c.handshake() {
		return
	}
	if c.greet() {
		c.loop()
	}
	c.flush()
	c.linger()
	if t, ok := c.nc.(*tls.Conn); ok {
		t.Close() // sends close_notify
	}
}

// Bounds of linger.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 1 << 20
)

// linger reads on for a moment when the peer is cut short while it sends: a
// TCP connection closed with input unread is reset, and the reset can
// overtake the reply that says why.
func (c *Conn) linger() {
	t, ok := c.base.Conn.(interface{ CloseWrite() error })
	if !ok || !c.cutShort && c.r.Buffered() == 0 || c.ctx.Err() != nil {
		return
	}
	if t, ok := c.nc.(*tls.Conn); ok {
		t.CloseWrite() // close_notify goes first
	}
	t.CloseWrite()
	c.nc.SetReadDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, c.base.Conn, lingerBytes)
}

// greet makes the session and writes the banner.
func (c *Conn) greet() bool {
	if c.srv.Backend == nil {
		c.log().Error("smtp: Server has no Backend")
		c.reply(421, "4.3.5", "Service not available")
		return false
	}
	sess, err := c.srv.Backend.NewSession(c.ctx, c)
	if err == nil && sess == nil {
		err = errors.New("smtpserver: NewSession returned no session and no error")
	}
	if err != nil {
		r := c.replyFor(err)
		if r.Code < 500 {
			r.Code = 421
			c.write(r)
			return false
		}
		// RFC 5321 §3.1: a 554 banner, and then only QUIT is of use.
		r.Code = 554
		c.state = stateRefused
		c.write(r)
		return true
	}
	c.session = sess
	if c.srv.LMTP {
		c.reply(220, "", c.srv.name+" LMTP ready")
	} else {
		c.reply(220, "", c.srv.name+" ESMTP ready")
	}
	return true
}

func (c *Conn) closeSession() {
	if c.session == nil {
		return
	}
	defer c.recoverPanic("Session.Close")
	if err := c.session.Close(); err != nil {
		c.log().Warn("smtp: session close failed", "err", err)
	}
}

// recoverPanic ends the connection, and it alone, when the session panics.
func (c *Conn) recoverPanic(where string) {
	v := recover()
	if v == nil {
		return
	}
	c.log().Error("smtp: panic", "in", where, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	c.reply(421, "4.3.0", "Internal error, closing connection")
	c.flush()
}

func (c *Conn) log() *slog.Logger { return c.srv.log().With("remote", c.remoteName()) }

// remoteName is the peer's address for the log: without an IP address what
// the connection calls it, or its network ("pipe", "unix").
func (c *Conn) remoteName() string {
	if c.remote.IsValid() {
		return c.remote.String()
	}
	a := c.base.RemoteAddr()
	if a == nil {
		return "unknown"
	}
	if s := a.String(); s != "" && s != "@" {
		return s
	}
	return a.Network()
}

// arm gives the peer Timeout from now for whatever it does next.
func (c *Conn) arm() {
	if c.final || c.lim.timeout <= 0 && c.end.IsZero() {
		return
	}
	now := time.Now()
	if !c.end.IsZero() && !now.Before(c.end) {
		c.expired = true
		c.extraTime()
		return
	}
	d := c.end
	if c.lim.timeout > 0 {
		if t := now.Add(c.lim.timeout); d.IsZero() || t.Before(d) {
			d = t
		}
	}
	// Moving the deadline costs more than looking at the clock, and a
	// sixty-fourth of a timeout is missed by nobody.
	if m := d.Sub(c.deadline); c.deadline.IsZero() || m > c.lim.timeout>>6 || m < 0 {
		c.nc.SetDeadline(d)
		c.deadline = d
	}
}

// netReader is the connection below c.r: it sends what is still unsent before
// it waits for the peer (RFC 2920 §3.2 (7)), and while it waits for a command
// Shutdown may wake it.
type netReader struct{ c *Conn }

func (n netReader) Read(p []byte) (int, error) {
	c := n.c
	if err := c.w.Flush(); err != nil {
		return 0, err
	}
	if c.inData {
		c.arm()
		k, err := c.nc.Read(p)
		if err != nil {
			c.cancel()
		}
		return k, err
	}
	// One deadline for the whole line, however slowly it drips in.
	if !c.waiting {
		c.waiting = true
		c.arm()
	}
	if !c.srv.conns.Idle(c.base, c.wake) {
		return 0, errDraining
	}
	k, err := c.nc.Read(p)
	c.srv.conns.Busy(c.base)
	if c.draining() {
		if err != nil {
			err = errDraining
		}
		// A command came together with the waking, which has moved the
		// deadline: what belongs to the command has its time.
		c.deadline = time.Time{}
	}
	return k, err
}

var errDraining = errors.New("server is shutting down")

func (c *Conn) draining() bool {
	select {
	case <-c.base.Drain:
		return true
	default:
		return false
	}
}

type netWriter struct{ c *Conn }

func (n netWriter) Write(p []byte) (int, error) {
	n.c.arm()
	k, err := n.c.nc.Write(p)
	if err != nil {
		n.c.closing = true
		n.c.cancel()
	}
	return k, err
}

func (c *Conn) flush() { c.w.Flush() }

// readLine returns the next line of at most limit octets. When there is none
// to come it has said why to the peer, if that is of use, and returns false.
// A line that is malformed comes back as err.
func (c *Conn) readLine(limit int) (line []byte, err error, ok bool) {
	c.waiting = false
	if limit <= 0 {
		limit = lineio.SkipLimit
	}
	line, err = c.r.ReadLine(limit)
	switch {
	case err == nil:
		return line, nil, true
	case errors.Is(err, lineio.ErrTooLong), errors.Is(err, lineio.ErrBareLF), errors.Is(err, lineio.ErrBareCR), errors.Is(err, lineio.ErrNUL):
		return nil, err, true
	}
	c.closing = true
	switch {
	case errors.Is(err, errDraining):
		c.shutdownReply()
	case errors.Is(err, lineio.ErrEndless):
		c.cutShort = true
		c.badLine(err)
	case isTimeout(err):
		c.timeoutReply()
	case !errors.Is(err, io.EOF):
		c.log().Debug("smtp: connection lost", "err", err)
	}
	return nil, err, false
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

func (c *Conn) shutdownReply() {
	c.extraTime()
	c.reply(421, "4.3.2", "Service shutting down, closing transmission channel")
}

func (c *Conn) timeoutReply() {
	c.extraTime()
	c.reply(421, "4.4.2", "Timeout, closing transmission channel")
}

// extraTime lets a last reply leave after the deadline has passed. A peer
// that does not read has a full window and must not hold us for long.
func (c *Conn) extraTime() {
	c.final = true
	c.nc.SetDeadline(time.Now().Add(5 * time.Second))
}
