package diskstore

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/store"
)

const (
	// loadRows and loadBytes bound what Messages reads ahead of Summaries and
	// bodies.
	loadRows  = 64
	loadBytes = 1 << 20
)

// Messages implements store.Account. It reads a chunk or the tail at a time,
// and holds nothing of the database while it yields.
func (a *account) Messages(ctx context.Context, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
	return func(yield func(store.Message, error) bool) {
		p := pager{a: a, box: box, q: q, from: 1, uids: q.UIDs}
		if q.UIDs == nil {
			p.uids = store.AllUIDs()
		}
		defer p.close()
		for !p.done {
			if err := p.next(ctx); err != nil {
				yield(store.Message{}, err)
				return
			}
			if !p.yield(ctx, yield) {
				return
			}
		}
	}
}

// pager is a walk over a mailbox.
type pager struct {
	a    *account
	box  store.MailboxID
	q    store.Query
	uids store.UIDSet
	from store.UID // where to go on
	done bool

	c     *chunk // the page, or nil
	at    []int  // places in c that are wanted
	rows  []row  // the page, or what the rows of c's messages say
	words *words // of the page
	sets  [][]string
	ids   []byte
}

func (p *pager) whole() bool { return p.q.Fields&(store.WithDates|store.WithIDs) != 0 }

func (p *pager) close() {
	if p.c != nil {
		p.c.free()
		p.c = nil
	}
}

// next reads the next page that has something in it, as far as chunks are
// concerned; the tail is one page, the last.
func (p *pager) next(ctx context.Context) error {
	p.close()
	p.rows, p.at = p.rows[:0], p.at[:0]
	s := p.a.s
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	cur, info, l, err := p.open()
	if err != nil {
		return err
	}
	if cur == nil {
		p.done = true
		return l.wait()
	}
	defer cur.close()
	if info == nil {
		p.done = true
		err = cur.tail(p.uids, func(m *row) error {
			if m.modSeq > p.q.ChangedSince {
				p.rows = append(p.rows, *m)
			}
			return nil
		})
	} else {
		err = p.chunk(cur, info)
	}
	if err != nil {
		return err
	}
	return l.wait()
}

// open finds the next chunk that matters; none: the tail is next.
func (p *pager) open() (cur *cursor, info *chunkInfo, l *landing, err error) {
	a := p.a
	a.mu.Lock()
	defer a.mu.Unlock()
	b, err := a.box(p.box)
	if err != nil {
		return nil, nil, nil, err
	}
	l = a.last
	if p.words, err = a.readWords(b); err != nil {
		return nil, nil, nil, err
	}
	dir, err := a.readDir(b)
	if err != nil {
		return nil, nil, nil, err
	}
	if b.modSeq <= p.q.ChangedSince {
		return nil, nil, l, nil
	}
	p.uids = within(p.uids, p.from, store.MaxUID)
	for len(p.uids) > 0 {
		k, end := overlapping(dir, p.uids[0].First, p.uids[0].Last)
		for ; k < end; k++ {
			p.from = dir[k].last + 1
			if dir[k].newest > p.q.ChangedSince {
				cur, err = newCursor(a.s.db, a.no, b, true, p.whole())
				i := dir[k]
				return cur, &i, l, err
			}
		}
		if p.uids[0].Last >= b.tail {
			break
		}
		p.uids = p.uids[1:]
	}
	p.uids = within(p.uids, max(p.from, b.tail), store.MaxUID)
	if len(p.uids) == 0 || b.tailRows == 0 {
		return nil, nil, l, nil
	}
	cur, err = newCursor(a.s.db, a.no, b, false, true)
	return cur, nil, l, err
}

func (p *pager) chunk(cur *cursor, info *chunkInfo) error {
	c, _, err := cur.chunk(info.first)
	if err != nil {
		return err
	}
	p.c = c
	in := within(p.uids, max(info.first, p.uids[0].First), info.last)
	c.members(in, func(j int) {
		if c.modSeqs[j] > p.q.ChangedSince {
			p.at = append(p.at, j)
		}
	})
	p.sets = p.sets[:0]
	for _, w := range c.sets {
		p.sets = append(p.sets, p.words.keywords(w))
	}
	if !p.whole() {
		return nil
	}
	for _, j := range p.at {
		m, err := cur.row(c.uids[j])
		if err != nil {
			return err
		}
		p.rows = append(p.rows, m)
	}
	return nil
}

