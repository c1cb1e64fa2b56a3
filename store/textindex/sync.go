package textindex

import (
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/store"
)

const (
	// fanout is how many segments of a size become one of the next: they have
	// up to 8, 64 and 512 messages, and those above stay as they are.
	fanout = 8
	// large is the size that segments stay at.
	large = fanout * fanout * fanout
	// smallDead: of segments up to this size each expunged message is taken
	// out at once, of others when they are a quarter.
	smallDead = fanout * fanout
)

// syncer brings one mailbox up to date.
type syncer struct {
	ix      *Index
	ctx     context.Context
	acc     store.Account
	account string
	box     store.Mailbox // read before anything else
	st      *state
}

func (s *syncer) sync() (err error) {
	if s.st, err = readState(s.ix.db, s.account, s.box.ID); err != nil {
		return err
	}
	if !s.st.fits(s.box) {
		if err := s.ix.dropBox(s.account, s.box.ID, s.st); err != nil {
			return err
		}
		s.st = &state{uidValidity: s.box.UIDValidity, next: 1}
	}
	if s.st.modSeq == s.box.ModSeq && s.st.next == s.box.UIDNext {
		return nil
	}
	through, next := s.box.ModSeq, s.box.UIDNext
	if len(s.st.segments) > 0 {
		c, err := s.acc.Changes(s.ctx, s.box.ID, s.st.modSeq)
		if errors.Is(err, store.ErrForgotten) {
			c.Expunged, err = s.missing()
			c.ModSeq, c.UIDNext = through, next
		}
		if err != nil {
			return err
		}
		through, next = c.ModSeq, c.UIDNext
		if err := s.expunge(c.Expunged); err != nil {
			return err
		}
	}
	if err := s.gather(); err != nil {
		s.ix.g.reset()
		return err
	}
	// What was there when this was read has been seen by now.
	s.st.next = max(s.st.next, next)
	s.st.modSeq = through
	batch := s.ix.db.NewBatch()
	defer batch.Close()
	return s.commit(batch)
}

// commit writes the state with what is in the batch. It is not flushed: what a
// crash takes is read again.
func (s *syncer) commit(batch *pebble.Batch) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if err := s.ix.db.Room(int64(batch.Len())); err != nil {
		return err
	}
	if err := batch.Set(boxKey(s.account, s.box.ID), s.st.encode(), nil); err != nil {
		return err
	}
	return batch.Commit(pebble.NoSync)
}

// gather indexes the messages from st.next on.
func (s *syncer) gather() error {
	g := s.ix.g
	g.reset()
	q := store.Query{UIDs: store.UIDSet{{First: s.st.next, Last: store.MaxUID}}, Fields: store.WithSummary | store.WithBody}
	for m, err := range s.acc.Messages(s.ctx, s.box.ID, q) {
		if err != nil {
			return err
		}
		if s.ix.ctx.Err() != nil {
			return ErrClosed
		}
		if err := s.add(m); err != nil {
			return err
		}
		if g.full() {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
	if len(g.members.uids) == 0 {
		return nil
	}
	return s.flush()
}

// add gathers one message. One that cannot be read is always found: who
// searches gets the error then.
func (s *syncer) add(m store.Message) error {
	g := s.ix.g
	body := m.Body
	if body == nil {
		b, err := s.acc.Open(s.ctx, m)
		switch {
		case errors.Is(err, store.ErrNotExist):
			return nil // expunged meanwhile
		case err != nil:
			return s.unread(m, err)
		}
		defer b.Close()
		body = b
	}
	if err := g.add(m.UID, m.Summary, body); err != nil {
		return s.unread(m, err)
	}
	return nil
}

func (s *syncer) unread(m store.Message, err error) error {
	if s.ctx.Err() != nil || errors.Is(err, store.ErrUnavailable) {
		return err
	}
	s.ix.o.Log.Warn("textindex: a message could not be read", "account", s.account, "mailbox", s.box.ID, "uid", m.UID, "err", err)
	s.ix.g.keep(m.UID, true)
	return nil
}

// flush makes a segment of what was gathered.
func (s *syncer) flush() error {
	batch := s.ix.db.NewBatch()
	defer batch.Close()
	x, err := s.ix.g.write(batch, s.ix.id.Add(1))
	if err != nil {
		return err
	}
	s.st.segments = append(s.st.segments, x)
	s.st.next = x.last + 1
	if err := s.commit(batch); err != nil {
		return err
	}
	return s.settle()
}

// settle merges segments at the end while there are many of a size.
func (s *syncer) settle() error {
	for size := fanout; size <= large; size *= fanout {
		n := len(s.st.segments)
		from := n
		for from > 0 && s.st.segments[from-1].docs < size {
			from--
		}
		if n-from >= fanout {
			if err := s.replace(from, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// replace makes one segment of those from i to j, of what lives of them.
func (s *syncer) replace(i, j int) error {
	batch := s.ix.db.NewBatch()
	defer batch.Close()
	old := s.st.segments
	x, err := merge(s.ix.db, batch, s.ix.id.Add(1), old[i:j])
	if err != nil {
		return err
	}
	for _, o := range old[i:j] {
		if err := o.drop(batch); err != nil {
			return err
		}
	}
	segments := append([]segment(nil), old[:i]...)
	if x.docs > 0 {
		segments = append(segments, x)
	}
	s.st.segments = append(segments, old[j:]...)
	return s.commit(batch)
}

// missing lists the mailbox, and returns what is in the index and not in it.
func (s *syncer) missing() (store.UIDSet, error) {
	here := store.UIDSet{}
	for m, err := range s.acc.Messages(s.ctx, s.box.ID, store.Query{}) {
		if err != nil {
			return nil, err
		}
		here.Add(m.UID)
	}
	gone := store.UIDSet{{First: 1, Last: store.MaxUID}}
	return gone.Subtract(here), nil
}

// expunge takes messages out.
func (s *syncer) expunge(gone store.UIDSet) error {
	if gone.Empty() {
		return nil
	}
	first := store.UID(1)
	var smaller []uint64 // segments that have become so
	batch := s.ix.db.NewBatch()
	defer batch.Close()
	for i := range s.st.segments {
		x := &s.st.segments[i]
		mine := gone.Intersect(store.UIDSet{{First: first, Last: x.last}})
		first = x.last + 1
		if mine.Empty() {
			continue
		}
		m, err := readMembers(s.ix.db, *x)
		if err != nil {
			return err
		}
		was := x.dead
		for j, u := range m.uids {
			if !m.dead.has(j) && mine.Contains(u) {
				m.dead.add(j)
				x.dead++
			}
		}
		if x.dead == was {
			continue
		}
		if err := batch.Set(membersKey(x.id), m.encode(), nil); err != nil {
			return err
		}
		if x.docs <= smallDead || x.dead*4 >= x.docs {
			smaller = append(smaller, x.id)
		}
	}
	if err := s.commit(batch); err != nil {
		return err
	}
	for _, id := range smaller {
		for i := range s.st.segments {
			if s.st.segments[i].id == id {
				if err := s.replace(i, i+1); err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}
