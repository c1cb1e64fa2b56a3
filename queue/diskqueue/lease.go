package diskqueue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/queue"
)

// owner is one who leases. A dead one is remembered, so that it stays dead.
type owner struct {
	name    queue.Owner
	until   time.Time
	dead    bool
	leases  map[queue.ID]*hold
	revoked map[queue.ID]struct{}
}

func (o *owner) alive(now time.Time) bool { return o != nil && !o.dead && now.Before(o.until) }

// hold is one entry in somebody's hands: an owner's, or for the moment those
// of a method that writes it. No scan yields it.
type hold struct {
	entry  *queue.Entry // as it is stored, but for Owner
	owner  *owner       // nil = a method's
	token  int64
	edits  []queue.Edit
	ending bool          // its outcome is being written
	ended  chan struct{} // made by who waits for that
}

// enter locks s.mu and frees what dead owners held.
func (s *Storage) enter() (time.Time, error) {
	for {
		s.mu.Lock()
		now := s.now()
		for _, o := range s.owners {
			if o.dead || now.Before(o.until) {
				continue
			}
			o.dead, o.revoked = true, nil
			for _, h := range o.leases {
				if !h.ending {
					s.free(h)
				}
			}
			s.wakeUp()
		}
		if len(s.late) == 0 {
			return now, nil
		}
		late := s.late
		s.late = nil
		s.mu.Unlock()
		for _, h := range late {
			if err := s.rewrite(h); err != nil {
				return now, err
			}
		}
	}
}

// give leases an entry that is in no index to o.
func (s *Storage) give(e *queue.Entry, o *owner, token int64) *hold {
	held := *e
	held.Owner = o.name
	h := &hold{entry: &held, owner: o, token: token}
	s.busy[e.ID] = h
	if o.leases == nil {
		o.leases = make(map[queue.ID]*hold)
	}
	o.leases[e.ID] = h
	delete(s.tokens, e.ID)
	return h
}

// take takes a hold from its owner.
func (s *Storage) take(h *hold) {
	delete(h.owner.leases, h.entry.ID)
	delete(h.owner.revoked, h.entry.ID)
	h.owner = nil
	e := *h.entry
	e.Owner = ""
	h.entry = &e
}

// free frees what a dead owner held. With edits it stays busy until they are
// made.
func (s *Storage) free(h *hold) {
	s.take(h)
	s.tokens[h.entry.ID] = h.token
	if len(h.edits) > 0 {
		s.late = append(s.late, h)
		return
	}
	delete(s.busy, h.entry.ID)
	s.insertEntry(h.entry)
}

// Lease implements queue.Storage. Leases are in memory: they end with the
// process.
func (s *Storage) Lease(ctx context.Context, name queue.Owner, want []queue.Want) ([]*queue.Lease, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	now, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	o := s.owners[name]
	if !o.alive(now) {
		return nil, queue.ErrLeaseLost
	}
	it := &iterator{s: s}
	defer it.close()
	limit := stampOf(now)
	var out []*queue.Lease
	var bad []damaged
	var unread error
	for _, w := range want {
		l := s.lanes[laneKey(w.Lane)]
		if l == nil || l.first.at > limit {
			continue
		}
		from := len(out)
		err = it.scan(l, func(p pos) bool {
			if len(out)-from == w.Max || p.at > limit {
				return false
			}
			e, token, err := s.entry(p.id)
			if isDamage(err) {
				bad = append(bad, damaged{l.key, p, err})
				return true
			}
			if err != nil {
				unread = err
				return false
			}
			h := s.give(e, o, max(token, s.tokens[p.id])+1)
			out = append(out, &queue.Lease{Entry: h.entry, Owner: name, Token: h.token})
			return true
		})
		if err = errors.Join(err, unread); err != nil {
			break
		}
		for _, lease := range out[from:] {
			if err = it.passedEntry(lease.Entry); err != nil {
				break
			}
		}
	}
	s.setAside(bad)
	if err != nil {
		for _, l := range out {
			s.free(s.busy[l.Entry.ID])
		}
		return nil, err
	}
	return out, nil
}

