package imapserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/internal/imapwire"
	"github.com/postrider/postrider/internal/netserve"
	"github.com/postrider/postrider/store"
)

// state is the state of a session (RFC 9051 §3), as a bit so that the command
// table can name several.
type state uint8

const (
	notAuthenticated state = 1 << iota
	authenticated
	selected

	anyState   = notAuthenticated | authenticated | selected
	afterLogin = authenticated | selected
	loggedOut  = state(0)
)

// session is one connection. All of it belongs to one goroutine, but for
// transport.wakeUp.
type session struct {
	srv *Server
	t   transport
	br  *bufio.Reader
	dec *imapwire.Decoder
	enc *imapwire.Encoder
	ctx context.Context
	// expire ends ctx when the login has one; nil = it has none.
	expire context.CancelFunc
	log    *slog.Logger

	state   state
	tls     *tls.ConnectionState
	cert    *x509.Certificate // what we sent, if it is known
	loginBy time.Time         // zero = no limit
	id      login.Identity
	acc     store.Account
	rev2    bool // ENABLE IMAP4rev2
	utf8    bool // ENABLE UTF8=ACCEPT
	box     *mailbox
	errors  int

	tag  string // of the command that runs
	name string // its name, "UID FETCH"
}

// handle serves one connection.
func (srv *Server) handle(nc *netserve.Conn) {
	s := &session{
		srv:   srv,
		ctx:   nc.Context(),
		state: notAuthenticated,
		log:   srv.log().With("protocol", "imap", "remote", remote(nc)),
	}
	s.t = transport{nc: nc, conn: nc.Conn, perIO: limit(srv.CommandTimeout, 2*time.Minute)}
	s.dec, s.enc = imapwire.NewDecoder(nil), imapwire.NewEncoder(nil)
	s.takeBuffers()
	s.dec.MaxLine, s.dec.MaxLiteral = srv.MaxLine, min(srv.literalLimit(), loginLiteral)
	s.dec.Continue = s.continueLiteral
	if d := limit(srv.LoginTimeout, 2*time.Minute); d > 0 {
		s.loginBy = time.Now().Add(d)
	}
	defer s.close()
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in a session", "panic", p, "command", s.name, "stack", string(debug.Stack()))
			s.bye("SERVERBUG", "Internal error")
		}
	}()
	if err := s.run(); err != nil {
		s.log.Debug("connection ended", "error", err)
	}
}

// What a stranger may make the server take before the login: octets of
// literals in memory, and octets of a command that are read away.
const (
	loginLiteral = 8 << 10
	loginDiscard = 1 << 20
)

// literalLimit is MaxLiteral without the special values.
func (s *Server) literalLimit() int64 { return atMost(s.MaxLiteral, 256<<10, math.MaxInt64) }

func remote(nc net.Conn) string {
	if a := nc.RemoteAddr(); a != nil {
		return a.String()
	}
	return ""
}

// close gives back what the session holds.
func (s *session) close() {
	s.unselect()
	if s.expire != nil {
		s.expire()
	}
	s.t.bw.Flush()
	s.releaseBuffers()
	s.t.conn.Close()
}

// bye says goodbye and ends the session.
func (s *session) bye(code imap.Code, text string) error {
	s.state = loggedOut
	s.enc.Atom("* BYE ")
	if code != "" {
		s.enc.Special('[').Atom(string(code)).Atom("] ")
	}
	s.enc.Atom(text).CRLF()
	return s.enc.Flush()
}

// run greets and serves commands until the end.
func (s *session) run() error {
	if s.srv.ImplicitTLS {
		if err := s.handshake(); err != nil {
			return err
		}
	}
	greeting := s.srv.Greeting
	if greeting == "" {
		greeting = "Postrider ready"
	}
	s.enc.Atom("* OK [CAPABILITY")
	s.writeCaps()
	s.enc.Atom("] ").Atom(greeting).CRLF()
	for s.state != loggedOut {
		if err := s.awaitCommand(); err != nil {
			return err
		}
		if s.state == loggedOut {
			break
		}
		if err := s.serveCommand(); err != nil {
			return err
		}
	}
	return s.enc.Flush()
}

