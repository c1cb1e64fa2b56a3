package diskstore

import (
	"context"
	"time"

	"github.com/postrider/postrider/store"
)

// Append implements store.Account.
func (a *account) Append(ctx context.Context, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
	return a.add(ctx, box, nil, d, o)
}

// add is Append, or Import when UIDs are given.
func (a *account) add(ctx context.Context, box store.MailboxID, uids []store.UID, d []store.Draft, o store.AppendOptions) (r store.Appended, err error) {
	ready := make([]prepared, 0, len(d))
	defer func() {
		for i := range ready {
			ready[i].release()
		}
	}()
	var size int64
	for i := range d {
		p, err := a.s.prepare(ctx, a.name, d[i])
		if err != nil {
			return store.Appended{}, err
		}
		ready = append(ready, p)
		size += p.cost()
	}
	if err := a.s.admit(ctx, size); err != nil {
		return store.Appended{}, err
	}
	defer a.s.flight.Leave(size)
	err = a.commit(ctx, func(t *tx) error {
		r, err = t.append(ctx, box, uids, ready, o)
		return err
	})
	if err != nil {
		return store.Appended{}, err
	}
	return r, nil
}

// admit waits until size octets may go into the database, if the disk has
// room.
func (s *Store) admit(ctx context.Context, size int64) error {
	if err := s.db.Room(size); err != nil {
		return full(err)
	}
	return s.flight.Enter(ctx, size)
}

func (t *tx) append(ctx context.Context, box store.MailboxID, uids []store.UID, d []prepared, o store.AppendOptions) (store.Appended, error) {
	b, err := t.box(box)
	if err != nil {
		return store.Appended{}, err
	}
	next := uint64(b.next)
	var passed store.UIDSet // UIDs that are given to nobody
	for _, uid := range uids {
		if uint64(uid) < next {
			return store.Appended{}, store.ErrExist
		}
		if uint64(uid) > next {
			passed.AddRange(store.UID(next), uid-1)
		}
		next = uint64(uid) + 1
	}
	if uids == nil {
		next += uint64(len(d))
	}
	var rb *boxTx
	var old store.UIDSet
	var freed int64
	if o.Replace.UID != 0 {
		if rb, err = t.box(o.Replace.Box); err != nil {
			return store.Appended{}, err
		}
		old = store.UIDs(o.Replace.UID)
		n := 0
		err := t.each(rb.mailbox, old, false, func(m *row) error {
			n, freed = n+1, m.size
			return nil
		})
		if err != nil {
			return store.Appended{}, err
		}
		if n == 0 {
			return store.Appended{}, store.ErrNotExist
		}
	}
	r := store.Appended{Commit: store.Commit{Prev: b.modSeq, ModSeq: b.modSeq}, UIDValidity: b.validity}
	if rb != nil {
		r.Replaced = store.Commit{Prev: rb.modSeq, ModSeq: rb.modSeq}
	}
	if len(d) == 0 && rb == nil {
		return r, nil
	}
	var size int64
	for i := range d {
		size += d[i].size()
	}
	if err := t.room(size, freed, next); err != nil {
		return store.Appended{}, err
	}
	r.Messages = make([]store.Message, len(d))
	for i := range d {
		p := &d[i]
		if err := t.learn(b, p.flags.Keywords); err != nil {
			return store.Appended{}, err
		}
		e, err := t.email(ctx, p)
		if err != nil {
			return store.Appended{}, err
		}
		date := p.date
		if date.IsZero() {
			date = t.now
		}
		m := row{system: p.flags.System, words: b.table().indexes(p.flags.Keywords),
			size: e.size(), email: e.no, thread: e.thread, date: date, saved: t.now}
		if uids != nil {
			b.next = uids[i]
		}
		t.add(b, &m)
		r.Messages[i] = store.Message{UID: m.uid, ModSeq: m.modSeq, Flags: b.table().flags(m.system, m.words), Size: m.size,
			InternalDate: date, SaveDate: t.now.Truncate(time.Second), ID: idOf('m', m.email), ThreadID: idOf('t', m.thread)}
	}
	if rb != nil {
		if _, err := t.remove(rb, old, false); err != nil {
			return store.Appended{}, err
		}
		r.Replaced.ModSeq = rb.modSeq
	}
	if !passed.Empty() {
		if err := t.bury(b, passed); err != nil {
			return store.Appended{}, err
		}
	}
	r.ModSeq = b.modSeq
	return r, nil
}

