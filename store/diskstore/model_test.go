package diskstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
)

var ctx = context.Background()

func newStore(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := open(t, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newAccount(t testing.TB, s interface {
	store.Store
	store.Admin
}, id string) store.Account {
	t.Helper()
	if err := s.CreateAccount(ctx, id); err != nil {
		t.Fatal(err)
	}
	a, err := s.Account(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func check(t testing.TB, s *Store) Report {
	t.Helper()
	r, err := s.Check(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range r.Problems {
		if i < 5 {
			t.Errorf("Check: %s", p)
		}
	}
	return r
}

// shown is what can be seen of a mailbox but for IDs and ModSeqs, which two
// stores give out differently, and the spelling of keywords, which this one
// remembers for longer.
func shown(t testing.TB, a store.Account, box store.MailboxID) string {
	t.Helper()
	var w strings.Builder
	boxes, _, err := a.Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{box}, Counts: true})
	if err != nil || len(boxes) != 1 {
		t.Fatal(boxes, err)
	}
	fmt.Fprintf(&w, "%s next %d unseen %d %+v\n", boxes[0].Name, boxes[0].UIDNext, boxes[0].FirstUnseen, boxes[0].Counts)
	for m, err := range a.Messages(ctx, box, store.Query{Fields: store.WithDates | store.WithIDs | store.WithSummary | store.WithBody}) {
		if err != nil {
			t.Fatal(err)
		}
		b, err := a.Open(ctx, m)
		if err != nil {
			t.Fatalf("UID %d: %v", m.UID, err)
		}
		text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
		if err != nil || int64(len(text)) != m.Size {
			t.Fatalf("UID %d: %d octets of %d, %v", m.UID, len(text), m.Size, err)
		}
		if m.Body != nil {
			if ride, err := io.ReadAll(io.NewSectionReader(m.Body, 0, m.Body.Size())); err != nil || !bytes.Equal(ride, text) {
				t.Fatalf("UID %d: the body that rides along is another", m.UID)
			}
		}
		b.Close()
		fmt.Fprintf(&w, "%d %d %q %d %v %q %q\n", m.UID, m.Flags.System, strings.ToLower(fmt.Sprint(m.Flags.Keywords)), m.Size, m.InternalDate.Unix(), m.Summary, text)
	}
	return w.String()
}

// TestModel does the same random things to a store on disk, with short chunks
// so that all of its paths are met, and to one in memory.
func TestModel(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { model(t, seed) })
	}
}

func model(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	o := Options{MinFree: -1, BodyMemory: 60, Grace: time.Hour, lengths: lengths{chunk: 4 + rng.IntN(8), tailMax: 6, tailMin: 1 + rng.IntN(3)}}
	s, err := Open(dir, &o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Close() }()
	mem := memstore.New()
	accs := [2]store.Account{newAccount(t, s, "a"), newAccount(t, mem, "a")}
	boxes := [][2]store.MailboxID{{store.Inbox, store.Inbox}}
	create := func(name string) {
		var ids [2]store.MailboxID
		for i, a := range accs {
			m, err := a.CreateMailbox(ctx, store.NewMailbox{Name: name})
			if err != nil {
				t.Fatal(err)
			}
			ids[i] = m.ID
		}
		boxes = append(boxes, ids)
	}
	create("b1")
	create("b2")
	uids := func(box store.MailboxID) store.UIDSet {
		m, _, err := accs[0].Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{box}})
		if err != nil {
			t.Fatal(err)
		}
		out := store.UIDSet{}
		for range 1 + rng.IntN(3) {
			first := 1 + store.UID(rng.IntN(int(m[0].UIDNext)))
			last := first + store.UID(rng.IntN(6))
			if rng.IntN(8) == 0 {
				last = store.MaxUID
			}
			out.AddRange(first, last)
		}
		return out
	}
	words := []string{"Red", "green", "$Blue", "gold", "RED"}
	flags := func() store.Flags {
		f := store.Flags{System: store.SystemFlags(rng.IntN(32))}
		for _, w := range words {
			if rng.IntN(4) == 0 {
				f = f.With(store.NewFlags(0, w))
			}
		}
		return f
	}
	n := 0
	for step := range 200 {
		k := rng.IntN(len(boxes))
		var got [2]string
		say := func(i int, err error, format string, args ...any) {
			got[i] = fmt.Sprintf(format, args...)
			for _, e := range []error{store.ErrNotExist, store.ErrLimit} {
				if errors.Is(err, e) {
					err = e
				}
			}
			got[i] += fmt.Sprint(err)
		}
		switch op := rng.IntN(100); {
		case op < 35:
			var d []store.Draft
			for range 1 + rng.IntN(5) {
				n++
				d = append(d, store.Draft{Head: bytes.Repeat([]byte("h"), rng.IntN(3)), Body: strings.NewReader(strings.Repeat(fmt.Sprint(n, " "), rng.IntN(40))),
					Flags: flags(), Summary: fmt.Appendf(nil, "s%d", n), InternalDate: time.Unix(int64(n), 0), MessageID: fmt.Sprint(n % 20)})
			}
			var o [2]store.AppendOptions
			if rng.IntN(4) == 0 {
				rk := rng.IntN(len(boxes))
				u := uids(boxes[rk][0]).First()
				for i := range o {
					o[i].Replace.Box, o[i].Replace.UID = boxes[rk][i], u
				}
			}
			for i, a := range accs {
				r, err := a.Append(ctx, boxes[k][i], d, o[i])
				say(i, err, "append %d %v", len(r.Messages), r.Replaced.Prev != r.Replaced.ModSeq)
			}
		case op < 60:
			u, f := uids(boxes[k][0]), store.FlagOp{Mode: store.FlagMode(rng.IntN(3)), Flags: flags(), IfAbsent: rng.IntN(5) == 0}
			for i, a := range accs {
				r, err := a.SetFlags(ctx, boxes[k][i], u, f)
				say(i, err, "flags %v %v %v", r.Changed, r.Modified, r.Prev != r.ModSeq)
			}
		case op < 75:
			u, only := uids(boxes[k][0]), rng.IntN(2) == 0
			for i, a := range accs {
				r, err := a.Expunge(ctx, boxes[k][i], u, store.ExpungeOptions{OnlyDeleted: only})
				say(i, err, "expunge %v %v", r.UIDs, r.Prev != r.ModSeq)
			}
		case op < 92:
			u, to, move := uids(boxes[k][0]), rng.IntN(len(boxes)), rng.IntN(2) == 0
			for i, a := range accs {
				r, err := a.Copy(ctx, boxes[k][i], u, boxes[to][i], store.CopyOptions{Move: move})
				say(i, err, "copy %v %v", r.Source, r.Dest)
			}
		case op < 94:
			if len(boxes) > 3 {
				k = 1 + rng.IntN(len(boxes)-1)
				for i, a := range accs {
					say(i, a.DeleteMailbox(ctx, boxes[k][i]), "delete")
				}
				boxes = slices.Delete(boxes, k, k+1)
			} else {
				create(fmt.Sprint("new", step))
			}
		case op < 96:
			if _, err := s.sweep(ctx, time.Now().Add(2*time.Hour)); err != nil {
				t.Fatal(err)
			}
		case op < 97:
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = Open(dir, &o); err != nil {
				t.Fatal(err)
			}
			if accs[0], err = s.Account(ctx, "a"); err != nil {
				t.Fatal(err)
			}
		default:
			// Everything that is asked for since a ModSeq comes.
			m, _, err := accs[0].Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{boxes[k][0]}})
			if err != nil {
				t.Fatal(err)
			}
			since := store.ModSeq(rng.IntN(int(m[0].ModSeq) + 1))
			want := store.UIDSet{}
			for x := range accs[0].Messages(ctx, boxes[k][0], store.Query{}) {
				if x.ModSeq > since {
					want.Add(x.UID)
				}
			}
			in := uids(boxes[k][0])
			have := store.UIDSet{}
			for x := range accs[0].Messages(ctx, boxes[k][0], store.Query{ChangedSince: since, UIDs: in}) {
				have.Add(x.UID)
			}
			if since > 0 && !have.Equal(want.Intersect(in)) {
				t.Fatalf("step %d: changed since %d within %v: %v, want %v", step, since, in, have, want.Intersect(in))
			}
		}
		if got[0] != got[1] {
			t.Fatalf("step %d: on disk %s\nin memory %s", step, got[0], got[1])
		}
		if step%20 == 19 {
			for _, b := range boxes {
				if x, y := shown(t, accs[0], b[0]), shown(t, accs[1], b[1]); x != y {
					t.Fatalf("step %d: on disk\n%s\nin memory\n%s", step, x, y)
				}
			}
			if check(t, s); t.Failed() {
				t.Fatalf("step %d", step)
			}
		}
	}
	// All of it goes, and nothing is left behind.
	for _, b := range boxes {
		if b[0] == store.Inbox {
			_, err = accs[0].Expunge(ctx, b[0], store.AllUIDs(), store.ExpungeOptions{})
		} else {
			err = accs[0].DeleteMailbox(ctx, b[0])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.sweep(ctx, time.Now().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	check(t, s)
	nothingLeft(t, s, "Aabkgnt")
	if err := s.DeleteAccount(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.sweep(ctx, time.Now().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, s, "An")
}

// nothingLeft checks that there are only keys of these kinds, and no files.
func nothingLeft(t *testing.T, s *Store, kinds string) {
	t.Helper()
	it, err := s.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if !strings.ContainsRune(kinds, rune(it.Key()[0])) {
			t.Errorf("left behind: %.60q", it.Key())
		}
	}
	files, err := s.o.fs.List(s.db.Path("blobs"))
	if err != nil || len(files) > 0 {
		t.Errorf("left behind: %v %v", files, err)
	}
}
