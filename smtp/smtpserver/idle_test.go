package smtpserver_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/postrider/postrider/smtp/smtpserver"
)

// BenchmarkIdle holds connections open that have said EHLO, and reports what
// one costs the process: its heap and stacks, and of a client in it no more
// than a socket (with TLS a client's state too, which is about as much as the
// server's: the figure is for both ends).
func BenchmarkIdle(b *testing.B) {
	for _, secure := range []bool{false, true} {
		name := "plain"
		if secure {
			name = "TLS-both-ends"
		}
		b.Run(name, func(b *testing.B) {
			const n = 1000
			s := &smtpserver.Server{
				MaxConnections: -1, MaxConnectionsPerIP: -1,
				Backend: smtpserver.BackendFunc(func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) { return discard{}, nil }),
			}
			if secure {
				s.TLS, s.ImplicitTLS = testTLS(), true
			}
			addr := serve(b, s)
			for b.Loop() {
				before := memory()
				conns := make([]net.Conn, n)
				buf := make([]byte, 512)
				for i := range conns {
					c, err := net.Dial("tcp", addr)
					if err != nil {
						b.Fatal(err)
					}
					if secure {
						c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
					}
					conns[i] = c
					io.WriteString(c, "EHLO x\r\n")
					for total := 0; total < 100; {
						k, err := c.Read(buf)
						if err != nil {
							b.Fatal(err)
						}
						total += k
					}
				}
				b.ReportMetric(float64(memory()-before)/n, "B/conn")
				for _, c := range conns {
					c.Close()
				}
			}
		})
	}
}

// memory returns the octets of heap and stacks in use after collections.
func memory() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
		runtime.Gosched()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// TestIdleBuffers: a connection that waits between commands is served as any,
// over a real socket, with TLS too, whatever the pieces in which its lines
// come.
func TestIdleBuffers(t *testing.T) {
	t.Run("plain", func(t *testing.T) { idleBuffers(t, &smtpserver.Server{}, "") })
	t.Run("TLS", func(t *testing.T) { idleBuffers(t, &smtpserver.Server{TLS: testTLS(), ImplicitTLS: true}, "*\n") })
}

func idleBuffers(t *testing.T, s *smtpserver.Server, first string) {
	s.Backend, s.Timeout = &backend{}, time.Minute
	p := dial(t, serve(t, s))
	p.must(t, first+hello+"> NO\\\n")
	p.must(t, "> OP\n< 250 2.0.0 OK\n> NOOP\n> NOOP\n> NO\\\n< 250 2.0.0 OK\n< 250 2.0.0 OK\n> OP\n< 250 2.0.0 OK\n")
	long := ""
	for range 400 {
		long += "> NOOP 0123456789\n"
	}
	for range 400 {
		long += "< 250 2.0.0 OK\n"
	}
	p.must(t, long+"> QUIT\n< 221 2.0.0 Goodbye\n!")
}
