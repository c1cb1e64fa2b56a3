package diskstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// repairPasses bounds how often Repair looks again: mending one thing shows
// the next.
const repairPasses = 6

// Repair mends what Check finds, and returns what that was. Records that
// cannot be read are set aside, and what can be is made anew from what is
// left: a mailbox's index from its messages, counts by counting, references
// from what refers. A message whose body is damaged leaves its mailbox, and
// lies apart with it. Calls wait meanwhile; who has a repaired mailbox open is
// told to list it anew.
func (s *Store) Repair(ctx context.Context) (Report, error) {
	s.use.Lock()
	defer s.use.Unlock()
	if s.closed {
		return Report{}, unavailable(ErrClosed)
	}
	if err := s.db.Failure(); err != nil {
		return Report{}, unavailable(err)
	}
	s.sweeper.turn.Lock()
	defer s.sweeper.turn.Unlock()
	var first *checker
	for range repairPasses {
		c := &checker{s: s, r: s.db}
		if err := c.all(ctx); err != nil {
			return c.Report, unavailable(err)
		}
		if first == nil {
			first = c
		}
		first.SetAside = c.SetAside
		if len(c.Problems) == 0 {
			break
		}
		if err := s.mend(ctx, &c.found); err != nil {
			return first.Report, unavailable(err)
		}
	}
	return first.Report, unavailable(s.reload())
}

// reload reads the accounts in memory again.
func (s *Store) reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, p := range s.accounts {
		a := p.Value()
		if a == nil {
			continue
		}
		fresh, err := s.load(a.no, name)
		if err != nil {
			return err
		}
		a.mu.Lock()
		a.rec, a.modSeq, a.boxes, a.names = fresh.rec, fresh.modSeq, fresh.boxes, fresh.names
		a.mu.Unlock()
		a.notify()
	}
	return nil
}

func (s *Store) mend(ctx context.Context, f *findings) error {
	b := s.db.NewBatch()
	defer b.Close()
	aside := func(key []byte) error {
		v, err := s.db.Value(key)
		if err != nil || v == nil {
			return err
		}
		b.Set(append([]byte{kBad}, key...), v, nil)
		return b.Delete(key, nil)
	}
	for key := range f.bad {
		if err := aside([]byte(key)); err != nil {
			return err
		}
	}
	for key := range f.drop {
		b.Delete([]byte(key), nil)
	}
	for key, value := range f.add {
		b.Set([]byte(key), value, nil)
	}
	if f.bad[string([]byte{kNumber})] {
		w := diskdb.Record(8)
		w.Fixed(s.nums.next() + numberStep)
		b.Set([]byte{kNumber}, w.Seal(), nil)
	}
	for no := range f.accounts {
		if err := s.mendAccount(b, no); err != nil {
			return err
		}
	}
	boxes := make(map[boxAt]bool)
	for at := range f.boxes {
		boxes[at] = true
	}
	for at := range f.emails {
		if err := s.dropEmail(b, at, aside, boxes); err != nil {
			return err
		}
	}
	if err := s.db.Apply(b, pebble.Sync); err != nil {
		return err
	}
	for at := range boxes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.rebuild(at); err != nil {
			return err
		}
	}
	for at := range f.leaked {
		g := garbage{s: s, acct: at.acct, a: &account{s: s, no: at.acct}}
		used, err := hasPrefix(s.db, key2(kRef, at.acct, at.email))
		if err != nil {
			return err
		}
		if used {
			continue
		}
		batch := s.db.NewIndexedBatch()
		if err := g.apply(batch, g.emails(batch, []uint64{at.email})); err != nil {
			return err
		}
	}
	for at, uids := range f.rows {
		g := garbage{s: s, acct: at.acct, box: at.box, a: &account{s: s, no: at.acct}}
		if err := g.rows(ctx, uids); err != nil {
			return err
		}
	}
	return nil
}

