package pgqueue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// clock is the time by the storage's clock, as SQL: its argument is s.now().
const clock = `coalesce(@now::timestamptz, clock_timestamp())`

// bury finds owners that were not renewed in time, and frees what they held,
// and what a call that failed may have leased.
func (s *Storage) bury(ctx context.Context) error {
	if err := s.recall(ctx); err != nil {
		return err
	}
	// Most of the time nobody is.
	if overdue, err := s.overdue(ctx); err != nil || !overdue {
		return err
	}
	var freed bool
	err := s.transact(ctx, func(ctx context.Context, t pgx.Tx) error {
		freed = false
		rows, err := t.Query(ctx, s.sql(`UPDATE {s}.queue_owners SET dead = true WHERE NOT dead AND until <= `+clock+` RETURNING owner`), pgx.NamedArgs{"now": s.now()})
		if err != nil {
			return err
		}
		dead, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(dead) == 0 {
			return err
		}
		freed = true
		return s.free(ctx, t, `owner = ANY(@dead)`, pgx.NamedArgs{"dead": dead})
	})
	if err == nil && freed {
		s.changed()
	}
	return err
}

// overdue reports whether an owner was not renewed in time.
func (s *Storage) overdue(ctx context.Context) (yes bool, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	err = s.pool.QueryRow(ctx, s.sql(`SELECT EXISTS (SELECT FROM {s}.queue_owners WHERE NOT dead AND until <= coalesce($1::timestamptz, clock_timestamp()))`), s.now()).Scan(&yes)
	return yes, fail(err)
}

// free gives back what is leased and fits a condition, with the edits made
// meanwhile.
func (s *Storage) free(ctx context.Context, t pgx.Tx, which string, args pgx.NamedArgs) error {
	edited, err := s.entries(ctx, t, `e.`+which+` AND EXISTS (SELECT FROM {s}.queue_edits x WHERE x.entry = e.id) FOR UPDATE OF e`, args)
	if err != nil {
		return err
	}
	for _, r := range edited {
		if err := s.settle(ctx, t, r.Entry); err != nil {
			return err
		}
	}
	for _, table := range []string{"queue_entries", "queue_events"} {
		if _, err := t.Exec(ctx, s.sql(`UPDATE {s}.`+table+` SET owner = NULL WHERE `+which), args); err != nil {
			return err
		}
	}
	return nil
}

// row is an entry as it is stored.
type row struct {
	*queue.Entry
	token int64
}

const columns = `e.id::text, m.message, e.dest, e.tenant, e.priority, e.due, e.alarm, e.held, e.suspended, e.attempt, coalesce(e.owner, ''), e.token, e.entry`

func scan(r pgx.CollectableRow) (row, error) {
	e := new(queue.Entry)
	var id string
	var text, rest []byte
	var alarm *time.Time
	var token int64
	if err := r.Scan(&id, &text, &e.Lane.Dest, &e.Lane.Tenant, &e.Lane.Priority, &e.Due, &alarm, &e.Held, &e.Suspended, &e.Attempt, &e.Owner, &token, &rest); err != nil {
		return row{}, err
	}
	var m message
	var v entry
	if err := errors.Join(decode(text, &m), decode(rest, &v)); err != nil {
		return row{}, err
	}
	var err error
	if e.ID, err = parseUUID(id); err != nil {
		return row{}, err
	}
	e.Message = m.queueMessage()
	e.Due = e.Due.UTC()
	if alarm != nil {
		e.Alarm = alarm.UTC()
	}
	v.fill(e)
	return row{e, token}, nil
}

// entries reads entries.
func (s *Storage) entries(ctx context.Context, t pgx.Tx, where string, args pgx.NamedArgs) ([]row, error) {
	rows, err := t.Query(ctx, s.sql(`SELECT `+columns+` FROM {s}.queue_entries e JOIN {s}.queue_messages m ON m.id = e.message WHERE `+where), args)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}

// Lanes implements queue.Storage, by jumping from lane to lane in the index.
func (s *Storage) Lanes(ctx context.Context, before time.Time) iter.Seq2[queue.LaneDue, error] {
	return func(yield func(queue.LaneDue, error) bool) {
		lanes, err := s.lanes(ctx, before)
		if err != nil {
			yield(queue.LaneDue{}, err)
			return
		}
		for _, l := range lanes {
			if !yield(l, nil) {
				return
			}
		}
	}
}

