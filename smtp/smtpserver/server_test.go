package smtpserver_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	netsmtp "net/smtp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/smtp/smtptest"
)

// serve runs s on a loopback socket until the test ends.
func serve(t testing.TB, s *smtpserver.Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if s.Hostname == "" {
		s.Hostname = "mx.test"
	}
	if s.Log == nil {
		s.Log = quiet()
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; !errors.Is(err, smtpserver.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

func dial(t testing.TB, addr string) *peer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &peer{Conn: c, r: bufio.NewReader(c)}
}

func (p *peer) must(t testing.TB, text string) {
	t.Helper()
	if err := p.play(text); err != nil {
		t.Fatal(err)
	}
}

func TestSocket(t *testing.T) {
	b := &backend{}
	s := &smtpserver.Server{Backend: b, TLS: testTLS()}
	addr := serve(t, s)
	p := dial(t, addr)
	p.must(t, ehlo("STARTTLS")+"> STARTTLS\n< 220 2.0.0 Begin TLS\n*\n> EHLO x\n"+strings.SplitN(hello, "client.test\n", 2)[1]+`
	> MAIL FROM:<a@one.test>
	> RCPT TO:<b@two.test>
	> DATA
	< 250 2.1.0 Sender OK
	< 250 2.1.5 Recipient OK
	< 354 End data with <CR><LF>.<CR><LF>
	> text
	> .
	> QUIT
	< 250 2.0.0 OK
	< 221 2.0.0 Goodbye
	!`)
	// Two at once, and messages of some size.
	var wg sync.WaitGroup
	for range 4 {
		p := dial(t, addr)
		wg.Go(func() {
			if err := p.play(ehlo("STARTTLS") + "> MAIL FROM:<a@one.test>\n< 250 2.1.0 Sender OK\n> RCPT TO:<b@two.test>\n< 250 2.1.5 Recipient OK\n> DATA\n< 354 …\n" +
				strings.Repeat("> "+strings.Repeat("x", 70)+"\n", 10000) + "> .\n< 250 2.0.0 OK\n"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestConnectionLimits(t *testing.T) {
	addr := serve(t, &smtpserver.Server{Backend: &backend{}, MaxConnectionsPerIP: 2})
	var open []*peer
	for range 2 {
		p := dial(t, addr)
		p.must(t, "< 220 mx.test ESMTP ready")
		open = append(open, p)
	}
	dial(t, addr).must(t, "< 421 4.7.0 Too many connections, try again later\n!")
	open[0].must(t, "> QUIT\n< 221 2.0.0 Goodbye\n!")
	// The place is free once the server has noticed.
	for range 1000 {
		p := dial(t, addr)
		line, err := p.r.ReadString('\n')
		if err == nil && strings.HasPrefix(line, "220") {
			return
		}
		p.Close()
	}
	t.Error("no place after QUIT")
}

const goodbye = "\n< 421 4.3.2 Service shutting down, closing transmission channel\n!"

func TestShutdown(t *testing.T) {
	states := map[string]string{
		"before EHLO": "< 220 mx.test ESMTP ready",
		"idle":        hello,
		"in MAIL":     hello + "> MAIL FROM:<a@one.test>\n< 250 2.1.0 Sender OK",
		"half a line": hello + "> NOO\\\n",
	}
	for name, text := range states {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{}
				s := &smtpserver.Server{}
				stopped := make(chan error, 1)
				time.AfterFunc(time.Second, func() { stopped <- s.Shutdown(context.Background()) })
				dialogue(t, s, b, text+goodbye)
				if err := <-stopped; err != nil {
					t.Error(err)
				}
				if strings.Count(b.log(), "close") != 1 {
					t.Error(b.log())
				}
				ours, theirs := net.Pipe()
				defer ours.Close()
				if err := s.ServeConn(theirs); !errors.Is(err, smtpserver.ErrServerClosed) {
					t.Errorf("ServeConn after Shutdown: %v", err)
				}
			})
		})
	}
}

// TestShutdownTLS: the wake-up does not hurt the TLS connection it goes
// through.
func TestShutdownTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &smtpserver.Server{TLS: testTLS(), ImplicitTLS: true}
		stopped := make(chan error, 1)
		time.AfterFunc(time.Second, func() { stopped <- s.Shutdown(context.Background()) })
		dialogue(t, s, &backend{}, "*\n"+hello+goodbye)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// TestShutdownInHandshake: a peer that hangs in it does not hold it up.
func TestShutdownInHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &smtpserver.Server{TLS: testTLS(), ImplicitTLS: true}
		time.AfterFunc(time.Second, func() { s.Shutdown(context.Background()) })
		begin := time.Now()
		dialogue(t, s, &backend{}, "!")
		if took := time.Since(begin); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestConn: what a session may ask.
func TestConn(t *testing.T) {
	var remote, local netip.AddrPort
	var hello, name, with string
	var secure bool
	s := &smtpserver.Server{TLS: testTLS(), Backend: smtpserver.BackendFunc(func(ctx context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
		b := &backend{data: func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
			remote, local, hello, name, secure, with = c.Remote(), c.Local(), c.Hello(), c.Hostname(), c.TLS() != nil, c.Protocol()
			return smtp.Reply{}, nil
		}}
		return b.NewSession(ctx, c)
	})}
	p := dial(t, serve(t, s))
	p.must(t, ehlo("STARTTLS")+"> STARTTLS\n< 220 2.0.0 Begin TLS\n*\n> EHLO client.test\n"+strings.SplitN(ready, "client.test\n", 2)[1]+"> .\n< 250 2.0.0 OK")
	if remote.String() != p.LocalAddr().String() || local.String() != p.RemoteAddr().String() {
		t.Errorf("Remote %v, Local %v", remote, local)
	}
	if hello != "client.test" || name != "mx.test" || !secure || with != "ESMTPS" {
		t.Errorf("Hello %q, Hostname %q, TLS %v, Protocol %q", hello, name, secure, with)
	}
}

// TestGroupedReplies: the replies to a pipelined group leave in one write
// (RFC 2920 §3.2), those to DATA and the message each at once.
func TestGroupedReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &smtpserver.Server{Hostname: "mx.test", Backend: &backend{}, Log: quiet()}
		ours, theirs := net.Pipe()
		var writes []string
		done := make(chan error, 1)
		go func() { done <- s.ServeConn(&countingConn{theirs, &writes}) }()
		p := &peer{Conn: ours, r: bufio.NewReader(ours)}
		p.must(t, hello+`
		> MAIL FROM:<a@one.test>
		> RCPT TO:<b@two.test>
		> RCPT TO:<c@two.test>
		> RSET
		> MAIL FROM:<a@one.test>
		> RCPT TO:<b@two.test>
		> DATA
		< 250 2.1.0 Sender OK
		< 250 2.1.5 Recipient OK
		< 250 2.1.5 Recipient OK
		< 250 2.0.0 OK
		< 250 2.1.0 Sender OK
		< 250 2.1.5 Recipient OK
		< 354 …
		> .
		> NOOP
		> QUIT
		< 250 2.0.0 OK
		< 250 2.0.0 OK
		< 221 2.0.0 Goodbye
		!`)
		<-done
		if len(writes) != 6 || strings.Count(writes[2], "\n") != 7 {
			t.Errorf("writes: %q", writes)
		}
	})
}