// add puts a new row at the end of b.
func (t *tx) add(b *boxTx, m *row) {
	m.uid, m.modSeq = b.next, t.m
	b.next++
	b.rows = append(b.rows, *m)
	b.tailRows++
	b.count(m.system, m.size, 1)
	b.note(m.uid, false, unseen(m.system))
	t.batch().Set(rowKey(t.a.no, b.no, m.uid), m.encode(), nil)
	t.batch().Set(refKey(t.a.no, m.email, b.no, m.uid), nil, nil)
	t.touch(b)
}

// count adds a message to the counters (n = 1) or takes it away (-1).
func (b *boxTx) count(f store.SystemFlags, size int64, n int) {
	c := &b.counts
	size *= int64(n)
	c.Messages += n
	c.Size += size
	if !f.Has(store.Seen) {
		c.Unseen += n
	}
	if f.Has(store.Deleted) {
		c.Deleted += n
		c.DeletedSize += size
	}
}

// room checks what a write that adds messages needs; next is the UIDNext that
// it leads to.
func (t *tx) room(size, freed int64, next uint64) error {
	if q := t.a.rec.quota; q > 0 && size > freed && t.a.used()-freed+size > q {
		return store.ErrQuota
	}
	if next > uint64(store.MaxUID) {
		return store.ErrLimit
	}
	return nil
}

// learn makes keywords known in b.
func (t *tx) learn(b *boxTx, kw []string) error {
	missing := b.table().missing(kw)
	if len(missing) == 0 {
		return nil
	}
	for _, k := range missing {
		if k == "" || len(k) > maxName {
			return store.ErrLimit
		}
	}
	most := limit(t.a.s.o.Keywords, defaultKeywords)
	if b.table().used+len(missing) > most {
		// Those that no message has any more make room.
		used := map[int]bool{}
		if err := t.usedWords(b, used); err != nil {
			return err
		}
		if len(used)+len(missing) > most {
			return store.ErrLimit
		}
		b.words = b.table().without(used)
	}
	b.words = b.table().with(missing)
	return nil
}

// usedWords finds the keywords that messages of b have.
func (t *tx) usedWords(b *boxTx, used map[int]bool) error {
	err := t.each(b.mailbox, store.AllUIDs(), false, func(m *row) error {
		for _, w := range m.words {
			used[w] = true
		}
		return nil
	})
	for i := range b.rows {
		for _, w := range b.rows[i].words {
			used[w] = true
		}
	}
	return err
}

// fold moves the older half of a long tail into chunks.
func (t *tx) fold(b *boxTx) error {
	l := t.a.s.o.lengths
	n := b.tailRows - l.tailMin
	if b.tailRows <= l.tailMax || len(b.rows) == 0 {
		return nil
	}
	c := newChunk()
	defer func() { c.free() }()
	dir := b.writable()
	if k := len(dir); k > 0 && int(dir[k-1].live) <= l.chunk-l.tailMin && !b.edited {
		// The last chunk has room, unless many of it are gone.
		last, err := t.readChunk(b.mailbox, dir[k-1].first)
		if err != nil {
			return err
		}
		if len(last.uids) <= l.chunk-l.tailMin {
			c.free()
			c, dir = last, dir[:k-1]
		} else {
			last.free()
		}
	}
	put := func() {
		i := c.info()
		t.putChunk(b, c, i, true)
		dir = append(dir, i)
		c.free()
		c = newChunk()
	}
	next := b.next // the first that stays in the tail
	take := func(m *row) bool {
		if n == 0 {
			next = m.uid
			return false
		}
		if len(c.uids) == l.chunk {
			put()
		}
		c.add(m)
		b.tailRows--
		n--
		return true
	}
	more := true
	if b.was != nil && b.was.tailRows > 0 {
		err := t.tailRows(b.mailbox, store.UIDSet{{First: b.tail, Last: max(b.tail, b.rows[0].uid-1)}}, func(m *row) error {
			if more && m.uid < b.rows[0].uid && !b.gone.Contains(m.uid) {
				more = take(m)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for i := 0; more && i < len(b.rows); i++ {
		more = take(&b.rows[i])
	}
	if len(c.uids) > 0 {
		put()
	}
	b.tail, b.dir = next, dir
	return nil
}

// putChunk writes a chunk, its first column only when that is new.
func (t *tx) putChunk(b *boxTx, c *chunk, i chunkInfo, static bool) {
	t.batch().Set(chunkKey(t.a.no, b.no, i.first, colFlags), c.encodeFlags(i), nil)
	if static {
		t.batch().Set(chunkKey(t.a.no, b.no, i.first, colStatic), c.encodeStatic(), nil)
	}
	b.edited = true
}
