package diskstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/postrider/postrider/store"
)

// everything reads all messages of all accounts: by account, mailbox name and
// text, with their flags.
func everything(t testing.TB, s *Store) map[string]string {
	t.Helper()
	out := make(map[string]string)
	names, err := s.Accounts(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		a, err := s.Account(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		boxes, _, err := a.Mailboxes(ctx, store.MailboxQuery{})
		if err != nil {
			t.Fatal(err)
		}
		for _, box := range boxes {
			for m, err := range a.Messages(ctx, box.ID, store.Query{Fields: store.WithDates}) {
				if err != nil {
					t.Fatal(err)
				}
				b, err := a.Open(ctx, m)
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
				if err != nil {
					t.Fatal(err)
				}
				b.Close()
				out[fmt.Sprintf("%s %s %d %s", name, box.Name, m.UID, text)] = fmt.Sprint(m.Flags)
			}
		}
	}
	return out
}

// sample fills a store with some of everything.
func sample(t testing.TB, disk vfs.FS, o Options) {
	s := openMem(t, disk, o)
	for _, name := range []string{"ann", "bob"} {
		a := newAccount(t, s, name)
		box, err := a.CreateMailbox(ctx, store.NewMailbox{Name: "other", SpecialUse: []string{`\Sent`}})
		if err != nil {
			t.Fatal(err)
		}
		gone, err := a.CreateMailbox(ctx, store.NewMailbox{Name: "gone"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 30 {
			_, err := a.Append(ctx, store.Inbox, []store.Draft{{Head: []byte("Head: x\r\n"), Body: bytes.NewReader([]byte(strings.Repeat(fmt.Sprintf("%s %d ", name, i), 1+i*4))),
				Summary: []byte("summary"), MessageID: fmt.Sprint(i / 2), Flags: store.NewFlags(store.SystemFlags(i%4), fmt.Sprint("kw", i%3))}}, store.AppendOptions{})
			if err != nil {
				t.Fatal(err)
			}
		}
		for i, err := range []error{
			second(a.Copy(ctx, store.Inbox, store.UIDSet{{First: 3, Last: 20}}, box.ID, store.CopyOptions{})),
			second(a.Copy(ctx, store.Inbox, store.UIDSet{{First: 5, Last: 6}}, gone.ID, store.CopyOptions{Move: true})),
			second(a.SetFlags(ctx, box.ID, store.UIDSet{{First: 2, Last: 9}}, store.FlagOp{Flags: store.NewFlags(store.Flagged, "late")})),
			second(a.Expunge(ctx, store.Inbox, store.UIDs(1, 10, 29), store.ExpungeOptions{})),
			a.DeleteMailbox(ctx, gone.ID),
			a.(store.Subscriber).Subscribe(ctx, "other"),
		} {
			if err != nil {
				t.Fatal(i, err)
			}
		}
	}
	st, err := s.Stage(ctx, -1)
	if err != nil {
		t.Fatal(err)
	}
	st.Write([]byte("to both of you"))
	for _, err := range s.Deliver(ctx, store.Draft{Body: st}, []store.Target{{Account: "ann", Once: "x"}, {Account: "bob", Once: "x"}}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	st.Close()
	check(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestRepair damages or drops one record of each kind, in turn, and has it
// reported and mended: all that does not hang on it is as it was.
func TestRepair(t *testing.T) {
	o := Options{BodyMemory: 300, lengths: lengths{8, 10, 4}}
	disk := vfs.NewCrashableMem()
	sample(t, disk, o)
	whole := openMem(t, disk.CrashClone(vfs.CrashCloneCfg{}), o)
	want := everything(t, whole)
	byKind := make(map[byte][][]byte)
	it, err := whole.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		byKind[it.Key()[0]] = append(byKind[it.Key()[0]], slices.Clone(it.Key()))
	}
	it.Close()
	whole.Close()
	for _, kind := range []byte(allKinds) {
		if len(byKind[kind]) == 0 {
			t.Errorf("the sample has no record of kind %c", kind)
		}
	}
	// How many messages at most may be lost, and how many may have other
	// flags, when a record of a kind is damaged or gone.
	lost := map[byte]int{kEmail: 2, kBlob: 2, kFile: 2, kRow: 1, kMailbox: 31, kChunk: 0, kRef: 0, kBlobRef: 0}
	other := map[byte]int{kWords: 60, kChunk: 8, kTomb: 0}
	back := map[byte]int{kTomb: 2, kChunk: 1} // and how many may come back
	for kind, keys := range byKind {
		step := max((len(keys)+1)/2, 1)
		for i := 0; i < len(keys); i += step {
			for _, drop := range []bool{false, true} {
				key := keys[i]
				name := fmt.Sprintf("%c %x, gone: %v", kind, key[1:], drop)
				image := disk.CrashClone(vfs.CrashCloneCfg{})
				s := openMem(t, image, o)
				v, err := s.db.Value(key)
				if err != nil {
					t.Fatal(err)
				}
				if drop {
					err = s.db.Delete(key, pebble.Sync)
				} else {
					if len(v) == 0 {
						s.Close()
						continue
					}
					v[len(v)/2] ^= 0x10
					err = s.db.Set(key, v, pebble.Sync)
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = openMem(t, image, o) // with nothing in memory
				r, err := s.Check(ctx)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				// Without these nothing can be missed.
				if len(r.Problems) == 0 && !(drop && strings.IndexByte("nkyuodhgA", kind) >= 0) && !(kind == kNumber) {
					t.Errorf("%s: not reported", name)
				}
				if _, err := s.Repair(ctx); err != nil {
					t.Fatalf("%s: Repair: %v", name, err)
				}
				after, err := s.Check(ctx)
				if err != nil || len(after.Problems) > 0 {
					t.Errorf("%s: after Repair: %q, %v; before: %q", name, after.Problems, err, r.Problems)
				}
				if drop && kind == kName {
					s.Close()
					continue // an account that was never there is no damage
				}
				have := everything(t, s)
				missing, changed, risen := 0, 0, 0
				for k, f := range want {
					if g, ok := have[k]; !ok {
						missing++
					} else if f != g {
						changed++
					}
				}
				for k := range have {
					if _, ok := want[k]; !ok {
						risen++
					}
				}
				if kind == kMailbox {
					risen = 0 // under another name
				}
				if missing > lost[kind] || changed > other[kind] || risen > back[kind] {
					t.Errorf("%s: %d messages lost, %d with other flags, %d risen; Check had said %q", name, missing, changed, risen, r.Problems)
				}
				// And it goes on.
				for _, acct := range []string{"ann", "bob"} {
					a, err := s.Account(ctx, acct)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					if _, err := a.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader([]byte("after"))}}, store.AppendOptions{}); err != nil {
						t.Errorf("%s: Append: %v", name, err)
					}
				}
				check(t, s)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if t.Failed() {
					return
				}
			}
		}
	}
}

// allKinds are the kinds of keys that a store has before anything is damaged.
const allKinds = "Aabgkmiteyxhuod" + "BFRn"

// FuzzDamage damages, drops and adds some records of a store at once: whatever
// it is, Check reports it, Repair mends it, and what is left can be read and
// goes on. TestRepair shows for one record of each kind what stays.
func FuzzDamage(f *testing.F) {
	o := Options{BodyMemory: 300, lengths: lengths{8, 10, 4}}
	disk := vfs.NewCrashableMem()
	sample(f, disk, o)
	whole := openMem(f, disk.CrashClone(vfs.CrashCloneCfg{}), o)
	byKind := make(map[byte][][]byte)
	it, err := whole.db.NewIter(nil)
	if err != nil {
		f.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		byKind[it.Key()[0]] = append(byKind[it.Key()[0]], slices.Clone(it.Key()))
	}
	it.Close()
	whole.Close()
	for i := range byte(len(allKinds)) {
		f.Add([]byte{i, 1, i % 4, i + 1, 3, i + 1}, []byte("\x00\x00\x00\x00\x00\x00\x00\x07some of it"))
	}
	f.Fuzz(func(t *testing.T, where, what []byte) {
		s := openMem(t, disk.CrashClone(vfs.CrashCloneCfg{}), o)
		image := s.o.fs
		damages, told := 0, false
		for ; len(where) >= 3 && damages < 5; where = where[3:] {
			kind := allKinds[int(where[0])%len(allKinds)]
			key := byKind[kind][int(where[1])%len(byKind[kind])]
			v, err := s.db.Value(key)
			if err != nil {
				t.Fatal(err)
			}
			switch where[2] % 4 {
			case 0: // an octet
				if len(v) == 0 {
					continue
				}
				v[(int(where[2])*len(v)/256)%len(v)] ^= 1 | where[1]<<1
				told = true
			case 1: // its end
				if len(v) == 0 {
					continue
				}
				v = v[:int(where[2])*len(v)/256]
				told = true
			case 2: // all of it
				if err := s.db.Delete(key, pebble.Sync); err != nil {
					t.Fatal(err)
				}
				damages++
				continue
			case 3: // a key that nobody wrote
				key = append([]byte{kind}, what...)
				v = what
			}
			if err := s.db.Set(key, v, pebble.Sync); err != nil {
				t.Fatal(err)
			}
			damages++
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openMem(t, image, o)
		defer s.Close()
		r, err := s.Check(ctx)
		if err != nil {
			t.Fatalf("Check: %v", err)
		}
		if told && len(r.Problems) == 0 && damages == 1 {
			// An account's numbers may be made anew before Check looks.
			if v, err := s.db.Value([]byte{kNumber}); err != nil || v == nil {
				t.Error("damage is not reported")
			}
		}
		if _, err := s.Repair(ctx); err != nil {
			t.Fatalf("Repair: %v; of %q", err, r.Problems)
		}
		if after, err := s.Check(ctx); err != nil || len(after.Problems) > 0 {
			t.Fatalf("after Repair: %q, %v; before %q", after.Problems, err, r.Problems)
		}
		everything(t, s)
		names, err := s.Accounts(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			a, err := s.Account(ctx, name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader([]byte("after"))}}, store.AppendOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.sweep(ctx, time.Now().Add(2*time.Hour)); err != nil {
			t.Fatal(err)
		}
		check(t, s)
	})
}

// TestDamage shows what a reader meets: an error for the message that is
// damaged, and all the others.
func TestDamage(t *testing.T) {
	o := Options{BodyMemory: 300, lengths: lengths{8, 10, 4}}
	disk := vfs.NewMem()
	sample(t, disk, o)
	s := openMem(t, disk, o)
	defer s.Close()
	a, err := s.Account(ctx, "ann")
	if err != nil {
		t.Fatal(err)
	}
	var ms []store.Message
	for m := range a.Messages(ctx, store.Inbox, store.Query{}) {
		ms = append(ms, m)
	}
	for _, i := range []int{0, len(ms) - 2} { // in the database, and a file
		no, _ := numberOf('m', ms[i].ID)
		e, err := a.(*account).readEmail(ctx, no)
		if err != nil {
			t.Fatal(err)
		}
		if v, _ := s.db.Value(key1(kBlob, e.blob)); v != nil {
			v[len(v)/2] ^= 1
			s.db.Set(key1(kBlob, e.blob), v, nil)
			continue
		}
		name := s.blobPath(e.blob)
		f, err := disk.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(f)
		f.Close()
		text[len(text)/2] ^= 1
		w, err := disk.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(text)
		w.Close()
	}
	bad := 0
	for _, m := range ms {
		b, err := a.Open(ctx, m)
		if err == nil {
			_, err = io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
			b.Close()
		}
		if err != nil {
			if bad++; !errors.Is(err, ErrDamaged) || !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("UID %d: %v", m.UID, err)
			}
		}
	}
	if bad != 2 {
		t.Errorf("%d messages cannot be read, want 2", bad)
	}
	if r, err := s.Repair(ctx); err != nil || len(r.Problems) < 2 || r.SetAside == 0 {
		t.Errorf("Repair: %+v, %v", r, err)
	}
	check(t, s)
	left := slices.Collect(maps.Keys(everything(t, s)))
	if want := 2*(30-2-3+18) + 2 - 2; len(left) != want {
		t.Errorf("%d messages are left, want %d", len(left), want)
	}
}

// TestBackup copies a store that is written to, and opens the copy.
func TestBackup(t *testing.T) {
	o := Options{BodyMemory: 300, lengths: lengths{8, 10, 4}}
	disk := vfs.NewCrashableMem()
	sample(t, disk, o)
	s := openMem(t, disk, o)
	a, err := s.Account(ctx, "ann")
	if err != nil {
		t.Fatal(err)
	}
	was := everything(t, s)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() { // it is used meanwhile
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			r, err := a.Append(ctx, store.Inbox, []store.Draft{{Body: strings.NewReader(strings.Repeat("late ", i))}}, store.AppendOptions{})
			if err == nil && i%3 == 0 {
				_, err = a.Expunge(ctx, store.Inbox, store.UIDs(r.Messages[0].UID), store.ExpungeOptions{})
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	if err := s.Backup(ctx, "copy"); err != nil {
		t.Fatal(err)
	}
	close(stop)
	wg.Wait()
	if err := s.Backup(ctx, "copy"); err == nil {
		t.Error("a backup was overwritten")
	}
	before, _, err := a.Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{store.Inbox}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is a store as any
		o.fs = disk.CrashClone(vfs.CrashCloneCfg{})
		c, err := Open("copy", &o)
		if err != nil {
			t.Fatal(err)
		}
		check(t, c)
		for k, f := range was {
			if g, ok := everything(t, c)[k]; !ok || f != g {
				t.Fatalf("the copy lacks %.40q", k)
			}
		}
		b, err := c.Account(ctx, "ann")
		if err != nil {
			t.Fatal(err)
		}
		after, _, err := b.Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{store.Inbox}})
		if err != nil {
			t.Fatal(err)
		}
		if x, y := before[0], after[0]; y.UIDNext <= x.UIDNext || y.ModSeq <= x.ModSeq || y.Horizon <= x.ModSeq || y.UIDValidity != x.UIDValidity {
			t.Errorf("the copy's Inbox is %+v, the store's was %+v", y, x)
		}
		if _, err := c.sweep(ctx, time.Now().Add(2*time.Hour)); err != nil {
			t.Error(err)
		}
		check(t, c)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
