package imapserver

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/internal/netserve"
	"github.com/postrider/postrider/store"
)

// Server is an IMAP server. &Server{Store: st, Auth: auth} works. All fields
// are read-only once it serves. For numbers and durations 0 = default,
// negative = no limit.
type Server struct {
	// Store has the mail. The account is that of Identity.User unless Account
	// says otherwise.
	Store store.Store
	// Account, when not nil, opens the account of who logged in, instead of
	// Store. Sessions of one Identity.User must get the same account.
	Account func(ctx context.Context, id login.Identity) (store.Account, error)

	// Auth turns LOGIN and AUTHENTICATE on. What shows the password to the
	// wire is offered only under TLS unless InsecureAuth is set
	// (LOGINDISABLED, RFC 9051 §6.2.3).
	Auth         login.Authenticator
	InsecureAuth bool

	// TLS turns STARTTLS on; with ImplicitTLS the handshake comes first.
	TLS         *tls.Config
	ImplicitTLS bool

	// Greeting is the text of the first line; "" = "Postrider ready".
	Greeting string

	MaxConnections      int // default 10,000
	MaxConnectionsPerIP int // default 200

	MaxLine     int   // octets of a command outside its literals; default 64 KiB
	MaxLiteral  int64 // octets of all literals of a command but those of APPEND; default 256 KiB; before login at most 8 KiB
	MaxMessage  int64 // octets of a message to be appended (RFC 7889); default 64 MiB
	MaxMessages int   // messages of one APPEND (RFC 3502); default 100
	MaxErrors   int   // commands answered BAD and failed logins before BYE; default 20
	MaxKeys     int   // search keys of one SEARCH; default 1,000

	LoginTimeout time.Duration // from the first octet to a login; default 2 minutes
	IdleTimeout  time.Duration // without a command, and in IDLE (RFC 9051 §5.4: at least 30 minutes); default 31 minutes
	// CommandTimeout is for each read within a command and each write. A
	// command that goes on has to bring 1 KiB a second beside. Default 2
	// minutes.
	CommandTimeout time.Duration

	// Log takes what goes wrong; nil = slog.Default().
	Log *slog.Logger

	conns      netserve.Conns
	handshakes netserve.TLS
	views      store.Views
}

// ErrServerClosed is what Serve and ServeConn return after Shutdown or Close.
var ErrServerClosed = netserve.ErrClosed

// Serve accepts connections on l until Shutdown or Close, and returns
// ErrServerClosed then, else the error of l. It closes l.
func (s *Server) Serve(l net.Listener) error {
	lim := netserve.Limits{Total: limit(s.MaxConnections, 10000), PerIP: limit(s.MaxConnectionsPerIP, 200)}
	return s.conns.Serve(l, lim, s.handle, s.refuse)
}

// ServeConn serves one connection on the caller's goroutine and closes it:
// for net.Pipe, inetd and tests. nc must support read deadlines.
func (s *Server) ServeConn(nc net.Conn) error { return s.conns.ServeConn(nc, s.handle) }

// Shutdown stops listening, tells sessions BYE when their command has ended,
// idle ones at once, and returns when all have gone or ctx is done.
func (s *Server) Shutdown(ctx context.Context) error { return s.conns.Shutdown(ctx) }

// Close cuts all connections and returns when their sessions have ended. It
// may be called more than once.
func (s *Server) Close() error { return s.conns.Close() }

// refuse answers a connection over the limits.
func (s *Server) refuse(nc net.Conn) {
	if !s.ImplicitTLS {
		nc.Write([]byte("* BYE [UNAVAILABLE] Too many connections\r\n"))
	}
}

func (s *Server) log() *slog.Logger {
	if s.Log != nil {
		return s.Log
	}
	return slog.Default()
}

func (s *Server) account(ctx context.Context, id login.Identity) (store.Account, error) {
	if s.Account != nil {
		return s.Account(ctx, id)
	}
	return s.Store.Account(ctx, id.User)
}

// limit resolves a field: n, the default for 0, and 0 for no limit.
func limit[T int | int64 | time.Duration](n, def T) T {
	switch {
	case n == 0:
		return def
	case n < 0:
		return 0
	}
	return n
}

// atMost is limit for comparisons: no limit is the greatest number.
func atMost[T int | int64](n, def, most T) T {
	if n = limit(n, def); n == 0 {
		return most
	}
	return n
}
