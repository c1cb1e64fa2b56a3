package smtpclient_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"

	"github.com/postrider/postrider/smtp"
)

type discard struct{}

func (discard) Mail(context.Context, smtp.Address, smtp.MailOptions) error { return nil }
func (discard) Rcpt(context.Context, smtp.Address, smtp.RcptOptions) error { return nil }
func (discard) Reset()                                                     {}
func (discard) Close() error                                               { return nil }
func (discard) Data(_ context.Context, r io.Reader) (smtp.Reply, error) {
	_, err := io.Copy(io.Discard, r)
	return smtp.Reply{}, err
}

func benchServer(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &smtpserver.Server{Hostname: "mx.test", Log: slog.New(slog.DiscardHandler), Extensions: append(smtpserver.DefaultExtensions(), smtp.ExtBinaryMIME), Backend: smtpserver.BackendFunc(
		func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) { return discard{}, nil })}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	b.Cleanup(func() { srv.Close(); wg.Wait() })
	return l.Addr().String()
}

func body(size int) string {
	return "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", size/72)
}

// BenchmarkSend is one message after the other over a kept connection, client
// and server.
func BenchmarkSend(b *testing.B) {
	for _, bb := range []struct {
		name string
		size int
		body smtp.BodyType
	}{{"4KB", 4 << 10, ""}, {"64KB", 64 << 10, ""}, {"10MB", 10 << 20, ""}, {"4KB BDAT", 4 << 10, smtp.BodyBinary}, {"10MB BDAT", 10 << 20, smtp.BodyBinary}} {
		b.Run(bb.name, func(b *testing.B) {
			addr := benchServer(b)
			c, err := (&smtpclient.Dialer{Hello: "me.test"}).Dial(b.Context(), smtpclient.Target{Addr: addr})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			env := envelope(b, "a@b.test", "c@d.test")
			env.Body = bb.body
			r := strings.NewReader(body(bb.size))
			b.SetBytes(r.Size())
			b.ReportAllocs()
			for b.Loop() {
				if res := c.Send(b.Context(), env, r); res[0].Err != nil {
					b.Fatal(res[0].Err)
				}
			}
		})
	}
}

// BenchmarkPool is 50 senders over a pool.
func BenchmarkPool(b *testing.B) {
	addr := benchServer(b)
	pool := &smtpclient.Pool{MaxGroup: 50, MaxMessages: -1}
	defer pool.Close()
	relay := &smtpclient.Relay{Addr: addr, Pool: pool}
	env := envelope(b, "a@b.test", "c@d.test")
	text := body(4 << 10)
	b.ReportAllocs()
	b.SetParallelism(25)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if res := relay.Deliver(b.Context(), env, strings.NewReader(text)); res[0].Err != nil {
				b.Error(res[0].Err)
				return
			}
		}
	})
}
