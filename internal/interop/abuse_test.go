package interop

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// TestAbuse: four of five connections are idle, slow or garbage; all honest
// mail gets through meanwhile, memory stays bounded and nothing is left
// behind. POSTRIDER_ABUSE=1 is the long form: 5,000 connections for 30 s.
func TestAbuse(t *testing.T) {
	conns, during := 500, 3*time.Second
	if os.Getenv("POSTRIDER_ABUSE") != "" {
		conns, during = 5000, 30*time.Second
	}
	runtime.GC()
	goroutines := runtime.NumGoroutine()
	var before, within runtime.MemStats
	runtime.ReadMemStats(&before)

	var taken atomic.Int64
	s := startSink(t, func(s *smtpserver.Server) {
		s.MaxConnections, s.MaxConnectionsPerIP = conns+10, conns+10
		s.Backend = smtpserver.BackendFunc(func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) { return counting{&taken}, nil })
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var abusers, honest sync.WaitGroup
	var up atomic.Int64
	abuse := func(f func(c net.Conn)) {
		abusers.Go(func() {
			for ctx.Err() == nil {
				c, err := net.Dial("tcp", s.addr)
				if err != nil {
					return
				}
				up.Add(1)
				stop := context.AfterFunc(ctx, func() { c.Close() })
				f(c)
				stop()
				c.Close()
			}
		})
	}
	for i := range conns * 4 / 5 {
		switch i % 4 {
		case 0, 1: // idle
			abuse(func(c net.Conn) { io.Copy(io.Discard, c) })
		case 2: // slow: an octet now and then, in a message
			abuse(func(c net.Conn) {
				fmt.Fprint(c, "EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n")
				for ctx.Err() == nil {
					if _, err := c.Write([]byte("x")); err != nil {
						return
					}
					select {
					case <-ctx.Done():
					case <-time.After(200 * time.Millisecond):
					}
				}
			})
		default: // garbage until it is hung up on
			junk := strings.Repeat("\x16\x03\x01 garbage \x00\r\n", 20)
			abuse(func(c net.Conn) {
				r := bufio.NewReader(c)
				for {
					if _, err := io.WriteString(c, junk); err != nil {
						return
					}
					if _, err := r.ReadString('\n'); err != nil {
						return
					}
					select {
					case <-ctx.Done():
						return
					case <-time.After(100 * time.Millisecond):
					}
				}
			})
		}
	}
	var sent, failed atomic.Int64
	end := time.Now().Add(during)
	pool := &smtpclient.Pool{MaxConns: conns / 5}
	env := &smtp.Envelope{From: mustAddress(t, "a@b.test"), To: []smtp.Recipient{{Address: mustAddress(t, "c@d.test")}}}
	body := "Subject: honest\r\n\r\n" + strings.Repeat(strings.Repeat("h", 70)+"\r\n", 50)
	for range min(conns/5, 50) {
		honest.Go(func() {
			for time.Now().Before(end) {
				if r := pool.Send(context.Background(), smtpclient.Target{Addr: s.addr}, env, strings.NewReader(body))[0]; r.Err != nil {
					failed.Add(1)
					t.Errorf("honest mail: %v", r.Err)
					return
				}
				sent.Add(1)
			}
		})
	}
	honest.Wait()
	runtime.GC()
	runtime.ReadMemStats(&within)
	cancel()
	abusers.Wait()
	pool.Close()
	s.server.Close()
	if sent.Load() == 0 || taken.Load() != sent.Load() {
		t.Errorf("%d honest messages were sent, %d taken", sent.Load(), taken.Load())
	}
	// Both ends of all connections are in this process.
	perConn := int64(within.HeapInuse+within.StackInuse-before.HeapInuse-before.StackInuse) / int64(conns)
	t.Logf("%d connections (%d of abuse in turn), %d honest messages in %v, %d KB a connection", conns, up.Load(), sent.Load(), during, perConn>>10)
	if perConn > 100<<10 {
		t.Errorf("%d octets a connection", perConn)
	}
	for wait := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		// Serve's own goroutine of the sink ends too.
		if n := runtime.NumGoroutine(); n <= goroutines+1 {
			break
		} else if time.Now().After(wait) {
			t.Fatalf("%d goroutines, %d before", n, goroutines)
		}
	}
}

// counting takes everything and keeps nothing.
type counting struct{ n *atomic.Int64 }

func (counting) Mail(context.Context, smtp.Address, smtp.MailOptions) error { return nil }
func (counting) Rcpt(context.Context, smtp.Address, smtp.RcptOptions) error { return nil }
func (c counting) Data(_ context.Context, r io.Reader) (smtp.Reply, error) {
	_, err := io.Copy(io.Discard, r)
	if err == nil {
		c.n.Add(1)
	}
	return smtp.Reply{}, err
}
func (counting) Reset()       {}
func (counting) Close() error { return nil }
