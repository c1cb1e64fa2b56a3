package diskqueue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/queue"
)

// keyLife is how long an idempotency key is known.
const keyLife = 72 * time.Hour

var errSubmission = errors.New("diskqueue: a submission needs a message with an ID, a body and entries with IDs and recipients")

// putting is what one Put or Finish stores.
type putting struct {
	s      *Storage
	subs   []*queue.Submission
	force  bool     // it belongs to an outcome: there is room
	names  []string // reserved: of messages and keys
	done   chan struct{}
	fresh  []fresh
	cost   int64  // reserved of MaxBytes
	flight int64  // of s.flight
	seqs   uint64 // number of the first event
	events []queue.Event
	busy   *hold // stands for its entries meanwhile
}

// fresh is one submission that is not known yet.
type fresh struct {
	sub  *queue.Submission
	m    *message
	body *staged // nil = it is of another kind, and is copied
}

// Put implements queue.Storage. It returns after the sync that covers it,
// which is shared by all who wait for one.
func (s *Storage) Put(ctx context.Context, subs ...*queue.Submission) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	p, err := s.prepare(ctx, subs, false)
	if err != nil {
		return err
	}
	if len(p.fresh) == 0 && len(p.subs) > 0 {
		p.finish(nil)
		return nil
	}
	b := s.db.NewBatchWithSize(p.batchSize())
	if err := p.build(b); err != nil {
		b.Close()
		p.finish(err)
		return err
	}
	err = s.commit(b, nil)
	p.finish(err)
	return err
}

func check(subs []*queue.Submission) error {
	bodies := make(map[*staged]queue.ID)
	for _, sub := range subs {
		if sub.Message == nil || sub.Message.ID.IsZero() || sub.Body == nil || len(sub.Entries) == 0 {
			return errSubmission
		}
		for _, e := range sub.Entries {
			if e.ID.IsZero() || len(e.Envelope.To) == 0 {
				return errSubmission
			}
			if err := checkLane(e.Lane); err != nil {
				return err
			}
		}
		// A body of ours is stored once.
		if b, ours := sub.Body.(*staged); ours && len(subs) > 1 {
			if other, twice := bodies[b]; twice && other != sub.Message.ID {
				return errBodyClosed
			}
			bodies[b] = sub.Message.ID
		}
	}
	return nil
}

func checkLane(l queue.Lane) error {
	if len(l.Dest) > math.MaxUint16 || len(l.Tenant) > math.MaxUint16 || l.Dest == queue.Alarms {
		return fmt.Errorf("diskqueue: unusable lane %.60q, tenant %.60q", l.Dest, l.Tenant)
	}
	return nil
}

// prepare finds what is new and makes ready what can be before the commit:
// names nobody else uses meanwhile, room, files. finish ends it.
func (s *Storage) prepare(ctx context.Context, subs []*queue.Submission, force bool) (*putting, error) {
	p := &putting{s: s, subs: subs, force: force}
	if err := check(subs); err != nil {
		return nil, err
	}
	if len(subs) == 0 {
		return p, nil
	}
	for _, sub := range subs {
		p.names = append(p.names, string(idKey(kMessage, sub.Message.ID)))
		if sub.Message.Key != "" {
			p.names = append(p.names, string(rune(kKey))+keyName(sub.Message.Tenant, sub.Message.Key))
		}
	}
	if err := p.reserveNames(ctx); err != nil {
		return nil, err
	}
	err := p.choose()
	if err == nil {
		err = p.makeReady(ctx)
	}
	if err != nil {
		p.finish(err)
		return nil, err
	}
	return p, nil
}

// reserveNames takes all names at once, or waits for who has one.
func (p *putting) reserveNames(ctx context.Context) error {
	p.done = make(chan struct{})
	for {
		var wait chan struct{}
		p.s.mu.Lock()
		for _, n := range p.names {
			if wait = p.s.reserved[n]; wait != nil {
				break
			}
		}
		if wait == nil {
			for _, n := range p.names {
				p.s.reserved[n] = p.done
			}
			p.s.mu.Unlock()
			return nil
		}
		p.s.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			p.names = nil
			return ctx.Err()
		}
	}
}

