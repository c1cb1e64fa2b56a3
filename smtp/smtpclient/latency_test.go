package smtpclient_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	netsmtp "net/smtp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// link carries octets between two ends, each late by half a round trip, as
// many at once as there are.
func link(rtt time.Duration) (client, server net.Conn) {
	c, a := net.Pipe()
	b, s := net.Pipe()
	go carry(b, a, rtt/2)
	go carry(a, b, rtt/2)
	return c, s
}

type parcel struct {
	b  []byte
	at time.Time
}

func carry(to, from net.Conn, late time.Duration) {
	ch := make(chan parcel, 1<<10)
	go func() {
		defer to.Close()
		for p := range ch {
			time.Sleep(time.Until(p.at))
			if _, err := to.Write(p.b); err != nil {
				for range ch {
				}
				return
			}
		}
	}()
	defer from.Close()
	defer close(ch)
	for {
		b := make([]byte, 64<<10)
		n, err := from.Read(b)
		if n > 0 {
			ch <- parcel{b[:n], time.Now().Add(late)}
		}
		if err != nil {
			return
		}
	}
}

// TestChunksTakeNoLessTime: why text goes with DATA to a host that takes
// chunks too.
func TestChunksTakeNoLessTime(t *testing.T) {
	const rtt = 20 * time.Millisecond
	took := func(t *testing.T, kind smtp.BodyType) (took time.Duration, verb string) {
		synctest.Test(t, func(t *testing.T) {
			srv := &smtpserver.Server{Hostname: "mx.test", Log: slog.New(slog.DiscardHandler), Extensions: append(smtpserver.DefaultExtensions(), smtp.ExtBinaryMIME),
				Backend: smtpserver.BackendFunc(func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) { return discard{}, nil })}
			defer srv.Close()
			d := &smtpclient.Dialer{Hello: "me.test", DialContext: func(context.Context, string, string) (net.Conn, error) {
				c, s := link(rtt)
				go srv.ServeConn(s)
				return c, nil
			}, Trace: &smtpclient.Trace{Command: func(line string) {
				if v, _, _ := strings.Cut(line, " "); v == "DATA" || v == "BDAT" {
					verb = v
				}
			}}}
			c, err := d.Dial(t.Context(), smtpclient.Target{Addr: "mx.test:25"})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			env := envelope(t, "a@b.test", "c@d.test")
			env.Body = kind
			began := time.Now()
			check(t, c.Send(t.Context(), env, strings.NewReader(body(4<<10))), "250")
			took = time.Since(began)
		})
		return took, verb
	}
	text, verb := took(t, "")
	if verb != "DATA" || text != 2*rtt {
		t.Errorf("text took %v with %s", text, verb)
	}
	if chunks, verb := took(t, smtp.BodyBinary); verb != "BDAT" || chunks < text {
		t.Errorf("text took %v, chunks %v with %s", text, chunks, verb)
	}
}

// BenchmarkRoundTrips sends 4 KB messages over one connection with a round
// trip of 20 ms: how many of them a message costs.
func BenchmarkRoundTrips(b *testing.B) {
	const rtt = 20 * time.Millisecond
	srv := &smtpserver.Server{Hostname: "mx.test", Log: slog.New(slog.DiscardHandler), Backend: smtpserver.BackendFunc(
		func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) { return discard{}, nil })}
	b.Cleanup(func() { srv.Close() })
	dial := func(context.Context, string, string) (net.Conn, error) {
		c, s := link(rtt)
		go srv.ServeConn(s)
		return c, nil
	}
	text := body(4 << 10)
	report := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(rtt), "roundtrips/op")
	}
	b.Run("net/smtp", func(b *testing.B) {
		nc, _ := dial(b.Context(), "", "")
		c, err := netsmtp.NewClient(nc, "mx.test")
		if err == nil {
			err = c.Hello("me.test")
		}
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		for b.Loop() {
			err := c.Mail("a@b.test")
			if err == nil {
				err = c.Rcpt("c@d.test")
			}
			var w io.WriteCloser
			if err == nil {
				w, err = c.Data()
			}
			if err == nil {
				io.WriteString(w, text)
				err = w.Close()
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		report(b)
	})
	env := envelope(b, "a@b.test", "c@d.test")
	for _, bb := range []struct {
		name    string
		senders int
		env     *smtp.Envelope
	}{{"one sender", 1, env}, {"two senders", 2, env}, {"10 recipients", 2, envelope(b, "a@b.test", strings.Fields(strings.Repeat("c@d.test ", 10))...)}} {
		b.Run(bb.name, func(b *testing.B) {
			pool := &smtpclient.Pool{MaxGroup: 1, MaxMessages: -1, Dialer: smtpclient.Dialer{DialContext: dial, Hello: "me.test"}}
			defer pool.Close()
			target := smtpclient.Target{Addr: "mx.test:25"}
			send := func() {
				if res := pool.Send(b.Context(), target, bb.env, strings.NewReader(text)); res[0].Err != nil {
					b.Error(res[0].Err)
				}
			}
			send() // opens the connection
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range bb.senders {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						send()
					}
				})
			}
			wg.Wait()
			report(b)
		})
	}
}