// entry reads an entry with its message.
func (s *Storage) entry(id queue.ID) (*queue.Entry, int64, error) {
	v, err := s.record(idKey(kEntry, id))
	if err != nil {
		return nil, 0, fmt.Errorf("entry %v: %w", id, err)
	}
	e, err := decodeEntry(v)
	if err != nil {
		return nil, 0, fmt.Errorf("entry %v: %w", id, err)
	}
	m := s.known.get(e.message)
	if m == nil {
		if m, err = s.message(e.message); err != nil {
			return nil, 0, err
		}
		s.known.add(m)
	}
	e.Message = m.Message
	return e.Entry, e.token, nil
}

// record reads what must be there.
func (s *Storage) record(key []byte) ([]byte, error) {
	v, err := s.db.Value(key)
	if v == nil && err == nil {
		err = fmt.Errorf("%w: there is no record", ErrDamaged)
	}
	return v, err
}

// message reads a message, which does not change while an entry has it.
func (s *Storage) message(id queue.ID) (*message, error) {
	v, err := s.record(idKey(kMessage, id))
	if err != nil {
		return nil, fmt.Errorf("message %v: %w", id, err)
	}
	m, err := decodeMessage(v)
	if err != nil {
		return nil, fmt.Errorf("message %v: %w", id, err)
	}
	return m, nil
}

// known has messages of entries that were leased lately: each is asked for
// when its entry is leased, when it is opened, and when the entry is finished.
type known struct {
	mu sync.Mutex
	m  map[queue.ID]*message
}

const maxKnown = 4096

func (k *known) get(id queue.ID) *message {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.m[id]
}

func (k *known) add(m *message) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m == nil {
		k.m = make(map[queue.ID]*message)
	}
	if len(k.m) >= maxKnown {
		for id := range k.m { // any
			delete(k.m, id)
			break
		}
	}
	k.m[m.ID] = m
}

func (k *known) drop(id queue.ID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.m, id)
}

// isDamage tells what will not be better the next time from what may be.
func isDamage(err error) bool { return errors.Is(err, ErrDamaged) }

// damaged is a place whose entry cannot be read.
type damaged struct {
	lane string
	p    pos
	err  error
}

// setAside takes entries that cannot be read out of the way: their places go
// and their records move, so that they stop nobody and can be looked at.
func (s *Storage) setAside(bad []damaged) {
	for _, d := range bad {
		b := s.db.NewBatch()
		b.Delete(posKey(d.lane, d.p), nil)
		key := idKey(kEntry, d.p.id)
		if v, err := s.db.Value(key); err == nil && v != nil {
			b.Set(append([]byte{kBad}, key...), v, nil)
			b.Delete(key, nil)
		}
		// Not synced: after a crash it is found again.
		err := s.db.CommitLater(b)
		b.Close()
		s.log().Error("diskqueue: set aside what cannot be read", "dir", s.dir, "entry", d.p.id, "err", d.err, "moved", err == nil)
	}
}

// Renew implements queue.Storage.
func (s *Storage) Renew(ctx context.Context, name queue.Owner, d time.Duration) (queue.Renewal, error) {
	if err := s.begin(ctx); err != nil {
		return queue.Renewal{}, err
	}
	defer s.end()
	now, err := s.enter()
	if err != nil {
		return queue.Renewal{}, err
	}
	defer s.mu.Unlock()
	o := s.owners[name]
	if o == nil {
		o = &owner{name: name}
		s.owners[name] = o
	}
	if o.dead {
		return queue.Renewal{}, queue.ErrLeaseLost
	}
	o.until = now.Add(d)
	r := queue.Renewal{Paused: slices.Clone(s.paused)}
	for id := range o.revoked {
		r.Revoked = append(r.Revoked, id)
	}
	for _, other := range s.owners {
		if other.dead || !other.name.Delivers() {
			continue
		}
		r.Owners++
		if other.name < name {
			r.Rank++
		}
	}
	return r, nil
}

// Finish implements queue.Storage. It returns after the sync that covers it.
func (s *Storage) Finish(ctx context.Context, out *queue.Outcome) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	now, err := s.enter()
	if err != nil {
		return err
	}
	o, h := s.owners[out.Lease.Owner], s.busy[out.Lease.Entry.ID]
	if !o.alive(now) || h == nil || h.owner != o || h.token != out.Lease.Token || h.ending {
		s.mu.Unlock()
		return queue.ErrLeaseLost
	}
	h.ending = true
	s.mu.Unlock()
	next, p, err := s.finish(ctx, h, out)
	s.mu.Lock()
	defer s.mu.Unlock()
	h.ending = false
	if h.ended != nil {
		close(h.ended)
		h.ended = nil
	}
	if p != nil {
		p.eventsDone()
	}
	if err != nil {
		if p != nil {
			p.eventsDone()
		}
		if h.owner.dead {
			s.free(h)
		}
		return err
	}
	edited := len(h.edits) > 0
	s.take(h)
	delete(s.busy, h.entry.ID)
	if next != nil {
		s.insertEntry(next)
		if edited || !next.Held && !next.Due.After(now) {
			s.wakeUp()
		}
	}
	return nil
}