func (s *Storage) lanes(ctx context.Context, before time.Time) ([]queue.LaneDue, error) {
	if err := s.bury(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, s.sql(`WITH RECURSIVE l AS (
			(SELECT dest, tenant, priority, due FROM {s}.queue_entries WHERE owner IS NULL AND NOT held ORDER BY dest, tenant, priority, due LIMIT 1)
			UNION ALL
			SELECT n.* FROM l CROSS JOIN LATERAL (
				SELECT e.dest, e.tenant, e.priority, e.due FROM {s}.queue_entries e
				WHERE e.owner IS NULL AND NOT e.held AND (e.dest, e.tenant, e.priority) > (l.dest, l.tenant, l.priority)
				ORDER BY e.dest, e.tenant, e.priority, e.due LIMIT 1) n)
		SELECT dest, tenant, priority, due FROM l WHERE due <= @before
		UNION ALL
		(SELECT @alarms, '', 0, alarm FROM {s}.queue_entries WHERE owner IS NULL AND NOT held AND alarm <= @before ORDER BY alarm LIMIT 1)`),
		pgx.NamedArgs{"before": before, "alarms": queue.Alarms})
	if err != nil {
		return nil, fail(err)
	}
	out, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (l queue.LaneDue, err error) {
		err = r.Scan(&l.Lane.Dest, &l.Lane.Tenant, &l.Lane.Priority, &l.Due)
		l.Due = l.Due.UTC()
		return l, err
	})
	return out, fail(err)
}

// alive locks an owner so that it stays alive during t; ErrLeaseLost.
func (s *Storage) alive(ctx context.Context, t pgx.Tx, o queue.Owner) error {
	return living(t.QueryRow(ctx, s.sql(aliveRow), pgx.NamedArgs{"owner": string(o), "now": s.now()}))
}

const aliveRow = `SELECT 1 FROM {s}.queue_owners WHERE owner = @owner AND NOT dead AND until > ` + clock + ` FOR SHARE`

func living(r pgx.Row) error {
	var n int
	err := r.Scan(&n)
	if errors.Is(err, pgx.ErrNoRows) {
		return queue.ErrLeaseLost
	}
	return err
}

// Lease implements queue.Storage.
func (s *Storage) Lease(ctx context.Context, o queue.Owner, want []queue.Want) ([]*queue.Lease, error) {
	if err := s.bury(ctx); err != nil {
		return nil, err
	}
	var out []*queue.Lease
	call := newCall()
	err := s.transact(ctx, func(ctx context.Context, t pgx.Tx) error {
		out = nil
		batch := new(pgx.Batch)
		batch.Queue(s.sql(aliveRow), pgx.NamedArgs{"owner": string(o), "now": s.now()}).QueryRow(living)
		for _, w := range want {
			which := `dest = @dest AND tenant = @tenant AND priority = @priority AND due <= ` + clock + ` ORDER BY due, id`
			if w.Lane.Dest == queue.Alarms {
				which = `alarm <= ` + clock + ` ORDER BY alarm`
			}
			batch.Queue(s.sql(`WITH picked AS (SELECT id FROM {s}.queue_entries WHERE owner IS NULL AND NOT held AND `+which+` LIMIT @max FOR UPDATE SKIP LOCKED)
				UPDATE {s}.queue_entries e SET owner = @owner, token = e.token + 1, call = @call FROM picked, {s}.queue_messages m
				WHERE e.id = picked.id AND m.id = e.message RETURNING `+columns),
				pgx.NamedArgs{"dest": text(w.Lane.Dest), "tenant": text(w.Lane.Tenant), "priority": w.Lane.Priority, "max": w.Max, "owner": string(o), "call": call, "now": s.now()}).
				Query(func(rows pgx.Rows) error {
					found, err := pgx.CollectRows(rows, scan)
					slices.SortFunc(found, func(a, b row) int {
						if w.Lane.Dest == queue.Alarms {
							return a.Alarm.Compare(b.Alarm)
						}
						if c := a.Due.Compare(b.Due); c != 0 {
							return c
						}
						return bytes.Compare(a.ID[:], b.ID[:])
					})
					for _, r := range found {
						out = append(out, &queue.Lease{Entry: r.Entry, Owner: o, Token: r.token})
					}
					return err
				})
		}
		return t.SendBatch(ctx, batch).Close()
	})
	s.failed(call, err)
	return out, err
}

