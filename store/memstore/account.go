package memstore

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/postrider/postrider/store"
)

// maxDeleted is how many deleted mailboxes an account remembers.
const maxDeleted = 1 << 14

// account is one account; every handle to it is the same pointer.
type account struct {
	store *Store

	mu      sync.RWMutex
	gone    bool // deleted
	modSeq  store.ModSeq
	boxes   map[store.MailboxID]*mailbox
	names   map[string]*mailbox
	order   []*mailbox      // by creation
	deleted []store.Mailbox // at most maxDeleted
	// deletedHorizon is the least ChangedSince that deleted can answer.
	deletedHorizon store.ModSeq

	used     int64
	quota    int64
	contents map[string]*content
	dying    []dead // expunged, by time
	dyingSum int64
	threads  map[string]*thread
	once     map[string]struct{}
	onceRing []string
	onceNext int
	subs     map[string]struct{}

	watch    sync.Mutex
	watchers map[*watcher]struct{}
}

// begin checks what every call checks, with the lock held.
func (a *account) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if a.gone {
		return store.ErrNotExist
	}
	return nil
}

// box returns a mailbox, with the lock held.
func (a *account) box(ctx context.Context, id store.MailboxID) (*mailbox, error) {
	if err := a.begin(ctx); err != nil {
		return nil, err
	}
	b := a.boxes[id]
	if b == nil {
		return nil, store.ErrNotExist
	}
	return b, nil
}

// commit gives out the next ModSeq.
func (a *account) commit() store.ModSeq {
	a.modSeq++
	return a.modSeq
}

func (a *account) addMailbox(id store.MailboxID, name string, use []string, validity uint32) *mailbox {
	b := &mailbox{
		id: id, name: name, specialUse: slices.Clone(use), validity: validity,
		next: 1, recent: 1, modSeq: a.commit(),
		sets: make(map[string]*keywordSet), keywords: make(map[string]*keyword),
	}
	if a.store.History < 0 {
		b.horizon = b.modSeq
	}
	a.boxes[id], a.names[name] = b, b
	a.order = append(a.order, b)
	return b
}

func (b *mailbox) info(noHistory bool) store.Mailbox {
	m := store.Mailbox{
		ID: b.id, Name: b.name, UIDValidity: b.validity, UIDNext: b.next,
		ModSeq: b.modSeq, Horizon: b.horizon, Recent: b.recent, FirstUnseen: b.unseen,
		SpecialUse: slices.Clone(b.specialUse), Counts: b.counts,
	}
	if noHistory {
		m.Horizon = b.modSeq
	}
	return m
}

// Mailboxes lists in the order of creation.
func (a *account) Mailboxes(ctx context.Context, q store.MailboxQuery) ([]store.Mailbox, store.ModSeq, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if err := a.begin(ctx); err != nil {
		return nil, 0, err
	}
	none := a.store.History < 0
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
			add(a.boxes[id])
		}
		for _, name := range q.Names {
			add(a.names[name])
		}
		return out, a.modSeq, nil
	}
	for _, b := range a.order {
		if b.modSeq > q.ChangedSince || q.ChangedSince == 0 {
			out = append(out, b.info(none))
		}
	}
	if q.ChangedSince > 0 {
		if q.ChangedSince < a.deletedHorizon {
			return nil, 0, store.ErrForgotten
		}
		for _, d := range a.deleted {
			if d.ModSeq > q.ChangedSince {
				out = append(out, d)
			}
		}
	}
	return out, a.modSeq, nil
}

func checkName(name string) error {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) {
		return store.ErrLimit
	}
	return nil
}

// CreateMailbox implements store.Account.
func (a *account) CreateMailbox(ctx context.Context, m store.NewMailbox) (store.Mailbox, error) {
	if err := checkName(m.Name); err != nil {
		return store.Mailbox{}, err
	}
	validity := a.store.validity()
	a.mu.Lock()
	if err := a.begin(ctx); err != nil {
		a.mu.Unlock()
		return store.Mailbox{}, err
	}
	if a.names[m.Name] != nil {
		a.mu.Unlock()
		return store.Mailbox{}, store.ErrExist
	}
	if len(a.boxes) >= limit(a.store.Mailboxes, defaultMailboxes) {
		a.mu.Unlock()
		return store.Mailbox{}, store.ErrLimit
	}
	info := a.addMailbox(store.MailboxID(newID('f')), strings.Clone(m.Name), m.SpecialUse, validity).info(a.store.History < 0)
	a.mu.Unlock()
	a.notify()
	return info, nil
}