// mendAccount makes an account's record anew. Its quota is lost.
func (s *Store) mendAccount(b *pebble.Batch, no uint64) error {
	rec := accountRecord{validity: uint32(time.Now().Unix())}
	if v, err := s.db.Value(key1(kAccount, no)); err != nil {
		return err
	} else if old, err := decodeAccount(v); err == nil {
		rec = old
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kName}, UpperBound: []byte{kName + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if n, err := decodeName(it.Value()); err == nil && n.no == no {
			rec.name = string(it.Key()[1:])
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	gone, err := s.db.NewIter(&pebble.IterOptions{LowerBound: key1(kGone, no), UpperBound: key1(kGone, no+1)})
	if err != nil {
		return err
	}
	defer gone.Close()
	rec.deleted = 0
	for ok := gone.First(); ok; ok = gone.Next() {
		rec.deleted++
		rec.modSeq = max(rec.modSeq, store.ModSeq(u8(gone.Key()[9:])))
	}
	b.Set(key1(kAccount, no), rec.encode(), nil)
	return gone.Error()
}

// dropEmail sets an email aside, and its body unless others have it. The
// mailboxes that it was in are to be made anew.
func (s *Store) dropEmail(b *pebble.Batch, at emailAt, aside func(key []byte) error, boxes map[boxAt]bool) error {
	key := key2(kEmail, at.acct, at.email)
	v, err := s.db.Value(key)
	if err != nil {
		return err
	}
	if e, _, err := decodeEmail(at.email, v); err == nil && e.blob != 0 {
		b.Delete(key3(kBlobRef, e.blob, at.acct, at.email), nil)
		others := 0
		it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: key1(kBlobRef, e.blob), UpperBound: upper(key1(kBlobRef, e.blob))})
		if err != nil {
			return err
		}
		for ok := it.First(); ok; ok = it.Next() {
			others++
		}
		if err := it.Close(); err != nil {
			return err
		}
		if others <= 1 {
			if err := errors.Join(aside(key1(kBlob, e.blob)), aside(key1(kFile, e.blob))); err != nil {
				return err
			}
		}
	}
	if err := aside(key); err != nil {
		return err
	}
	prefix := key2(kRef, at.acct, at.email)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper(prefix)})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if len(it.Key()) == lenRef {
			boxes[boxAt{at.acct, u8(it.Key()[17:])}] = true
		}
		b.Delete(it.Key(), nil)
	}
	return it.Error()
}

// rebuild makes a mailbox anew from what can be read of it.
func (s *Store) rebuild(at boxAt) error {
	key := boxKey(kMailbox, at.acct, at.box)
	v, err := s.db.Value(key)
	if err != nil {
		return err
	}
	a, err := s.load(at.acct, "")
	if err != nil {
		return fmt.Errorf("account %d: %w", at.acct, err)
	}
	batch := s.db.NewBatch()
	defer batch.Close()
	old, err := decodeMailbox(at.box, v)
	if err != nil {
		// Who it was is lost: it is a new one with the old messages.
		deleted := false
		if gone, err := a.deleted(0); err == nil {
			deleted = slices.ContainsFunc(gone, func(m store.Mailbox) bool { return m.ID == boxID(at.box) })
		}
		if deleted {
			// Rightly it has no record: the rest goes.
			return s.db.Set(dueKey(0, at.acct, at.box, 0), nil, pebble.Sync)
		}
		old = &mailbox{no: at.box, name: "Recovered " + idOf('f', at.box), next: 1, recent: 1, tail: 1}
		if at.box == inboxNo {
			old.name = string(store.Inbox)
		}
		old.validity = a.rec.nextValidity()
		batch.Set(key1(kAccount, at.acct), a.rec.encode(), nil)
	}
	rows, err := s.survivors(batch, at)
	if err != nil {
		return err
	}
	b := &boxTx{mailbox: &mailbox{no: old.no, name: old.name, use: old.use, validity: old.validity, next: old.next, recent: old.recent,
		modSeq: a.modSeq + 1, horizon: a.modSeq + 1, tail: 1}}
	t := &tx{a: a, b: batch, m: b.modSeq}
	p := boxKey(kChunk, at.acct, at.box)
	batch.DeleteRange(p, upper(p), nil)
	inChunks := max(len(rows)-s.o.lengths.tailMin, 0)
	c := newChunk()
	for i := range rows {
		m := &rows[i]
		m.modSeq = max(min(m.modSeq, b.modSeq), 1)
		batch.Set(rowKey(at.acct, at.box, m.uid), m.encode(), nil)
		batch.Set(refKey(at.acct, m.email, at.box, m.uid), nil, nil)
		b.count(m.system, m.size, 1)
		b.next = max(b.next, m.uid+1)
		if b.unseen == 0 && unseen(m.system) {
			b.unseen = m.uid
		}
		if i >= inChunks {
			if b.tailRows == 0 {
				b.tail = m.uid
			}
			b.tailRows++
			continue
		}
		c.add(m)
		if len(c.uids) == s.o.lengths.chunk || i == inChunks-1 {
			t.putChunk(b, c, c.info(), true)
			c.free()
			c = newChunk()
		}
	}
	c.free()
	if b.tailRows == 0 {
		b.tail = b.next
	}
	batch.Set(key, b.encode(), nil)
	return s.db.Apply(batch, pebble.Sync)
}

