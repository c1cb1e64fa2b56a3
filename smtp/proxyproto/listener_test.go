package proxyproto

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/smtp/smtpserver"
)

// pipes is a listener of net.Pipes that come from chosen addresses.
type pipes struct {
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes {
	return &pipes{make(chan net.Conn), make(chan error), make(chan struct{}), sync.Once{}}
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case err := <-l.errs:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.TCPAddr{} }

type addrConn struct {
	net.Conn
	addr net.Addr
}

func (c addrConn) RemoteAddr() net.Addr { return c.addr }

func (l *pipes) dial(ip string) net.Conn {
	ours, theirs := net.Pipe()
	l.conns <- addrConn{theirs, &net.TCPAddr{IP: net.ParseIP(ip), Port: 4711}}
	return ours
}

var proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newPipes()
		l := &Listener{Listener: inner, Trusted: proxies, Log: quiet()}
		defer l.Close()
		type got struct{ remote, local, text string }
		results := make(chan got)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					close(results)
					return
				}
				b := make([]byte, 64)
				n, _ := c.Read(b)
				results <- got{c.RemoteAddr().String(), c.LocalAddr().String(), string(b[:n])}
				c.Close()
			}
		}()
		// A proxy that says nothing holds nobody up.
		silent := inner.dial("10.0.0.9")
		for _, tt := range []struct{ from, send, remote, text string }{
			{"10.0.0.1", "PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r\nEHLO x\r\n", "192.0.2.1:4711", "EHLO x\r\n"},
			{"10.0.0.1", v2(0x21, 0x21, six) + "EHLO x\r\n", "[2001:db8::1]:4711", "EHLO x\r\n"},
			{"fd00::1", v2(0x20, 0, "") + "EHLO x\r\n", "[fd00::1]:4711", "EHLO x\r\n"},
			{"10.0.0.1", "PROXY UNKNOWN\r\nEHLO x\r\n", "10.0.0.1:4711", "EHLO x\r\n"},
			// Whoever is not trusted cannot be somebody else.
			{"192.0.2.66", "PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r\n", "192.0.2.66:4711", "PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r\n"},
		} {
			c := inner.dial(tt.from)
			go io.WriteString(c, tt.send)
			if g := <-results; g.remote != tt.remote || g.text != tt.text {
				t.Errorf("%q from %s: %+v", tt.send, tt.from, g)
			}
		}
		// The silent one and those that send nonsense are closed.
		began := time.Now()
		if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("silent proxy: %v", err)
		}
		if d := time.Since(began); d != 5*time.Second {
			t.Errorf("closed after %v", d)
		}
		for _, s := range []string{"EHLO x\r\n", "PROXY TCP4 a b c d\r\n"} {
			c := inner.dial("10.0.0.1")
			go io.WriteString(c, s)
			if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("%q: %d, %v", s, n, err)
			}
		}
		l.Close()
		if _, ok := <-results; ok {
			t.Error("a connection after Close")
		}
	})
}

// TestListenerPending: more silent proxies than MaxPending wait outside, and
// Close ends all of them.
func TestListenerPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newPipes()
		l := &Listener{Listener: inner, Trusted: proxies, Timeout: -1, MaxPending: 3, Log: quiet()}
		accepted := make(chan error)
		go func() {
			_, err := l.Accept()
			accepted <- err
		}()
		for range 3 {
			defer inner.dial("10.0.0.1").Close()
		}
		synctest.Wait()
		_, theirs := net.Pipe()
		select {
		case inner.conns <- addrConn{theirs, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}}:
			t.Error("a fourth was accepted")
		case <-time.After(time.Hour):
		}
		l.Close()
		if err := <-accepted; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}

// TestListenerErrors: the listener's errors come through, and those who never
// called Accept can close too.
func TestListenerErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newPipes()
		l := &Listener{Listener: inner, Log: quiet()}
		mine := errors.New("out of descriptors")
		go func() { inner.errs <- mine }()
		if _, err := l.Accept(); !errors.Is(err, mine) {
			t.Errorf("Accept: %v", err)
		}
		l.Close()
		unused := &Listener{Listener: newPipes()}
		unused.Close()
		if _, err := unused.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after Close: %v", err)
		}
	})
}

// TestListenerLog: what was wrong is said at Warn; a health check that looks
// in without a word is not.
func TestListenerLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		inner := newPipes()
		l := &Listener{Listener: inner, Trusted: proxies, Log: slog.New(slog.NewTextHandler(&out, nil))}
		go l.Accept()
		inner.dial("10.0.0.1").Close()
		synctest.Wait()
		if out.Len() != 0 {
			t.Errorf("a health check is logged: %s", out.String())
		}
		c := inner.dial("10.0.0.2")
		io.WriteString(c, "GET / HTTP/1.1\r\n")
		synctest.Wait()
		if s := out.String(); !strings.Contains(s, "level=WARN") || !strings.Contains(s, "10.0.0.2") {
			t.Errorf("log: %s", s)
		}
		l.Close()
	})
}

// TestServer: the server sees the peer's address, counts by it, and its reply
// to what came with the header goes out.
func TestServer(t *testing.T) {
	nl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	remotes := make(chan netip.AddrPort, 1)
	s := &smtpserver.Server{Hostname: "mx.test", Log: quiet(), Backend: smtpserver.BackendFunc(
		func(ctx context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
			remotes <- c.Remote()
			return nil, errors.New("not today")
		})}
	defer s.Close()
	go s.Serve(&Listener{Listener: nl, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Log: quiet()})
	c, err := net.Dial("tcp", nl.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h, _ := Header{Source: ap("[2001:db8::1]:99"), Destination: ap("[2001:db8::2]:25")}.Append(nil, 2)
	c.Write(append(h, "QUIT\r\n"...))
	b, _ := io.ReadAll(c)
	if got := <-remotes; got != ap("[2001:db8::1]:99") {
		t.Errorf("Remote: %v", got)
	}
	if !strings.HasPrefix(string(b), "421 ") {
		t.Errorf("reply: %q", b)
	}
}
