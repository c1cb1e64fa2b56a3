// Package netserve is the accept loop, connection set and shutdown that the
// SMTP, POP3 and IMAP servers share.
package netserve

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// ErrClosed is what Serve returns after Shutdown or Close.
var ErrClosed = errors.New("server closed")

// Conns is the set of a server's listeners and connections. The zero value is
// ready. All methods may be called from many goroutines.
type Conns struct {
	mu        sync.Mutex
	wg        sync.WaitGroup
	closing   bool // Shutdown or Close was called: nothing new is taken
	cut       bool // Close was called
	listeners map[*listener]struct{}
	conns     map[*Conn]struct{}
	perIP     map[netip.Addr]int
	drained   chan struct{}
}

type listener struct{ net.Listener }

// Limits bound how many connections there are at once; 0 = no limit.
type Limits struct {
	Total, PerIP int
}

// Conn is one connection while it is served.
type Conn struct {
	net.Conn
	// Drain is closed when Shutdown was called: end at the next command
	// boundary.
	Drain  <-chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	ip     netip.Addr
	idle   func()
	idleOn bool
}

// Context ends when the server is closed or the connection's handler returns.
func (c *Conn) Context() context.Context { return c.ctx }

// Serve accepts on l until Shutdown or Close, and runs handle in a goroutine
// for each connection; the connection is closed when handle returns. refuse,
// when not nil, is called instead for one over the limits; it must be short.
// Serve returns ErrClosed after Shutdown and Close, else the listener's error.
func (s *Conns) Serve(l net.Listener, lim Limits, handle func(*Conn), refuse func(net.Conn)) error {
	ln := &listener{l}
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		l.Close()
		return ErrClosed
	}
	if s.listeners == nil {
		s.listeners = map[*listener]struct{}{}
	}
	s.listeners[ln] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, ln)
		s.mu.Unlock()
		l.Close()
	}()
	var wait time.Duration
	for {
		nc, err := l.Accept()
		if err != nil {
			s.mu.Lock()
			closing := s.closing
			s.mu.Unlock()
			if closing {
				return ErrClosed
			}
			// Out of file descriptors and the like pass: wait a little, as
			// net/http does, and go on.
			if ne, ok := err.(interface{ Temporary() bool }); ok && ne.Temporary() {
				wait = min(max(2*wait, 5*time.Millisecond), time.Second)
				time.Sleep(wait)
				continue
			}
			return err
		}
		wait = 0
		c, err := s.add(nc, lim)
		if err != nil {
			if refuse != nil && !errors.Is(err, ErrClosed) {
				nc.SetDeadline(time.Now().Add(time.Second))
				refuse(nc)
			}
			nc.Close()
			continue
		}
		go s.run(c, handle)
	}
}

// ServeConn runs handle for one connection on the caller's goroutine, as
// Serve would: for net.Pipe, inetd and tests.
func (s *Conns) ServeConn(nc net.Conn, handle func(*Conn)) error {
	c, err := s.add(nc, Limits{})
	if err != nil {
		nc.Close()
		return err
	}
	s.run(c, handle)
	return nil
}

var errLimit = errors.New("too many connections")

func (s *Conns) add(nc net.Conn, lim Limits) (*Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, ErrClosed
	}
	if s.conns == nil {
		s.conns = map[*Conn]struct{}{}
		s.perIP = map[netip.Addr]int{}
	}
	if s.drained == nil {
		s.drained = make(chan struct{})
	}
	c := &Conn{Conn: nc, ip: AddrPort(nc.RemoteAddr()).Addr(), Drain: s.drained}
	if lim.Total > 0 && len(s.conns) >= lim.Total || lim.PerIP > 0 && s.perIP[c.ip] >= lim.PerIP {
		return nil, errLimit
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	s.conns[c] = struct{}{}
	s.perIP[c.ip]++
	s.wg.Add(1)
	return c, nil
}

func (s *Conns) run(c *Conn, handle func(*Conn)) {
	defer s.wg.Done()
	defer func() {
		c.cancel()
		c.Conn.Close()
		s.mu.Lock()
		delete(s.conns, c)
		if s.perIP[c.ip]--; s.perIP[c.ip] <= 0 {
			delete(s.perIP, c.ip)
		}
		s.mu.Unlock()
	}()
	handle(c)
}

// Idle says that the connection waits for a command and that wake may be
// called, once and from another goroutine, to make it notice Drain. It
// returns false when the server is draining already.
func (s *Conns) Idle(c *Conn, wake func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	c.idle, c.idleOn = wake, true
	return true
}

// Busy takes Idle back.
func (s *Conns) Busy(c *Conn) {
	s.mu.Lock()
	c.idleOn = false
	s.mu.Unlock()
}

// Len returns the number of connections.
func (s *Conns) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Shutdown closes the listeners, wakes idle connections so that they say
// goodbye, and waits until every handler has returned or ctx is done. After
// ctx it returns its error and leaves the rest running; Close cuts them.
func (s *Conns) Shutdown(ctx context.Context) error {
	s.stop(false)
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close closes listeners and connections, ends their contexts, and returns
// when every handler has returned. It may be called more than once.
func (s *Conns) Close() error {
	s.stop(true)
	s.wg.Wait()
	return nil
}

func (s *Conns) stop(cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.closing = true
		if s.drained == nil {
			s.drained = make(chan struct{})
		}
		close(s.drained)
	}
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		if cut {
			c.cancel()
			c.Conn.Close()
		} else if c.idleOn {
			c.idleOn = false
			c.idle()
		}
	}
	s.cut = s.cut || cut
}

// AddrPort returns the IP address and port of a, or the zero value (net.Pipe,
// Unix sockets). IPv4 in IPv6 is unmapped.
func AddrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	if a == nil {
		return netip.AddrPort{}
	}
	ap, _ := netip.ParseAddrPort(a.String())
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
