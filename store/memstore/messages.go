package memstore

import (
	"cmp"
	"context"
	"iter"
	"slices"

	"github.com/postrider/postrider/store"
)

// page is the greatest number of messages read under one lock.
const page = 512

// Messages implements store.Account. It reads pages and holds no lock while
// it yields.
func (a *account) Messages(ctx context.Context, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
	return func(yield func(store.Message, error) bool) {
		r := pager{a: a, box: box, fields: q.Fields, uids: q.UIDs}
		if q.UIDs == nil {
			r.uids = store.AllUIDs()
		}
		if q.ChangedSince > 0 {
			if err := r.onlySince(ctx, q.ChangedSince); err != nil {
				yield(store.Message{}, err)
				return
			}
		}
		var buf []store.Message
		for n := 16; ; n = min(4*n, page) {
			var err error
			buf, err = r.next(ctx, buf[:0], n)
			if err != nil {
				yield(store.Message{}, err)
				return
			}
			for i := range buf {
				if !yield(buf[i], nil) {
					return
				}
			}
			if len(r.uids) == 0 {
				return
			}
		}
	}
}

type pager struct {
	a      *account
	box    store.MailboxID
	fields store.Fields
	uids   store.UIDSet // what is still to be read
	from   store.UID    // of its first range: where to go on
}

// onlySince narrows the set to what changed after since, found from the
// newest end.
func (p *pager) onlySince(ctx context.Context, since store.ModSeq) error {
	p.a.mu.RLock()
	defer p.a.mu.RUnlock()
	b, err := p.a.box(ctx, p.box)
	if err != nil {
		return err
	}
	var uids []store.UID
	for r := b.newest; r != nil && r.modSeq > since; r = r.older {
		uids = append(uids, r.uid)
	}
	slices.Sort(uids)
	changed := store.UIDs(uids...)
	p.uids = p.uids.Intersect(changed)
	return nil
}

// next appends up to n messages to buf and moves on.
func (p *pager) next(ctx context.Context, buf []store.Message, n int) ([]store.Message, error) {
	p.a.mu.RLock()
	defer p.a.mu.RUnlock()
	b, err := p.a.box(ctx, p.box)
	if err != nil {
		return buf, err
	}
	for len(p.uids) > 0 {
		g := p.uids[0]
		i := b.index(max(g.First, p.from))
		for ; i < len(b.rows) && b.rows[i].uid <= g.Last; i++ {
			if len(buf) == n {
				p.from = b.rows[i].uid
				return buf, nil
			}
			buf = append(buf, b.rows[i].message(p.fields))
		}
		p.uids = p.uids[1:]
		if i == len(b.rows) {
			p.uids = nil
		}
	}
	return buf, nil
}

// message shows a row; the account's lock is held.
func (r *row) message(f store.Fields) store.Message {
	m := store.Message{
		UID: r.uid, ModSeq: r.modSeq, Flags: r.flags(), Size: r.content.Size(), ID: r.content.id,
	}
	if f&store.WithDates != 0 {
		m.InternalDate, m.SaveDate = r.date, r.saved
	}
	if f&store.WithIDs != 0 {
		m.ThreadID = r.content.thread
	}
	if f&store.WithSummary != 0 {
		m.Summary = r.content.summary
	}
	if f&store.WithBody != 0 {
		m.Body = r.content
	}
	return m
}

// Changes implements store.Account.
func (a *account) Changes(ctx context.Context, box store.MailboxID, since store.ModSeq) (store.Changes, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	b, err := a.box(ctx, box)
	if err != nil {
		return store.Changes{}, err
	}
	horizon := b.horizon
	if a.store.History < 0 {
		horizon = b.modSeq
	}
	if since < horizon {
		return store.Changes{}, store.ErrForgotten
	}
	c := store.Changes{ModSeq: b.modSeq, UIDNext: b.next, Expunged: store.UIDSet{}}
	var ranges store.UIDSet
	for i := len(b.tombs) - 1; i >= 0 && b.tombs[i].modSeq > since; i-- {
		ranges = append(ranges, b.tombs[i].uids...)
	}
	slices.SortFunc(ranges, func(x, y store.UIDRange) int { return cmp.Compare(x.First, y.First) })
	for _, g := range ranges {
		c.Expunged.AddRange(g.First, g.Last)
	}
	return c, nil
}