// choose finds which submissions are new.
func (p *putting) choose() error {
	s := p.s
	now := s.now()
	if err := s.forgetKeys(now); err != nil {
		return err
	}
	ids := make(map[queue.ID]bool, len(p.subs))
	keys := make(map[string]queue.ID)
	for _, sub := range p.subs {
		m := sub.Message
		if ids[m.ID] {
			continue
		}
		known, err := s.has(idKey(kMessage, m.ID))
		if err != nil {
			return err
		}
		if known {
			continue
		}
		if m.Key != "" {
			name := keyName(m.Tenant, m.Key)
			id, ok := keys[name]
			if !ok {
				v, err := s.db.Value(append([]byte{kKey}, name...))
				if err != nil {
					return err
				}
				if v != nil {
					var expires time.Time
					if id, expires, err = decodeKey(v); err != nil {
						s.log().Error("diskqueue: a key is not known any more", "tenant", m.Tenant, "key", m.Key, "err", err)
					} else {
						ok = expires.After(now)
					}
				}
			}
			if ok {
				sub.Duplicate, m.ID = true, id
				continue
			}
			keys[name] = m.ID
		}
		ids[m.ID] = true
		f := fresh{sub: sub, m: &message{Message: m, entries: len(sub.Entries), head: len(sub.Head)}}
		if b, ours := sub.Body.(*staged); ours && b.s == s {
			if b.over.Load() {
				return errBodyClosed
			}
			if b.err != nil {
				return b.err
			}
			f.body = b
		}
		p.fresh = append(p.fresh, f)
	}
	return nil
}

