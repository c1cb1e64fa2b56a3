package memstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/postrider/postrider/store"
)

// ImportMailbox implements store.Importer.
func (a *account) ImportMailbox(ctx context.Context, m store.Mailbox) (store.Mailbox, error) {
	if err := checkName(m.Name); err != nil {
		return store.Mailbox{}, err
	}
	if m.UIDValidity == 0 {
		return store.Mailbox{}, fmt.Errorf("memstore: mailbox %q has no UIDVALIDITY to be kept", m.Name)
	}
	a.mu.Lock()
	before := a.modSeq
	info, err := a.importMailbox(ctx, m)
	changed := a.modSeq != before
	a.mu.Unlock()
	if changed {
		a.notify()
	}
	return info, err
}

func (a *account) importMailbox(ctx context.Context, m store.Mailbox) (store.Mailbox, error) {
	if err := a.begin(ctx); err != nil {
		return store.Mailbox{}, err
	}
	b := a.names[m.Name]
	switch {
	case b == nil:
		if len(a.boxes) >= limit(a.store.Mailboxes, defaultMailboxes) {
			return store.Mailbox{}, store.ErrLimit
		}
		b = a.addMailbox(store.MailboxID(newID('f')), strings.Clone(m.Name), m.SpecialUse, m.UIDValidity)
	case b.validity != m.UIDValidity && b.next > 1:
		return store.Mailbox{}, store.ErrExist
	}
	fresh := b.next == 1
	if b.validity != m.UIDValidity || b.next < m.UIDNext || b.modSeq <= m.ModSeq {
		a.store.used(m.UIDValidity)
		a.modSeq = max(a.modSeq, m.ModSeq)
		b.validity, b.modSeq = m.UIDValidity, a.commit()
		if b.next < m.UIDNext {
			b.bury(store.UIDSet{{First: b.next, Last: m.UIDNext - 1}}, b.modSeq, limit(a.store.History, defaultHistory))
			b.next = m.UIDNext
		}
	}
	if fresh {
		b.horizon = b.modSeq
	}
	return b.info(a.store.History < 0), nil
}

// Import implements store.Importer.
func (a *account) Import(ctx context.Context, box store.MailboxID, uids []store.UID, d []store.Draft) (store.Appended, error) {
	if len(uids) != len(d) {
		return store.Appended{}, fmt.Errorf("memstore: %d UIDs for %d messages", len(uids), len(d))
	}
	ready, err := a.store.prepareAll(ctx, d)
	if err != nil {
		return store.Appended{}, err
	}
	a.mu.Lock()
	r, err := a.append(ctx, box, uids, ready, store.AppendOptions{})
	a.mu.Unlock()
	if err == nil && r.Prev != r.ModSeq {
		a.notify()
	}
	return r, err
}