type countingConn struct {
	net.Conn
	writes *[]string
}

func (c *countingConn) Write(p []byte) (int, error) {
	*c.writes = append(*c.writes, string(p))
	return c.Conn.Write(p)
}

// TestCutShort: the reply to a message without end arrives although the
// client is still sending when the server closes.
func TestCutShort(t *testing.T) {
	addr := serve(t, &smtpserver.Server{Backend: &backend{}, MaxMessageBytes: 100_000})
	p := dial(t, addr)
	p.must(t, strings.ReplaceAll(ready, "52428800", "100000"))
	go func() {
		line := []byte(strings.Repeat("x", 998) + "\r\n")
		for range 1000 {
			if _, err := p.Write(line); err != nil {
				return
			}
		}
	}()
	p.must(t, "< 552 5.3.4 Message exceeds the maximum size\n!")
}

// TestShutdownInMessage: what is being sent is received and answered first,
// the last dot too.
func TestShutdownInMessage(t *testing.T) {
	for name, text := range map[string]string{
		"in the text":    ready + "> one\n@ 2s\n> two\n> .\n< 250 2.0.0 OK" + goodbye,
		"between chunks": hello + begun + "> BDAT 5\n> one\n< 250 2.0.0 Chunk received\n@ 2s\n> BDAT 5 LAST\n> two\n< 250 2.0.0 OK" + goodbye,
		"after the dot":  ready + "> one\n> two\n> .\n< 250 2.0.0 OK" + goodbye,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &backend{}
				b.data = func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
					text, err := io.ReadAll(r)
					time.Sleep(5 * time.Second) // of the bubble: a slow commit
					b.note("data %q, %v, %v", text, err, ctx.Err())
					return smtp.Reply{}, err
				}
				s := &smtpserver.Server{}
				stopped := make(chan error, 1)
				time.AfterFunc(time.Second, func() { stopped <- s.Shutdown(context.Background()) })
				dialogue(t, s, b, text)
				if err := <-stopped; err != nil {
					t.Error(err)
				}
				if !strings.HasSuffix(b.log(), "data \"one\\r\\ntwo\\r\\n\", <nil>, <nil>\nreset\nclose") {
					t.Error(b.log())
				}
			})
		})
	}
}