// yield gives the page to the loop.
func (p *pager) yield(ctx context.Context, yield func(store.Message, error) bool) bool {
	n := len(p.rows)
	if p.c != nil {
		n = len(p.at)
	}
	// One string for all IDs of the page.
	p.ids = slices.Grow(p.ids[:0], n*idLen)[:n*idLen]
	for i := range n {
		no := uint64(0)
		if p.c != nil {
			no = p.c.emails[p.at[i]]
		} else {
			no = p.rows[i].email
		}
		putID(p.ids[i*idLen:], 'm', no)
	}
	ids := string(p.ids)
	if c := p.c; c != nil && p.q.Fields == 0 {
		// What opening a mailbox costs.
		var m store.Message
		for i, j := range p.at {
			code := c.codes[j]
			m.UID, m.ModSeq, m.Size, m.ID = c.uids[j], c.modSeqs[j], c.sizes[j], ids[i*idLen:(i+1)*idLen]
			m.Flags.System, m.Flags.Keywords = store.SystemFlags(code), p.sets[code>>8]
			if !yield(m, nil) {
				return false
			}
		}
		return true
	}
	load := loader{a: p.a, fields: p.q.Fields & (store.WithSummary | store.WithBody)}
	defer load.close()
	for i := range n {
		var m store.Message
		if c := p.c; c != nil {
			j := p.at[i]
			code := c.codes[j]
			m.UID, m.ModSeq, m.Size = c.uids[j], c.modSeqs[j], c.sizes[j]
			m.Flags = store.Flags{System: store.SystemFlags(code), Keywords: p.sets[code>>8]}
		} else {
			r := &p.rows[i]
			m.UID, m.ModSeq, m.Size, m.Flags = r.uid, r.modSeq, r.size, p.words.flags(r.system, r.words)
		}
		m.ID = ids[i*idLen : (i+1)*idLen]
		if p.whole() {
			r := &p.rows[i]
			if p.q.Fields&store.WithDates != 0 {
				m.InternalDate, m.SaveDate = r.date, r.saved
			}
			if p.q.Fields&store.WithIDs != 0 {
				m.ThreadID = idOf('t', r.thread)
			}
		}
		if load.fields != 0 {
			if load.empty() {
				if err := load.fill(ctx, p, i, n); err != nil {
					yield(store.Message{}, err)
					return false
				}
			}
			load.take(&m)
		}
		if !yield(m, nil) {
			return false
		}
	}
	return true
}

// loader reads Summaries and bodies ahead.
type loader struct {
	a      *account
	fields store.Fields
	items  []loaded
	lent   *lent // the latest that was taken
}

type loaded struct {
	summary []byte
	body    *lent
}

func (l *loader) empty() bool { return len(l.items) == 0 }

// take gives m what was read for it, until the next turn.
func (l *loader) take(m *store.Message) {
	l.giveBack()
	x := l.items[0]
	l.items = l.items[1:]
	m.Summary = x.summary
	if l.lent = x.body; x.body != nil && x.body.Size() == m.Size {
		m.Body = x.body
	}
}

func (l *loader) giveBack() {
	if l.lent != nil {
		l.lent.release()
		l.lent = nil
	}
}

// close gives back what was not taken.
func (l *loader) close() {
	l.giveBack()
	for _, x := range l.items {
		if x.body != nil {
			x.body.release()
		}
	}
}

// fill reads for messages i to n of the page, as many as fit.
func (l *loader) fill(ctx context.Context, p *pager, i, n int) error {
	s := l.a.s
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	var summaries, emails, bodies finder
	defer summaries.close()
	defer emails.close()
	defer bodies.close()
	if l.fields&store.WithSummary != 0 {
		if err := summaries.open(s.db, key1(kSummary, l.a.no)); err != nil {
			return err
		}
	}
	if l.fields&store.WithBody != 0 {
		if err := errors.Join(emails.open(s.db, key1(kEmail, l.a.no)), bodies.open(s.db, []byte{kBlob})); err != nil {
			return err
		}
	}
	l.items = l.items[:0:cap(l.items)]
	total := 0
	for ; i < n && len(l.items) < loadRows && total < loadBytes; i++ {
		no := uint64(0)
		if p.c != nil {
			no = p.c.emails[p.at[i]]
		} else {
			no = p.rows[i].email
		}
		var x loaded
		if summaries.it != nil {
			v, err := summaries.find(key2(kSummary, l.a.no, no))
			if err != nil {
				return err
			}
			// A damaged one can be made anew from the message.
			if v != nil {
				if x.summary, err = l.a.openSummary(ctx, no, v); err != nil {
					x.summary = nil
				}
				total += len(x.summary)
			}
		}
		if emails.it != nil {
			// What cannot ride along is opened, and the error shown then.
			if x.body = l.a.ride(ctx, no, &emails, &bodies); x.body != nil {
				total += len(x.body.mem)
			}
		}
		l.items = append(l.items, x)
	}
	return nil
}

