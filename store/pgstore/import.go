package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/postrider/postrider/store"
)

// ImportMailbox implements store.Importer.
func (a *account) ImportMailbox(ctx context.Context, m store.Mailbox) (store.Mailbox, error) {
	if err := checkName(m.Name); err != nil {
		return store.Mailbox{}, err
	}
	if m.UIDValidity == 0 {
		return store.Mailbox{}, fmt.Errorf("pgstore: mailbox %q has no UIDVALIDITY to be kept", m.Name)
	}
	// None that is given out later may be the same.
	var v int64
	if err := a.read(ctx, `UPDATE {s}.meta SET validity = greatest(validity, $1) RETURNING validity`, []any{int64(m.UIDValidity)}, &v); err != nil {
		return store.Mailbox{}, err
	}
	var out store.Mailbox
	err := a.write(ctx, nil, func(w *write) error {
		b, err := scanBox(w.row(`SELECT `+boxColumns+` FROM {s}.mailboxes WHERE account = $1 AND name = $2`, a.num, m.Name))
		if errors.Is(err, store.ErrNotExist) {
			if _, err := w.create(store.NewMailbox{Name: m.Name, SpecialUse: m.SpecialUse}, int64(m.UIDValidity)); err != nil {
				return err
			}
			b, err = scanBox(w.row(`SELECT `+boxColumns+` FROM {s}.mailboxes WHERE account = $1 AND name = $2`, a.num, m.Name))
		}
		if err != nil {
			return err
		}
		fresh := b.next == 1
		if b.validity != m.UIDValidity && !fresh {
			return store.ErrExist
		}
		if b.validity != m.UIDValidity || b.next < int64(m.UIDNext) || b.modSeq <= int64(m.ModSeq) {
			w.modSeq = max(w.modSeq, int64(m.ModSeq))
			w.raised = false
			b.validity, b.modSeq = m.UIDValidity, w.commit()
			if b.next < int64(m.UIDNext) {
				w.bury(b, store.UIDSet{{First: store.UID(b.next), Last: m.UIDNext - 1}})
				b.next = int64(m.UIDNext)
			}
		}
		if fresh {
			b.horizon = b.modSeq
		}
		w.save(b)
		out, err = a.s.scanMailbox(w.row(`SELECT `+mailboxColumns+` FROM {s}.mailboxes b WHERE b.num = $1`, b.num))
		return err
	})
	return out, err
}

// Import implements store.Importer.
func (a *account) Import(ctx context.Context, box store.MailboxID, uids []store.UID, d []store.Draft) (store.Appended, error) {
	if len(uids) != len(d) {
		return store.Appended{}, fmt.Errorf("pgstore: %d UIDs for %d messages", len(uids), len(d))
	}
	if uids == nil {
		uids = []store.UID{}
	}
	return a.add(ctx, box, uids, d, store.AppendOptions{})
}
