package diskqueue

import (
	"context"
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/queue"
)

// events numbers what is logged. Which of them are leased is in memory.
type events struct {
	next    uint64              // number
	first   uint64              // none is before it
	pending map[uint64]struct{} // being written
	leased  map[uint64]*owner
}

func (s *Storage) loadEvents(it *pebble.Iterator) {
	s.events = events{next: 1, first: 1, pending: make(map[uint64]struct{}), leased: make(map[uint64]*owner)}
	if it.SeekLT([]byte{kEvent + 1}) && it.Key()[0] == kEvent && len(it.Key()) == 9 {
		s.events.next = binary.BigEndian.Uint64(it.Key()[1:]) + 1
	}
}

// logEvents adds events to b.
func (p *putting) logEvents(b *pebble.Batch, list []queue.Event) {
	s := p.s
	if !s.o.KeepEvents || len(list) == 0 {
		return
	}
	s.mu.Lock()
	p.seqs, p.events = s.events.next, list
	s.events.next += uint64(len(list))
	for i := range list {
		s.events.pending[p.seqs+uint64(i)] = struct{}{}
	}
	s.mu.Unlock()
	for i := range list {
		n := numberKey(kEvent, p.seqs+uint64(i))
		b.Set(n, encodeEvent(&list[i]), nil)
		b.Set(idKey(kEventID, list[i].ID), n[1:], nil)
	}
}

// eventsDone says that they are written, or will not be; s.mu is held.
func (p *putting) eventsDone() {
	for i := range p.events {
		delete(p.s.events.pending, p.seqs+uint64(i))
	}
	p.events = nil
}

// NextEvents implements queue.EventLog. Events leased by an owner that died
// are handed out again.
func (s *Storage) NextEvents(ctx context.Context, name queue.Owner, max int) ([]queue.Event, error) {
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
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kEvent}, UpperBound: []byte{kEvent + 1}})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var out []queue.Event
	first := s.events.next
	for ok := it.SeekGE(numberKey(kEvent, s.events.first)); ok && len(out) < max; ok = it.Next() {
		n := binary.BigEndian.Uint64(it.Key()[1:])
		first = min(first, n)
		_, writing := s.events.pending[n]
		if l := s.events.leased[n]; writing || l != nil && !l.dead {
			continue
		}
		e, err := decodeEvent(it.Value())
		if err != nil {
			s.log().Error("diskqueue: set aside an event that cannot be read", "dir", s.dir, "number", n, "err", err)
			b := s.db.NewBatch()
			b.Set(append([]byte{kBad}, it.Key()...), it.Value(), nil)
			b.Delete(it.Key(), nil)
			b.Commit(pebble.NoSync)
			b.Close()
			continue
		}
		s.events.leased[n] = o
		out = append(out, e)
	}
	for n := range s.events.pending { // what a crash-free moment will show yet
		first = min(first, n)
	}
	s.events.first = first
	return out, it.Error()
}

// AckEvents implements queue.EventLog.
func (s *Storage) AckEvents(ctx context.Context, ids ...queue.ID) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	b := s.db.NewBatch()
	var acked []uint64
	for _, id := range ids {
		key := idKey(kEventID, id)
		v, err := s.db.Value(key)
		if err != nil {
			b.Close()
			return err
		}
		if len(v) != 8 {
			continue
		}
		n := binary.BigEndian.Uint64(v)
		acked = append(acked, n)
		b.Delete(key, nil)
		b.Delete(numberKey(kEvent, n), nil)
	}
	if err := s.commit(b, nil); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range acked {
		delete(s.events.leased, n)
	}
	return nil
}
