package memstore_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
)

var ctx = context.Background()

func open(tb testing.TB, s *memstore.Store, id string) store.Account {
	tb.Helper()
	if err := s.CreateAccount(ctx, id); err != nil {
		tb.Fatal(err)
	}
	a, err := s.Account(ctx, id)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func draft(text string) store.Draft { return store.Draft{Body: bytes.NewReader([]byte(text))} }

func fill(tb testing.TB, a store.Account, n int) {
	d := make([]store.Draft, n)
	for i := range d {
		d[i] = draft("x")
	}
	if _, err := a.Append(ctx, store.Inbox, d, store.AppendOptions{}); err != nil {
		tb.Fatal(err)
	}
}

func TestSmoke(t *testing.T) {
	a := open(t, memstore.New(), "alice")
	v, err := store.OpenView(ctx, a, store.Inbox)
	if err != nil {
		t.Fatal(err)
	}
	s0 := v.Snapshot()
	fill(t, a, 3000)
	s1, err := v.Sync(ctx)
	if err != nil || s1.Len() != 3000 {
		t.Fatal(err, s1.Len())
	}
	if d := s0.Diff(s1); d.Added.String() != "1:3000" {
		t.Fatal(d)
	}
	op := store.FlagOp{Flags: store.NewFlags(store.Seen, "Foo")}
	r, err := a.SetFlags(ctx, store.Inbox, store.UIDSet{{First: 5, Last: 7}}, op)
	if err != nil {
		t.Fatal(err)
	}
	if !v.FoldFlags(op, r) {
		t.Fatal("not folded")
	}
	s2 := v.Snapshot()
	if d := s1.Diff(s2); d.Changed.String() != "5:7" || !d.Expunged.Empty() || !d.Added.Empty() {
		t.Fatal(d)
	}
	if !s2.Flags(4).Has("foo") || s2.Flags(3).Has("foo") {
		t.Fatal("flags")
	}
	e, err := a.Expunge(ctx, store.Inbox, store.UIDSet{{First: 6, Last: 2000}}, store.ExpungeOptions{})
	if err != nil || e.UIDs.Count() != 1995 {
		t.Fatal(e, err)
	}
	s3, err := v.Sync(ctx)
	if err != nil || s3.Len() != 1005 {
		t.Fatal(err, s3.Len())
	}
	if i, ok := s3.Index(2001); !ok || i != 5 || s3.UID(i) != 2001 {
		t.Fatal(i, ok)
	}
	if d := s1.Diff(s3); d.Changed.String() != "5" || d.Expunged.String() != "6:2000" {
		t.Fatal(d)
	}
}
