package smtpserver

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/internal/netserve"
)

// ErrServerClosed is what Serve and ServeConn return after Shutdown or Close.
var ErrServerClosed = netserve.ErrClosed

// Server is an ESMTP or LMTP server. &Server{Backend: b} works. All fields
// are read-only once it serves. In every limit 0 means the default and a
// negative value no limit.
type Server struct {
	Backend  Backend
	Hostname string // banner, EHLO and Received; "" = os.Hostname
	LMTP     bool   // LHLO instead of EHLO, a reply for each recipient (RFC 2033)

	// TLS turns STARTTLS on (RFC 3207); with ImplicitTLS the handshake comes
	// first instead (RFC 8314 §3.3).
	TLS         *tls.Config
	ImplicitTLS bool

	// Auth turns AUTH on (RFC 4954). Without TLS only SCRAM is offered of its
	// mechanisms, since the others show a secret to the wire, unless
	// InsecureAuth is set.
	Auth         login.Authenticator
	InsecureAuth bool
	RequireAuth  bool // 530 to MAIL before AUTH: a submission server (RFC 6409 §4.3)

	// AuthAttempts is how many logins may fail before the connection is
	// closed; 0 = 3. AuthDelay is how long the first failure is held back,
	// doubled with each further one up to 30 s; 0 = 1 s.
	AuthAttempts int
	AuthDelay    time.Duration

	// MaxConnections and MaxConnectionsPerIP bound the connections of Serve
	// at one time; one more gets 421. 0 = 1,000 and 100. An IPv6 address
	// counts by its /64.
	MaxConnections, MaxConnectionsPerIP int

	// MaxMessageBytes is the largest message in octets (RFC 1870), announced
	// in EHLO; 0 = 50 MiB.
	MaxMessageBytes int64
	MaxRecipients   int // recipients of one message, 452 4.5.3 after; 0 = 1,000
	// MaxMessages is how many messages may begin on one connection, 421 at the
	// next MAIL; announced with LIMITS (RFC 9422), so that a client opens
	// another connection in time. 0 = no limit.
	MaxMessages int
	// MaxLine is the longest command line in octets, its CRLF included;
	// 0 = 4,096, and 1 MiB stays the bound without a limit. What AUTH sends
	// may have 12,288 (RFC 4954 §4).
	MaxLine int
	// MaxTextLine is the longest line of a message in octets, its CRLF
	// included. RFC 5321 §4.5.3.1.6 names 1,000 and asks for no limit where
	// that is possible, and HTML mail goes far over it; 0 = 65,536.
	MaxTextLine int
	// MaxErrors is how many malformed, unknown or misplaced commands may come
	// without a message accepted between them; MaxCommands the same of all
	// commands but accepted recipients, which bounds the guessing of
	// addresses. 421 after that; 0 = 20 and 500.
	MaxErrors, MaxCommands int

	// MaxHeaderBytes is the largest header of a message in octets; 0 = 1 MiB.
	MaxHeaderBytes int64
	// MinDataRate is how fast a message must come, in octets a second, once it
	// has kept us waiting for Timeout; 0 = 256.
	MinDataRate int64

	// LineEnds says what becomes of a bare CR, a bare LF and a NUL in a
	// message; the zero value refuses it.
	LineEnds LineEnds

	// Extensions are what may be announced, each a keyword of package smtp
	// with its parameters behind a space; nil = DefaultExtensions, all that
	// need no promise of the backend. To name one more is to promise that
	// sessions keep it:
	//
	//	BINARYMIME          Data takes a message that is no text
	//	REQUIRETLS          it is relayed under TLS only (RFC 8689); announced under TLS
	//	DELIVERBY 60        in time, or not at all; the least seconds of BY=…;R (RFC 2852)
	//	FUTURERELEASE 86400 not before (RFC 4865), the longest hold in seconds; with RequireAuth only
	//	MT-PRIORITY MIXER   the profile's name is optional (RFC 6710)
	//	RRVS                the owner of a mailbox is looked at (RFC 7293)
	//	NO-SOLICITING a:B   and the classes not wanted (RFC 3865)
	//
	// A keyword that is not known here is announced as it is. STARTTLS, AUTH,
	// VRFY, EXPN, HELP, ETRN, XCLIENT and XFORWARD follow TLS, Auth, the
	// session's methods and Trusted instead. An ExtensionSession can decline.
	Extensions []string

	// Trusted are the peers, proxies and filters of ours, that may speak for
	// others with XCLIENT and XFORWARD and raise MT-PRIORITY without a login.
	Trusted []netip.Prefix

	// BannerDelay is how long the banner is held back; who talks meanwhile is
	// turned away with 554. 0 = not at all.
	BannerDelay time.Duration
	// ErrorDelay is how long the reply to each wrong command after the second
	// is held back; 0 = not at all.
	ErrorDelay time.Duration

	// Trace, when not nil, is told what happens.
	Trace *Trace

	// Timeout is how long the peer may take for its next command, for each
	// further part of a message, and to take our replies; 0 = 5 minutes
	// (RFC 5321 §4.5.3.2.7).
	Timeout time.Duration
	// HandshakeTimeout bounds the TLS handshake; 0 = 30 s.
	HandshakeTimeout time.Duration
	// SessionTimeout bounds the whole connection; 0 = 2 hours.
	SessionTimeout time.Duration

	// Log gets a line for each message, failed login and failed handshake at
	// Info, for a connection over the limits at Warn, for a failure of the
	// program at Error, and the rest at Debug. Nothing of a message's text
	// and no password is in it. nil = slog.Default().
	Log *slog.Logger

	conns                netserve.Conns
	readers, dataReaders readers
	writers              sync.Pool // *bufio.Writer
	blocks               blocks
	once                 sync.Once
	name                 string // Hostname or its default
	handshakes           netserve.TLS
}

