package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
)

var ctx = context.Background()

func account(tb testing.TB, s *memstore.Store, id string) store.Account {
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

func fill(tb testing.TB, a store.Account, n int) {
	tb.Helper()
	d := make([]store.Draft, n)
	for i := range d {
		d[i].Body = bytes.NewReader([]byte("x"))
	}
	if _, err := a.Append(ctx, store.Inbox, d, store.AppendOptions{}); err != nil {
		tb.Fatal(err)
	}
}

func view(tb testing.TB, a store.Account) *store.View {
	tb.Helper()
	v, err := store.OpenView(ctx, a, store.Inbox)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func pull(tb testing.TB, v *store.View) *store.Snapshot {
	tb.Helper()
	s, err := v.Sync(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// counted counts the calls that read.
type counted struct {
	store.Account
	mailboxes, messages, changes atomic.Int64
}

func (c *counted) Mailboxes(ctx context.Context, q store.MailboxQuery) ([]store.Mailbox, store.ModSeq, error) {
	c.mailboxes.Add(1)
	return c.Account.Mailboxes(ctx, q)
}

func (c *counted) Messages(ctx context.Context, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
	c.messages.Add(1)
	return c.Account.Messages(ctx, box, q)
}

func (c *counted) Changes(ctx context.Context, box store.MailboxID, since store.ModSeq) (store.Changes, error) {
	c.changes.Add(1)
	return c.Account.Changes(ctx, box, since)
}

func TestView(t *testing.T) {
	a := account(t, memstore.New(), "alice")
	v := view(t, a)
	if s := v.Snapshot(); s.Len() != 0 || s.UIDNext() != 1 || s.UIDValidity() == 0 {
		t.Fatalf("empty: %d messages, UIDNext %d, UIDVALIDITY %d", s.Len(), s.UIDNext(), s.UIDValidity())
	}
	empty := v.Snapshot()
	if i, ok := empty.Index(5); i != 0 || ok {
		t.Error("Index in an empty Snapshot")
	}
	fill(t, a, 5000)
	s := pull(t, v)
	if s.Len() != 5000 || s.UIDNext() != 5001 {
		t.Fatalf("%d messages, UIDNext %d", s.Len(), s.UIDNext())
	}
	if d := empty.Diff(s); d.Added.String() != "1:5000" || !d.Changed.Empty() || !d.Expunged.Empty() {
		t.Errorf("Diff: %v", d)
	}
	// Holes of all sizes.
	gone, _ := store.ParseUIDSet("1,3,5,1000:3100,4000,4999:5000")
	if _, err := a.Expunge(ctx, store.Inbox, gone, store.ExpungeOptions{}); err != nil {
		t.Fatal(err)
	}
	op := store.FlagOp{Flags: store.NewFlags(store.Flagged, "x")}
	if _, err := a.SetFlags(ctx, store.Inbox, store.UIDs(2, 3200), op); err != nil {
		t.Fatal(err)
	}
	fill(t, a, 2)
	n := pull(t, v)
	d := s.Diff(n)
	if !d.Expunged.Equal(gone) || d.Changed.String() != "2,3200" || d.Added.String() != "5001:5002" {
		t.Errorf("Diff: %v", d)
	}
	if back := n.Diff(s); !back.Expunged.Equal(d.Added) || !back.Added.Equal(d.Expunged) {
		t.Errorf("Diff the other way: %v", back)
	}
	if s.Len() != 5000 || s.Flags(1).System != 0 {
		t.Error("an old Snapshot changed")
	}
	// Indexes and rows agree whichever way they are asked for.
	i := 0
	for j, r := range n.Rows(nil) {
		if j != i || n.UID(i) != r.UID || n.Size(i) != r.Size || n.MessageModSeq(i) != r.ModSeq || !n.Flags(i).Equal(r.Flags) {
			t.Fatalf("row %d: %+v", i, r)
		}
		if k, ok := n.Index(r.UID); !ok || k != i {
			t.Fatalf("Index(%d) = %d, %v; want %d", r.UID, k, ok, i)
		}
		i++
	}
	if i != n.Len() {
		t.Fatalf("%d rows of %d", i, n.Len())
	}
	if k, ok := n.Index(2000); ok || n.UID(k) != 3101 {
		t.Errorf("Index of an expunged UID: %d, %v", k, ok)
	}
	got := store.UIDSet{}
	for _, r := range n.Rows(store.UIDSet{{First: 1, Last: 4}, {First: 3000, Last: 3102}, {First: 5002, Last: store.MaxUID}}) {
		got.Add(r.UID)
	}
	if got.String() != "2,4,3101:3102,5002" {
		t.Errorf("Rows: %v", got)
	}
	for range n.Rows(store.UIDSet{}) {
		t.Error("Rows of no UIDs")
	}
	if k := n.Keywords(); len(k) != 1 || k[0] != "x" {
		t.Errorf("Keywords: %q", k)
	}
	if !n.UIDs().Equal(store.UIDSet{{First: 1, Last: 5002}}.Subtract(gone)) {
		t.Error("UIDs")
	}
}

func TestFoldNeedsNoRead(t *testing.T) {
	c := &counted{Account: account(t, memstore.New(), "alice")}
	v := view(t, c)
	reads := func() int64 { return c.mailboxes.Load() + c.messages.Load() + c.changes.Load() }
	before := reads()
	var o store.AppendOptions
	r, err := c.Append(ctx, store.Inbox, make([]store.Draft, 3), o)
	if err != nil || !v.FoldAppended(o, r) || v.Snapshot().Len() != 3 {
		t.Fatal("append", err, v.Snapshot().Len())
	}
	o.Replace.Box, o.Replace.UID = store.Inbox, 2
	r, err = c.Append(ctx, store.Inbox, make([]store.Draft, 1), o)
	if err != nil || !v.FoldAppended(o, r) || v.Snapshot().UIDs().String() != "1,3:4" {
		t.Fatal("replace", err, v.Snapshot().UIDs())
	}
	op := store.FlagOp{Flags: store.NewFlags(store.Seen, "Kw")}
	f, err := c.SetFlags(ctx, store.Inbox, store.AllUIDs(), op)
	if err != nil || !v.FoldFlags(op, f) || !v.Snapshot().Flags(2).Has("kw") {
		t.Fatal("flags", err)
	}
	f, err = c.SetFlags(ctx, store.Inbox, store.AllUIDs(), op)
	if err != nil || !v.FoldFlags(op, f) {
		t.Fatal("flags again", err)
	}
	e, err := c.Expunge(ctx, store.Inbox, store.UIDs(3), store.ExpungeOptions{})
	if err != nil || !v.FoldExpunged(e) || v.Snapshot().UIDs().String() != "1,4" {
		t.Fatal("expunge", err)
	}
	if n := reads(); n != before {
		t.Errorf("%d reads for own writes, want none", n-before)
	}
	// Another's write between: the own one must not be folded over it.
	if _, err := c.Expunge(ctx, store.Inbox, store.UIDs(1), store.ExpungeOptions{}); err != nil {
		t.Fatal(err)
	}
	e, err = c.Expunge(ctx, store.Inbox, store.UIDs(4), store.ExpungeOptions{})
	if err != nil || v.FoldExpunged(e) {
		t.Fatal("folded over another's write", err)
	}
	if s := pull(t, v); s.Len() != 0 {
		t.Fatalf("%d messages", s.Len())
	}
	if !v.FoldExpunged(e) {
		t.Error("a result that Sync has brought is not known to be there")
	}
}

// between calls f once between Changes and Messages: the moment at which
// another's Fold makes trouble for a careless Sync.
type between struct {
	store.Account
	f func()
}

func (b *between) Changes(ctx context.Context, box store.MailboxID, since store.ModSeq) (store.Changes, error) {
	c, err := b.Account.Changes(ctx, box, since)
	return c, err
}

func (b *between) Messages(ctx context.Context, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
	return func(yield func(store.Message, error) bool) {
		for m, err := range b.Account.Messages(ctx, box, q) {
			if !yield(m, err) {
				return
			}
		}
		if f := b.f; f != nil {
			b.f = nil
			f()
		}
	}
}

func TestFoldDuringSync(t *testing.T) {
	for _, history := range []int{0, -1} {
		inner := account(t, &memstore.Store{History: history}, "alice")
		b := &between{Account: inner}
		fill(t, inner, 3)
		v := view(t, b)
		fill(t, inner, 2) // 4 and 5, to be pulled
		b.f = func() {
			// The pull has seen 4 and 5 by now. They are expunged, and folded
			// away after one more pull's worth of news cannot be: Prev is
			// beyond the cursor, so this Fold must decline.
			e, err := inner.Expunge(ctx, store.Inbox, store.UIDs(4), store.ExpungeOptions{})
			if err != nil {
				t.Error(err)
			}
			if v.FoldExpunged(e) {
				t.Error("folded over a commit that was not there yet")
			}
		}
		pull(t, v)
		if s := pull(t, v); s.UIDs().String() != "1:3,5" {
			t.Errorf("history %d: %v", history, s.UIDs())
		}
		// Now the cursor is at the top, and the pull has nothing to bring but
		// a change of flags; the folded expunge must survive it.
		op := store.FlagOp{Flags: store.NewFlags(store.Seen)}
		r, err := inner.SetFlags(ctx, store.Inbox, store.UIDs(1, 2, 3), op)
		if err != nil {
			t.Fatal(err)
		}
		b.f = func() {
			if !v.FoldFlags(op, r) {
				t.Error("not folded")
			}
			e, err := inner.Expunge(ctx, store.Inbox, store.UIDs(2), store.ExpungeOptions{})
			if err != nil || !v.FoldExpunged(e) {
				t.Error("not folded", err)
			}
			ap, err := inner.Append(ctx, store.Inbox, make([]store.Draft, 1), store.AppendOptions{})
			if err != nil || !v.FoldAppended(store.AppendOptions{}, ap) {
				t.Error("not folded", err)
			}
		}
		if s := pull(t, v); s.UIDs().String() != "1,3,5:6" {
			t.Errorf("history %d: %v, a folded expunge came back or a folded append was lost", history, s.UIDs())
		}
		if s := pull(t, v); s.UIDs().String() != "1,3,5:6" {
			t.Errorf("history %d: %v", history, s.UIDs())
		}
	}
}

func TestViewRelist(t *testing.T) {
	a := account(t, &memstore.Store{History: -1}, "alice")
	fill(t, a, 3000)
	v := view(t, a)
	s := v.Snapshot()
	if _, err := a.Expunge(ctx, store.Inbox, store.UIDSet{{First: 10, Last: 2990}}, store.ExpungeOptions{}); err != nil {
		t.Fatal(err)
	}
	fill(t, a, 1)
	n := pull(t, v)
	if d := s.Diff(n); d.Expunged.String() != "10:2990" || d.Added.String() != "3001" || !d.Changed.Empty() {
		t.Errorf("Diff: %v", d)
	}
	name := "box"
	if _, err := a.CreateMailbox(ctx, store.NewMailbox{Name: name}); err != nil {
		t.Fatal(err)
	}
	if s := pull(t, v); s != n && !n.Diff(s).Empty() {
		t.Error("nothing happened here, but Diff says so")
	}
}

func TestViewGone(t *testing.T) {
	s := memstore.New()
	a := account(t, s, "alice")
	m, err := a.CreateMailbox(ctx, store.NewMailbox{Name: "box"})
	if err != nil {
		t.Fatal(err)
	}
	v, err := store.OpenView(ctx, a, m.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.DeleteMailbox(ctx, m.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Sync(ctx); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("Sync of a deleted mailbox: %v", err)
	}
	if _, err := store.OpenView(ctx, a, m.ID); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("OpenView of a deleted mailbox: %v", err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := v.Sync(done); err == nil {
		t.Error("Sync with a done context")
	}
}

func TestViews(t *testing.T) {
	s := memstore.New()
	c := &counted{Account: account(t, s, "alice")}
	fill(t, c, 100)
	inbox := func() store.Mailbox {
		boxes, _, err := c.Account.Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{store.Inbox}})
		if err != nil {
			t.Fatal(err)
		}
		return boxes[0]
	}
	var views store.Views
	var wg sync.WaitGroup
	var opened [8]*store.View
	for i := range opened {
		wg.Go(func() {
			v, err := views.Open(ctx, "alice", c, inbox())
			if err != nil {
				t.Error(err)
			}
			opened[i] = v
		})
	}
	wg.Wait()
	for _, v := range opened {
		if v != opened[0] {
			t.Fatal("sessions do not share a View")
		}
		views.Close(v)
	}
	if n := c.messages.Load(); n != 1 {
		t.Errorf("the mailbox was listed %d times", n)
	}
	before := c.changes.Load()
	v, err := views.Open(ctx, "alice", c, inbox())
	if err != nil || v != opened[0] || c.changes.Load() != before {
		t.Error("a warm View was read again", err)
	}
	fill(t, c, 1)
	w, err := views.Open(ctx, "alice", c, inbox())
	if err != nil || w != v || w.Snapshot().Len() != 101 {
		t.Error("a warm View was not synced to the mailbox's ModSeq", err)
	}
	if x, err := views.Open(ctx, "bob", c, inbox()); err != nil || x == v {
		t.Error("two viewers share a View", err)
	}
	views.Close(v)
	views.Close(w)

	// An account that is made again has a View of its own.
	if err := s.DeleteAccount(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	c.Account = account(t, s, "alice")
	if x, err := views.Open(ctx, "alice", c, inbox()); err != nil || x == v || x.Snapshot().Len() != 0 {
		t.Error("the View of a deleted account is used", err)
	}
	if _, err := views.Open(ctx, "alice", c, store.Mailbox{ID: "gone", UIDValidity: 1}); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("Open of an unknown mailbox: %v", err)
	}

	small := store.Views{MaxBytes: -1}
	v, err = small.Open(ctx, "alice", c, inbox())
	if err != nil {
		t.Fatal(err)
	}
	small.Close(v)
	if x, err := small.Open(ctx, "alice", c, inbox()); err != nil || x == v {
		t.Error("an idle View was kept beyond MaxBytes", err)
	}
}

func TestManyKeywordSets(t *testing.T) {
	a := account(t, &memstore.Store{Keywords: -1}, "alice")
	fill(t, a, 2)
	v := view(t, a)
	for i := range 10_000 {
		op := store.FlagOp{Mode: store.ReplaceFlags, Flags: store.NewFlags(store.Seen, fmt.Sprint("kw", i))}
		r, err := a.SetFlags(ctx, store.Inbox, store.UIDs(1), op)
		if err != nil || !v.FoldFlags(op, r) {
			t.Fatal(err)
		}
	}
	if k := v.Snapshot().Keywords(); len(k) != 1 || k[0] != "kw9999" {
		t.Errorf("Keywords: %q", k)
	}
}

func bench(b *testing.B, n int) (store.Account, *store.View) {
	a := account(b, memstore.New(), "alice")
	fill(b, a, n)
	op := store.FlagOp{Flags: store.NewFlags(store.Seen, "$Label1", "NonJunk")}
	if _, err := a.SetFlags(ctx, store.Inbox, store.UIDSet{{First: 1, Last: store.UID(n / 2)}}, op); err != nil {
		b.Fatal(err)
	}
	return a, view(b, a)
}

const many = 100_000

func BenchmarkOpenView100k(b *testing.B) {
	a, _ := bench(b, many)
	b.ReportAllocs()
	for b.Loop() {
		view(b, a)
	}
}

func BenchmarkRows100k(b *testing.B) {
	_, v := bench(b, many)
	s := v.Snapshot()
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, r := range s.Rows(nil) {
			n += len(r.Flags.Keywords) + int(r.UID&1)
		}
	}
}

func BenchmarkRowByIndex100k(b *testing.B) {
	_, v := bench(b, many)
	s := v.Snapshot()
	b.ReportAllocs()
	for b.Loop() {
		for i := range s.Len() {
			_ = s.Row(i)
		}
	}
}

func BenchmarkSyncNothing100k(b *testing.B) {
	_, v := bench(b, many)
	b.ReportAllocs()
	for b.Loop() {
		pull(b, v)
	}
}

func BenchmarkSyncOneChange100k(b *testing.B) {
	a, v := bench(b, many)
	b.ReportAllocs()
	mode := store.AddFlags
	for b.Loop() {
		if _, err := a.SetFlags(ctx, store.Inbox, store.UIDs(70_000), store.FlagOp{Mode: mode, Flags: store.NewFlags(store.Flagged)}); err != nil {
			b.Fatal(err)
		}
		mode ^= store.AddFlags ^ store.RemoveFlags
		old := v.Snapshot()
		if d := old.Diff(pull(b, v)); d.Changed.Count() != 1 {
			b.Fatal(d)
		}
	}
}

func BenchmarkFoldAllFlags100k(b *testing.B) {
	a, v := bench(b, many)
	b.ReportAllocs()
	mode := store.AddFlags
	for b.Loop() {
		op := store.FlagOp{Mode: mode, Flags: store.NewFlags(store.Flagged)}
		r, err := a.SetFlags(ctx, store.Inbox, store.AllUIDs(), op)
		if err != nil || !v.FoldFlags(op, r) {
			b.Fatal(err)
		}
		mode ^= store.AddFlags ^ store.RemoveFlags
	}
}

func BenchmarkDiffEqual100k(b *testing.B) {
	_, v := bench(b, many)
	s := v.Snapshot()
	b.ReportAllocs()
	for b.Loop() {
		if d := s.Diff(v.Snapshot()); !d.Empty() {
			b.Fatal(d)
		}
	}
}

// BenchmarkViewMemory100k reports the octets that a View keeps per message.
func BenchmarkViewMemory100k(b *testing.B) {
	a, _ := bench(b, many)
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for b.Loop() {
		before := heap()
		v := view(b, a)
		b.ReportMetric(float64(heap()-before)/many, "B/message")
		runtime.KeepAlive(v)
	}
}