// awaitCommand returns when the first octet of a command is there. It says
// BYE, and leaves the state loggedOut, when none comes in time or the server
// shuts down.
func (s *session) awaitCommand() error {
	if s.br.Buffered() > 0 {
		// Pipelined: nothing to wait for.
		select {
		case <-s.t.nc.Drain:
			return s.bye("", "Server is shutting down")
		default:
			return nil
		}
	}
	until := s.loginBy
	if s.state != notAuthenticated {
		until = s.idleEnd()
	}
	for {
		err := s.waitInput(until)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, io.EOF):
			s.state = loggedOut
			return nil
		case errors.Is(err, errDraining):
			return s.bye("", "Server is shutting down")
		case !isTimeout(err):
			return err
		case s.t.takeWoken():
			// A shutdown, or news that came as IDLE ended.
		case s.state == notAuthenticated:
			return s.bye("", "Too slow to log in")
		case s.ctx.Err() != nil:
			return s.bye("", "The login has expired")
		default:
			return s.bye("", "Autologout; idle for too long")
		}
	}
}

var errDraining = errors.New("server is shutting down")

// waitInput flushes and waits until there is something to read, or it is
// woken: then the error is a timeout and transport.takeWoken true.
func (s *session) waitInput(until time.Time) error {
	if s.br.Buffered() > 0 {
		return nil
	}
	if err := s.enc.Flush(); err != nil {
		return err
	}
	if !s.srv.conns.Idle(s.t.nc, s.t.wakeUp) {
		return errDraining
	}
	defer s.srv.conns.Busy(s.t.nc)
	s.t.wait(true, until)
	defer s.t.wait(false, s.loginBy)
	s.releaseBuffers()
	defer s.takeBuffers()
	return s.t.readFirst()
}

// idleEnd is when a session that does nothing ends: a login's own end is one.
func (s *session) idleEnd() time.Time {
	end := s.id.Expires
	if d := limit(s.srv.IdleTimeout, 31*time.Minute); d > 0 {
		if t := time.Now().Add(d); end.IsZero() || t.Before(end) {
			end = t
		}
	}
	return end
}

// releaseBuffers gives the buffers away while the session waits: the reader's
// is empty, and the writer's was flushed.
func (s *session) releaseBuffers() {
	s.t.bw.Reset(nil)
	writers.Put(s.t.bw)
	s.br.Reset(nil)
	readers.Put(s.br)
	s.t.bw, s.br = nil, nil
}

func (s *session) takeBuffers() {
	s.t.bw = writers.Get().(*bufio.Writer)
	s.t.bw.Reset(&s.t)
	s.enc.Reset(s.t.bw)
	s.br = readers.Get().(*bufio.Reader)
	s.br.Reset(&s.t)
	s.dec.Reset(s.br)
}

// continueLiteral asks for a synchronising literal.
func (s *session) continueLiteral(*imapwire.Literal) error {
	s.enc.Atom("+ go ahead").CRLF()
	return s.enc.Flush()
}

// serveCommand reads one command, runs it and answers.
func (s *session) serveCommand() error {
	s.dec.Begin()
	s.t.begin()
	s.tag, s.name = "*", ""
	var tag, name string
	if !s.dec.ExpectTag(&tag) {
		return s.refuseCommand(s.dec.Err())
	}
	s.tag = tag
	if !s.dec.ExpectSP() || !s.dec.ExpectKeyword(&name) {
		return s.refuseCommand(s.dec.Err())
	}
	s.name = name
	if name == "UID" {
		var sub string
		if !s.dec.ExpectSP() || !s.dec.ExpectKeyword(&sub) {
			return s.refuseCommand(s.dec.Err())
		}
		s.name = "UID " + sub
	}
	cmd, ok := commands[s.name]
	if !ok {
		return s.refuseCommand(&imap.Error{Type: imap.BAD, Text: "Unknown command"})
	}
	if cmd.states&s.state == 0 {
		return s.refuseCommand(s.wrongState(cmd))
	}
	res, err := cmd.run(s)
	if err != nil {
		return s.refuseCommand(err)
	}
	return s.complete(cmd, res)
}

