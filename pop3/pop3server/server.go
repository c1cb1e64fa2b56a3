package pop3server

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/internal/netserve"
	"github.com/postrider/postrider/store"
)

// ErrServerClosed is what Serve and ServeConn return after Shutdown or Close.
var ErrServerClosed = netserve.ErrClosed

// Server is a POP3 server. &Server{Store: st, Auth: a, TLS: c} works; without
// TLS nobody can log in to it unless InsecureAuth is set. All fields are
// read-only once it serves. In every limit 0 means the default and a negative
// value no limit.
type Server struct {
	// Store has the mail: the maildrop is the Inbox of Identity.User's
	// account, unless Maildrop says otherwise.
	Store store.Store
	// Maildrop, when not nil, opens the maildrop of who logged in, instead
	// of Store. An error refuses the login; a *pop3.Error chooses the reply.
	Maildrop func(ctx context.Context, id login.Identity) (Maildrop, error)

	// Auth tells who the user is. Its mechanisms are offered with AUTH, and
	// PLAIN makes USER and PASS work too.
	Auth login.Authenticator
	// InsecureAuth lets passwords come over a connection without TLS.
	InsecureAuth bool

	// TLS turns STLS on; with ImplicitTLS the handshake comes first.
	TLS         *tls.Config
	ImplicitTLS bool

	MaxConnections      int           // at once; 0 = 10,000
	MaxConnectionsPerIP int           // at once; 0 = 50
	LoginTimeout        time.Duration // from the first octet to a login; 0 = 2 minutes
	IdleTimeout         time.Duration // after it, for the whole of the next command; 0 = 10 minutes, the least that RFC 1939 §3 allows
	WriteTimeout        time.Duration // for each 16 KiB that the client has to take; 0 = 2 minutes
	MaxLine             int           // octets of a command with its CRLF; 0 = 1024 (RFC 2449 §4 asks for 255)
	MaxErrors           int           // of a session, unknown or malformed; then it is cut; 0 = 20
	AuthAttempts        int           // that may fail before the connection is cut; 0 = 3
	MaxMessages         int           // that a session shows, the newest; 0 = 1,000,000

	// Log gets logins and failures, never passwords or mail. nil =
	// slog.Default().
	Log *slog.Logger

	conns      netserve.Conns
	handshakes netserve.TLS
	bufs       sync.Pool // of *[copySize]byte
}

const (
	copySize      = 32 << 10
	readSize      = 4 << 10
	writeSize     = 16 << 10
	maxSASLLine   = 12288 + 2 // RFC 5034 §4
	handshakeTime = time.Minute
)

// Serve accepts connections on l until Shutdown or Close, then returns
// ErrServerClosed; or until l fails, then its error. It closes l.
func (s *Server) Serve(l net.Listener) error {
	lim := netserve.Limits{
		Total: limit(s.MaxConnections, 10_000),
		PerIP: limit(s.MaxConnectionsPerIP, 50),
	}
	return s.conns.Serve(l, lim, s.handle, func(nc net.Conn) {
		if !s.ImplicitTLS {
			io.WriteString(nc, "-ERR [SYS/TEMP] too many connections\r\n")
		}
	})
}

// ServeConn serves one connection and returns at its end: for net.Pipe, inetd
// and tests. It returns ErrServerClosed after Shutdown or Close.
func (s *Server) ServeConn(nc net.Conn) error { return s.conns.ServeConn(nc, s.handle) }

// Shutdown closes the listeners, lets each session finish the command it is
// at, and waits until all have ended or ctx is done. A session that ends this
// way removes nothing (RFC 1939 §6).
func (s *Server) Shutdown(ctx context.Context) error { return s.conns.Shutdown(ctx) }

// Close closes listeners and connections and returns when every session has
// ended. It may be called more than once.
func (s *Server) Close() error { return s.conns.Close() }

func (s *Server) handle(nc *netserve.Conn) {
	c := newConn(s, nc)
	defer c.close()
	defer func() {
		if p := recover(); p != nil {
			s.log().Error("pop3: panic in a session", "user", c.id.User, "remote", nc.RemoteAddr(), "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if s.ImplicitTLS && !c.startTLS() {
		return
	}
	c.serve()
}

func (s *Server) log() *slog.Logger {
	if s.Log != nil {
		return s.Log
	}
	return slog.Default()
}

func (s *Server) buffer() *[copySize]byte {
	if b, ok := s.bufs.Get().(*[copySize]byte); ok {
		return b
	}
	return new([copySize]byte)
}

// limit returns v, the default for 0, and 0 (none) for a negative one.
func limit[T int | time.Duration](v, def T) T {
	switch {
	case v == 0:
		return def
	case v < 0:
		return 0
	}
	return v
}
