package imapclient

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postrider/postrider/imap"
)

// BenchmarkFetch10k reads the envelope, flags and size of 10,000 messages.
func BenchmarkFetch10k(b *testing.B) {
	var in strings.Builder
	in.WriteString("* OK ready\r\n")
	for i := range 10_000 {
		fmt.Fprintf(&in, "* %d FETCH (UID %d FLAGS (\\Seen) INTERNALDATE \" 1-Feb-2024 10:00:00 +0000\" RFC822.SIZE 2600 ENVELOPE (\"Thu, 1 Feb 2024 10:00:00 +0000\" \"subject\" "+
			"((\"A\" NIL \"a\" \"x.test\")) ((\"A\" NIL \"a\" \"x.test\")) ((\"A\" NIL \"a\" \"x.test\")) ((NIL NIL \"b\" \"x.test\")) NIL NIL NIL \"<id@x.test>\"))\r\n", i+1, i+1)
	}
	in.WriteString("a1 OK done\r\n")
	b.SetBytes(int64(in.Len()))
	b.ReportAllocs()
	for b.Loop() {
		c, err := (&Dialer{Security: Plain}).Client(b.Context(), saysConn{strings.NewReader(in.String())}, "")
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for _, err := range c.Fetch(b.Context(), imap.Seqs(imap.NumSet{{First: 1, Last: imap.Star}}), imap.FetchAll()) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 10_000 {
			b.Fatal(n)
		}
	}
}
