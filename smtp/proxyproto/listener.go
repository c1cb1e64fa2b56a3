package proxyproto

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/postrider/postrider/internal/netserve"
)

// Listener accepts connections from proxies. All fields but Listener may be
// zero, and none may be changed once Accept was called.
type Listener struct {
	net.Listener
	// Trusted are the networks whose word is taken; none = nobody's.
	Trusted []netip.Prefix
	// Timeout is how long a trusted proxy may take for its header; 0 = 5 s,
	// negative = for ever.
	Timeout time.Duration
	// MaxPending is how many connections may await their header at one time;
	// one more waits in the system's queue. 0 = 1,000.
	MaxPending int
	// Log gets a line at Warn for each connection that sent no good header
	// and was closed, and one at Debug for a proxy that looked in without a
	// word. nil = slog.Default().
	Log *slog.Logger

	once    sync.Once
	ready   chan accepted
	closed  chan struct{}
	slots   chan struct{}
	closing sync.Once
	failed  error // of Close
	wg      sync.WaitGroup

	mu      sync.Mutex
	pending map[net.Conn]struct{} // nil once closed
}

type accepted struct {
	conn net.Conn
	err  error
}

const bufferSize = 512 // room for a usual header; the rest is read through it once

func (l *Listener) start() {
	n := l.MaxPending
	if n <= 0 {
		n = 1000
	}
	l.ready, l.closed = make(chan accepted), make(chan struct{})
	l.slots, l.pending = make(chan struct{}, n), map[net.Conn]struct{}{}
}

// Accept returns the next connection whose header has come, a *Conn, or the
// next one of a peer that is not trusted, as it is.
func (l *Listener) Accept() (net.Conn, error) {
	l.once.Do(func() {
		l.start()
		l.wg.Go(l.accept)
	})
	select {
	case a := <-l.ready:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close closes the listener and every connection whose header has not come,
// and returns when its goroutines have ended.
func (l *Listener) Close() error {
	l.once.Do(l.start)
	l.closing.Do(func() {
		close(l.closed)
		l.failed = l.Listener.Close()
		l.mu.Lock()
		for c := range l.pending {
			c.Close()
		}
		l.pending = nil
		l.mu.Unlock()
	})
	l.wg.Wait()
	return l.failed
}

// accept hands out connections; each that must send a header first gets a
// goroutine for as long as that takes.
func (l *Listener) accept() {
	for {
		select {
		case l.slots <- struct{}{}:
		case <-l.closed:
			return
		}
		c, err := l.Listener.Accept()
		switch {
		case err != nil:
			<-l.slots
			if !l.hand(accepted{err: err}) {
				return
			}
		case !l.trusted(c):
			<-l.slots
			if !l.hand(accepted{conn: c}) {
				c.Close()
				return
			}
		case !l.track(c):
			c.Close()
			return
		default:
			l.wg.Go(func() {
				defer func() { <-l.slots }()
				pc, err := l.header(c)
				if !l.untrack(c) || err != nil {
					c.Close()
					return
				}
				if !l.hand(accepted{conn: pc}) {
					c.Close()
				}
			})
		}
	}
}

func (l *Listener) hand(a accepted) bool {
	select {
	case l.ready <- a:
		return true
	case <-l.closed:
		return false
	}
}

func (l *Listener) track(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		return false
	}
	l.pending[c] = struct{}{}
	return true
}

func (l *Listener) untrack(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		return false
	}
	delete(l.pending, c)
	return true
}

func (l *Listener) trusted(c net.Conn) bool {
	ip := netserve.AddrPort(c.RemoteAddr()).Addr().WithZone("")
	for _, p := range l.Trusted {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

func (l *Listener) header(c net.Conn) (*Conn, error) {
	d := l.Timeout
	if d == 0 {
		d = 5 * time.Second
	}
	if d > 0 {
		c.SetReadDeadline(time.Now().Add(d))
	}
	r := bufio.NewReaderSize(c, bufferSize)
	h, err := ReadHeader(r)
	if err != nil {
		log, level := l.Log, slog.LevelWarn
		if log == nil {
			log = slog.Default()
		}
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
			level = slog.LevelDebug
		}
		log.Log(context.Background(), level, "proxyproto: no header", "remote", c.RemoteAddr().String(), "err", err)
		return nil, err
	}
	c.SetReadDeadline(time.Time{})
	pc := &Conn{Conn: c, header: h, remote: c.RemoteAddr(), local: c.LocalAddr()}
	if h.Source.IsValid() && h.Destination.IsValid() {
		pc.remote, pc.local = net.TCPAddrFromAddrPort(h.Source), net.TCPAddrFromAddrPort(h.Destination)
	}
	if n := r.Buffered(); n > 0 {
		pc.early, _ = r.Peek(n)
	}
	return pc, nil
}

// Conn is a connection that a trusted proxy handed over.
type Conn struct {
	net.Conn
	header        Header
	remote, local net.Addr
	early         []byte // came together with the header
}

// Header returns what the proxy said.
func (c *Conn) Header() Header { return c.header }

// RemoteAddr returns the address of the peer that the proxy speaks for.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// LocalAddr returns the address that the peer connected to.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// NetConn returns the connection of the proxy.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		if c.early = c.early[n:]; len(c.early) == 0 {
			c.early = nil
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite shuts down the writing side where the connection can.
func (c *Conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}
