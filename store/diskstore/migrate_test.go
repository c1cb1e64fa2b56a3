package diskstore

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// encode1 is the record of a mailbox as format 1 had it.
func (b *mailbox) encode1() []byte {
	w := diskdb.Record(64)
	w.Text(b.name)
	w.Uint(uint64(len(b.use)))
	for _, u := range b.use {
		w.Text(u)
	}
	for _, v := range []uint64{
		uint64(b.validity), uint64(b.next), uint64(b.recent), uint64(b.modSeq), uint64(b.horizon),
		uint64(b.counts.Messages), uint64(b.counts.Unseen), uint64(b.counts.Deleted),
		uint64(b.counts.Size), uint64(b.counts.DeletedSize),
		uint64(b.tail), uint64(b.tailRows), uint64(b.tombs), uint64(b.tombRgs),
	} {
		w.Uint(v)
	}
	return w.Seal()
}

// toFormat1 makes of a closed store what an older version would have left.
func toFormat1(t testing.TB, disk vfs.FS) {
	t.Helper()
	d, err := diskdb.Open(diskdb.Config{Dir: "mail", Name: "diskstore", Format: formatLine, FS: disk, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	it, err := d.NewIter(&pebble.IterOptions{LowerBound: []byte{kMailbox}, UpperBound: []byte{kMailbox + 1}})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		b, err := decodeMailbox(u8(it.Key()[9:]), it.Value())
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Set(bytes.Clone(it.Key()), b.encode1(), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if it.Close(); n == 0 {
		t.Fatal("no mailbox")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := diskdb.WriteFile(disk, "mail", "FORMAT", "postrider diskstore 1\n"); err != nil {
		t.Fatal(err)
	}
}

// TestMigrateFormat1 opens what the first version left, and stops the machine
// before each step of the disk on the way.
func TestMigrateFormat1(t *testing.T) {
	o := Options{BodyMemory: 300, lengths: lengths{8, 10, 4}}
	disk := vfs.NewCrashableMem()
	sample(t, disk, o)
	s := openMem(t, disk, o)
	for i := range migrateBoxes { // more than one step
		newAccount(t, s, fmt.Sprint("more ", i))
	}
	want := everything(t, s)
	s.Close()
	toFormat1(t, disk)
	old := disk.CrashClone(vfs.CrashCloneCfg{})

	same := func(disk vfs.FS, what string) {
		t.Helper()
		s := openMem(t, disk, o)
		defer s.Close()
		check(t, s) // and with it all first unseen messages
		if !maps.Equal(everything(t, s), want) {
			t.Errorf("%s: other messages than before", what)
		}
		f, err := disk.Open("mail/FORMAT")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if text, err := io.ReadAll(f); err != nil || string(text) != formatLine {
			t.Errorf("%s: FORMAT says %q, %v", what, text, err)
		}
	}
	var mu sync.Mutex
	var images []*vfs.MemFS
	taking := true
	s = openMem(t, errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if taking && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			images = append(images, disk.CrashClone(vfs.CrashCloneCfg{}))
		}
		return nil
	})), o)
	mu.Lock()
	taking = false
	mu.Unlock()
	s.Close()
	same(disk, "without a crash")
	t.Logf("%d steps of the disk", len(images))
	for i := 0; i < len(images); i += max(1, len(images)/10) {
		same(images[i], fmt.Sprint("crash ", i))
	}

	// A record that cannot be read stays in the way of none of the others.
	s = openMem(t, old.CrashClone(vfs.CrashCloneCfg{}), o)
	a, err := s.Account(ctx, "ann")
	if err != nil {
		t.Fatal(err)
	}
	no := a.(*account).no
	s.Close()
	d, err := diskdb.Open(diskdb.Config{Dir: "mail", Name: "diskstore", Format: "postrider diskstore 1\n", FS: old, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	key := boxKey(kMailbox, no, inboxNo)
	v, err := d.Value(key)
	if err != nil {
		t.Fatal(err)
	}
	v[len(v)/2] ^= 1
	if err := d.Set(key, v, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	d.Close()
	s = openMem(t, old, o)
	defer s.Close()
	if r, err := s.Check(ctx); err != nil || len(r.Problems) == 0 {
		t.Errorf("a damaged mailbox after a migration: %+v, %v", r, err)
	}
	if _, err := s.Repair(ctx); err != nil {
		t.Error(err)
	}
	check(t, s)
	b, err := s.Account(ctx, "bob")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader([]byte("after"))}}, store.AppendOptions{}); err != nil {
		t.Error(err)
	}
}