// Renew implements queue.Storage.
func (s *Storage) Renew(ctx context.Context, o queue.Owner, d time.Duration) (queue.Renewal, error) {
	if err := s.bury(ctx); err != nil {
		return queue.Renewal{}, err
	}
	var out queue.Renewal
	var next *int64 // µs until the next other owner's leases end; nil = there is none
	err := s.transact(ctx, func(ctx context.Context, t pgx.Tx) error {
		out = queue.Renewal{}
		tag, err := t.Exec(ctx, s.sql(`INSERT INTO {s}.queue_owners AS o (owner, until, delivers) VALUES (@owner, `+clock+` + @d * interval '1 microsecond', @delivers)
			ON CONFLICT (owner) DO UPDATE SET until = EXCLUDED.until WHERE NOT o.dead`),
			pgx.NamedArgs{"owner": string(o), "d": d.Microseconds(), "delivers": o.Delivers(), "now": s.now()})
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return queue.ErrLeaseLost
		}
		batch := new(pgx.Batch)
		batch.Queue(s.sql(`SELECT DISTINCT e.id::text FROM {s}.queue_entries e JOIN {s}.queue_edits x ON x.entry = e.id WHERE e.owner = $1 AND x.revokes`), string(o)).
			Query(func(rows pgx.Rows) error {
				found, err := pgx.CollectRows(rows, pgx.RowTo[string])
				for _, f := range found {
					id, e := parseUUID(f)
					err = errors.Join(err, e)
					out.Revoked = append(out.Revoked, id)
				}
				return err
			})
		batch.Queue(s.sql(`SELECT count(*), count(*) FILTER (WHERE owner < $1) FROM {s}.queue_owners WHERE NOT dead AND delivers`), string(o)).
			QueryRow(func(r pgx.Row) error { return r.Scan(&out.Owners, &out.Rank) })
		batch.Queue(s.sql(`SELECT (extract(epoch FROM min(until) - `+clock+`) * 1e6)::bigint FROM {s}.queue_owners WHERE NOT dead AND owner <> @owner`),
			pgx.NamedArgs{"owner": string(o), "now": s.now()}).
			QueryRow(func(r pgx.Row) error { return r.Scan(&next) })
		batch.Queue(s.sql(`SELECT rule FROM {s}.queue_rules ORDER BY n`)).
			Query(func(rows pgx.Rows) (err error) { out.Paused, err = collectRules(rows); return err })
		return t.SendBatch(ctx, batch).Close()
	})
	if err == nil && next != nil && s.o.Now == nil {
		s.expect(time.Duration(*next) * time.Microsecond)
	}
	return out, err
}

// expect has the owners looked at once the first of them may be dead.
func (s *Storage) expect(in time.Duration) {
	select {
	case <-s.deaths: // what was expected before
	default:
	}
	select {
	case s.deaths <- in:
	default:
	}
}

// buryInTime takes over what a dead owner held when its leases end, and not
// only when somebody asks for work.
func (s *Storage) buryInTime() {
	var due <-chan time.Time
	for {
		select {
		case <-s.ctx.Done():
			return
		case in := <-s.deaths:
			due = time.After(in + 5*time.Millisecond) // clocks run apart a little
		case <-due:
			due = nil
			if err := s.bury(s.ctx); err != nil && !errors.Is(err, context.Canceled) {
				s.o.Log.Debug("pgqueue: looking for dead owners failed, it will be done again", "err", err)
			}
		}
	}
}

var errOutcome = errors.New("pgqueue: outcome does not fit its entry")

// Finish implements queue.Storage.
func (s *Storage) Finish(ctx context.Context, out *queue.Outcome) error {
	if err := check(out.Put); err != nil {
		return err
	}
	if err := s.endAll(ctx, out.Put); err != nil {
		return err
	}
	if v, ok := s.endsOf(out); ok {
		err := func() error {
			ctx, cancel := s.bounded(ctx)
			defer cancel()
			return fail(s.ends.do(ctx, v, 0))
		}()
		if !errors.Is(err, errAlone) {
			return err
		}
	}
	var done puts
	wake, call := false, newCall()
	err := s.transact(ctx, func(ctx context.Context, t pgx.Tx) (err error) {
		wake = false
		if err := s.alive(ctx, t, out.Lease.Owner); err != nil {
			return err
		}
		found, err := s.entries(ctx, t, `e.id = @id AND e.owner = @owner AND e.token = @token FOR UPDATE OF e`,
			pgx.NamedArgs{"id": uuid(out.Lease.Entry.ID), "owner": string(out.Lease.Owner), "token": out.Lease.Token})
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return queue.ErrLeaseLost
		}
		e := found[0].Entry
		left, err := without(e.Envelope.To, out.Done)
		if err != nil {
			return err
		}
		if len(out.Last) != 0 && len(out.Last) != len(left) {
			return fmt.Errorf("%w: %d results for the %d recipients left", errOutcome, len(out.Last), len(left))
		}
		x := &pgxTx{tx: t}
		if done, err = s.put(ctx, x, call, out.Put); err != nil {
			return err
		}
		if err := errors.Join(s.logEvents(ctx, x, out.Events), x.flush(ctx)); err != nil {
			return err
		}
		if len(left) == 0 {
			return s.remove(ctx, t, e)
		}
		e.Envelope.To, e.Last = left, out.Last
		e.Due, e.Alarm, e.Held, e.Suspended, e.Attempt = out.Due, out.Alarm, out.Held, out.Suspended, out.Attempt
		if out.Lane != (queue.Lane{}) {
			e.Lane = out.Lane
		}
		// Its owner knows when it is due: others are told of edits only.
		var edits int
		if err := t.QueryRow(ctx, s.sql(`SELECT count(*) FROM {s}.queue_edits WHERE entry = $1`), uuid(e.ID)).Scan(&edits); err != nil {
			return err
		}
		wake = edits > 0 || !e.Held && !e.Due.After(s.clockNow())
		return s.settle(ctx, t, e)
	})
	if err != nil {
		s.failed(call, err)
		return err
	}
	done.apply()
	if wake || done.stored() {
		s.changed()
	}
	return nil
}

