package smtpserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
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
	peer          netip.AddrPort // who it is really, when XCLIENT changed remote
	name          string         // of XCLIENT
	forwarded     []smtp.Attribute
	tls           *tls.ConnectionState
	cert          *x509.Certificate // what we sent, nil if that is not known
	session       Session
	state         state
	hello         string
	extended      bool           // EHLO or LHLO, not HELO
	ext           extensions     // what was announced
	identity      login.Identity // valid when loggedIn
	loggedIn      bool
	tx            transaction
	dot           lineio.DotReader

	deadline  time.Time     // as last set on nc
	waiting   bool          // the next command's time has begun
	dataWait  time.Duration // waited for the peer in this message
	dataBytes int64         // got from it
	replyUTF8 bool          // this command allows text beyond ASCII in its reply
	inData    bool          // a message is read: Shutdown waits for its end
	final     bool          // the deadline is that of the last reply
	early     bool          // the banner is not out yet
	awaited   awaited
	expired   bool // SessionTimeout has passed
	cutShort  bool // the peer is still sending what nobody will read
	wake      func()

	closing      bool // end after this command
	errors       int
	messages     int
	commands     int
	authFailures int
}

// transaction is what MAIL began.
type transaction struct {
	open     bool // Session.Mail said nil, and Reset was not called since
	from     smtp.Address
	utf8     bool
	body     smtp.BodyType
	priority int8
	rcpts    int
	began    time.Time
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
	if t := c.srv.Trace; t != nil {
		if t.Open != nil {
			t.Open(c)
		}
		if t.Close != nil {
			defer t.Close(c)
		}
	}
	defer c.cancel()
	defer c.closeSession()
	defer c.recoverPanic("session")
	if c.srv.ImplicitTLS && !c.handshake() {
		return
	}
	if !c.earlyTalker() && c.greet() {
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

// earlyTalker waits BannerDelay before the banner: who talks before it is no
// mail system (RFC 5321 §3.1, §4.3.1), and is told so.
func (c *Conn) earlyTalker() bool {
	if c.lim.bannerDelay <= 0 {
		return false
	}
	c.nc.SetReadDeadline(time.Now().Add(c.lim.bannerDelay))
	c.waiting, c.early = true, true
	_, err := c.r.Peek(1)
	c.early = false
	c.deadline = time.Time{}
	switch {
	case err == nil:
		c.log().Info("smtp: peer talks before the banner")
		c.reply(554, "5.5.1", "Protocol error: you talk before the banner")
		c.closing, c.cutShort = true, true
		return true
	case errors.Is(err, errDraining):
		c.shutdownReply()
		return true
	}
	return !isTimeout(err)
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
		// RFC 5321 §3.1: a 554 banner, and then only QUIT is of use; 521 of a
		// host that takes no mail from anybody (RFC 7504 §3).
		if r.Code != 521 {
			r.Code = 554
		}
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
func (c *Conn) arm() (now time.Time) {
	now = time.Now()
	if c.early || c.final || c.lim.timeout <= 0 && c.end.IsZero() {
		return now
	}
	if !c.end.IsZero() && !now.Before(c.end) {
		c.expired = true
		c.extraTime()
		return now
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
	return now
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
		return n.readData(p)
	}
	if c.awaited.got != nil || c.awaited.err != nil {
		k, err := c.taken(p)
		return k, c.drained(err)
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
	return k, c.drained(err)
}

// drained is the error of a read for a command, when Shutdown may have woken
// it.
func (c *Conn) drained(err error) error {
	if !c.draining() {
		return err
	}
	// A command may have come together with the waking, which has moved the
	// deadline: what belongs to the command has its time.
	c.deadline = time.Time{}
	if err != nil {
		return errDraining
	}
	return nil
}

// readData reads a part of a message, and holds the peer to MinDataRate: by
// the time waited for it, not by that which the session takes.
func (n netReader) readData(p []byte) (int, error) {
	c := n.c
	began := c.arm()
	k, err := c.nc.Read(p)
	if err != nil {
		c.cancel()
		return k, err
	}
	if rate := c.lim.dataRate; rate > 0 && c.lim.timeout > 0 {
		c.dataBytes += int64(k)
		c.dataWait += time.Since(began)
		if c.dataWait > c.lim.timeout && c.dataWait-c.lim.timeout > time.Duration(c.dataBytes/rate+1)*time.Second {
			c.cancel()
			return 0, os.ErrDeadlineExceeded
		}
	}
	return k, nil
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
	if !c.inData {
		c.await()
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
