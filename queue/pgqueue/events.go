package pgqueue

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/queue"
)

// logEvents keeps events, within t.
func (s *Storage) logEvents(ctx context.Context, t tx, events []queue.Event) error {
	if !s.o.KeepEvents {
		return nil
	}
	for i := range events {
		if err := t.later(ctx, s.sql(`INSERT INTO {s}.queue_events (id, event) VALUES ($1, $2)`), uuid(events[i].ID), encode(eventOf(&events[i]))); err != nil {
			return err
		}
	}
	return nil
}

// NextEvents implements queue.EventLog. Events leased by an owner that died
// are handed out again.
func (s *Storage) NextEvents(ctx context.Context, o queue.Owner, max int) ([]queue.Event, error) {
	if err := s.bury(ctx); err != nil {
		return nil, err
	}
	var out []queue.Event
	call := newCall()
	err := s.transact(ctx, func(ctx context.Context, t pgx.Tx) error {
		if err := s.alive(ctx, t, o); err != nil {
			return err
		}
		rows, err := t.Query(ctx, s.sql(`WITH picked AS (SELECT n FROM {s}.queue_events WHERE owner IS NULL ORDER BY n LIMIT $2 FOR UPDATE SKIP LOCKED)
			UPDATE {s}.queue_events e SET owner = $1, call = $3 FROM picked WHERE e.n = picked.n RETURNING e.n, e.event`), string(o), max, call)
		if err != nil {
			return err
		}
		type numbered struct {
			n     int64
			event event
		}
		found, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (x numbered, err error) {
			var text []byte
			if err = r.Scan(&x.n, &text); err == nil {
				err = decode(text, &x.event)
			}
			return x, err
		})
		slices.SortFunc(found, func(a, b numbered) int { return int(a.n - b.n) })
		out = nil
		for i := range found {
			out = append(out, found[i].event.queueEvent())
		}
		return err
	})
	s.failed(call, err)
	return out, err
}

// AckEvents implements queue.EventLog.
func (s *Storage) AckEvents(ctx context.Context, ids ...queue.ID) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	_, err := s.pool.Exec(ctx, s.sql(`DELETE FROM {s}.queue_events WHERE id = ANY($1::uuid[])`), uuids(ids))
	return fail(err)
}