func (s *session) wrongState(cmd command) error {
	text := "Log in first"
	switch {
	case s.state&afterLogin != 0 && cmd.states == notAuthenticated:
		text = "Already logged in"
	case s.state == authenticated && cmd.states == selected:
		text = "Select a mailbox first"
	case s.state == selected && cmd.states == authenticated:
		text = "Not while a mailbox is selected"
	}
	return &imap.Error{Type: imap.BAD, Text: text}
}

// refuseCommand answers a command that failed, and brings the connection back
// in step. The error that it returns ends the session.
func (s *session) refuseCommand(err error) error {
	var fatal *fatalError
	if errors.As(err, &fatal) {
		return err
	}
	if derr := s.dec.Err(); derr != nil && isWireError(derr) {
		if isTimeout(derr) {
			return s.bye("", "Too slow")
		}
		return derr
	}
	max := atMost(s.srv.MaxMessage, defaultMaxMessage, 1<<62)
	if s.state == notAuthenticated {
		max = min(max, loginDiscard)
	}
	if derr := s.dec.Discard(max); derr != nil {
		e := s.replyTo(err)
		s.writeStatus(s.tag, e)
		if isWireError(derr) {
			s.enc.Flush()
			return derr
		}
		return s.bye(imap.CodeTooBig, "Command too long")
	}
	e := s.replyTo(err)
	if e.Type == imap.NO && s.state == selected {
		// What others did is told on NO as well.
		if uerr := s.update(!commands[s.name].keepNumbers); uerr != nil || s.state == loggedOut {
			return uerr
		}
	}
	if err := s.writeStatus(s.tag, e); err != nil {
		return err
	}
	if e.Type == imap.BYE {
		s.state = loggedOut
		return nil
	}
	if e.Type == imap.BAD || e.Code == imap.CodeAuthenticationFailed {
		s.errors++
		if most := limit(s.srv.MaxErrors, 20); most > 0 && s.errors >= most {
			return s.bye("", "Too many errors")
		}
	}
	return nil
}

// complete ends a command that went well: what happened in the mailbox, then
// the tagged OK.
func (s *session) complete(cmd command, res result) error {
	if s.state == selected && !res.quiet {
		if cmd.sync {
			s.box.changed.Store(true)
		}
		if err := s.update(!cmd.keepNumbers); err != nil {
			return err
		}
		if s.state == loggedOut {
			return nil
		}
	}
	if s.state != notAuthenticated {
		s.errors = 0 // of a user only those in a row count
	}
	if res.silent {
		return s.enc.Err()
	}
	text := res.text
	if text == "" {
		text = s.name + " completed"
	}
	e := &imap.Error{Type: imap.OK, Code: res.code, Arg: res.arg, Text: text}
	return s.writeStatus(s.tag, e)
}

// writeStatus writes a status response.
func (s *session) writeStatus(tag string, e *imap.Error) error {
	if e.Type == imap.BYE {
		tag = "*"
	}
	s.enc.Atom(tag).SP().Atom(string(e.Type)).SP()
	if e.Code != "" {
		s.enc.Special('[').Atom(string(e.Code))
		if e.Arg != "" {
			s.enc.SP().Atom(e.Arg)
		}
		s.enc.Atom("] ")
	}
	return s.enc.Atom(e.Text).CRLF()
}

// oneLine makes text safe to stand at the end of a response line.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
}

// loginConn tells mechanisms of the connection.
func (s *session) loginConn() *login.Conn {
	c := &login.Conn{
		Protocol: "imap",
		Local:    netserve.AddrPort(s.t.nc.LocalAddr()),
		Remote:   netserve.AddrPort(s.t.nc.RemoteAddr()),
		TLS:      s.tls,
		Cert:     s.cert,
	}
	return c
}

// mechanisms are those that may be used now.
func (s *session) mechanisms() []string {
	if s.srv.Auth == nil {
		return nil
	}
	m := s.srv.Auth.Mechanisms(s.loginConn())
	if s.tls != nil || s.srv.InsecureAuth {
		return m
	}
	return slices.DeleteFunc(slices.Clone(m), login.Cleartext)
}

// fatalError ends the session at once: the connection is out of step.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

func fatalf(format string, args ...any) error { return &fatalError{fmt.Errorf(format, args...)} }
