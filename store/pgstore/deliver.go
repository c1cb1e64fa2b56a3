package pgstore

import (
	"context"
	"crypto/sha256"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/store"
)

// deliverAccounts is how many accounts one transaction of a Deliver locks.
const deliverAccounts = 64

// Deliver implements store.Deliverer: the body is stored once, and the
// accounts are written to in a few transactions, in the order of their numbers
// so that two deliveries never wait for one another in a circle.
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
	ready := make([]*prepared, len(targets))
	for i := range targets {
		ready[i], errs[i] = s.prepareTarget(d, &targets[i], body)
	}
	found, err := s.find(ctx, targets)
	if err != nil {
		return all(err)
	}
	var order []int
	for i := range targets {
		if _, ok := found[targets[i].Account]; !ok && errs[i] == nil {
			errs[i] = store.ErrNotExist
		}
		if errs[i] == nil {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(found[targets[a].Account] - found[targets[b].Account]) })
	for part := range slices.Chunk(order, deliverAccounts) {
		told, stored, err := s.deliver(ctx, part, found, targets, ready, errs)
		if err != nil {
			for _, i := range part {
				errs[i] = err
			}
			continue
		}
		for _, num := range told {
			s.hub.committed(num)
		}
		// Those that follow share the body that the first ones have stored.
		for _, i := range order {
			if ready[i].blob == 0 {
				ready[i].blob = stored
			}
		}
	}
	return errs
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
	if len(d.Head) == 0 {
		p.id = body.id
	}
	p.size = int64(len(d.Head)) + body.size
	if s.o.MessageSize > 0 && p.size > s.o.MessageSize {
		return nil, store.ErrTooBig
	}
	return p, nil
}

// find returns the numbers of accounts.
func (s *Store) find(ctx context.Context, targets []store.Target) (map[string]int64, error) {
	ids := make([]string, len(targets))
	for i := range targets {
		ids[i] = text(targets[i].Account)
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.query(ctx, s.sql(`SELECT id, num FROM {s}.accounts WHERE id = ANY($1)`), ids)
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
				changed, err = w.deliver(&targets[i], &p)
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
		sum := sha256.Sum256([]byte(t.Once))
		tag, err := w.tx.Exec(w.ctx, w.a.s.sql(`INSERT INTO {s}.deliveries (account, hash) VALUES ($1, $2) ON CONFLICT DO NOTHING`), w.a.num, sum[:16])
		if err != nil || tag.RowsAffected() == 0 {
			return false, err
		}
	}
	id := t.Mailbox
	if id == "" {
		id = store.Inbox
	}
	if _, err := w.append(id, nil, []*prepared{p}, store.AppendOptions{}); err != nil {
		return false, err
	}
	return true, w.exec(`UPDATE {s}.accounts SET modseq = $2, used = $3 WHERE num = $1`, w.a.num, w.modSeq, w.used)
}
