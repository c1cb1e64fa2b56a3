package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
	"github.com/postrider/postrider/store/storetest"
	"github.com/postrider/postrider/store/transfer"
)

func account(t testing.TB) store.Account {
	t.Helper()
	s := memstore.New()
	if err := s.CreateAccount(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	a, err := s.Account(t.Context(), "ann")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// plain hides what is optional.
type plain struct{ store.Account }

func draft(i int) store.Draft {
	text := fmt.Sprintf("Message-ID: <%d@example.org>\r\nSubject: %d\r\n\r\nbody\r\n", i, i)
	return store.Draft{
		Body: bytes.NewReader([]byte(text)), Flags: store.NewFlags(store.SystemFlags(i%4), fmt.Sprint("k", i%3)),
		InternalDate: time.Unix(1e9+int64(i), 0), Summary: []byte(fmt.Sprint("summary ", i)),
	}
}

func fill(t testing.TB, a store.Account, box store.MailboxID, n int) {
	t.Helper()
	for i := range n {
		if _, err := a.Append(t.Context(), box, []store.Draft{draft(i)}, store.AppendOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func boxes(t testing.TB, a store.Account) map[string]store.Mailbox {
	t.Helper()
	list, _, err := a.Mailboxes(t.Context(), store.MailboxQuery{Counts: true})
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]store.Mailbox)
	for _, b := range list {
		out[b.Name] = b
	}
	return out
}

// content is what clients see of a mailbox, a line for each message.
func content(t testing.TB, a store.Account, box store.MailboxID, uids bool) []string {
	t.Helper()
	var out []string
	for m, err := range a.Messages(t.Context(), box, store.Query{Fields: store.WithDates | store.WithSummary}) {
		if err != nil {
			t.Fatal(err)
		}
		summary := string(m.Summary)
		b, err := a.Open(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
		line := fmt.Sprintf("%v %v %s %q", m.Flags, m.InternalDate.Unix(), summary, text)
		if uids {
			line = fmt.Sprint(m.UID, " ", line)
		}
		out = append(out, line)
	}
	return out
}

func same(t testing.TB, what string, to, from store.Account, uids bool) {
	t.Helper()
	a, b := boxes(t, to), boxes(t, from)
	if len(a) != len(b) {
		t.Fatalf("%s: %d mailboxes, want %d", what, len(a), len(b))
	}
	for name, want := range b {
		got := a[name]
		if uids && (got.UIDValidity != want.UIDValidity || got.UIDNext != want.UIDNext || got.ModSeq < want.ModSeq) {
			t.Errorf("%s: mailbox is %+v, want at least %+v", what, got, want)
		}
		x, y := content(t, to, got.ID, uids), content(t, from, want.ID, uids)
		if len(x) != len(y) {
			t.Fatalf("%s: %s has %d messages, want %d", what, name, len(x), len(y))
		}
		for i := range x {
			if x[i] != y[i] {
				t.Fatalf("%s: %s has\n%s\nwant\n%s", what, name, x[i], y[i])
			}
		}
	}
}

func TestCopy(t *testing.T) {
	ctx := t.Context()
	from, to := account(t), account(t)
	fill(t, from, store.Inbox, 150)
	work, err := from.CreateMailbox(ctx, store.NewMailbox{Name: "Work/Résumés", SpecialUse: []string{`\Archive`}})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, from, work.ID, 5)
	if _, err := from.Expunge(ctx, work.ID, store.UIDSet{{First: 2, Last: 2}, {First: 5, Last: 5}}, store.ExpungeOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := from.(store.Subscriber).Subscribe(ctx, "Work/Résumés"); err != nil {
		t.Fatal(err)
	}

	var last transfer.Progress
	o := transfer.Options{Progress: func(p transfer.Progress) { last = p }}
	r, err := transfer.Copy(ctx, to, storetest.Strict(from, storetest.StrictOptions{}), o)
	if err != nil || r.Mailboxes != 2 || r.Messages != 153 || r.Flagged != 0 || r.Expunged != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if last.Messages != 153 || last.MessagesTotal != 153 || last.Octets != last.OctetsTotal || r.Octets != last.Octets {
		t.Errorf("progress ended at %+v", last)
	}
	same(t, "first copy", to, from, true)
	if got := boxes(t, to)["Work/Résumés"].SpecialUse; len(got) != 1 {
		t.Errorf("special use is %v", got)
	}
	if subs, err := to.(store.Subscriber).Subscriptions(ctx); err != nil || len(subs) != 1 {
		t.Errorf("subscriptions: %v, %v", subs, err)
	}

	before := boxes(t, to)
	r, err = transfer.Copy(ctx, to, from, transfer.Options{})
	if err != nil || r.Messages+r.Flagged+r.Expunged != 0 {
		t.Fatalf("a copy with nothing new: %+v, %v", r, err)
	}
	for name, b := range boxes(t, to) {
		if b.ModSeq != before[name].ModSeq {
			t.Errorf("a copy with nothing new raised the ModSeq of %s", name)
		}
	}

	fill(t, from, store.Inbox, 3)
	if _, err := from.Expunge(ctx, store.Inbox, store.UIDSet{{First: 10, Last: 19}}, store.ExpungeOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := from.SetFlags(ctx, store.Inbox, store.UIDSet{{First: 100, Last: 120}}, store.FlagOp{Flags: store.NewFlags(store.Flagged)}); err != nil {
		t.Fatal(err)
	}
	r, err = transfer.Copy(ctx, to, from, transfer.Options{})
	if err != nil || r.Messages != 3 || r.Flagged != 21 || r.Expunged != 10 {
		t.Fatalf("copy of changes: %+v, %v", r, err)
	}
	same(t, "copy of changes", to, from, true)
}

func TestCopyGivesOwnUIDs(t *testing.T) {
	ctx := t.Context()
	from, to := account(t), account(t)
	fill(t, from, store.Inbox, 100)
	if _, err := from.Expunge(ctx, store.Inbox, store.UIDSet{{First: 1, Last: 50}}, store.ExpungeOptions{}); err != nil {
		t.Fatal(err)
	}
	if r, err := transfer.Copy(ctx, plain{to}, plain{from}, transfer.Options{}); err != nil || r.Messages != 50 {
		t.Fatalf("%+v, %v", r, err)
	}
	same(t, "copy", to, from, false)
	if got := boxes(t, to)["INBOX"]; got.UIDNext != 51 {
		t.Errorf("UIDNEXT is %d", got.UIDNext)
	}
	if _, err := transfer.Copy(ctx, plain{to}, plain{from}, transfer.Options{}); !errors.Is(err, transfer.ErrDiverged) {
		t.Errorf("a second copy, which would double all: %v", err)
	}
}

func TestCopyDiverged(t *testing.T) {
	ctx := t.Context()
	from, to := account(t), account(t)
	fill(t, from, store.Inbox, 3)
	if _, err := transfer.Copy(ctx, to, from, transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	fill(t, to, store.Inbox, 1)
	if _, err := transfer.Copy(ctx, to, from, transfer.Options{}); !errors.Is(err, transfer.ErrDiverged) {
		t.Errorf("the destination got mail: %v", err)
	}
	other := account(t)
	fill(t, other, store.Inbox, 1)
	if _, err := other.(store.Importer).ImportMailbox(ctx, store.Mailbox{Name: "x", UIDValidity: 5}); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Append(ctx, store.Inbox, []store.Draft{draft(1)}, store.AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	third := account(t)
	if _, err := third.(store.Importer).ImportMailbox(ctx, store.Mailbox{Name: "INBOX", UIDValidity: 77}); err != nil {
		t.Fatal(err)
	}
	fill(t, third, store.Inbox, 1)
	before := content(t, third, store.Inbox, true)
	if _, err := transfer.Copy(ctx, third, from, transfer.Options{}); !errors.Is(err, transfer.ErrDiverged) {
		t.Errorf("another UIDVALIDITY: %v", err)
	}
	if after := content(t, third, store.Inbox, true); len(after) != len(before) {
		t.Errorf("a refused copy left %d messages", len(after))
	}
}

func TestCopyRename(t *testing.T) {
	ctx := t.Context()
	from, to := account(t), account(t)
	for _, name := range []string{"Old", "Spam"} {
		if _, err := from.CreateMailbox(ctx, store.NewMailbox{Name: name}); err != nil {
			t.Fatal(err)
		}
		if err := from.(store.Subscriber).Subscribe(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	_, err := transfer.Copy(ctx, to, from, transfer.Options{Rename: func(name string) string {
		return map[string]string{"INBOX": "INBOX", "Old": "New"}[name]
	}})
	if err != nil {
		t.Fatal(err)
	}
	got := boxes(t, to)
	subs, _ := to.(store.Subscriber).Subscriptions(ctx)
	if len(got) != 2 || got["New"].ID == "" || len(subs) != 1 || subs[0] != "New" {
		t.Errorf("mailboxes %v, subscriptions %v", got, subs)
	}
}

func TestCopyGoesOn(t *testing.T) {
	from, to := account(t), account(t)
	fill(t, from, store.Inbox, 300)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := transfer.Copy(ctx, to, from, transfer.Options{Progress: func(p transfer.Progress) {
		if p.Messages >= 100 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled copy: %v", err)
	}
	if n := boxes(t, to)["INBOX"].Counts.Messages; n == 0 || n == 300 {
		t.Fatalf("a cancelled copy brought over %d of 300", n)
	}
	if _, err := transfer.Copy(t.Context(), to, from, transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	same(t, "copy that goes on", to, from, true)
}

// A client that has synchronised with the source, at whatever moment, gets
// all that it does not know from the destination, by RFC 7162's rules.
func TestClientMovesToo(t *testing.T) {
	ctx := t.Context()
	from, to := account(t), account(t)
	fill(t, from, store.Inbox, 40)
	type client struct {
		modSeq store.ModSeq
		known  map[store.UID]string
	}
	state := func(a store.Account, since store.ModSeq, known map[store.UID]string) {
		for m, err := range a.Messages(ctx, store.Inbox, store.Query{ChangedSince: since}) {
			if err != nil {
				t.Error(err)
				return
			}
			known[m.UID] = fmt.Sprint(m.Flags)
		}
	}
	var clients []client
	sync1 := func() {
		c, err := from.Changes(ctx, store.Inbox, 0) // bound first
		if err != nil {
			t.Fatal(err)
		}
		x := client{c.ModSeq, make(map[store.UID]string)}
		state(from, 0, x.known)
		clients = append(clients, x)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	change := func() error {
		uid := store.UIDs(store.UID(1 + rnd.IntN(60)))
		var err error
		switch rnd.IntN(4) {
		case 0:
			_, err = from.Append(ctx, store.Inbox, []store.Draft{draft(rnd.IntN(100))}, store.AppendOptions{})
		case 1:
			_, err = from.Expunge(ctx, store.Inbox, uid, store.ExpungeOptions{})
		default:
			_, err = from.SetFlags(ctx, store.Inbox, uid, store.FlagOp{Mode: store.ReplaceFlags, Flags: store.NewFlags(store.SystemFlags(rnd.IntN(16)))})
		}
		return err
	}
	for range 6 {
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 30 {
				if err := change(); err != nil {
					t.Error(err)
				}
				sync1()
			}
		})
		if _, err := transfer.Copy(ctx, to, from, transfer.Options{}); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
	}
	if _, err := transfer.Copy(ctx, to, from, transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	same(t, "copies of a mailbox in use", to, from, true)
	want := make(map[store.UID]string)
	state(to, 0, want)
	quick := 0
	for _, x := range clients {
		c, err := to.Changes(ctx, store.Inbox, x.modSeq)
		switch {
		case errors.Is(err, store.ErrForgotten): // it lists all UIDs anew
			for uid := range x.known {
				if _, ok := want[uid]; !ok {
					delete(x.known, uid)
				}
			}
		case err != nil:
			t.Fatal(err)
		default:
			quick++
			for uid := range c.Expunged.All() {
				delete(x.known, uid)
			}
		}
		state(to, x.modSeq, x.known)
		if fmt.Sprint(x.known) != fmt.Sprint(want) {
			t.Fatalf("a client that knew ModSeq %d has\n%v\nwant\n%v", x.modSeq, x.known, want)
		}
	}
	if quick == 0 {
		t.Error("no client could use what the destination remembers")
	}
}

func BenchmarkCopy(b *testing.B) {
	from := account(b)
	fill(b, from, store.Inbox, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := transfer.Copy(b.Context(), account(b), from, transfer.Options{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/message")
}
