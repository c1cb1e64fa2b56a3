package diskstore

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/store"
)

// The sweeper gives space back: what was expunged, deleted mailboxes and
// accounts, when their grace is over. It works in small batches, each under
// the account's lock, and in any order of crashes begins where it was: what
// is to be done is a key that goes with the last batch.

const (
	sweepRows = 500 // in one batch
	sweepRest = 10 * time.Minute
	// sweepAgain is when a sweep that failed is done again, at first: on a full
	// disk it is what makes room, and there may be room for it soon.
	sweepAgain = time.Second
)

type sweeper struct {
	cancel context.CancelFunc
	wake   chan struct{}
	done   chan struct{}
	// turn is held by a sweep and by a backup, which needs the files to stay.
	turn sync.Mutex
}

func (s *Store) startSweeper() {
	ctx, cancel := context.WithCancel(context.Background())
	s.sweeper.cancel, s.sweeper.wake, s.sweeper.done = cancel, make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(s.sweeper.done)
		again := sweepAgain
		for ctx.Err() == nil {
			next, err := s.sweep(ctx, time.Now())
			rest := sweepRest
			switch {
			case err != nil:
				if ctx.Err() == nil {
					s.log().Error("diskstore: giving space back", "dir", s.dir, "again", again, "err", err)
				}
				rest, again = again, min(2*again, time.Minute)
			case !next.IsZero():
				rest = min(max(time.Until(next), 100*time.Millisecond), sweepRest)
			}
			if err == nil {
				again = sweepAgain
			}
			t := time.NewTimer(rest)
			select {
			case <-ctx.Done():
			case <-t.C:
			case <-s.sweeper.wake:
			}
			t.Stop()
		}
	}()
}

func (s *Store) stopSweeper() {
	s.sweeper.cancel()
	<-s.sweeper.done
}

// wakeSweeper tells that something will be due.
func (s *Store) wakeSweeper() {
	select {
	case s.sweeper.wake <- struct{}{}:
	default:
	}
}

// sweep gives back what is due at now, and returns when there is more.
func (s *Store) sweep(ctx context.Context, now time.Time) (next time.Time, err error) {
	s.sweeper.turn.Lock()
	defer s.sweeper.turn.Unlock()
	if err := s.forgetOnce(now); err != nil {
		return next, err
	}
	from := []byte{kDue}
	for ctx.Err() == nil {
		key, err := s.firstDue(from)
		if err != nil || key == nil {
			return next, err
		}
		at := time.UnixMicro(int64(u8(key[1:])))
		if at.After(now) {
			if next.IsZero() {
				next = at
			}
			return next, nil
		}
		done, err := s.sweepOne(ctx, key)
		if errors.Is(err, ErrDamaged) {
			// It stays until it is repaired; others do not wait for it.
			s.log().Error("diskstore: giving space back", "dir", s.dir, "err", err)
			from = append(key, 0)
			continue
		}
		if err != nil {
			return next, err
		}
		if !done { // somebody is reading: later
			next = now.Add(time.Second)
		}
		from = append(key, 0)
	}
	return next, nil
}

// firstDue returns the first key of what is due that is not less than from.
func (s *Store) firstDue(from []byte) ([]byte, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: []byte{kDue + 1}})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if len(it.Key()) == lenDue {
			return slices.Clone(it.Key()), nil
		}
	}
	return nil, it.Error()
}

// forgetOnce drops the names of old deliveries.
func (s *Store) forgetOnce(now time.Time) error {
	old := oncePrefix(periodOf(now) - onceKept)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kOnce}, UpperBound: old})
	if err != nil {
		return err
	}
	some := it.First()
	if err := it.Close(); err != nil || !some {
		return err
	}
	return s.db.DeleteRange([]byte{kOnce}, old, pebble.NoSync)
}

// sweepOne does what a key says.
func (s *Store) sweepOne(ctx context.Context, key []byte) (done bool, err error) {
	g := garbage{s: s, acct: u8(key[9:]), box: u8(key[17:]), m: store.ModSeq(u8(key[25:])), due: key}
	if g.box == 0 {
		return g.account(ctx)
	}
	// The account as others have it: its lock is what we need. It may have
	// been deleted; then there are no others.
	a, err := s.accountOf(g.acct)
	if err != nil {
		return false, err
	}
	if a == nil {
		a = &account{s: s, no: g.acct}
	}
	g.a = a
	if g.m == 0 {
		return g.mailbox(ctx)
	}
	return g.tomb(ctx)
}

// accountOf returns the account of a number; nil when it was deleted.
func (s *Store) accountOf(no uint64) (*account, error) {
	v, err := s.db.Value(key1(kAccount, no))
	if err != nil || v == nil {
		return nil, err
	}
	rec, err := decodeAccount(v)
	if err != nil {
		return nil, err
	}
	n, err := s.nameOf(rec.name)
	if err != nil || n.no != no {
		return nil, err
	}
	return s.account(rec.name)
}

