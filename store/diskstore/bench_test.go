package diskstore

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/postrider/postrider/store"
)

func benchStore(b *testing.B, dir string) *Store {
	b.Helper()
	s, err := Open(dir, &Options{MinFree: -1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// fill gives account "a" a mailbox of n messages, durably and compacted.
func fill(b *testing.B, dir string, n int) {
	b.Helper()
	s := benchStore(b, dir)
	a := newAccount(b, s, "a")
	d := make([]store.Draft, 1000)
	for i := range d {
		d[i] = store.Draft{Body: bytes.NewReader([]byte(fmt.Sprintf("Subject: %d\r\n\r\nbody\r\n", i))), MessageID: fmt.Sprint(i), Flags: store.Flags{System: store.SystemFlags(i % 3)}}
	}
	for range n / len(d) {
		if _, err := a.Append(ctx, store.Inbox, d, store.AppendOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkAppend4K appends durably from many goroutines to one account, and
// to one each.
func BenchmarkAppend4K(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 4096)
	for _, c := range []struct{ writers, accounts int }{{1, 1}, {16, 1}, {16, 16}, {64, 64}} {
		b.Run(fmt.Sprintf("writers=%d/accounts=%d", c.writers, c.accounts), func(b *testing.B) {
			s := benchStore(b, b.TempDir())
			defer s.Close()
			accs := make(chan store.Account, c.writers)
			for i := range c.writers {
				id := fmt.Sprint(i % c.accounts)
				s.CreateAccount(ctx, id)
				a, err := s.Account(ctx, id)
				if err != nil {
					b.Fatal(err)
				}
				accs <- a
			}
			b.SetBytes(4096)
			b.ReportAllocs()
			b.SetParallelism((c.writers + 1) / 2) // of two cores
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				a := <-accs
				defer func() { accs <- a }()
				for pb.Next() {
					if _, err := a.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader(body), Summary: body[:600], MessageID: "x"}}, store.AppendOptions{}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkDeliver50 delivers one message to 50 accounts.
func BenchmarkDeliver50(b *testing.B) {
	s := benchStore(b, b.TempDir())
	defer s.Close()
	targets := make([]store.Target, 50)
	for i := range targets {
		id := fmt.Sprint(i)
		newAccount(b, s, id)
		targets[i] = store.Target{Account: id, Head: []byte("Delivered-To: x\r\n")}
	}
	body := bytes.Repeat([]byte("x"), 4096)
	b.ReportAllocs()
	for b.Loop() {
		st, err := s.Stage(ctx, 4096)
		if err != nil {
			b.Fatal(err)
		}
		st.Write(body)
		for _, err := range s.Deliver(ctx, store.Draft{Body: st}, targets) {
			if err != nil {
				b.Fatal(err)
			}
		}
		st.Close()
	}
}

// Benchmark100k is a mailbox of 100,000 messages.
func Benchmark100k(b *testing.B) {
	dir := b.TempDir()
	fill(b, dir, 100_000)
	account := func(b *testing.B, s *Store) store.Account {
		a, err := s.Account(ctx, "a")
		if err != nil {
			b.Fatal(err)
		}
		return a
	}
	list := func(b *testing.B, a store.Account, q store.Query) {
		n := 0
		for _, err := range a.Messages(ctx, store.Inbox, q) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 100_000 {
			b.Fatal(n)
		}
	}
	// Cold: the database has been opened and nothing of it read.
	b.Run("counts/cold", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			s := benchStore(b, dir)
			b.StartTimer()
			boxes, _, err := account(b, s).Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{store.Inbox}, Counts: true})
			b.StopTimer()
			if err != nil || boxes[0].Counts.Messages != 100_000 || boxes[0].FirstUnseen != 1 {
				b.Fatal(boxes, err)
			}
			s.Close()
			b.StartTimer()
		}
	})
	b.Run("list/cold", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			s := benchStore(b, dir)
			b.StartTimer()
			list(b, account(b, s), store.Query{})
			b.StopTimer()
			s.Close()
			b.StartTimer()
		}
	})
	s := benchStore(b, dir)
	defer s.Close()
	a := account(b, s)
	b.Run("list/warm", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			list(b, a, store.Query{})
		}
	})
	b.Run("list/dates", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			list(b, a, store.Query{Fields: store.WithDates})
		}
	})
	b.Run("view", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := store.OpenView(ctx, a, store.Inbox); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sync", func(b *testing.B) { // after a change of one message
		v, err := store.OpenView(ctx, a, store.Inbox)
		if err != nil {
			b.Fatal(err)
		}
		mode := store.AddFlags
		b.ReportAllocs()
		for b.Loop() {
			if _, err := a.SetFlags(ctx, store.Inbox, store.UIDs(50_000), store.FlagOp{Mode: mode, Flags: store.NewFlags(store.Answered)}); err != nil {
				b.Fatal(err)
			}
			mode ^= store.AddFlags ^ store.RemoveFlags
			if _, err := v.Sync(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, f := range map[string]store.Flags{"system": store.NewFlags(store.Flagged), "keyword": store.NewFlags(0, "kw")} {
		b.Run("flags/"+name, func(b *testing.B) {
			b.ReportAllocs()
			mode := store.AddFlags
			for b.Loop() {
				r, err := a.SetFlags(ctx, store.Inbox, store.AllUIDs(), store.FlagOp{Mode: mode, Flags: f})
				if err != nil || r.Changed.Count() != 100_000 {
					b.Fatal(r, err)
				}
				mode ^= store.AddFlags ^ store.RemoveFlags
			}
		})
	}
	// The worst for FirstUnseen: all messages but the first and the last are
	// seen, and the first comes and goes.
	b.Run("unseen/far", func(b *testing.B) {
		seen := store.NewFlags(store.Seen)
		if _, err := a.SetFlags(ctx, store.Inbox, store.UIDSet{{First: 1, Last: 99_999}}, store.FlagOp{Flags: seen}); err != nil {
			b.Fatal(err)
		}
		if _, err := a.SetFlags(ctx, store.Inbox, store.UIDs(100_000), store.FlagOp{Mode: store.RemoveFlags, Flags: seen}); err != nil {
			b.Fatal(err)
		}
		mode := store.AddFlags
		b.ReportAllocs()
		for b.Loop() {
			if mode ^= store.AddFlags ^ store.RemoveFlags; mode == store.RemoveFlags {
				b.StopTimer()
			}
			if _, err := a.SetFlags(ctx, store.Inbox, store.UIDs(1), store.FlagOp{Mode: mode, Flags: seen}); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	b.Run("copy and expunge", func(b *testing.B) {
		box, err := a.CreateMailbox(ctx, store.NewMailbox{Name: "copy"})
		if err != nil {
			b.Fatal(err)
		}
		var expunge int64
		for b.Loop() {
			if _, err := a.Copy(ctx, store.Inbox, store.AllUIDs(), box.ID, store.CopyOptions{}); err != nil {
				b.Fatal(err)
			}
			t := b.Elapsed()
			r, err := a.Expunge(ctx, box.ID, store.AllUIDs(), store.ExpungeOptions{})
			if err != nil || r.UIDs.Count() != 100_000 {
				b.Fatal(err)
			}
			expunge += int64(b.Elapsed() - t)
		}
		b.ReportMetric(float64(expunge)/float64(b.N), "ns/expunge")
	})
}

// BenchmarkRead reads whole messages, and beside them plain files of the same
// size.
func BenchmarkRead(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		dir := b.TempDir()
		s := benchStore(b, filepath.Join(dir, "mail"))
		defer s.Close()
		a := newAccount(b, s, "a")
		body := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		if _, err := a.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader(body)}}, store.AppendOptions{}); err != nil {
			b.Fatal(err)
		}
		s.db.Flush()
		var m store.Message
		for m = range a.Messages(ctx, store.Inbox, store.Query{}) {
		}
		name := filepath.Join(dir, "file")
		if err := os.WriteFile(name, body, 0o600); err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, 64<<10)
		drain := func(b *testing.B, r io.ReaderAt) {
			n := int64(0)
			for n < int64(size) {
				k, err := r.ReadAt(buf, n)
				if n += int64(k); err != nil && n < int64(size) {
					b.Fatal(err)
				}
			}
		}
		b.Run(fmt.Sprintf("%d/file", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				f, err := os.Open(name)
				if err != nil {
					b.Fatal(err)
				}
				drain(b, f)
				f.Close()
			}
		})
		b.Run(fmt.Sprintf("%d/store", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				blob, err := a.Open(ctx, m)
				if err != nil {
					b.Fatal(err)
				}
				drain(b, blob)
				blob.Close()
			}
		})
	}
}

