package smtpserver

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"github.com/postrider/postrider/auth/login"
)

// Conn is what a session may know of its connection. Its methods may be
// called from the session's methods only.
type Conn struct{}

// Hello returns the name given in EHLO, HELO or LHLO, "" before it.
func (c *Conn) Hello() string { panic("todo") }

// Hostname returns the server's own name.
func (c *Conn) Hostname() string { panic("todo") }

// Remote and Local are the addresses of the two ends; zero when the
// connection is not TCP.
func (c *Conn) Remote() netip.AddrPort { panic("todo") }
func (c *Conn) Local() netip.AddrPort  { panic("todo") }

// TLS returns the state of TLS, nil in plain text.
func (c *Conn) TLS() *tls.ConnectionState { panic("todo") }

// Identity returns who logged in.
func (c *Conn) Identity() (login.Identity, bool) { panic("todo") }

// Protocol returns the WITH keyword for Received (RFC 3848): SMTP, ESMTP,
// ESMTPS, ESMTPA, ESMTPSA, the UTF8 forms of RFC 6531, or LMTP…
func (c *Conn) Protocol() string { panic("todo") }

// Received returns a Received field for this connection, folded and with its
// final CRLF (RFC 5321 §4.4). id and forAddr may be "".
func (c *Conn) Received(id, forAddr string, at time.Time) []byte { panic("todo") }

// Server is an ESMTP or LMTP server. &Server{Backend: b} works. All fields
// are read-only once it serves. 0 = default, negative = no limit.
type Server struct {
	Backend  Backend
	Hostname string // banner, EHLO and Received; "" = os.Hostname
	LMTP     bool
	// TLS turns STARTTLS on; with ImplicitTLS the handshake comes first.
	TLS         *tls.Config
	ImplicitTLS bool
	// Auth turns AUTH on. Mechanisms that show the password to the wire
	// are offered only under TLS unless InsecureAuth is set.
	Auth         login.Authenticator
	InsecureAuth bool
	RequireAuth  bool // 530 to MAIL before AUTH: a submission server (RFC 6409 §4.3)
}

// Serve, ServeConn, Shutdown and Close.
func (s *Server) Serve(l net.Listener) error         { panic("todo") }
func (s *Server) ServeConn(nc net.Conn) error        { panic("todo") }
func (s *Server) Shutdown(ctx context.Context) error { panic("todo") }
func (s *Server) Close() error                       { panic("todo") }
