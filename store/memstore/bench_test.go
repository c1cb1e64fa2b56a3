package memstore_test

import (
	"bytes"
	"testing"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
)

func BenchmarkAppend4K(b *testing.B) {
	a := open(b, memstore.New(), "alice")
	body := bytes.Repeat([]byte("x"), 4096)
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader(body)}}, store.AppendOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSetFlags100k(b *testing.B) {
	for name, f := range map[string]store.Flags{"system": store.NewFlags(store.Flagged), "keyword": store.NewFlags(0, "kw")} {
		b.Run(name, func(b *testing.B) {
			a := open(b, memstore.New(), "alice")
			fill(b, a, 100_000)
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
}

func BenchmarkMessages100k(b *testing.B) {
	a := open(b, memstore.New(), "alice")
	fill(b, a, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range a.Messages(ctx, store.Inbox, store.Query{}) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
	}
}

func BenchmarkDeliver50(b *testing.B) {
	s := memstore.New()
	targets := make([]store.Target, 50)
	for i := range targets {
		id := string(rune('A' + i))
		open(b, s, id)
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
		for _, err := range store.Deliver(ctx, s, store.Draft{Body: st}, targets) {
			if err != nil {
				b.Fatal(err)
			}
		}
		st.Close()
	}
}
