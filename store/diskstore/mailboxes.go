package diskstore

import (
	"context"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

func (b *mailbox) info(noHistory bool) store.Mailbox {
	m := store.Mailbox{
		ID: boxID(b.no), Name: b.name, UIDValidity: b.validity, UIDNext: b.next,
		ModSeq: b.modSeq, Horizon: b.horizon, Recent: b.recent, FirstUnseen: b.unseen,
		SpecialUse: slices.Clone(b.use), Counts: b.counts,
	}
	if noHistory {
		m.Horizon = b.modSeq
	}
	return m
}

// Mailboxes lists in the order of creation.
func (a *account) Mailboxes(ctx context.Context, q store.MailboxQuery) (out []store.Mailbox, through store.ModSeq, err error) {
	err = a.look(ctx, func() error {
		out, through, err = a.mailboxes(q)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return out, through, nil
}

func (a *account) mailboxes(q store.MailboxQuery) ([]store.Mailbox, store.ModSeq, error) {
	none := a.s.o.History < 0
	var out []store.Mailbox
	if len(q.IDs) > 0 || len(q.Names) > 0 {
		seen := make(map[*mailbox]bool, len(q.IDs)+len(q.Names))
		add := func(b *mailbox) {
			if b != nil && !seen[b] && b.modSeq > q.ChangedSince {
				seen[b] = true
				out = append(out, b.info(none))
			}
		}
		for _, id := range q.IDs {
			add(a.boxes[boxNo(id)])
		}
		for _, name := range q.Names {
			add(a.names[name])
		}
		return out, a.modSeq, nil
	}
	for _, b := range a.inOrder() {
		if b.modSeq > q.ChangedSince || q.ChangedSince == 0 {
			out = append(out, b.info(none))
		}
	}
	if q.ChangedSince > 0 && q.ChangedSince < a.modSeq {
		if q.ChangedSince < a.rec.horizon {
			return nil, 0, store.ErrForgotten
		}
		gone, err := a.deleted(q.ChangedSince)
		if err != nil {
			return nil, 0, err
		}
		out = append(out, gone...)
	}
	return out, a.modSeq, nil
}

func (a *account) inOrder() []*mailbox {
	boxes := make([]*mailbox, 0, len(a.boxes))
	for _, b := range a.boxes {
		boxes = append(boxes, b)
	}
	slices.SortFunc(boxes, func(x, y *mailbox) int {
		if x.no < y.no {
			return -1
		}
		return 1
	})
	return boxes
}

// deleted returns the mailboxes that were deleted after since.
func (a *account) deleted(since store.ModSeq) ([]store.Mailbox, error) {
	if a.rec.deleted == 0 {
		return nil, nil
	}
	it, err := a.s.db.NewIter(&pebble.IterOptions{LowerBound: key2(kGone, a.no, uint64(since)+1), UpperBound: key1(kGone, a.no+1)})
	if err != nil {
		return nil, unavailable(err)
	}
	defer it.Close()
	var out []store.Mailbox
	for ok := it.First(); ok; ok = it.Next() {
		r, err := diskdb.Unseal(it.Value())
		if err != nil || len(it.Key()) != 1+8+8 {
			return nil, unavailable(diskdb.ErrDamaged)
		}
		out = append(out, store.Mailbox{ID: boxID(r.Fixed()), ModSeq: store.ModSeq(u8(it.Key()[9:])), Gone: true})
	}
	return out, unavailable(it.Error())
}

// CreateMailbox implements store.Account.
func (a *account) CreateMailbox(ctx context.Context, m store.NewMailbox) (info store.Mailbox, err error) {
	if err := checkName(m.Name); err != nil {
		return store.Mailbox{}, err
	}
	err = a.commit(ctx, func(t *tx) error {
		if a.names[m.Name] != nil {
			return store.ErrExist
		}
		if len(a.boxes) >= limit(a.s.o.Mailboxes, defaultMailboxes) {
			return store.ErrLimit
		}
		b := t.addMailbox(a.s.nums.next(), m.Name, m.SpecialUse)
		info = b.info(a.s.o.History < 0)
		return nil
	})
	if err != nil {
		return store.Mailbox{}, err
	}
	return info, nil
}

// UpdateMailboxes implements store.Account.
func (a *account) UpdateMailboxes(ctx context.Context, u ...store.MailboxUpdate) error {
	return a.commit(ctx, func(t *tx) error {
		for _, x := range u {
			b, err := t.box(x.ID)
			if err != nil {
				return err
			}
			t.touch(b)
			if x.SpecialUse != nil {
				b.use = slices.Clone(*x.SpecialUse)
			}
			if x.Name == nil {
				continue
			}
			if err := checkName(*x.Name); err != nil {
				return err
			}
			if x.ID == store.Inbox && *x.Name != b.name {
				return store.ErrPermission
			}
			b.name = *x.Name
		}
		taken := make(map[string]bool)
		for _, b := range t.boxes {
			old := a.names[b.name]
			stays := old != nil && !slices.ContainsFunc(t.boxes, func(x *boxTx) bool { return x.no == old.no })
			if taken[b.name] || stays {
				return store.ErrExist
			}
			taken[b.name] = true
		}
		return nil
	})
}

// DeleteMailbox implements store.Account.
func (a *account) DeleteMailbox(ctx context.Context, id store.MailboxID) error {
	return a.commit(ctx, func(t *tx) error {
		b, err := a.box(id)
		if err != nil {
			return err
		}
		if id == store.Inbox {
			return store.ErrPermission
		}
		t.delete = b
		w := diskdb.Record(8)
		w.Fixed(b.no)
		batch, rec := t.batch(), t.record()
		batch.Delete(boxKey(kMailbox, a.no, b.no), nil)
		batch.Delete(boxKey(kWords, a.no, b.no), nil)
		if b.tail > 1 {
			batch.DeleteRange(boxKey(kChunk, a.no, b.no), upper(boxKey(kChunk, a.no, b.no)), nil)
		}
		batch.Set(key2(kGone, a.no, uint64(t.m)), w.Seal(), nil)
		rec.modSeq = t.m
		rec.deleted++
		t.due(b.no, 0)
		return t.forgetDeleted()
	})
}

// forgetDeleted bounds how many deleted mailboxes are remembered.
func (t *tx) forgetDeleted() error {
	a := t.a
	if t.rec.deleted <= maxDeleted {
		return nil
	}
	it, err := a.s.db.NewIter(&pebble.IterOptions{LowerBound: key1(kGone, a.no), UpperBound: key1(kGone, a.no+1)})
	if err != nil {
		return unavailable(err)
	}
	defer it.Close()
	for ok := it.First(); ok && t.rec.deleted > maxDeleted*3/4; ok = it.Next() {
		t.batch().Delete(it.Key(), nil)
		t.rec.horizon = store.ModSeq(u8(it.Key()[9:]))
		t.rec.deleted--
	}
	return unavailable(it.Error())
}
