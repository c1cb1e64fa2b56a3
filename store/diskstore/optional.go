package diskstore

import (
	"context"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/store"
)

var (
	_ store.Watcher       = (*account)(nil)
	_ store.Subscriber    = (*account)(nil)
	_ store.RecentClaimer = (*account)(nil)
	_ store.Quoter        = (*account)(nil)
	_ store.SummaryWriter = (*account)(nil)
	_ store.Importer      = (*account)(nil)
)

// ClaimRecent implements store.RecentClaimer.
func (a *account) ClaimRecent(ctx context.Context, box store.MailboxID) (from, to store.UID, err error) {
	err = a.commit(ctx, func(t *tx) error {
		b, err := t.box(box)
		if err != nil {
			return err
		}
		from, to = b.recent, b.next
		if from < to {
			b.recent, b.changed = to, true
			t.silent = true
		}
		return nil
	})
	return from, to, err
}

// Subscriptions implements store.Subscriber.
func (a *account) Subscriptions(ctx context.Context) (out []string, err error) {
	err = a.look(ctx, func() error {
		out, err = a.subscriptions()
		return err
	})
	return out, err
}

func (a *account) subscriptions() ([]string, error) {
	prefix := key1(kSub, a.no)
	it, err := a.s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper(prefix)})
	if err != nil {
		return nil, unavailable(err)
	}
	defer it.Close()
	out := []string{}
	for ok := it.First(); ok; ok = it.Next() {
		out = append(out, string(it.Key()[len(prefix):]))
	}
	slices.Sort(out)
	return out, unavailable(it.Error())
}

// Subscribe implements store.Subscriber; store.ErrLimit.
func (a *account) Subscribe(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return a.commit(ctx, func(t *tx) error {
		t.silent = true
		has, err := a.subscriptions()
		if err != nil || slices.Contains(has, name) {
			return err
		}
		if len(has) >= limit(a.s.o.Mailboxes, defaultMailboxes) {
			return store.ErrLimit
		}
		t.batch().Set(textKey(kSub, a.no, name), nil, nil)
		return nil
	})
}

// Unsubscribe implements store.Subscriber.
func (a *account) Unsubscribe(ctx context.Context, name string) error {
	return a.commit(ctx, func(t *tx) error {
		t.silent = true
		t.batch().Delete(textKey(kSub, a.no, name), nil)
		return nil
	})
}

// WriteSummary implements store.SummaryWriter. It is not flushed to the disk
// at once: what is lost can be computed again.
func (a *account) WriteSummary(ctx context.Context, m store.Message, summary []byte) error {
	no, ok := numberOf('m', m.ID)
	if !ok {
		return store.ErrNotExist
	}
	if err := a.s.begin(ctx); err != nil {
		return err
	}
	defer a.s.end()
	if err := a.s.db.Room(int64(len(summary))); err != nil {
		return full(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone {
		return store.ErrNotExist
	}
	how, stored := byte(0), summary
	e, err := a.readEmail(ctx, no)
	if err != nil {
		return err
	}
	if e.dataKey != nil {
		how = codeSealed
		if stored, err = sealBox(e.dataKey, "summary", summary); err != nil {
			return err
		}
	}
	return unavailable(a.s.db.Set(key2(kSummary, a.no, no), encodeSummary(how, stored), pebble.NoSync))
}
