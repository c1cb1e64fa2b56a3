package delivery

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/diskstore"
)

// BenchmarkLMTP takes messages of 4 KB through a whole LMTP server into a
// store on disk, durably, from some sessions at once. What the sender costs is
// in it, but for its one write and read a command that is little.
func BenchmarkLMTP(b *testing.B) {
	s, err := diskstore.Open(b.TempDir(), &diskstore.Options{MinFree: -1, Log: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	const users = 64
	for i := range users {
		if err := s.CreateAccount(context.Background(), fmt.Sprint("u", i)); err != nil {
			b.Fatal(err)
		}
	}
	backend := &Backend{Target: To(s), Log: quiet(), Recipients: func(_ context.Context, to smtp.Address) ([]store.Target, error) {
		return []store.Target{{Account: to.Local}}, nil
	}}
	srv := &smtpserver.Server{Backend: backend, Hostname: "mx.example.org", LMTP: true, MaxCommands: -1, MaxConnectionsPerIP: -1, Log: quiet()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()
	text := "From: a@example.com\r\nTo: b@example.org\r\nSubject: bench\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n" +
		strings.Repeat(strings.Repeat("0123456789abcdef", 4)+"\r\n", 60) + ".\r\n"
	for _, sessions := range []int{2, 32} {
		b.Run(fmt.Sprintf("sessions=%d", sessions), func(b *testing.B) {
			var n atomic.Int64
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			b.SetParallelism((sessions + 1) / 2) // of two cores
			b.RunParallel(func(pb *testing.PB) {
				to := n.Add(1) % users
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					b.Error(err)
					return
				}
				defer c.Close()
				r := bufio.NewReader(c)
				var buf []byte
				say := func(text, want string) bool {
					buf = append(buf[:0], text...)
					if _, err := c.Write(buf); err != nil {
						b.Error(err)
						return false
					}
					for {
						line, err := r.ReadSlice('\n')
						if err != nil || string(line[:1]) != want {
							b.Error(string(line), err)
							return false
						}
						if line[3] == ' ' {
							return true
						}
					}
				}
				rcpt := fmt.Sprintf("RCPT TO:<u%d@example.org>\r\n", to)
				ok := say("", "2") && say("LHLO client.example.com\r\n", "2")
				for ok && pb.Next() {
					ok = say("MAIL FROM:<sender@example.com>\r\n", "2") && say(rcpt, "2") && say("DATA\r\n", "3") &&
						say(text, "2")
				}
			})
		})
	}
}