// survivors returns the messages of a mailbox that are there and can be read.
func (s *Store) survivors(batch *pebble.Batch, at boxAt) ([]row, error) {
	words := 0
	if v, err := s.db.Value(boxKey(kWords, at.acct, at.box)); err != nil {
		return nil, err
	} else if v != nil {
		if t, err := decodeWords(v); err == nil {
			words = len(t.list)
		}
	}
	var expunged []store.UIDSet
	c := &checker{s: s, r: s.db}
	ctx := context.Background()
	err := c.each(ctx, boxKey(kTomb, at.acct, at.box), func(_, value []byte) error {
		if _, uids, err := decodeTomb(value); err == nil {
			expunged = append(expunged, uids)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	gone := unite(expunged)
	rows := make(map[store.UID]row)
	err = c.each(ctx, boxKey(kRow, at.acct, at.box), func(key, value []byte) error {
		if len(key) != lenRow {
			return nil
		}
		if m, err := decodeRow(uidOf(key[17:]), value); err == nil && !m.gone && !gone.Contains(m.uid) {
			rows[m.uid] = m
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	// What chunks say that can be read goes before what rows say.
	cur, err := newCursor(s.db, at.acct, &mailbox{no: at.box}, true, true)
	if err != nil {
		return nil, err
	}
	defer cur.close()
	var firsts []store.UID
	err = c.each(ctx, boxKey(kChunk, at.acct, at.box), func(key, _ []byte) error {
		if first, _, ok := chunkFirst(key); ok && (len(firsts) == 0 || firsts[len(firsts)-1] != first) {
			firsts = append(firsts, first)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, first := range firsts {
		ch, info, err := cur.chunk(first)
		if err != nil {
			if !errors.Is(err, diskdb.ErrDamaged) {
				return nil, err
			}
			continue
		}
		in := make(map[store.UID]bool, len(ch.uids))
		for j, u := range ch.uids {
			if ch.codes[j]&codeGone != 0 {
				continue
			}
			in[u] = true
			m, ok := rows[u]
			if !ok {
				// Its row is lost: the rest is enough to keep it.
				m = row{uid: u, date: time.Now(), saved: time.Now()}
			}
			m.size, m.email = ch.sizes[j], ch.emails[j]
			m.system, m.words, m.modSeq = store.SystemFlags(ch.codes[j]), ch.sets[ch.codes[j]>>8], ch.modSeqs[j]
			rows[u] = m
		}
		for u := range rows {
			if u >= info.first && u <= info.last && !in[u] {
				delete(rows, u)
			}
		}
		ch.free()
	}
	out := make([]row, 0, len(rows))
	for _, m := range rows {
		v, err := s.db.Value(key2(kEmail, at.acct, m.email))
		if err != nil {
			return nil, err
		}
		e, headSize, err := decodeEmail(m.email, v)
		if err != nil {
			// It cannot be read any more: its row lies apart.
			batch.Set(append([]byte{kBad}, rowKey(at.acct, at.box, m.uid)...), m.encode(), nil)
			batch.Delete(rowKey(at.acct, at.box, m.uid), nil)
			batch.Delete(refKey(at.acct, m.email, at.box, m.uid), nil)
			continue
		}
		m.size, m.thread = headSize+e.bodySize, e.thread
		m.words = slices.DeleteFunc(slices.Clone(m.words), func(w int) bool { return w >= words })
		out = append(out, m)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].uid < out[j].uid })
	return out, nil
}