// TestShutdownTimeout: Shutdown gives up with its context, Close cuts, and
// both may be called again.
func TestShutdownTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{}
		b.data = func(ctx context.Context, r io.Reader) (smtp.Reply, error) {
			_, err := io.ReadAll(r)
			if err == nil {
				<-ctx.Done()
				err = ctx.Err()
			}
			b.note("data %v", err)
			return smtp.Reply{}, err
		}
		s := &smtpserver.Server{}
		time.AfterFunc(time.Second, func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Shutdown: %v", err)
			}
			s.Close()
			s.Close()
			if err := s.Shutdown(context.Background()); err != nil {
				t.Errorf("Shutdown after Close: %v", err)
			}
			if !strings.HasSuffix(b.log(), "data context canceled\nreset\nclose") {
				t.Errorf("Close returned before the session was closed: %s", b.log())
			}
		})
		dialogue(t, s, b, ready+"> text\n> .\n!")
	})
}

// TestCloseInMessage: nothing is kept of half a message.
func TestCloseInMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{}
		s := &smtpserver.Server{}
		time.AfterFunc(time.Second, func() { s.Close() })
		dialogue(t, s, b, ready+"> text\n!")
		if log := b.log(); strings.Contains(log, `data "`) || !strings.Contains(log, "data failed") || !strings.HasSuffix(log, "\nclose") {
			t.Error(log)
		}
	})
}

func TestZeroServer(t *testing.T) {
	s := &smtpserver.Server{}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); !errors.Is(err, smtpserver.ErrServerClosed) {
		t.Error(err)
	}
}

// serials lets in whoever names the serial number of the certificate that the
// server believes to have sent.
type serials struct{ c *login.Conn }

func (serials) Mechanisms(*login.Conn) []string { return []string{"PLAIN"} }
func (serials) Start(_ context.Context, _ string, c *login.Conn) (login.Exchange, error) {
	return serials{c}, nil
}
func (s serials) Next(response []byte) ([]byte, bool, error) {
	if s.c.Cert == nil || !strings.HasSuffix(string(response), "\x00"+s.c.Cert.SerialNumber.String()) {
		return nil, false, fmt.Errorf("%w: %q", login.ErrCredentials, response)
	}
	return nil, true, nil
}
func (serials) Identity() login.Identity { return login.Identity{User: "u"} }

// TestCertificateReload: a certificate that is changed while mail comes in is
// used by the next connection, no message is lost over it, and each login
// knows the one of its own connection. Sessions resume over the change.
func TestCertificateReload(t *testing.T) {
	const generations, senders = 20, 4
	certs, pool := make([]tls.Certificate, generations), x509.NewCertPool()
	number := map[string]int{} // of each serial number
	for i := range certs {
		cert, _, err := smtptest.Certificate("mx.test")
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		pool.AddCert(leaf)
		certs[i], number[leaf.SerialNumber.String()] = cert, i
	}
	var current, messages atomic.Int32
	done := make(chan struct{})
	b := &backend{data: func(_ context.Context, r io.Reader) (smtp.Reply, error) {
		_, err := io.Copy(io.Discard, r)
		switch n := messages.Add(1); {
		case n == 10*generations:
			close(done)
		case n < 10*generations && n%10 == 0:
			current.Add(1)
		}
		return smtp.Reply{}, err
	}}
	addr := serve(t, &smtpserver.Server{Hostname: "mx.test", Log: quiet(), Backend: b, Auth: serials{}, TLS: &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certs[current.Load()], nil }}})
	var sent, resumed atomic.Int32
	send := func(cache tls.ClientSessionCache) error {
		oldest := int(current.Load())
		c, err := netsmtp.Dial(addr)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.StartTLS(&tls.Config{ServerName: "mx.test", RootCAs: pool, ClientSessionCache: cache}); err != nil {
			return err
		}
		state, _ := c.TLSConnectionState()
		serial := state.PeerCertificates[0].SerialNumber.String()
		if state.DidResume {
			resumed.Add(1) // nothing was sent, and in TLS 1.3 nothing is known
		} else {
			if n := number[serial]; n < oldest {
				return fmt.Errorf("certificate %d, although there was %d", n, oldest)
			}
			if err := c.Auth(netsmtp.PlainAuth("", "u", serial, "127.0.0.1")); err != nil {
				return err
			}
		}
		for range 3 {
			if err := errors.Join(c.Mail("a@one.test"), c.Rcpt("b@two.test")); err != nil {
				return err
			}
			w, err := c.Data()
			if err != nil {
				return err
			}
			io.WriteString(w, "x\r\n")
			if err := w.Close(); err != nil {
				return err
			}
			sent.Add(1)
		}
		return c.Quit()
	}
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			var cache tls.ClientSessionCache
			if i%2 == 0 {
				cache = tls.NewLRUClientSessionCache(1)
			}
			for {
				if err := send(cache); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	wg.Wait()
	if messages.Load() != sent.Load() || resumed.Load() == 0 {
		t.Errorf("%d sent, %d arrived, %d connections resumed", sent.Load(), messages.Load(), resumed.Load())
	}
}