// makeReady takes room and makes files durable.
func (p *putting) makeReady(ctx context.Context) error {
	s := p.s
	var disk int64
	for i := range p.fresh {
		f := &p.fresh[i]
		if f.body == nil && f.sub.Body.Size() > int64(s.o.BodyMemory) {
			f.body = &staged{s: s}
			if err := f.copyBody(p.force); err != nil {
				f.body.Close()
				f.body = nil
				return err
			}
		}
		size := f.sub.Body.Size()
		f.m.Size = int64(len(f.sub.Head)) + size
		need := f.m.cost()
		inline := f.m.Size
		if f.body != nil {
			need -= f.body.reserved
			if f.body.file != nil {
				f.m.file = f.body.id
				inline = int64(len(f.sub.Head))
			}
		}
		p.cost += need
		p.flight += inline
		disk += inline + entryCost*int64(f.m.entries)
	}
	if err := s.reserve(p.cost, p.force); err != nil {
		p.cost = 0
		return err
	}
	if !p.force {
		// In the log, and in its place later.
		if err := s.db.Room(2 * disk); err != nil {
			return full(err)
		}
		n := p.flight
		p.flight = 0
		if err := s.flight.Enter(ctx, n); err != nil {
			return err
		}
		p.flight = n
	} else {
		p.flight = 0
	}
	for _, f := range p.fresh {
		if f.body != nil {
			if err := f.body.seal(); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyBody copies a large body that was staged elsewhere.
func (f *fresh) copyBody(force bool) error {
	size := f.sub.Body.Size()
	if !force {
		if err := f.body.s.reserve(size, false); err != nil {
			return err
		}
		f.body.s.release(size)
	}
	if err := f.body.spill(); err != nil {
		return err
	}
	n, err := io.Copy(fileWriter{f.body}, io.NewSectionReader(f.sub.Body, 0, size))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return full(err)
}

// fileWriter writes to the file of a body.
type fileWriter struct{ b *staged }

func (w fileWriter) Write(p []byte) (int, error) { return w.b.writeFile(p) }

func (p *putting) batchSize() int {
	n := 1 << 10
	for _, f := range p.fresh {
		n += len(f.sub.Head) + 1024*len(f.sub.Entries)
		if f.m.file.IsZero() {
			n += int(f.sub.Body.Size())
		}
	}
	return n
}

// build adds all of it to b. From here on its entries are busy.
func (p *putting) build(b *pebble.Batch) error {
	s := p.s
	p.busy = &hold{ending: true}
	s.mu.Lock()
	for _, f := range p.fresh {
		for _, e := range f.sub.Entries {
			s.busy[e.ID] = p.busy
		}
	}
	s.mu.Unlock()
	var events []queue.Event
	for _, f := range p.fresh {
		if err := f.build(b, s); err != nil {
			return err
		}
		events = append(events, f.sub.Events...)
	}
	p.logEvents(b, events)
	return nil
}

func (f *fresh) build(b *pebble.Batch, s *Storage) error {
	m := f.m
	b.Set(idKey(kMessage, m.ID), encodeMessage(m), nil)
	size := m.head
	if m.file.IsZero() {
		size = int(m.Size)
	} else {
		b.Set(idKey(kFile, m.file), encodeFile(m.ID, &f.body.sums), nil)
	}
	op := b.SetDeferred(1+idLen, size+crc32.Size)
	op.Key[0] = kContent
	copy(op.Key[1:], m.ID[:])
	n := copy(op.Value, f.sub.Head)
	if rest := op.Value[n:size]; len(rest) > 0 {
		if f.body != nil {
			copy(rest, f.body.mem)
		} else if k, err := f.sub.Body.ReadAt(rest, 0); k < len(rest) {
			return fmt.Errorf("diskqueue: reading a body: %w", err)
		}
	}
	binary.BigEndian.PutUint32(op.Value[size:], crc32.Checksum(op.Value[:size], castagnoli))
	op.Finish()
	for _, e := range f.sub.Entries {
		stored := *e
		stored.Message = m.Message
		writeEntry(b, &stored, 0)
		if m.entries > 1 {
			b.Set(ofKey(m.ID, e.ID), nil, nil)
		}
	}
	if m.Key != "" {
		name := keyName(m.Tenant, m.Key)
		expires := s.now().Add(keyLife)
		b.Set(append([]byte{kKey}, name...), encodeKey(m.ID, expires), nil)
		b.Set(append(numberKey(kExpiry, stampOf(expires).bits()), name...), nil, nil)
	}
	return nil
}

// finish makes what was stored known, or gives back what was taken for it.
func (p *putting) finish(err error) {
	s := p.s
	if p.flight > 0 {
		s.flight.Leave(p.flight)
	}
	for _, sub := range p.subs {
		if b, ours := sub.Body.(*staged); err == nil && ours && b.s == s && !p.isFresh(sub) {
			b.Close() // staged for nothing
		}
	}
	for _, f := range p.fresh {
		switch {
		case err == nil && f.body != nil:
			f.body.over.Store(true)
			f.body.reserved = 0 // part of the message's cost now
			f.body.give(false)
		case f.body != nil && queue.Staged(f.body) != f.sub.Body:
			f.body.Close() // our copy
		}
	}
	if err != nil {
		s.release(p.cost)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range p.names {
		if s.reserved[n] == p.done {
			delete(s.reserved, n)
		}
	}
	if p.done != nil {
		close(p.done)
	}
	now := s.now()
	for _, f := range p.fresh {
		s.known.drop(f.m.ID) // of the same ID, gone before
		for _, e := range f.sub.Entries {
			if p.busy != nil && s.busy[e.ID] == p.busy {
				delete(s.busy, e.ID)
			}
			if err != nil {
				continue
			}
			if o := s.owners[e.Owner]; e.Owner != "" && !e.Held && o.alive(now) {
				stored := *e
				stored.Message = f.m.Message
				s.give(&stored, o, 1)
				continue
			}
			s.insertEntry(e)
		}
	}
	if p.busy != nil && p.busy.ended != nil {
		close(p.busy.ended)
	}
	p.eventsDone()
	if err == nil && len(p.fresh) > 0 {
		s.wakeUp()
	}
}

func (p *putting) isFresh(sub *queue.Submission) bool {
	for _, f := range p.fresh {
		if f.sub == sub || f.sub.Body == sub.Body {
			return true
		}
	}
	return false
}

func (s *Storage) has(key []byte) (bool, error) {
	_, c, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, c.Close()
}

// writeEntry writes an entry with its places.
func writeEntry(b *pebble.Batch, e *queue.Entry, token int64) {
	b.Set(idKey(kEntry, e.ID), encodeEntry(e, token), nil)
	if e.Held {
		return
	}
	b.Set(posKey(laneKey(e.Lane), pos{stampOf(e.Due), e.ID}), nil, nil)
	if !e.Alarm.IsZero() {
		b.Set(posKey(alarmLane, pos{stampOf(e.Alarm), e.ID}), nil, nil)
	}
}

// unplace deletes an entry's places.
func unplace(b *pebble.Batch, e *queue.Entry) {
	if e.Held {
		return
	}
	b.Delete(posKey(laneKey(e.Lane), pos{stampOf(e.Due), e.ID}), nil)
	if !e.Alarm.IsZero() {
		b.Delete(posKey(alarmLane, pos{stampOf(e.Alarm), e.ID}), nil)
	}
}

// forgetKeys drops the keys whose time is over, each minute.
func (s *Storage) forgetKeys(now time.Time) error {
	s.mu.Lock()
	due := now.Sub(s.swept) >= time.Minute || now.Before(s.swept)
	if due {
		s.swept = now
	}
	s.mu.Unlock()
	if !due {
		return nil
	}
	end := numberKey(kExpiry, stampOf(now).bits())
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kExpiry}, UpperBound: end})
	if err != nil {
		return err
	}
	b := s.db.NewBatch()
	defer b.Close()
	for ok := it.First(); ok && b.Count() < 20_000; ok = it.Next() {
		if name := it.Key(); len(name) >= 9 {
			key := append([]byte{kKey}, name[9:]...)
			// One that was given anew has a later expiry.
			if v, err := s.db.Value(key); err == nil {
				if _, expires, err := decodeKey(v); err != nil || !expires.After(now) {
					b.Delete(key, nil)
				}
			}
		}
		b.Delete(it.Key(), nil)
	}
	if err := it.Close(); err != nil {
		return err
	}
	return s.db.CommitLater(b)
}