// garbage is something that is given back.
type garbage struct {
	s         *Store
	a         *account
	acct, box uint64
	m         store.ModSeq
	due       []byte
	pinned    bool
}

// tomb gives back what one write expunged.
func (g *garbage) tomb(ctx context.Context) (bool, error) {
	key := key3(kTomb, g.acct, g.box, uint64(g.m))
	v, err := g.s.db.Value(key)
	if err != nil {
		return false, err
	}
	var uids store.UIDSet
	if v != nil {
		if _, uids, err = decodeTomb(v); err != nil {
			// Which rows are gone their flags still say: Repair finds them.
			g.s.log().Error("diskstore: what was expunged cannot be given back", "dir", g.s.dir, "err", err)
			uids = nil
		}
	}
	if err := g.rows(ctx, uids); err != nil || g.pinned {
		return false, err
	}
	g.a.mu.Lock()
	defer g.a.mu.Unlock()
	batch := g.s.db.NewBatch()
	batch.Delete(g.due, nil)
	// History needs it above the horizon.
	if b := g.a.boxes[g.box]; b == nil || g.m <= b.horizon {
		batch.Delete(key, nil)
	}
	return true, g.s.give(batch, pebble.NoSync)
}

// mailbox gives back a mailbox that was deleted.
func (g *garbage) mailbox(ctx context.Context) (bool, error) {
	if err := g.rows(ctx, store.AllUIDs()); err != nil || g.pinned {
		return false, err
	}
	batch := g.s.db.NewBatch()
	for _, kind := range []byte{kTomb, kRow, kChunk} {
		p := boxKey(kind, g.acct, g.box)
		batch.DeleteRange(p, upper(p), nil)
	}
	batch.Delete(g.due, nil)
	return true, g.s.give(batch, pebble.NoSync)
}

// account gives back an account that was deleted.
func (g *garbage) account(ctx context.Context) (bool, error) {
	g.a = &account{s: g.s, no: g.acct}
	prefix := key1(kEmail, g.acct)
	from := prefix
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		it, err := g.s.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: upper(prefix)})
		if err != nil {
			return false, err
		}
		var emails []uint64
		for ok := it.First(); ok && len(emails) < sweepRows; ok = it.Next() {
			if len(it.Key()) == 1+8+8 {
				emails = append(emails, u8(it.Key()[9:]))
			}
		}
		if err := it.Close(); err != nil {
			return false, err
		}
		if len(emails) == 0 {
			break
		}
		from = append(key2(kEmail, g.acct, emails[len(emails)-1]), 0)
		batch := g.s.db.NewIndexedBatch()
		files := g.emails(batch, emails)
		if err := g.apply(batch, files); err != nil {
			return false, err
		}
	}
	if g.pinned {
		return false, nil
	}
	batch := g.s.db.NewBatch()
	for _, kind := range []byte(accountKinds) {
		p := key1(kind, g.acct)
		batch.DeleteRange(p, upper(p), nil)
	}
	batch.Delete(g.due, nil)
	return true, g.s.give(batch, pebble.NoSync)
}

// rows gives back the rows of these UIDs with what only they have.
func (g *garbage) rows(ctx context.Context, uids store.UIDSet) error {
	for len(uids) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		rest, err := g.some(uids)
		if err != nil {
			return err
		}
		uids = rest
	}
	return nil
}

// some is one batch of rows; it returns what is left.
func (g *garbage) some(uids store.UIDSet) (rest store.UIDSet, err error) {
	g.a.mu.Lock()
	defer g.a.mu.Unlock()
	prefix := boxKey(kRow, g.acct, g.box)
	it, err := g.s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper(prefix)})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	batch := g.s.db.NewIndexedBatch()
	n := 0
	var emails []uint64
	for len(uids) > 0 && rest == nil {
		r := uids[0]
		for ok := it.SeekGE(rowKey(g.acct, g.box, r.First)); ok; ok = it.Next() {
			if len(it.Key()) != lenRow {
				continue
			}
			uid := uidOf(it.Key()[lenRow-4:])
			if uid > r.Last {
				break
			}
			if n == sweepRows {
				rest = append(store.UIDSet{{First: uid, Last: r.Last}}, uids[1:]...)
				break
			}
			n++
			m, err := decodeRow(uid, it.Value())
			if err != nil {
				continue // Repair looks after it
			}
			if g.isPinned(m.email) {
				g.pinned = true
				continue
			}
			batch.Delete(it.Key(), nil)
			batch.Delete(refKey(g.acct, m.email, g.box, uid), nil)
			emails = append(emails, m.email)
		}
		uids = uids[1:]
	}
	if err := it.Error(); err != nil {
		return nil, err
	}
	// Those that no row has any more.
	dead := emails[:0]
	for _, no := range emails {
		if used, err := hasPrefix(batch, key2(kRef, g.acct, no)); err != nil {
			return nil, err
		} else if !used {
			dead = append(dead, no)
		}
	}
	slices.Sort(dead)
	return rest, g.apply(batch, g.emails(batch, slices.Compact(dead)))
}

