package pop3client

import (
	"io"
	"strings"
	"testing"
)

// BenchmarkRetr reads a message of 1 MB of text.
func BenchmarkRetr(b *testing.B) {
	msg := "+OK\r\n+OK\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 1<<20/72) + ".\r\n"
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		c, err := (&Dialer{Security: Plain}).Client(b.Context(), saysConn{strings.NewReader(msg)}, "")
		if err != nil {
			b.Fatal(err)
		}
		r, err := c.Retr(b.Context(), 1)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			b.Fatal(err)
		}
	}
}
