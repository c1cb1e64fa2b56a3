package pgstore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/store"
)

// deliverAccounts is how many accounts one transaction of a Deliver locks.
const deliverAccounts = 64

// Deliver implements store.Deliverer: the body is stored once, and all accounts
// are written to by one statement; if they are very many, by a few. What the
// statement leaves is tried in a transaction with a savepoint for each. Locks
// are taken in the order of the accounts' numbers, so that two deliveries never
// wait for one another in a circle.
func (s *Store) Deliver(ctx context.Context, d store.Draft, targets []store.Target) []error {
	errs := make([]error, len(targets))
	all := func(err error) []error {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	body, drop, err := s.prepare(ctx, store.Draft{Body: d.Body})
	if err != nil {
		return all(err)
	}
	defer drop()
	x := &delivery{s: s, targets: targets, ready: make([]*prepared, len(targets)), errs: errs}
	var order, rest []int
	for i := range targets {
		if x.ready[i], errs[i] = s.prepareTarget(d, &targets[i], body); errs[i] == nil {
			order = append(order, i)
		}
	}
	for len(order) > 0 {
		var part, later []int
		seen := make(map[string]struct{})
		for _, i := range order {
			_, twice := seen[targets[i].Account]
			switch {
			case twice || len(part) == deliverAccounts:
				later = append(later, i)
			case !x.ready[i].plain():
				rest = append(rest, i)
			default:
				seen[targets[i].Account] = struct{}{}
				part = append(part, i)
			}
		}
		if order = later; len(part) > 0 {
			rest = append(rest, x.together(ctx, part)...)
		}
	}
	x.apart(ctx, rest)
	return errs
}

// delivery is one Deliver.
type delivery struct {
	s       *Store
	targets []store.Target
	ready   []*prepared
	errs    []error
}

// share tells the targets that are still to be delivered to of the body that
// was stored for others, and of its being there.
func (x *delivery) share(blob int64) {
	for _, p := range x.ready {
		if p != nil && p.blob == 0 && blob != 0 {
			p.blob, p.data = blob, nil
		}
		if p != nil && p.id != "" {
			p.fresh = false // in an account that is a target twice
		}
	}
}

// together delivers to different accounts by one statement, and returns those
// that it did not take.
func (x *delivery) together(ctx context.Context, part []int) (rest []int) {
	list := make([]*entry, len(part))
	for k, i := range part {
		t := &x.targets[i]
		list[k] = &entry{p: x.ready[i], name: t.Account, box: boxOf(t), rank: 1, once: onceHash(t.Once)}
	}
	err := x.s.insert(ctx, list)
	if err != nil && !one(err) {
		for _, i := range part {
			x.errs[i] = fail(err)
		}
		return nil
	}
	blob := int64(0)
	for k, i := range part {
		e := list[k]
		switch {
		case !e.done:
			rest = append(rest, i)
		case !e.taken:
			blob = e.blob
			x.s.hub.committed(e.num)
		}
	}
	x.share(blob)
	return rest
}

// apart delivers to accounts with a savepoint for each, in a few transactions.
func (x *delivery) apart(ctx context.Context, order []int) {
	if len(order) == 0 {
		return
	}
	found, err := x.s.find(ctx, x.targets, order)
	if err != nil {
		for _, i := range order {
			x.errs[i] = err
		}
		return
	}
	order = slices.DeleteFunc(order, func(i int) bool {
		_, ok := found[x.targets[i].Account]
		if !ok {
			x.errs[i] = store.ErrNotExist
		}
		return !ok
	})
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(found[x.targets[a].Account], found[x.targets[b].Account])
	})
	for part := range slices.Chunk(order, deliverAccounts) {
		told, stored, err := x.s.deliver(ctx, part, found, x.targets, x.ready, x.errs)
		if err != nil {
			for _, i := range part {
				x.errs[i] = err
			}
			continue
		}
		for _, num := range told {
			x.s.hub.committed(num)
		}
		x.share(stored)
	}
}

func onceHash(name string) []byte {
	if name == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(name))
	return sum[:16]
}

// boxOf is the mailbox of a target.
func boxOf(t *store.Target) store.MailboxID {
	if t.Mailbox == "" {
		return store.Inbox
	}
	return t.Mailbox
}

// prepareTarget is prepare for one target over the common body.
func (s *Store) prepareTarget(d store.Draft, t *store.Target, body *prepared) (*prepared, error) {
	d = t.Draft(d)
	d.Body = nil
	p, _, err := s.prepare(s.ctx, d)
	if err != nil {
		return nil, err
	}
	p.blob, p.data, p.thread = body.blob, body.data, body.thread
	p.head = slices.Concat(d.Head, body.head)
	if p.fresh = body.thread == ""; len(d.Head) == 0 {
		p.id, p.fresh = body.id, body.fresh
	}
	p.size = int64(len(d.Head)) + body.size
	if s.o.MessageSize > 0 && p.size > s.o.MessageSize {
		return nil, store.ErrTooBig
	}
	return p, nil
}

// find returns the numbers of the accounts of some targets.
func (s *Store) find(ctx context.Context, targets []store.Target, some []int) (map[string]int64, error) {
	ids := make([]string, len(some))
	for k, i := range some {
		ids[k] = text(targets[i].Account)
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.query(ctx, s.sql(`SELECT id, num FROM {s}.accounts WHERE id = ANY($1::text[])`), ids)
	if err != nil {
		return nil, fail(err)
	}
	defer rows.Close()
	found := make(map[string]int64)
	for rows.Next() {
		var id string
		var num int64
		if err := rows.Scan(&id, &num); err != nil {
			return nil, fail(err)
		}
		found[id] = num
	}
	return found, fail(rows.Err())
}

// deliver appends to some targets in one transaction, and returns the
// accounts that changed and the body that they have. What one target refuses is its own error in errs.
func (s *Store) deliver(ctx context.Context, part []int, found map[string]int64, targets []store.Target, ready []*prepared, errs []error) (told []int64, blob int64, err error) {
	err = s.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		told, blob = told[:0], 0
		for _, i := range part {
			p := *ready[i] // f may run again
			if p.blob == 0 {
				p.blob = blob
			}
			w := &write{ctx: ctx, a: &account{s: s, num: found[targets[i].Account]}, tx: tx}
			changed := false
			err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) (err error) { // a savepoint: one may fail alone
				w.tx = tx
				if changed, err = w.deliver(&targets[i], &p); err == nil {
					err = w.flush()
				}
				return err
			})
			if err != nil {
				if !known(err) {
					return err
				}
				errs[i] = err
				continue
			}
			errs[i] = nil
			if changed {
				told = append(told, w.a.num)
				blob = p.blob
			}
		}
		return nil
	})
	return told, blob, err
}

// deliver appends p unless an earlier delivery had the same name, and says
// whether it did.
func (w *write) deliver(t *store.Target, p *prepared) (bool, error) {
	if err := w.lock(); err != nil {
		return false, err
	}
	if t.Once != "" {
		n, err := w.affect(`INSERT INTO {s}.deliveries (account, hash) VALUES ($1, $2) ON CONFLICT DO NOTHING`, w.a.num, onceHash(t.Once))
		if err != nil || n == 0 {
			return false, err
		}
	}
	if _, err := w.append(boxOf(t), nil, []*prepared{p}, store.AppendOptions{}); err != nil {
		return false, err
	}
	w.exec(`UPDATE {s}.accounts SET modseq = $2, used = $3 WHERE num = $1`, w.a.num, w.modSeq, w.used)
	return true, nil
}
