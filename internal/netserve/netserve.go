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
	started   bool          // the fields below are made
	closing   bool          // Shutdown or Close was called: nothing new is taken
	drain     chan struct{} // closed with closing
	empty     chan struct{} // closed when closing and the last handler has returned
	listeners map[*listener]struct{}
	conns     map[*Conn]struct{}
	perIP     map[netip.Addr]int
}

type listener struct{ net.Listener }

// Limits bound how many connections there are at once; 0 = no limit.
type Limits struct {
	Total int
	// PerIP counts an IPv6 address by its /64, which one host usually has
	// whole. Connections without an IP address are not counted.
	PerIP int
}

// Conn is one connection while it is served.
type Conn struct {
	net.Conn
	// Drain is closed when Shutdown or Close was called: end at the next
	// command boundary.
	Drain  <-chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	ip     netip.Addr // zero = not counted

	mu       sync.Mutex
	wake     func() // set while the connection waits for a command
	draining bool
}

// Context ends when the server is closed or the connection's handler returns.
func (c *Conn) Context() context.Context { return c.ctx }

// Serve accepts on l until Shutdown or Close, and runs handle in a goroutine
// for each connection; the connection is closed when handle returns. refuse,
// when not nil, is called instead for one over the limits; it must be short.
// Serve closes l, and returns ErrClosed after Shutdown and Close, else the
// listener's error.
func (s *Conns) Serve(l net.Listener, lim Limits, handle func(*Conn), refuse func(net.Conn)) error {
	ln := &listener{l}
	defer l.Close()
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return ErrClosed
	}
	s.start()
	s.listeners[ln] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, ln)
		s.mu.Unlock()
	}()
	var wait time.Duration
	for {
		nc, err := l.Accept()
		if err != nil {
			select {
			case <-s.drain:
				return ErrClosed
			default:
			}
			// Out of file descriptors and the like pass: wait a little, as
			// net/http does, and go on.
			if ne, ok := errors.AsType[interface {
				error
				Temporary() bool
			}](err); ok && ne.Temporary() {
				wait = min(max(2*wait, 5*time.Millisecond), time.Second)
				t := time.NewTimer(wait)
				select {
				case <-t.C:
				case <-s.drain:
					t.Stop()
					return ErrClosed
				}
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
// Serve would: for net.Pipe, inetd and tests. It returns ErrClosed when the
// server is closed already.
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

// start makes the fields of the zero value; s.mu is held.
func (s *Conns) start() {
	if s.started {
		return
	}
	s.started = true
	s.drain = make(chan struct{})
	s.empty = make(chan struct{})
	s.listeners = map[*listener]struct{}{}
	s.conns = map[*Conn]struct{}{}
	s.perIP = map[netip.Addr]int{}
}

func (s *Conns) add(nc net.Conn, lim Limits) (*Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, ErrClosed
	}
	s.start()
	ip := AddrPort(nc.RemoteAddr()).Addr()
	if ip.Is6() {
		p, _ := ip.WithZone("").Prefix(64)
		ip = p.Addr()
	}
	c := &Conn{Conn: nc, ip: ip, Drain: s.drain}
	if lim.Total > 0 && len(s.conns) >= lim.Total || lim.PerIP > 0 && ip.IsValid() && s.perIP[ip] >= lim.PerIP {
		return nil, errLimit
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	s.conns[c] = struct{}{}
	if ip.IsValid() {
		s.perIP[ip]++
	}
	return c, nil
}

func (s *Conns) run(c *Conn, handle func(*Conn)) {
	defer func() {
		c.cancel()
		c.Conn.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
		if c.ip.IsValid() {
			if s.perIP[c.ip]--; s.perIP[c.ip] <= 0 {
				delete(s.perIP, c.ip)
			}
		}
		if s.closing && len(s.conns) == 0 {
			close(s.empty)
		}
	}()
	handle(c)
}

// Idle says that the connection waits for a command and that wake may be
// called, at most once and from another goroutine, to make it notice Drain.
// It returns false when the server is draining already.
func (s *Conns) Idle(c *Conn, wake func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return false
	}
	c.wake = wake
	return true
}

// Busy takes Idle back. When it returns, wake has returned or is never called.
func (s *Conns) Busy(c *Conn) {
	c.mu.Lock()
	c.wake = nil
	c.mu.Unlock()
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
	select {
	case <-s.empty:
		return nil
	default:
	}
	select {
	case <-s.empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close closes listeners and connections, ends their contexts, and returns
// when every handler has returned. It may be called more than once.
func (s *Conns) Close() error {
	s.stop(true)
	<-s.empty
	return nil
}

func (s *Conns) stop(cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start()
	if !s.closing {
		s.closing = true
		close(s.drain)
		if len(s.conns) == 0 {
			close(s.empty)
		}
	}
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		if cut {
			c.cancel()
			c.Conn.Close()
			continue
		}
		c.mu.Lock()
		c.draining = true
		if c.wake != nil {
			c.wake()
			c.wake = nil
		}
		c.mu.Unlock()
	}
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