// finish writes the outcome of h and returns what is left of the entry.
func (s *Storage) finish(ctx context.Context, h *hold, out *queue.Outcome) (*queue.Entry, *putting, error) {
	left, err := without(h.entry.Envelope.To, out.Done)
	if err != nil {
		return nil, nil, err
	}
	if len(out.Last) != 0 && len(out.Last) != len(left) {
		return nil, nil, fmt.Errorf("diskqueue: %d results for the %d recipients left", len(out.Last), len(left))
	}
	if err := checkLane(out.Lane); err != nil {
		return nil, nil, err
	}
	p, err := s.prepare(ctx, out.Put, true)
	if err != nil {
		return nil, nil, err
	}
	b := s.db.NewBatchWithSize(p.batchSize())
	if err := p.build(b); err != nil {
		b.Close()
		p.finish(err)
		return nil, nil, err
	}
	e := *h.entry
	e.Owner = ""
	e.Envelope.To, e.Last = left, out.Last
	e.Due, e.Alarm, e.Held, e.Suspended, e.Attempt = out.Due, out.Alarm, out.Held, out.Suspended, out.Attempt
	if out.Lane != (queue.Lane{}) {
		e.Lane = out.Lane
	}
	next := &e
	told := out.Events
	if len(left) == 0 {
		next = nil
	} else if dropped, more := edit(next, h.edits, s.now()); len(more) > 0 || dropped {
		told = append(slices.Clip(told), more...)
		if dropped {
			next = nil
		}
	}
	events := &putting{s: s} // of the outcome itself
	events.logEvents(b, told)
	if len(h.edits) > 0 {
		b.Delete(idKey(kEdits, e.ID), nil)
	}
	err = s.change(b, h.entry, next, h.token)
	p.finish(err)
	return next, events, err
}

// change commits b with one entry's new state, nil = gone. With the last
// entry goes its message.
func (s *Storage) change(b *pebble.Batch, old, next *queue.Entry, token int64) error {
	unplace(b, old)
	if next != nil {
		writeEntry(b, next, token)
		return s.commit(b, nil)
	}
	b.Delete(idKey(kEntry, old.ID), nil)
	m := s.known.get(old.Message.ID)
	var err error
	if m == nil {
		m, err = s.message(old.Message.ID)
	}
	if err != nil {
		// The entry can go all the same; Repair sees to the rest.
		s.log().Error("diskqueue: the message of a finished entry", "dir", s.dir, "entry", old.ID, "err", err)
		return s.commit(b, nil)
	}
	last := true
	var applied func()
	if m.entries > 1 {
		// Two that are finished at the same time must not both see the other.
		stripe := &s.stripes[old.Message.ID[15]]
		stripe.Lock()
		applied = stripe.Unlock
		b.Delete(ofKey(m.ID, old.ID), nil)
		if last, err = s.isLast(m.ID, old.ID); err != nil {
			b.Close()
			stripe.Unlock()
			return err
		}
	}
	if !last {
		return s.commit(b, applied)
	}
	b.Delete(idKey(kMessage, m.ID), nil)
	b.Delete(idKey(kContent, m.ID), nil)
	if !m.file.IsZero() {
		b.Delete(idKey(kFile, m.file), nil)
	}
	if err := s.commit(b, applied); err != nil {
		return err
	}
	s.known.drop(m.ID)
	if !m.file.IsZero() {
		s.dropFile(m.file)
	} else {
		s.db.Freed(m.Size)
	}
	s.release(m.cost())
	return nil
}

// isLast reports whether a message has no other entry than e.
func (s *Storage) isLast(m, e queue.ID) (bool, error) {
	prefix := idKey(kOf, m)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: ofKey(m, maxID)})
	if err != nil {
		return false, err
	}
	last := true
	for ok := it.First(); ok; ok = it.Next() {
		if string(it.Key()[1+idLen:]) != string(e[:]) {
			last = false
			break
		}
	}
	return last, it.Close()
}
