package imapserver_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/postrider/postrider/imap/imapserver"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/textindex"
)

// fill puts n messages of about 2.6 KB, with their Summaries, into the inbox.
func fill(b *testing.B, st store.Store, n int) {
	acc, err := st.Account(b.Context(), "alice")
	if err != nil {
		b.Fatal(err)
	}
	text := strings.Repeat("The quick brown fox jumps over the lazy dog, again and again.\r\n", 36)
	var drafts []store.Draft
	for i := range n {
		m := fmt.Sprintf("From: Ann Example <ann%d@example.org>\r\nTo: bob@example.org\r\nSubject: message number %d\r\nDate: Mon, 1 Jan 2024 12:00:00 +0100\r\nMessage-ID: <%d@example.org>\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n%s", i, i, i, text)
		r := bytes.NewReader([]byte(m))
		p, err := mime.Parse(r, r.Size(), mime.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		d := store.Draft{Body: r, Summary: p.Summary()}
		if i%3 == 0 {
			d.Flags.System = store.Seen
		}
		if drafts = append(drafts, d); len(drafts) == 1000 || i == n-1 {
			if _, err := acc.Append(b.Context(), store.Inbox, drafts, store.AppendOptions{}); err != nil {
				b.Fatal(err)
			}
			drafts = drafts[:0]
		}
	}
}

// command sends one and reads to its end without looking at the lines.
func (c *client) command(command string, buf []byte) (size int) {
	c.n++
	tag := fmt.Sprintf("t%d OK ", c.n)
	c.write(tag[:len(tag)-3] + command + "\r\n")
	tail := []byte{}
	for {
		n, err := c.conn.Read(buf)
		if err != nil {
			c.t.Fatal(err)
		}
		size += n
		tail = append(tail, buf[max(0, n-200):n]...)
		if i := bytes.LastIndex(tail, []byte("\n"+tag)); tail[len(tail)-1] == '\n' && (i >= 0 || bytes.HasPrefix(tail, []byte(tag))) {
			return size
		}
		tail = tail[max(0, len(tail)-200):]
	}
}

func BenchmarkSession(b *testing.B) {
	srv, st := newServer(b)
	const n = 100_000
	fill(b, st, n)
	c := start(b, serve(b, srv))
	c.ok("SELECT INBOX")
	buf := make([]byte, 256<<10)
	for _, bench := range []struct{ name, command string }{
		{"SELECT/100k", "SELECT INBOX"},
		{"FETCH-FLAGS/100k", "FETCH 1:* FLAGS"},
		{"FETCH-ENVELOPE/10k", "FETCH 1:10000 (UID FLAGS ENVELOPE INTERNALDATE RFC822.SIZE)"},
		{"FETCH-BODYSTRUCTURE/10k", "FETCH 1:10000 BODYSTRUCTURE"},
		{"FETCH-HEADER.FIELDS/10k", "FETCH 1:10000 BODY.PEEK[HEADER.FIELDS (From Subject Date)]"},
		{"FETCH-BODY/10k", "FETCH 1:10000 BODY.PEEK[]"},
		{"SEARCH-UNSEEN/100k", "SEARCH UNSEEN"},
		{"SEARCH-SUBJECT/10k", "SEARCH 1:10000 SUBJECT 777"},
		{"SEARCH-TEXT/10k", "SEARCH 1:10000 TEXT nowhere"},
		{"STORE/10k", "STORE 1:10000 +FLAGS.SILENT (\\Answered)"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				size = c.command(bench.command, buf)
			}
			b.SetBytes(int64(size))
		})
	}
	msg := strings.ReplaceAll(simple, "\n", "\r\n")
	b.Run("APPEND", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.command("APPEND INBOX "+literal(msg), buf)
		}
	})
}

// BenchmarkSearchText searches 10,000 messages with an index and without, for
// what one of them has, none, and each.
func BenchmarkSearchText(b *testing.B) {
	const n = 10_000
	srv, st := newServer(b)
	fill(b, st, n)
	ix, err := textindex.Open(b.TempDir(), st, textindex.Options{Accounts: -1, Log: srv.Log})
	if err != nil {
		b.Fatal(err)
	}
	defer ix.Close()
	if err := ix.Sync(b.Context(), "alice"); err != nil {
		b.Fatal(err)
	}
	indexed, _ := newServer(b)
	indexed.Store = ix
	for name, srv := range map[string]*imapserver.Server{"scan": srv, "index": indexed} {
		c := start(b, serve(b, srv))
		c.ok("SELECT INBOX")
		buf := make([]byte, 256<<10)
		for _, keys := range []string{"TEXT <7777@example", "TEXT nowhere", "BODY jumps", "SUBJECT 777"} {
			b.Run(strings.ReplaceAll(keys, " ", "-")+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					c.command("SEARCH "+keys, buf)
				}
			})
		}
	}
}
