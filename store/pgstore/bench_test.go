package pgstore_test

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/pgstore"
)

func accounts(tb testing.TB, s *pgstore.Store, n int) []store.Account {
	tb.Helper()
	out := make([]store.Account, n)
	for i := range out {
		id := fmt.Sprint("user", i)
		if err := s.CreateAccount(tb.Context(), id); err != nil {
			tb.Fatal(err)
		}
		a, err := s.Account(tb.Context(), id)
		if err != nil {
			tb.Fatal(err)
		}
		out[i] = a
	}
	return out
}

// message is 4 KB of text.
var message = bytes.Repeat([]byte("Subject: a line of text that is no header\r\n"), 96)

func benchmarkAppend(b *testing.B, boxes int) {
	pool := pgtest.Pool(b)
	s := open(b, pool, pgstore.Options{Schema: pgtest.Schema(b, pool)})
	accs := accounts(b, s, boxes)
	var n atomic.Int64
	b.SetParallelism(25) // of 2 cores: 50 sessions
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			d := store.Draft{Body: bytes.NewReader(message), MessageID: fmt.Sprintf("%d@example.org", i), Summary: message[:300]}
			if _, err := accs[int(i)%len(accs)].Append(context.Background(), store.Inbox, []store.Draft{d}, store.AppendOptions{}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

func BenchmarkAppend16Accounts(b *testing.B) { benchmarkAppend(b, 16) }
func BenchmarkAppend1Account(b *testing.B)   { benchmarkAppend(b, 1) }

func BenchmarkDeliver50(b *testing.B) {
	pool := pgtest.Pool(b)
	s := open(b, pool, pgstore.Options{Schema: pgtest.Schema(b, pool)})
	accounts(b, s, 50)
	targets := make([]store.Target, 50)
	for i := range targets {
		targets[i] = store.Target{Account: fmt.Sprint("user", i), Head: []byte("Delivered-To: x\r\n"), Summary: message[:300]}
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		for i := range targets {
			targets[i].Once = fmt.Sprint(n)
		}
		for _, err := range store.Deliver(b.Context(), s, store.Draft{Body: bytes.NewReader(message), MessageID: fmt.Sprint(n)}, targets) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(50*float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
}

// large is a mailbox of 100,000 messages.
func large(b *testing.B) store.Account {
	pool := pgtest.Pool(b)
	s := open(b, pool, pgstore.Options{Schema: pgtest.Schema(b, pool)})
	acc := accounts(b, s, 1)[0]
	d := make([]store.Draft, 1000)
	for i := range d {
		d[i] = store.Draft{Body: bytes.NewReader(message[:500]), Flags: store.NewFlags(store.SystemFlags(i % 2))}
	}
	for range 100 {
		if _, err := acc.Append(b.Context(), store.Inbox, d, store.AppendOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := pool.Exec(b.Context(), "VACUUM ANALYZE"); err != nil {
		b.Fatal(err)
	}
	return acc
}

func BenchmarkList100k(b *testing.B) {
	acc := large(b)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range acc.Messages(b.Context(), store.Inbox, store.Query{}) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 100_000 {
			b.Fatal(n)
		}
	}
}

func BenchmarkFlags100k(b *testing.B) {
	acc := large(b)
	b.ReportAllocs()
	mode := store.AddFlags
	for b.Loop() {
		r, err := acc.SetFlags(b.Context(), store.Inbox, store.AllUIDs(), store.FlagOp{Mode: mode, Flags: store.NewFlags(store.Flagged)})
		if err != nil || r.Changed.Count() != 100_000 {
			b.Fatal(r.Changed.Count(), err)
		}
		mode = store.AddFlags + store.RemoveFlags - mode
	}
}
