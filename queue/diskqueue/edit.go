package diskqueue

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/queue"
)

// page is how many entries List reads in one step.
const page = 256

// List implements queue.Lister. It reads a page at a time, so that a slow
// consumer keeps nothing of the database.
func (s *Storage) List(ctx context.Context, f queue.Filter) iter.Seq2[*queue.Entry, error] {
	return func(yield func(*queue.Entry, error) bool) {
		for from := []byte{kEntry}; from != nil; {
			found, next, err := s.list(ctx, &f, from)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, e := range found {
				if !yield(e, nil) {
					return
				}
			}
			from = next
		}
	}
}

// list returns the next entries that f chooses, and where to go on.
func (s *Storage) list(ctx context.Context, f *queue.Filter, from []byte) ([]*queue.Entry, []byte, error) {
	if err := s.begin(ctx); err != nil {
		return nil, nil, err
	}
	defer s.end()
	if _, err := s.enter(); err != nil {
		return nil, nil, err
	}
	s.mu.Unlock()
	var found []*queue.Entry
	var next []byte
	if ids, all, err := s.byID(f); err != nil {
		return nil, nil, err
	} else if all {
		for _, id := range ids {
			e, _, err := s.entry(id)
			if err == nil && f.Match(e) {
				found = append(found, e)
			}
		}
	} else {
		it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kEntry}, UpperBound: []byte{kEntry + 1}})
		if err != nil {
			return nil, nil, err
		}
		read := 0
		for ok := it.SeekGE(from); ok; ok = it.Next() {
			if read++; read > page {
				next = slices.Clone(it.Key())
				break
			}
			key := slices.Clone(it.Key())
			v, err := diskdb.IterValue(it)
			if errors.Is(err, ErrDamaged) {
				next = append(key, 0) // it stands nowhere now
				break
			}
			if err != nil {
				it.Close()
				return nil, nil, err
			}
			e, err := decodeEntry(v)
			if err != nil {
				continue // Check tells of it, and Lease sets it aside
			}
			m, err := s.message(e.message)
			if err != nil {
				continue
			}
			if e.Message = m.Message; f.Match(e.Entry) {
				found = append(found, e.Entry)
			}
		}
		if err := it.Close(); err != nil {
			return nil, nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range found {
		if h := s.busy[e.ID]; h != nil && h.owner != nil {
			e.Owner = h.owner.name
		}
	}
	return found, next, nil
}

// byID returns the entries that f asks for by IDs. all is false if it asks
// for none.
func (s *Storage) byID(f *queue.Filter) (ids []queue.ID, all bool, err error) {
	seen := make(map[queue.ID]bool)
	add := func(id queue.ID) {
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	for _, id := range f.IDs {
		if known, err := s.has(idKey(kEntry, id)); err != nil {
			return nil, false, err
		} else if known {
			add(id)
			continue
		}
		m, err := s.message(id)
		if err != nil {
			continue
		}
		if m.entries == 1 { // which one is not written down
			return nil, false, nil
		}
		it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: idKey(kOf, id), UpperBound: append(ofKey(id, maxID), 0)})
		if err != nil {
			return nil, false, err
		}
		for ok := it.First(); ok; ok = it.Next() {
			add(queue.ID(it.Key()[1+idLen:]))
		}
		if err := it.Close(); err != nil {
			return nil, false, err
		}
	}
	return ids, len(f.IDs) > 0, nil
}

// Edit implements queue.Editor.
func (s *Storage) Edit(ctx context.Context, f queue.Filter, e queue.Edit) (int, error) {
	if err := checkLane(e.Lane); err != nil {
		return 0, err
	}
	n := 0
	for from := []byte{kEntry}; from != nil; {
		found, next, err := s.list(ctx, &f, from)
		if err != nil {
			return n, err
		}
		for _, entry := range found {
			done, err := s.editOne(ctx, entry.ID, &f, e)
			if err != nil {
				return n, err
			}
			if done {
				n++
			}
		}
		from = next
	}
	s.mu.Lock()
	s.wakeUp()
	s.mu.Unlock()
	return n, nil
}

