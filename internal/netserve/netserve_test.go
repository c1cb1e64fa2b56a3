package netserve

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeListener hands out pipes, and errors.
type fakeListener struct {
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
	once   sync.Once
}

func newFakeListener() *fakeListener {
	return &fakeListener{conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}
}

func (l *fakeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case err := <-l.errs:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *fakeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *fakeListener) Addr() net.Addr { return &net.TCPAddr{} }

// dial returns a client's end of a connection that comes from ip.
func (l *fakeListener) dial(ip string) net.Conn {
	ours, theirs := net.Pipe()
	l.conns <- addrConn{theirs, &net.TCPAddr{IP: net.ParseIP(ip), Port: 4711}}
	return ours
}

type addrConn struct {
	net.Conn
	addr net.Addr
}

func (c addrConn) RemoteAddr() net.Addr { return c.addr }

type temporary struct{ error }

func (temporary) Temporary() bool { return true }

// waitForEnd is a handler that ends with its context.
func waitForEnd(c *Conn) { <-c.Context().Done() }

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Conns
		l := newFakeListener()
		served := make(chan error, 1)
		go func() {
			served <- s.Serve(l, Limits{Total: 4, PerIP: 2}, waitForEnd, func(nc net.Conn) { io.WriteString(nc, "full") })
		}()
		refused := func(ip string) bool {
			c := l.dial(ip)
			b := make([]byte, 4)
			c.SetReadDeadline(time.Now().Add(time.Second))
			n, _ := io.ReadFull(c, b)
			return string(b[:n]) == "full"
		}
		for _, step := range []struct {
			ip   string
			want bool
		}{
			{"192.0.2.1", false}, {"192.0.2.1", false}, {"192.0.2.1", true},
			{"2001:db8::1", false}, {"2001:db8::2", false}, {"2001:db8::3", true}, // one /64
			{"192.0.2.9", true}, // the total
		} {
			if got := refused(step.ip); got != step.want {
				t.Errorf("%s: refused %v", step.ip, got)
			}
		}
		if n := s.Len(); n != 4 {
			t.Errorf("Len %d", n)
		}
		s.Close()
		if n := s.Len(); n != 0 || len(s.perIP) != 0 {
			t.Errorf("after Close: Len %d, perIP %v", n, s.perIP)
		}
		if err := <-served; !errors.Is(err, ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
}

// TestPipesAreNotCounted: connections without an IP address share no limit.
func TestPipesAreNotCounted(t *testing.T) {
	var s Conns
	for range 3 {
		_, theirs := net.Pipe()
		if _, err := s.add(theirs, Limits{PerIP: 1}); err != nil {
			t.Error(err)
		}
	}
}

func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Conns
		l := newFakeListener()
		served := make(chan error, 1)
		go func() { served <- s.Serve(l, Limits{}, waitForEnd, nil) }()
		begin := time.Now()
		for range 4 {
			l.errs <- temporary{errors.New("out of files")}
		}
		c := l.dial("192.0.2.1")
		defer c.Close()
		if took := time.Since(begin); took != (5+10+20+40)*time.Millisecond {
			t.Errorf("waited %v", took)
		}
		boom := errors.New("boom")
		l.errs <- boom
		if err := <-served; !errors.Is(err, boom) {
			t.Errorf("Serve: %v", err)
		}
		// The connections live on without the listener.
		if s.Len() != 1 {
			t.Error("connection gone")
		}
		s.Close()
	})
	// Close does not wait for a pause between errors.
	synctest.Test(t, func(t *testing.T) {
		var s Conns
		l := newFakeListener()
		served := make(chan error, 1)
		go func() { served <- s.Serve(l, Limits{}, waitForEnd, nil) }()
		l.errs <- temporary{errors.New("out of files")}
		synctest.Wait()
		begin := time.Now()
		s.Close()
		if err := <-served; !errors.Is(err, ErrClosed) || time.Since(begin) != 0 {
			t.Errorf("Serve: %v after %v", err, time.Since(begin))
		}
	})
}

// TestShutdown: an idle connection is woken, a busy one waited for.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Conns
		woken, busy := 0, make(chan struct{})
		handle := func(c *Conn) {
			if !s.Idle(c, func() { woken++; c.SetReadDeadline(time.Unix(1, 0)) }) {
				t.Error("draining at once")
			}
			c.Read(make([]byte, 1))
			s.Busy(c)
			<-c.Drain
			if s.Idle(c, nil) {
				t.Error("idle while draining")
			}
			if c.Context().Err() != nil {
				t.Error("Shutdown ended the context")
			}
			<-busy
		}
		_, theirs := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- s.ServeConn(theirs, handle) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || woken != 1 {
			t.Errorf("Shutdown: %v, woken %d times", err, woken)
		}
		go func() { time.Sleep(time.Minute); close(busy) }()
		if err := s.Shutdown(context.Background()); err != nil || woken != 1 {
			t.Errorf("Shutdown: %v, woken %d times", err, woken)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		_, theirs = net.Pipe()
		if err := s.ServeConn(theirs, handle); !errors.Is(err, ErrClosed) {
			t.Errorf("ServeConn after Shutdown: %v", err)
		}
		if _, err := theirs.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("connection left open: %v", err)
		}
		if err := s.Serve(newFakeListener(), Limits{}, handle, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Serve after Shutdown: %v", err)
		}
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown of nothing with a done context: %v", err)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Conns
		ours, theirs := net.Pipe()
		ended := false
		go s.ServeConn(theirs, func(c *Conn) {
			_, err := c.Read(make([]byte, 1))
			if !errors.Is(err, io.ErrClosedPipe) || c.Context().Err() == nil {
				t.Errorf("read %v, context %v", err, c.Context().Err())
			}
			time.Sleep(time.Second)
			ended = true
		})
		synctest.Wait()
		s.Close()
		if !ended {
			t.Error("Close did not wait for the handler")
		}
		s.Close()
		ours.Close()
	})
}

func TestAddrPort(t *testing.T) {
	for want, a := range map[string]net.Addr{
		"192.0.2.1:25":     &net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 25},
		"[2001:db8::1]:25": &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 25},
		"192.0.2.2:25":     textAddr("[::ffff:192.0.2.2]:25"),
		"invalid AddrPort": textAddr("pipe"),
	} {
		if got := AddrPort(a).String(); got != want {
			t.Errorf("%v: %s, want %s", a, got, want)
		}
	}
	if AddrPort(nil) != (netip.AddrPort{}) {
		t.Error("nil")
	}
}

type textAddr string

func (textAddr) Network() string  { return "test" }
func (a textAddr) String() string { return string(a) }
