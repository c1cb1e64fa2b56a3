package smtptest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// TB is the part of testing.TB that New needs.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Server is an SMTP server on loopback that takes every message and keeps it.
// The zero Server is ready for Start. It may be used from many goroutines.
type Server struct {
	// Addr is the address it listens on, host:port, after Start.
	Addr string
	// Hostname is its name; "" = "mx.test".
	Hostname string
	// STARTTLS offers TLS (RFC 3207), ImplicitTLS begins with it. The
	// certificate is for Hostname, localhost and the loopback addresses, and
	// is made at the start, unless Certificate is set; see ClientTLS.
	STARTTLS, ImplicitTLS bool
	Certificate           *tls.Certificate
	// LMTP speaks LMTP.
	LMTP bool
	// Users may log in, name to password, also without TLS, by the
	// Mechanisms named: nil = PLAIN and LOGIN; SCRAM-SHA-256, SCRAM-SHA-1,
	// CRAM-MD5, OAUTHBEARER and XOAUTH2 are there too. A token is the user's
	// password. RequireAuth takes no mail from others.
	Users       map[string]string
	Mechanisms  []string
	RequireAuth bool
	// Without are extensions not to announce, such as "PIPELINING"; With are
	// more to announce, such as "REQUIRETLS", "BINARYMIME" or "DELIVERBY 60":
	// see smtpserver.Server.Extensions.
	With, Without []string
	// MaxRecipients is how many recipients a message may have,
	// MaxMessageBytes its size in octets; 0 = the defaults of
	// smtpserver.Server.
	MaxRecipients   int
	MaxMessageBytes int64

	tb          TB
	once        sync.Once
	accountOnce sync.Once
	accounts    login.All
	cert        tls.Certificate
	root        *tls.Config
	err         error

	mu       sync.Mutex
	wg       sync.WaitGroup
	closed   bool
	listener net.Listener
	conns    map[net.Conn]struct{}
	count    int // connections so far
	faults   []*Fault
	messages []*Message
	arrived  chan struct{} // closed and replaced when a message arrives
}

// New starts a Server that the end of the test closes. It fails the test when
// it cannot listen, and Wait fails it when the messages do not come.
func New(t TB) *Server {
	t.Helper()
	return new(Server).Run(t)
}

// Run starts s as New does, with its settings:
//
//	srv := (&smtptest.Server{STARTTLS: true}).Run(t)
func (s *Server) Run(t TB) *Server {
	t.Helper()
	s.tb = t
	if err := s.Start(); err != nil {
		t.Fatalf("smtptest: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Start listens on a free port of 127.0.0.1 and serves until Close.
func (s *Server) Start() error {
	s.once.Do(s.prepare)
	if s.err != nil {
		return s.err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed || s.listener != nil {
		s.mu.Unlock()
		l.Close()
		return errors.New("smtptest: server was started before")
	}
	s.listener = l
	s.Addr = l.Addr().String()
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s.serve(nc)
		}
	}()
	return nil
}

// DialContext opens a connection to s in memory, whatever the address. It
// fits where a net.Dialer's does, and needs no Start.
func (s *Server) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	s.once.Do(s.prepare)
	if s.err != nil {
		return nil, s.err
	}
	ours, theirs := net.Pipe()
	if !s.serve(ours) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
	}
	return theirs, nil
}

// Close ends all connections and returns when their handlers have. What was
// kept stays. It may be called more than once.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	if s.listener != nil {
		s.listener.Close()
	}
	for nc := range s.conns {
		nc.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

// ClientTLS returns a configuration that trusts the server's certificate, nil
// when it has none; one that was given it trusts as any client does.
// ServerName is left to the client.
func (s *Server) ClientTLS() *tls.Config {
	s.once.Do(s.prepare)
	if s.root == nil {
		return nil
	}
	return s.root.Clone()
}

// Connections returns how many connections there have been.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

func (s *Server) hostname() string {
	if s.Hostname == "" {
		return "mx.test"
	}
	return s.Hostname
}

func (s *Server) prepare() {
	s.conns = map[net.Conn]struct{}{}
	s.arrived = make(chan struct{})
	if !s.STARTTLS && !s.ImplicitTLS {
		return
	}
	if s.Certificate != nil {
		s.cert, s.root = *s.Certificate, &tls.Config{}
		return
	}
	cert, pool, err := Certificate(s.hostname(), "localhost", "127.0.0.1", "::1")
	if err != nil {
		s.err = fmt.Errorf("smtptest: %w", err)
		return
	}
	s.cert, s.root = cert, &tls.Config{RootCAs: pool}
}

// serve runs one connection in a goroutine of its own; false after Close.
func (s *Server) serve(nc net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		nc.Close()
		return false
	}
	s.count++
	s.conns[nc] = struct{}{}
	s.wg.Go(func() {
		defer func() {
			nc.Close()
			s.mu.Lock()
			delete(s.conns, nc)
			s.mu.Unlock()
		}()
		// A server for each connection: its sessions know their transport,
		// to cut it.
		srv := &smtpserver.Server{
			Hostname:      s.hostname(),
			LMTP:          s.LMTP,
			ImplicitTLS:   s.ImplicitTLS,
			RequireAuth:   s.RequireAuth,
			MaxRecipients: s.MaxRecipients,
			Log:           slog.New(slog.DiscardHandler),
			Backend: smtpserver.BackendFunc(func(ctx context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
				return s.session(ctx, c, nc)
			}),
			MaxMessageBytes: s.MaxMessageBytes,
		}
		if s.With != nil {
			srv.Extensions = append(smtpserver.DefaultExtensions(), s.With...)
		}
		if s.root != nil {
			srv.TLS = &tls.Config{
				Certificates: []tls.Certificate{s.cert},
				GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
					return nil, s.hit(h.Context(), TLS, "", nc)
				},
			}
		}
		if s.Users != nil {
			srv.Auth = s.auth(nc)
			srv.InsecureAuth = true
			srv.AuthDelay = -1 // nobody guesses here
		}
		srv.ServeConn(nc)
	})
	return true
}

func (s *Server) session(ctx context.Context, c *smtpserver.Conn, nc net.Conn) (smtpserver.Session, error) {
	if err := s.hit(ctx, Connect, nc.RemoteAddr().String(), nc); err != nil {
		return nil, err
	}
	return &session{s: s, c: c, nc: nc}, nil
}

// extensions removes what is not to be announced.
func (s *Server) extensions(offered []string) []string {
	return slices.DeleteFunc(slices.Clone(offered), func(e string) bool { return slices.Contains(s.Without, e) })
}