// UpdateMailboxes implements store.Account.
func (a *account) UpdateMailboxes(ctx context.Context, u ...store.MailboxUpdate) error {
	a.mu.Lock()
	changed, err := a.update(ctx, u)
	a.mu.Unlock()
	if changed {
		a.notify()
	}
	return err
}

func (a *account) update(ctx context.Context, u []store.MailboxUpdate) (bool, error) {
	// First the whole is worked out and checked, then it is done.
	names := make(map[*mailbox]string)
	for _, x := range u {
		b, err := a.box(ctx, x.ID)
		if err != nil {
			return false, err
		}
		if x.Name == nil {
			continue
		}
		if err := checkName(*x.Name); err != nil {
			return false, err
		}
		if x.ID == store.Inbox && *x.Name != b.name {
			return false, store.ErrPermission
		}
		names[b] = *x.Name
	}
	taken := make(map[string]*mailbox)
	for b, name := range names {
		if taken[name] != nil {
			return false, store.ErrExist
		}
		taken[name] = b
		if old := a.names[name]; old != nil {
			if _, moves := names[old]; !moves {
				return false, store.ErrExist
			}
		}
	}
	if len(u) == 0 {
		return false, nil
	}
	m := a.commit()
	for b := range names {
		delete(a.names, b.name)
	}
	for b, name := range names {
		b.name = strings.Clone(name)
		a.names[b.name] = b
	}
	for _, x := range u {
		b := a.boxes[x.ID]
		b.modSeq = m
		if x.SpecialUse != nil {
			b.specialUse = slices.Clone(*x.SpecialUse)
		}
	}
	return true, nil
}

// DeleteMailbox implements store.Account.
func (a *account) DeleteMailbox(ctx context.Context, id store.MailboxID) error {
	a.mu.Lock()
	b, err := a.box(ctx, id)
	if err == nil && id == store.Inbox {
		err = store.ErrPermission
	}
	if err != nil {
		a.mu.Unlock()
		return err
	}
	delete(a.boxes, id)
	delete(a.names, b.name)
	a.order = slices.DeleteFunc(a.order, func(x *mailbox) bool { return x == b })
	a.deleted = append(a.deleted, store.Mailbox{ID: id, ModSeq: a.commit(), Gone: true})
	if len(a.deleted) > maxDeleted {
		a.deletedHorizon = a.deleted[0].ModSeq
		a.deleted = a.deleted[1:]
	}
	now := time.Now()
	for _, r := range b.rows {
		a.drop(r.content, now)
	}
	a.mu.Unlock()
	a.notify()
	return nil
}

// Quota implements store.Quoter.
func (a *account) Quota(ctx context.Context) (store.Quota, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if err := a.begin(ctx); err != nil {
		return store.Quota{}, err
	}
	return store.Quota{Used: a.used, Limit: a.quota}, nil
}

// ClaimRecent implements store.RecentClaimer.
func (a *account) ClaimRecent(ctx context.Context, box store.MailboxID) (from, to store.UID, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, err := a.box(ctx, box)
	if err != nil {
		return 0, 0, err
	}
	from, to = b.recent, b.next
	b.recent = b.next
	return from, to, nil
}

// Subscriptions implements store.Subscriber.
func (a *account) Subscriptions(ctx context.Context) ([]string, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if err := a.begin(ctx); err != nil {
		return nil, err
	}
	out := make([]string, 0, len(a.subs))
	for name := range a.subs {
		out = append(out, name)
	}
	slices.Sort(out)
	return out, nil
}

// Subscribe implements store.Subscriber; store.ErrLimit.
func (a *account) Subscribe(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.begin(ctx); err != nil {
		return err
	}
	if _, ok := a.subs[name]; !ok && len(a.subs) >= limit(a.store.Mailboxes, defaultMailboxes) {
		return store.ErrLimit
	}
	a.subs[strings.Clone(name)] = struct{}{}
	return nil
}

// Unsubscribe implements store.Subscriber.
func (a *account) Unsubscribe(ctx context.Context, name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.begin(ctx); err != nil {
		return err
	}
	delete(a.subs, name)
	return nil
}
