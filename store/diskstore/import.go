package diskstore

import (
	"context"
	"fmt"

	"github.com/postrider/postrider/store"
)

// ImportMailbox implements store.Importer.
func (a *account) ImportMailbox(ctx context.Context, m store.Mailbox) (info store.Mailbox, err error) {
	if err := checkName(m.Name); err != nil {
		return store.Mailbox{}, err
	}
	if m.UIDValidity == 0 {
		return store.Mailbox{}, fmt.Errorf("diskstore: mailbox %q has no UIDVALIDITY to be kept", m.Name)
	}
	err = a.commit(ctx, func(t *tx) error {
		b, err := t.imported(m)
		if err == nil {
			info = b.info(a.s.o.History < 0)
		}
		return err
	})
	if err != nil {
		return store.Mailbox{}, err
	}
	return info, nil
}

func (t *tx) imported(m store.Mailbox) (*boxTx, error) {
	a := t.a
	t.m = max(t.m, m.ModSeq+1)
	var b *boxTx
	if old := a.names[m.Name]; old == nil {
		if len(a.boxes) >= limit(a.s.o.Mailboxes, defaultMailboxes) {
			return nil, store.ErrLimit
		}
		b = t.addMailbox(a.s.nums.next(), m.Name, m.SpecialUse)
	} else {
		if old.validity != m.UIDValidity && old.next > 1 {
			return nil, store.ErrExist
		}
		var err error
		if b, err = t.box(boxID(old.no)); err != nil {
			return nil, err
		}
	}
	fresh := b.next == 1
	if b.validity != m.UIDValidity || b.next < m.UIDNext || b.modSeq <= m.ModSeq {
		rec := t.record() // none that is given later may be the same
		rec.validity = max(rec.validity, m.UIDValidity)
		b.validity = m.UIDValidity
		t.touch(b)
		if b.next < m.UIDNext {
			if !fresh {
				if err := t.bury(b, store.UIDSet{{First: b.next, Last: m.UIDNext - 1}}); err != nil {
					return nil, err
				}
			}
			b.next = m.UIDNext
		}
	}
	if fresh && b.horizon != b.modSeq {
		b.horizon, b.changed = b.modSeq, true
	}
	return b, nil
}

// Import implements store.Importer.
func (a *account) Import(ctx context.Context, box store.MailboxID, uids []store.UID, d []store.Draft) (store.Appended, error) {
	if len(uids) != len(d) {
		return store.Appended{}, fmt.Errorf("diskstore: %d UIDs for %d messages", len(uids), len(d))
	}
	if uids == nil {
		uids = []store.UID{}
	}
	return a.add(ctx, box, uids, d, store.AppendOptions{})
}