// ride returns a message if its body is in the database, nil otherwise.
func (a *account) ride(ctx context.Context, no uint64, emails, bodies *finder) *lent {
	v, err := emails.find(key2(kEmail, a.no, no))
	if v == nil || err != nil {
		return nil
	}
	e, size, err := decodeEmail(no, v)
	if err != nil || e.bodySize > int64(a.s.o.BodyMemory) || a.s.unlock(ctx, a.name, e, size) != nil {
		return nil
	}
	l := new(lent)
	if e.blob == 0 {
		l.mem = bytes.Clone(e.head)
		return l
	}
	if v, err = bodies.find(key1(kBlob, e.blob)); v == nil || err != nil || a.s.takeBody(l, e, v) != nil {
		return nil
	}
	return l
}

// finder looks keys up that mostly follow one another.
type finder struct {
	it *pebble.Iterator
	on bool
}

func (f *finder) open(r pebble.Reader, prefix []byte) (err error) {
	f.it, err = r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper(prefix)})
	return unavailable(err)
}

func (f *finder) close() {
	if f.it != nil {
		f.it.Close()
	}
}

// find returns the value of a key until the next call; nil = there is none.
func (f *finder) find(key []byte) ([]byte, error) {
	ok := f.on && f.it.Next()
	if !ok || string(f.it.Key()) != string(key) {
		ok = f.it.SeekGE(key)
	}
	if f.on = ok; !ok {
		return nil, unavailable(f.it.Error())
	}
	if string(f.it.Key()) != string(key) {
		return nil, nil
	}
	v, err := f.it.ValueAndErr()
	return v, unavailable(err)
}

// Changes implements store.Account.
func (a *account) Changes(ctx context.Context, box store.MailboxID, since store.ModSeq) (c store.Changes, err error) {
	err = a.look(ctx, func() error {
		c, err = a.changes(box, since)
		return err
	})
	if err != nil {
		return store.Changes{}, err
	}
	return c, nil
}

func (a *account) changes(box store.MailboxID, since store.ModSeq) (store.Changes, error) {
	b, err := a.box(box)
	if err != nil {
		return store.Changes{}, err
	}
	horizon := b.horizon
	if a.s.o.History < 0 {
		horizon = b.modSeq
	}
	if since < horizon {
		return store.Changes{}, store.ErrForgotten
	}
	c := store.Changes{ModSeq: b.modSeq, UIDNext: b.next, Expunged: store.UIDSet{}}
	if since >= b.modSeq || b.tombs == 0 {
		return c, nil
	}
	it, err := a.s.db.NewIter(&pebble.IterOptions{
		LowerBound: key3(kTomb, a.no, b.no, uint64(since)+1), UpperBound: boxKey(kTomb, a.no, b.no+1)})
	if err != nil {
		return store.Changes{}, unavailable(err)
	}
	defer it.Close()
	var all []store.UIDSet
	for ok := it.First(); ok; ok = it.Next() {
		_, uids, err := decodeTomb(it.Value())
		if err != nil {
			// The history has a hole: nobody is told half of it.
			a.s.log().Error("diskstore: history of a mailbox cannot be read", "dir", a.s.dir, "account", a.name, "mailbox", b.name, "err", err)
			return store.Changes{}, store.ErrForgotten
		}
		all = append(all, uids)
	}
	if err := it.Error(); err != nil {
		return store.Changes{}, unavailable(err)
	}
	c.Expunged = unite(all)
	return c, nil
}

// unite returns the union of many sets.
func unite(all []store.UIDSet) store.UIDSet {
	if len(all) == 0 {
		return store.UIDSet{}
	}
	for len(all) > 1 {
		var half []store.UIDSet
		for i := 0; i+1 < len(all); i += 2 {
			half = append(half, all[i].Union(all[i+1]))
		}
		if len(all)%2 == 1 {
			half = append(half, all[len(all)-1])
		}
		all = half
	}
	return all[0]
}