// Sizes of a connection's buffers, in octets: a usual group of commands
// arrives in one read, a usual message in one or two, and the replies to a
// group leave in one write.
const (
	readBuffer  = 4 << 10
	dataBuffer  = 32 << 10
	writeBuffer = 2 << 10
)

// Serve accepts connections on l until Shutdown or Close, and closes l. It
// returns ErrServerClosed then, else the listener's error. It may be called
// for several listeners.
func (s *Server) Serve(l net.Listener) error {
	s.prepare()
	lim := netserve.Limits{
		Total: orDefault(s.MaxConnections, 1000),
		PerIP: orDefault(s.MaxConnectionsPerIP, 100),
	}
	return s.conns.Serve(l, lim, s.handle, s.refuse)
}

// ServeConn serves one connection on the caller's goroutine and closes it:
// for net.Pipe, inetd and tests. MaxConnections does not apply. The error is
// ErrServerClosed after Shutdown or Close, else nil.
func (s *Server) ServeConn(nc net.Conn) error {
	s.prepare()
	return s.conns.ServeConn(nc, s.handle)
}

// Shutdown stops accepting, answers 421 to each connection at its next
// command boundary, and waits until all have ended: a message being sent is
// still received and answered. When ctx ends first its error is returned and
// the rest goes on; Close cuts it.
func (s *Server) Shutdown(ctx context.Context) error { return s.conns.Shutdown(ctx) }

// Close stops accepting, cuts all connections, ends the contexts of their
// sessions and returns when every session is closed. It may be called again.
func (s *Server) Close() error { return s.conns.Close() }

func (s *Server) prepare() {
	s.once.Do(func() {
		if s.name = s.Hostname; s.name == "" {
			if s.name, _ = os.Hostname(); s.name == "" {
				s.name = "localhost"
			}
		}
	})
}

func (s *Server) log() *slog.Logger {
	if s.Log != nil {
		return s.Log
	}
	return slog.Default()
}

// refuse tells a peer that there is no room. Before a TLS handshake there is
// no way to.
func (s *Server) refuse(nc net.Conn) {
	s.log().Warn("smtp: too many connections", "remote", nc.RemoteAddr())
	if !s.ImplicitTLS {
		nc.Write([]byte("421 4.7.0 Too many connections, try again later\r\n"))
	}
}

// handle runs one connection to its end.
func (s *Server) handle(base *netserve.Conn) {
	c := &Conn{srv: s, base: base, nc: base.Conn, lim: s.limits(), state: stateNew}
	c.peer = netserve.AddrPort(base.RemoteAddr())
	c.remote, c.local = c.peer, netserve.AddrPort(base.LocalAddr())
	c.prepareAwait()
	c.buffers()
	c.serve()
	if c.awaited.got == nil && c.w != nil {
		c.release()
	}
}

// limits are the Server's with their defaults filled in; 0 = no limit.
type limits struct {
	messageBytes, headerBytes, dataRate int64
	recipients, messages                int
	line, textLine                      int
	errors, commands, authAttempts      int
	timeout, handshake, session         time.Duration
	authDelay, bannerDelay, errorDelay  time.Duration
}

func (s *Server) limits() limits {
	l := limits{
		messageBytes: orDefault(s.MaxMessageBytes, 50<<20),
		recipients:   orDefault(s.MaxRecipients, 1000),
		messages:     max(s.MaxMessages, 0),
		line:         orDefault(s.MaxLine, 4096),
		textLine:     orDefault(s.MaxTextLine, 64<<10),
		errors:       orDefault(s.MaxErrors, 20),
		commands:     orDefault(s.MaxCommands, 500),
		authAttempts: orDefault(s.AuthAttempts, 3),
		timeout:      orDefault(s.Timeout, 5*time.Minute),
		handshake:    orDefault(s.HandshakeTimeout, 30*time.Second),
		session:      orDefault(s.SessionTimeout, 2*time.Hour),
		authDelay:    orDefault(s.AuthDelay, time.Second),
		headerBytes:  orDefault(s.MaxHeaderBytes, 1<<20),
		dataRate:     orDefault(s.MinDataRate, 256),
		bannerDelay:  max(s.BannerDelay, 0),
		errorDelay:   max(s.ErrorDelay, 0),
	}
	return l
}

func orDefault[T int | int64 | time.Duration](v, def T) T {
	switch {
	case v == 0:
		return def
	case v < 0:
		return 0
	}
	return v
}