// BenchmarkFetch reads on from message to message, with what each method of
// reading gives along.
func BenchmarkFetch(b *testing.B) {
	s := benchStore(b, b.TempDir())
	defer s.Close()
	a := newAccount(b, s, "a")
	const n, size = 1000, 4 << 10
	d := make([]store.Draft, n)
	for i := range d {
		body := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		d[i] = store.Draft{Head: []byte("Delivered-To: x\r\n"), Body: bytes.NewReader(body), Summary: body[:600], MessageID: fmt.Sprint(i)}
	}
	if _, err := a.Append(ctx, store.Inbox, d, store.AppendOptions{}); err != nil {
		b.Fatal(err)
	}
	s.db.Flush()
	for _, c := range []struct {
		name   string
		fields store.Fields
	}{{"dates", store.WithDates}, {"summaries", store.WithSummary}, {"bodies", store.WithBody}} {
		b.Run(c.name, func(b *testing.B) {
			buf := make([]byte, 64<<10)
			b.ReportAllocs()
			for b.Loop() {
				for m, err := range a.Messages(ctx, store.Inbox, store.Query{Fields: c.fields}) {
					if err == nil && c.fields == store.WithBody {
						if k, _ := m.Body.ReadAt(buf, 0); int64(k) != m.Size {
							b.Fatal(k)
						}
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/message")
		})
	}
}

// BenchmarkChanges asks what left a mailbox, after 1,000 expunges.
func BenchmarkChanges(b *testing.B) {
	s := benchStore(b, b.TempDir())
	defer s.Close()
	a := newAccount(b, s, "a")
	const n = 1000
	d := make([]store.Draft, 2*n)
	for i := range d {
		d[i] = store.Draft{Body: bytes.NewReader([]byte("Subject: x\r\n\r\n"))}
	}
	r, err := a.Append(ctx, store.Inbox, d, store.AppendOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		if _, err := a.Expunge(ctx, store.Inbox, store.UIDs(store.UID(2*i+1)), store.ExpungeOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		c, err := a.Changes(ctx, store.Inbox, r.ModSeq)
		if err != nil || c.Expunged.Count() != n {
			b.Fatal(c, err)
		}
	}
}
