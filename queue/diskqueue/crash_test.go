package diskqueue

import (
	"context"
	crand "crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

func openMem(t testing.TB, disk vfs.FS, o Options) *Storage {
	t.Helper()
	o.fs, o.Log = disk, slog.New(slog.DiscardHandler)
	s, err := Open("q", &o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// mail makes a submission with an entry in each of n lanes.
func mail(t testing.TB, s *Storage, text string, n int) *queue.Submission {
	t.Helper()
	body, err := s.Stage(context.Background(), int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	// A copy: vfs files may change what they are given.
	if _, err := body.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return mailOf(body, n)
}

func mailOf(body queue.Staged, n int) *queue.Submission {
	m := &queue.Message{ID: queue.NewID(), Received: time.Now()}
	sub := &queue.Submission{Message: m, Body: body, Head: []byte("Received: y\r\n")}
	for i := range n {
		dest := fmt.Sprintf("d%d.test", i)
		sub.Entries = append(sub.Entries, &queue.Entry{ID: queue.NewID(), Message: m, Lane: queue.Lane{Dest: dest}, Due: time.Now(),
			Alarm:    time.Now().Add(time.Hour),
			Envelope: smtp.Envelope{To: []smtp.Recipient{{Address: smtp.Address{Local: "r", Domain: dest}}}}})
	}
	return sub
}

// foreignBody is a queue.Staged that no storage made.
type foreignBody string

func (b foreignBody) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }
func (b foreignBody) Close() error              { return nil }
func (b foreignBody) Size() int64               { return int64(len(b)) }
func (b foreignBody) ReadAt(p []byte, off int64) (int, error) {
	return strings.NewReader(string(b)).ReadAt(p, off)
}

// noise is text that cannot be made shorter.
func noise(n int) string {
	b := make([]byte, n*3/4)
	crand.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}

func lease(t testing.TB, s *Storage, o queue.Owner, max int, dest string) []*queue.Lease {
	t.Helper()
	l, err := s.Lease(context.Background(), o, []queue.Want{{Lane: queue.Lane{Dest: dest}, Max: max}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func owner1(t testing.TB, s *Storage) queue.Owner {
	t.Helper()
	o := queue.NewOwner()
	if _, err := s.Renew(context.Background(), o, time.Hour); err != nil {
		t.Fatal(err)
	}
	return o
}

// ledger is what a storage promised: known to the test before each call and
// after it.
type ledger struct {
	mu       sync.Mutex
	state    map[queue.ID]promise // of entries
	messages map[queue.ID]string  // content
}

type promise uint8

const (
	putAsked promise = iota + 1
	putDone
	finishAsked
	finishDone
)

func (l *ledger) set(p promise, entries ...*queue.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		if l.state[e.ID] < p {
			l.state[e.ID] = p
		}
	}
}

func (l *ledger) copy() map[queue.ID]promise {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := make(map[queue.ID]promise, len(l.state))
	for id, p := range l.state {
		c[id] = p
	}
	return c
}

// TestCrash takes the disk as it may be after a power loss, at any moment of
// many writers' work, and holds what is on it against what was promised.
func TestCrash(t *testing.T) {
	for seed := range uint64(3) {
		for _, unsynced := range []int{0, 50} {
			t.Run(fmt.Sprintf("seed=%d/unsynced=%d", seed, unsynced), func(t *testing.T) { crash(t, seed, unsynced) })
		}
	}
}

func crash(t *testing.T, seed uint64, unsynced int) {
	const writers, each, crashes = 4, 40, 12
	disk := vfs.NewCrashableMem()
	s := openMem(t, disk, Options{BodyMemory: 2000})
	book := &ledger{state: make(map[queue.ID]promise), messages: make(map[queue.ID]string)}
	o := owner1(t, s)
	type image struct {
		disk   *vfs.MemFS
		before map[queue.ID]promise
		after  map[queue.ID]promise
	}
	var images []image
	var mu sync.Mutex
	var wg sync.WaitGroup
	take := func(rng *rand.Rand) {
		mu.Lock()
		defer mu.Unlock()
		if len(images) == crashes {
			return
		}
		im := image{before: book.copy()}
		im.disk = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rng})
		im.after = book.copy()
		images = append(images, im)
	}
	for w := range writers {
		rng := rand.New(rand.NewPCG(seed, uint64(w)))
		wg.Go(func() {
			for i := range each {
				text := strings.Repeat(fmt.Sprintf("writer %d message %d\r\n", w, i), 1+rng.IntN(200))
				sub := mail(t, s, text, 1+rng.IntN(3))
				book.mu.Lock()
				book.messages[sub.Message.ID] = string(sub.Head) + text
				book.mu.Unlock()
				book.set(putAsked, sub.Entries...)
				if err := s.Put(context.Background(), sub); err != nil {
					t.Error(err)
				}
				book.set(putDone, sub.Entries...)
				if rng.IntN(5) == 0 {
					take(rng)
				}
				for _, l := range lease(t, s, o, 2, fmt.Sprintf("d%d.test", rng.IntN(3))) {
					out := &queue.Outcome{Lease: l, Due: time.Now(), Alarm: time.Now().Add(time.Hour)}
					if rng.IntN(3) > 0 {
						out.Done = []int{0}
						book.set(finishAsked, l.Entry)
					}
					if err := s.Finish(context.Background(), out); err != nil {
						t.Error(err)
					}
					if out.Done != nil {
						book.set(finishDone, l.Entry)
					}
				}
			}
		})
	}
	wg.Wait()
	take(rand.New(rand.NewPCG(seed, 99)))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if len(images) < 5 {
		t.Fatalf("only %d crashes", len(images))
	}
	for i, im := range images {
		again := openMem(t, im.disk, Options{BodyMemory: 2000})
		found := make(map[queue.ID]bool)
		for e, err := range again.List(context.Background(), queue.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			found[e.ID] = true
			if im.before[e.ID] == finishDone {
				t.Errorf("crash %d: entry %v was finished and is back", i, e.ID)
			}
			b, err := again.Open(context.Background(), e.Message)
			if err != nil {
				t.Fatalf("crash %d: message %v: %v", i, e.Message.ID, err)
			}
			text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
			if want := book.messages[e.Message.ID]; err != nil || string(text) != want {
				t.Errorf("crash %d: message %v has %d octets, want %d, %v", i, e.Message.ID, len(text), len(want), err)
			}
			b.Close()
		}
		for id, p := range im.before {
			if p >= putDone && im.after[id] < finishAsked && !found[id] {
				t.Errorf("crash %d: entry %v was acknowledged and is lost", i, id)
			}
		}
		if r, err := again.Check(context.Background()); err != nil || len(r.Problems) > 0 {
			t.Errorf("crash %d: %v %v", i, r.Problems, err)
		}
		// All of them are free, and can be brought to an end.
		o := owner1(t, again)
		n := 0
		for d := range 3 {
			for _, l := range lease(t, again, o, 10_000, fmt.Sprintf("d%d.test", d)) {
				n++
				if err := again.Finish(context.Background(), &queue.Outcome{Lease: l, Done: []int{0}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if n != len(found) {
			t.Errorf("crash %d: %d entries could be leased, want %d", i, n, len(found))
		}
		nothingLeft(t, again)
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
}

// nothingLeft checks that an empty queue keeps nothing.
func nothingLeft(t *testing.T, s *Storage) {
	t.Helper()
	it, err := s.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		t.Errorf("left behind: %.40q", it.Key())
	}
	files, err := s.o.fs.List(s.db.Path("bodies"))
	if err != nil || len(files) > 0 {
		t.Errorf("left behind: %v %v", files, err)
	}
}

// TestOrphans shows that a body that was never put is gone after a crash.
func TestOrphans(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := openMem(t, disk, Options{BodyMemory: 100})
	sub := mail(t, s, strings.Repeat("x", 1000), 1)
	if err := sub.Body.(*staged).seal(); err != nil {
		t.Fatal(err)
	}
	image := disk.CrashClone(vfs.CrashCloneCfg{})
	if l, _ := image.List("q/bodies"); len(l) != 1 {
		t.Fatalf("bodies %v before", l)
	}
	again := openMem(t, image, Options{})
	nothingLeft(t, again)
	again.Close()
	sub.Body.Close()
	nothingLeft(t, s)
	s.Close()
}

// TestEditSurvives shows that what was asked of a leased entry is done even
// if the process ends before its outcome.
func TestEditSurvives(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := openMem(t, disk, Options{})
	sub := mail(t, s, "x\r\n", 2)
	if err := s.Put(context.Background(), sub); err != nil {
		t.Fatal(err)
	}
	o := owner1(t, s)
	lease(t, s, o, 1, "d0.test")
	lease(t, s, o, 1, "d1.test")
	for i, e := range []queue.Edit{{Drop: true}, {Hold: true}} {
		if n, err := s.Edit(context.Background(), queue.Filter{IDs: []queue.ID{sub.Entries[i].ID}}, e); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	again := openMem(t, disk.CrashClone(vfs.CrashCloneCfg{}), Options{})
	defer again.Close()
	defer s.Close()
	n := 0
	for e, err := range again.List(context.Background(), queue.Filter{}) {
		if n++; err != nil || e.ID != sub.Entries[1].ID || !e.Held || e.Owner != "" {
			t.Errorf("listed %+v, %v", e, err)
		}
	}
	if n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
}

// TestSetAside damages an entry and a message: the others are delivered, and
// the records can still be looked at.
func TestSetAside(t *testing.T) {
	s := openMem(t, vfs.NewMem(), Options{})
	defer s.Close()
	var subs []*queue.Submission
	for range 5 {
		subs = append(subs, mail(t, s, "x\r\n", 1))
	}
	if err := s.Put(context.Background(), subs...); err != nil {
		t.Fatal(err)
	}
	for _, key := range [][]byte{idKey(kEntry, subs[1].Entries[0].ID), idKey(kMessage, subs[3].Message.ID)} {
		v, err := s.db.Value(key)
		if err != nil {
			t.Fatal(err)
		}
		v[len(v)/2] ^= 1
		if err := s.db.Set(key, v, nil); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := s.Check(context.Background()); err != nil || len(r.Problems) < 2 || r.SetAside != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	o := owner1(t, s)
	if got := lease(t, s, o, 10, "d0.test"); len(got) != 3 {
		t.Fatalf("leased %d, want 3", len(got))
	}
	if _, err := s.Repair(context.Background()); !errors.Is(err, errBusy) {
		t.Errorf("repaired while entries are leased: %v", err)
	}
	for id := range s.owners[o].leases {
		e, _, _ := s.entry(id)
		out := &queue.Outcome{Lease: &queue.Lease{Entry: e, Owner: o, Token: 1}, Due: time.Now()}
		if err := s.Finish(context.Background(), out); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Repair(context.Background()); err != nil {
		t.Fatal(err)
	}
	r, err := s.Check(context.Background())
	if err != nil || r.Entries != 3 || r.SetAside < 2 {
		t.Errorf("after Repair: %+v, %v", r, err)
	}
	if got := lease(t, s, o, 10, "d0.test"); len(got) != 3 {
		t.Errorf("leased %d after Repair, want 3", len(got))
	}
}

// TestRepair loses the places of entries and makes them anew.
func TestRepair(t *testing.T) {
	s := openMem(t, vfs.NewMem(), Options{})
	defer s.Close()
	for range 10 {
		if err := s.Put(context.Background(), mail(t, s, "x\r\n", 3)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.db.DeleteRange([]byte{kAlarm}, []byte{kAlarm + 1}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.db.DeleteRange([]byte{kDue}, []byte{kDue + 1}, nil); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Repair(context.Background()); err != nil || len(r.Problems) != 60 || r.Entries != 30 || r.Messages != 10 {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := s.Check(context.Background()); err != nil || len(r.Problems) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if got := lease(t, s, owner1(t, s), 20, "d2.test"); len(got) != 10 {
		t.Errorf("leased %d, want 10", len(got))
	}
}

func TestBackup(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := openMem(t, disk, Options{BodyMemory: 100})
	defer s.Close()
	o := owner1(t, s)
	content := strings.Repeat("line\r\n", 100)
	for range 20 {
		if err := s.Put(context.Background(), mail(t, s, content, 2)); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { // it runs meanwhile
		for _, d := range []string{"d0.test", "d1.test"} {
			for _, l := range lease(t, s, o, 20, d) {
				if err := s.Finish(context.Background(), &queue.Outcome{Lease: l, Done: []int{0}}); err != nil {
					t.Error(err)
				}
			}
		}
	})
	if err := s.Backup(context.Background(), "copy"); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	nothingLeft(t, s)
	if err := s.Backup(context.Background(), "copy"); err == nil {
		t.Error("a backup was overwritten")
	}
	b, err := Open("copy", &Options{fs: disk.CrashClone(vfs.CrashCloneCfg{}), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if r, err := b.Check(context.Background()); err != nil || len(r.Problems) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	for e, err := range b.List(context.Background(), queue.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		blob, err := b.Open(context.Background(), e.Message)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(io.NewSectionReader(blob, 0, blob.Size())); err != nil || !strings.HasSuffix(string(text), content) {
			t.Errorf("%d octets, %v", len(text), err)
		}
		blob.Close()
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, nil); !errors.Is(err, ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Put(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("Put after Close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	write := func(disk vfs.FS, name, text string) {
		disk.MkdirAll("q", 0o700)
		f, err := disk.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		f.Write([]byte(text))
		f.Close()
	}
	for name, text := range map[string]string{"q/FORMAT": "postrider diskqueue 7\n", "q/holiday.jpg": "x"} {
		disk := vfs.NewMem()
		write(disk, name, text)
		if _, err := Open("q", &Options{fs: disk}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", name, err)
		}
	}
}