func (s *Storage) clockNow() time.Time {
	if s.o.Now != nil {
		return s.o.Now()
	}
	return time.Now()
}

// without returns to without the indexes in done, which must ascend.
func without(to []smtp.Recipient, done []int) ([]smtp.Recipient, error) {
	left := make([]smtp.Recipient, 0, len(to))
	next := 0
	for i, r := range to {
		if next < len(done) && done[next] == i {
			next++
			continue
		}
		left = append(left, r)
	}
	if next < len(done) {
		return nil, fmt.Errorf("%w: done recipients %v of %d", errOutcome, done, len(to))
	}
	return left, nil
}

// settle writes an entry back, free and with the edits made meanwhile.
func (s *Storage) settle(ctx context.Context, t pgx.Tx, e *queue.Entry) error {
	rows, err := t.Query(ctx, s.sql(`DELETE FROM {s}.queue_edits WHERE entry = $1 RETURNING n, edit`), uuid(e.ID))
	if err != nil {
		return err
	}
	type numbered struct {
		n    int64
		edit edit
	}
	edits, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (x numbered, err error) {
		var text []byte
		if err = r.Scan(&x.n, &text); err == nil {
			err = decode(text, &x.edit)
		}
		return x, err
	})
	if err != nil {
		return err
	}
	slices.SortFunc(edits, func(a, b numbered) int { return int(a.n - b.n) })
	for i := range edits {
		c := edits[i].edit.queueEdit()
		gone, err := s.apply(ctx, t, &c, e)
		if err != nil {
			return err
		}
		if gone {
			return s.remove(ctx, t, e)
		}
	}
	return s.write(ctx, t, e)
}

// apply changes an entry, and logs what is to be told of it.
func (s *Storage) apply(ctx context.Context, t pgx.Tx, c *queue.Edit, e *queue.Entry) (gone bool, err error) {
	now := s.clockNow()
	if ev, ok := c.Event(e, now); ok {
		x := &pgxTx{tx: t}
		if err := errors.Join(s.logEvents(ctx, x, []queue.Event{ev}), x.flush(ctx)); err != nil {
			return false, err
		}
	}
	return c.Apply(e, now), nil
}

// write stores an entry that nobody leases.
func (s *Storage) write(ctx context.Context, t pgx.Tx, e *queue.Entry) error {
	_, err := t.Exec(ctx, s.sql(`UPDATE {s}.queue_entries SET dest = @dest, tenant = @tenant, priority = @priority, sender = @sender, recipients = @recipients::text[],
		due = @due, alarm = @alarm, held = @held, suspended = @suspended, attempt = @attempt, owner = NULL, entry = @entry WHERE id = @id`), pgx.NamedArgs{
		"id": uuid(e.ID), "dest": text(e.Lane.Dest), "tenant": text(e.Lane.Tenant), "priority": e.Lane.Priority, "sender": senderOf(e), "recipients": recipientsOf(e),
		"due": e.Due, "alarm": never(e.Alarm), "held": e.Held, "suspended": e.Suspended, "attempt": e.Attempt, "entry": encode(entryOf(e)),
	})
	return err
}

// remove deletes an entry. With the last one its message is done; who has it
// open may read it to its end, until the sweep.
func (s *Storage) remove(ctx context.Context, t pgx.Tx, e *queue.Entry) error {
	if _, err := t.Exec(ctx, s.sql(`DELETE FROM {s}.queue_entries WHERE id = $1`), uuid(e.ID)); err != nil {
		return err
	}
	_, err := t.Exec(ctx, s.sql(`UPDATE {s}.queue_messages SET entries = entries - 1, done = CASE WHEN entries = 1 THEN clock_timestamp() END WHERE id = $1`), uuid(e.Message.ID))
	return err
}
