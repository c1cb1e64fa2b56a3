package diskstore

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// tx is one write, worked out with the account's lock held. What it changes
// in memory are copies, which take the place of the old when the batch is
// applied: a write that fails has changed nothing.
type tx struct {
	a   *account
	b   *pebble.Batch
	m   store.ModSeq // what the write's changes get
	now time.Time

	rec    *accountRecord
	boxes  []*boxTx
	delete *mailbox
	silent bool // nobody needs to hear of it
	sweep  bool // there is something to give back
	fresh  map[uint64]*email
	leads  map[[hashBytes]byte]thread
	stored []*staged // bodies that the batch writes
	commit diskdb.Commit
}

// boxTx is a mailbox that is being changed.
type boxTx struct {
	*mailbox
	was     *mailbox // nil = new
	words   *words   // nil = not changed
	ownDir  bool     // dir is a copy
	changed bool
	rows    []row        // that are new
	gone    store.UIDSet // that left
	unseenChange
	edited bool // chunks have changed
}

func (a *account) tx() *tx { return &tx{a: a, m: a.modSeq + 1, now: time.Now()} }

func (t *tx) batch() *pebble.Batch {
	if t.b == nil {
		t.b = t.a.s.db.NewBatch()
	}
	return t.b
}

// record returns the account's record to be changed.
func (t *tx) record() *accountRecord {
	if t.rec == nil {
		r := t.a.rec
		t.rec = &r
	}
	return t.rec
}

// box returns a mailbox to be changed.
func (t *tx) box(id store.MailboxID) (*boxTx, error) {
	b, err := t.a.box(id)
	if err != nil {
		return nil, err
	}
	for _, x := range t.boxes {
		if x.no == b.no {
			return x, nil
		}
	}
	// What can be read later is read first, so that it stays.
	if _, err := t.a.readWords(b); err != nil {
		return nil, err
	}
	if _, err := t.a.readDir(b); err != nil {
		return nil, err
	}
	c := *b
	x := &boxTx{mailbox: &c, was: b}
	t.boxes = append(t.boxes, x)
	return x, nil
}

func (t *tx) addMailbox(no uint64, name string, use []string) *boxTx {
	b := &mailbox{no: no, name: name, use: slices.Clone(use), validity: t.record().nextValidity(),
		next: 1, recent: 1, tail: 1, words: makeWords(nil), read: true}
	x := &boxTx{mailbox: b}
	t.touch(x)
	if t.a.s.o.History < 0 {
		b.horizon = b.modSeq
	}
	t.boxes = append(t.boxes, x)
	return x
}

// touch gives b the write's ModSeq.
func (t *tx) touch(b *boxTx) {
	b.modSeq, b.changed = t.m, true
}

// table returns the keywords of b as the write has them so far.
func (b *boxTx) table() *words {
	if b.words != nil {
		return b.words
	}
	return b.mailbox.words
}

// writable returns dir to be changed.
func (b *boxTx) writable() []chunkInfo {
	if !b.ownDir {
		b.dir, b.ownDir = slices.Clone(b.dir), true
	}
	return b.dir
}

// empty reports whether the write changes nothing.
func (t *tx) empty() bool {
	if t.b != nil || t.rec != nil || t.delete != nil {
		return false
	}
	return !slices.ContainsFunc(t.boxes, func(b *boxTx) bool { return b.changed || b.words != nil })
}

// apply makes the write visible. It is durable when wait of what it returns
// says so, and it must be called. On error nothing happened.
func (t *tx) apply() (*landing, error) {
	a := t.a
	if t.empty() {
		return a.last, nil
	}
	b := t.batch()
	for _, x := range t.boxes {
		if err := errors.Join(t.setUnseen(x), t.fold(x)); err != nil {
			b.Close()
			return nil, err
		}
		if x.words != nil {
			b.Set(boxKey(kWords, a.no, x.no), x.words.encode(), nil)
			x.mailbox.words = x.words
		}
		if x.changed || x.words != nil {
			b.Set(boxKey(kMailbox, a.no, x.no), x.encode(), nil)
		}
	}
	if t.rec != nil {
		b.Set(key1(kAccount, a.no), t.rec.encode(), nil)
	}
	covered := a.s.nums.cover(b)
	var err error
	if t.commit, err = a.s.db.Commit(b); err != nil {
		return nil, full(err)
	}
	covered()
	for _, st := range t.stored {
		st.stored.Store(true)
	}
	for _, x := range t.boxes {
		if !x.changed && x.words == nil {
			continue
		}
		if x.was != nil {
			delete(a.names, x.was.name)
		}
		a.boxes[x.no] = x.mailbox
		a.modSeq = max(a.modSeq, x.modSeq)
	}
	for _, x := range t.boxes { // names may have been swapped
		if a.boxes[x.no] == x.mailbox {
			a.names[x.name] = x.mailbox
		}
	}
	if d := t.delete; d != nil {
		delete(a.boxes, d.no)
		delete(a.names, d.name)
	}
	if t.rec != nil {
		a.rec = *t.rec
		a.modSeq = max(a.modSeq, t.rec.modSeq)
	}
	l := &landing{done: make(chan struct{})}
	a.last = l
	return l, nil
}

// commit is a write from beginning to end.
func (a *account) commit(ctx context.Context, f func(t *tx) error) error {
	if err := a.s.begin(ctx); err != nil {
		return err
	}
	defer a.s.end()
	l, t, err := a.try(f)
	if err != nil {
		return err
	}
	return t.land(l)
}

// try works a write out and applies it.
func (a *account) try(f func(t *tx) error) (*landing, *tx, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		return nil, nil, store.ErrNotExist
	}
	t := a.tx()
	if err := f(t); err != nil {
		if t.b != nil {
			t.b.Close()
		}
		return nil, nil, err
	}
	l, err := t.apply()
	return l, t, err
}

// land waits for a write, and tells of it.
func (t *tx) land(l *landing) error {
	defer runtime.KeepAlive(t.a)
	if t.empty() {
		return l.wait() // what it saw
	}
	l.err = unavailable(t.commit.Wait())
	close(l.done)
	if l.err == nil && !t.silent {
		t.a.notify()
	}
	if l.err == nil && t.sweep {
		t.a.s.wakeSweeper()
	}
	return l.err
}
