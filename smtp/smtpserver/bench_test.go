package smtpserver_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// discard accepts everything and keeps nothing.
type discard struct{}

func (discard) Mail(context.Context, smtp.Address, smtp.MailOptions) error { return nil }
func (discard) Rcpt(context.Context, smtp.Address, smtp.RcptOptions) error { return nil }
func (discard) Data(_ context.Context, r io.Reader) (smtp.Reply, error) {
	_, err := io.Copy(io.Discard, r)
	return smtp.Reply{}, err
}
func (discard) Reset()       {}
func (discard) Close() error { return nil }

// benchServer returns a raw connection that has said EHLO.
func benchServer(b *testing.B) (net.Conn, *bufio.Reader) {
	addr := serve(b, &smtpserver.Server{
		MaxConnectionsPerIP: -1,
		Backend:             smtpserver.BackendFunc(func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) { return discard{}, nil }),
	})
	p := dial(b, addr)
	p.must(b, hello)
	return p.Conn, p.r
}

func expect(b *testing.B, r *bufio.Reader, code string, n int) {
	for range n {
		line, err := r.ReadSlice('\n')
		if err != nil || string(line[:4]) != code {
			b.Fatalf("reply %q, %v", line, err)
		}
	}
}

func benchMessage(size int) []byte {
	line := strings.Repeat("x", 70) + "\r\n"
	return []byte("Subject: test\r\n\r\n" + strings.Repeat(line, size/len(line)) + ".\r\n")
}

// BenchmarkOneAtATime waits for each reply: five round trips' worth of
// commands for a 4 KB message. Client and server share the machine; the
// client here allocates nothing.
func BenchmarkOneAtATime(b *testing.B) {
	c, r := benchServer(b)
	mail, rcpt, data := []byte("MAIL FROM:<sender@one.test>\r\n"), []byte("RCPT TO:<recipient@two.test>\r\n"), []byte("DATA\r\n")
	msg := benchMessage(4096)
	b.ReportAllocs()
	for b.Loop() {
		c.Write(mail)
		expect(b, r, "250 ", 1)
		c.Write(rcpt)
		expect(b, r, "250 ", 1)
		c.Write(data)
		expect(b, r, "354 ", 1)
		c.Write(msg)
		expect(b, r, "250 ", 1)
	}
}

// BenchmarkPipelined sends MAIL, RCPT and DATA in one write, and the next
// group behind the dot, as RFC 2920 allows.
func BenchmarkPipelined(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10} {
		b.Run(sizeName(size), func(b *testing.B) {
			c, r := benchServer(b)
			group := []byte("MAIL FROM:<sender@one.test>\r\nRCPT TO:<recipient@two.test>\r\nDATA\r\n")
			msg := append(benchMessage(size), group...)
			c.Write(group)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				expect(b, r, "250 ", 2)
				expect(b, r, "354 ", 1)
				c.Write(msg)
				expect(b, r, "250 ", 1)
			}
		})
	}
}

func sizeName(n int) string {
	if n == 4<<10 {
		return "4KB"
	}
	return "64KB"
}

// BenchmarkConnection is connect, EHLO, QUIT.
func BenchmarkConnection(b *testing.B) {
	addr := serve(b, &smtpserver.Server{
		MaxConnectionsPerIP: -1,
		Backend:             smtpserver.BackendFunc(func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) { return discard{}, nil }),
	})
	b.ReportAllocs()
	for b.Loop() {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		io.WriteString(c, "EHLO x\r\nQUIT\r\n")
		io.Copy(io.Discard, c)
		c.Close()
	}
}

// BenchmarkBody sends messages of some size with DATA and with BDAT: memory
// does not grow with them.
func BenchmarkBody(b *testing.B) {
	for _, size := range []int{64 << 10, 10 << 20} {
		for _, bdat := range []bool{false, true} {
			name := strconv.Itoa(size>>10) + "KB/DATA"
			if bdat {
				name = strconv.Itoa(size>>10) + "KB/BDAT"
			}
			b.Run(name, func(b *testing.B) {
				c, r := benchServer(b)
				msg := benchMessage(size)
				group, last := "MAIL FROM:<sender@one.test>\r\nRCPT TO:<recipient@two.test>\r\nDATA\r\n", "354 "
				if bdat {
					msg = msg[:len(msg)-3]
					group, last = "MAIL FROM:<sender@one.test>\r\nRCPT TO:<recipient@two.test>\r\nBDAT "+strconv.Itoa(len(msg))+" LAST\r\n", ""
				}
				b.ReportAllocs()
				b.SetBytes(int64(size))
				for b.Loop() {
					io.WriteString(c, group)
					expect(b, r, "250 ", 2)
					if last != "" {
						expect(b, r, last, 1)
					}
					c.Write(msg)
					expect(b, r, "250 ", 1)
				}
			})
		}
	}
}