func (s *Storage) editOne(ctx context.Context, id queue.ID, f *queue.Filter, e queue.Edit) (bool, error) {
	if err := s.begin(ctx); err != nil {
		return false, err
	}
	defer s.end()
	for {
		if _, err := s.enter(); err != nil {
			return false, err
		}
		h := s.busy[id]
		if h == nil {
			return s.editFree(id, f, e)
		}
		if h.owner != nil && !h.ending {
			return true, s.editLeased(h, e)
		}
		// It is being written: a moment.
		if h.ended == nil {
			h.ended = make(chan struct{})
		}
		wait := h.ended
		s.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// editFree changes an entry that nobody has; s.mu is held, and is not at
// return.
func (s *Storage) editFree(id queue.ID, f *queue.Filter, e queue.Edit) (bool, error) {
	entry, token, err := s.entry(id)
	if err != nil || !f.Match(entry) {
		s.mu.Unlock()
		return false, nil // gone, or changed, since it was listed
	}
	h := &hold{entry: entry, token: max(token, s.tokens[id]), edits: []queue.Edit{e}, ending: true}
	s.busy[id] = h
	it := &iterator{s: s}
	err = it.passedEntry(entry)
	it.close()
	s.mu.Unlock()
	if err != nil {
		return false, err
	}
	return true, s.rewrite(h)
}

// rewrite makes the edits of a hold that no owner has, and frees it.
func (s *Storage) rewrite(h *hold) error {
	next := *h.entry
	left := &next
	dropped, told := edit(left, h.edits, s.now())
	if dropped {
		left = nil
	}
	b := s.db.NewBatch()
	b.Delete(idKey(kEdits, h.entry.ID), nil)
	events := &putting{s: s}
	events.logEvents(b, told)
	err := s.change(b, h.entry, left, h.token)
	s.mu.Lock()
	defer s.mu.Unlock()
	events.eventsDone()
	delete(s.busy, h.entry.ID)
	if h.ended != nil {
		close(h.ended)
	}
	if err != nil {
		left = h.entry
	}
	if left != nil {
		s.insertEntry(left)
	}
	if left == nil || err == nil {
		delete(s.tokens, h.entry.ID)
	}
	return err
}

// editLeased notes an edit for later, durably; s.mu is held, and is not at
// return.
func (s *Storage) editLeased(h *hold, e queue.Edit) error {
	edits := append(slices.Clip(h.edits), e)
	b := s.db.NewBatch()
	b.Set(idKey(kEdits, h.entry.ID), encodeEdits(edits), nil)
	// Visible here, so that the outcome that makes the edits comes later in
	// the log; the sync is awaited without the lock.
	c, err := s.db.Commit(b)
	if err != nil {
		s.mu.Unlock()
		return full(err)
	}
	h.edits = edits
	if o := h.owner; e.Revokes() {
		if o.revoked == nil {
			o.revoked = make(map[queue.ID]struct{})
		}
		o.revoked[h.entry.ID] = struct{}{}
	}
	s.mu.Unlock()
	return c.Wait()
}

// edit changes e, and reports whether it is dropped and what there is to tell.
func edit(e *queue.Entry, edits []queue.Edit, now time.Time) (dropped bool, told []queue.Event) {
	for i := range edits {
		if ev, ok := edits[i].Event(e, now); ok {
			told = append(told, ev)
		}
		if edits[i].Apply(e, now) {
			return true, told
		}
	}
	return false, told
}

// loadEdits makes the edits of entries that were leased when the process
// before ended.
func (s *Storage) loadEdits() error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kEdits}, UpperBound: []byte{kEdits + 1}})
	if err != nil {
		return err
	}
	var holds []*hold
	var stale [][]byte
	for ok := it.First(); ok; ok = it.Next() {
		key := slices.Clone(it.Key())
		edits, err := decodeEdits(it.Value())
		var e *queue.Entry
		var token int64
		if err == nil && len(key) == 1+idLen {
			e, token, err = s.entry(queue.ID(key[1:]))
		}
		if err != nil || e == nil {
			stale = append(stale, key)
			continue
		}
		holds = append(holds, &hold{entry: e, token: token, edits: edits})
	}
	if err := it.Close(); err != nil {
		return err
	}
	if len(stale) > 0 {
		b := s.db.NewBatch()
		defer b.Close()
		for _, key := range stale {
			b.Delete(key, nil)
		}
		if err := s.db.CommitLater(b); err != nil {
			return err
		}
	}
	for _, h := range holds {
		if err := s.rewrite(h); err != nil {
			return err
		}
	}
	return nil
}

// Pause implements queue.Editor. A rule is removed by the Filter that it was
// made with.
func (s *Storage) Pause(ctx context.Context, f queue.Filter, on bool) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	name := encodeFilter(&f)
	key := append([]byte{kPause}, name...)
	b := s.db.NewBatch()
	if on {
		b.Set(key, nil, nil)
	} else {
		b.Delete(key, nil)
	}
	if err := s.commit(b, nil); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.paused[:0:0]
	for _, p := range s.paused {
		if string(encodeFilter(&p)) != string(name) {
			kept = append(kept, p)
		}
	}
	if on {
		kept = append(kept, f)
	}
	s.paused = kept
	s.wakeUp()
	return nil
}

// Paused implements queue.Editor.
func (s *Storage) Paused(ctx context.Context) ([]queue.Filter, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.paused), nil
}

func (s *Storage) loadPaused(it *pebble.Iterator) error {
	for ok := it.SeekGE([]byte{kPause}); ok && it.Key()[0] == kPause; ok = it.Next() {
		f, err := decodeFilter(it.Key()[1:])
		if err != nil {
			s.log().Error("diskqueue: a pause rule that cannot be read", "dir", s.dir, "err", err)
			continue
		}
		s.paused = append(s.paused, f)
	}
	return it.Error()
}