// isPinned reports whether the blob of an email is open or being appended.
func (g *garbage) isPinned(no uint64) bool {
	v, err := g.s.db.Value(key2(kEmail, g.acct, no))
	if err != nil || v == nil {
		return false
	}
	e, _, err := decodeEmail(no, v)
	if err != nil {
		return false
	}
	p := &g.s.pins
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n[e.blob] > 0 && e.blob != 0
}

func hasPrefix(r pebble.Reader, prefix []byte) (bool, error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper(prefix)})
	if err != nil {
		return false, err
	}
	ok := it.First()
	return ok, it.Close()
}

// emails drops emails and their hold on blobs. The blobs that nothing holds
// any more are returned for apply.
func (g *garbage) emails(batch *pebble.Batch, emails []uint64) (blobs []uint64) {
	for _, no := range emails {
		v, err := g.s.db.Value(key2(kEmail, g.acct, no))
		if err != nil || v == nil {
			continue
		}
		e, _, err := decodeEmail(no, v)
		if err != nil {
			continue // Repair looks after it
		}
		batch.Delete(key2(kEmail, g.acct, no), nil)
		batch.Delete(key2(kSummary, g.acct, no), nil)
		for _, h := range e.ids {
			g.unthread(batch, h)
		}
		if e.blob != 0 {
			batch.Delete(key3(kBlobRef, e.blob, g.acct, no), nil)
			blobs = append(blobs, e.blob)
		}
	}
	return blobs
}

func (g *garbage) unthread(batch *pebble.Batch, h [hashBytes]byte) {
	key := hashKey(kThread, g.acct, h)
	v, c, err := batch.Get(key)
	if err != nil {
		return
	}
	t, err := decodeThread(v)
	c.Close()
	if err != nil || t.refs <= 1 {
		batch.Delete(key, nil)
		return
	}
	t.refs--
	batch.Set(key, t.encode(), nil)
}

// apply commits a batch. Blobs that nothing holds after it go with it, and
// their files after it. While pins are locked nobody can come to hold one.
func (g *garbage) apply(batch *pebble.Batch, blobs []uint64) error {
	defer batch.Close()
	slices.Sort(blobs)
	blobs = slices.Compact(blobs)
	p := &g.s.pins
	p.mu.Lock()
	var files []uint64
	for _, no := range blobs {
		held, err := hasPrefix(batch, key1(kBlobRef, no))
		if err != nil {
			p.mu.Unlock()
			return err
		}
		if held {
			continue
		}
		if p.n[no] > 0 {
			// Somebody opened it a moment ago: the references stay, and this
			// is tried again.
			p.mu.Unlock()
			g.pinned = true
			return nil
		}
		if v, err := g.s.db.Value(key1(kFile, no)); err == nil && v != nil {
			files = append(files, no)
			batch.Delete(key1(kFile, no), nil)
		} else {
			batch.Delete(key1(kBlob, no), nil)
		}
	}
	var err error
	if !batch.Empty() {
		// A file is removed after this is durable.
		sync := pebble.NoSync
		if len(files) > 0 {
			sync = pebble.Sync
		}
		err = g.s.give(batch, sync)
	}
	p.mu.Unlock()
	if err != nil {
		return err
	}
	for _, no := range files {
		g.s.removeFile(no)
	}
	return nil
}

// give commits a batch that gives space back, if even that fits on the disk.
func (s *Store) give(batch *pebble.Batch, o *pebble.WriteOptions) error {
	n := int64(batch.Len())
	if err := s.db.Enter(n); err != nil {
		return err
	}
	defer s.db.Leave(n)
	s.db.Freed(n)
	return s.db.Apply(batch, o)
}

// sweepFiles removes the files that nothing refers to: bodies that were never
// appended, and those whose removal a crash prevented.
func (s *Store) sweepFiles() error {
	list, err := s.o.fs.List(s.db.Path("blobs"))
	if err != nil {
		return err
	}
	for _, name := range list {
		no, ok := numberOf('b', name)
		if !ok {
			continue // not ours
		}
		v, err := s.db.Value(key1(kFile, no))
		if err != nil {
			return err
		}
		if v == nil {
			// What was set aside stays for whoever wants to look at it.
			if v, err = s.db.Value(append([]byte{kBad}, key1(kFile, no)...)); err != nil {
				return err
			}
		}
		if v == nil {
			s.removeFile(no)
		}
	}
	return nil
}
