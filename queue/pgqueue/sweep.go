package pgqueue

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// sweepEvery is how often a node looks for what can go.
	sweepEvery = time.Minute
	// sweepRows is how much of it one statement takes.
	sweepRows = 500
)

func (s *Storage) sweepNowAndThen() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.Sweep(s.ctx); err != nil && !errors.Is(err, context.Canceled) {
			s.o.Log.Warn("pgqueue: the sweep failed, it will be done again", "err", err)
		}
	}
}

// sweeps remove what is not needed any more. An open message can be read for
// an hour after it is done; a body that nobody came to use is kept for a day,
// longer than any transaction lasts.
var sweeps = []string{
	`WITH old AS (SELECT id FROM {s}.queue_messages WHERE done < clock_timestamp() - interval '1 hour' ORDER BY done LIMIT $1 FOR UPDATE SKIP LOCKED),
		gone AS (DELETE FROM {s}.queue_messages m USING old WHERE m.id = old.id RETURNING m.body)
		UPDATE {s}.queue_bodies b SET staged = '-infinity' FROM gone WHERE b.id = gone.body`,
	`WITH old AS (SELECT id FROM {s}.queue_bodies b WHERE staged < clock_timestamp() - interval '1 day'
			AND NOT EXISTS (SELECT FROM {s}.queue_messages m WHERE m.body = b.id) LIMIT $1 FOR UPDATE SKIP LOCKED),
		gone AS (DELETE FROM {s}.queue_bodies b USING old WHERE b.id = old.id RETURNING object),
		dead AS (INSERT INTO {s}.queue_dying (object, since) SELECT object, clock_timestamp() FROM gone WHERE object IS NOT NULL ON CONFLICT DO NOTHING)
		SELECT FROM gone`,
	`WITH old AS (SELECT tenant, key FROM {s}.queue_keys WHERE expires < clock_timestamp() LIMIT $1 FOR UPDATE SKIP LOCKED)
		DELETE FROM {s}.queue_keys k USING old WHERE k.tenant = old.tenant AND k.key = old.key`,
	`DELETE FROM {s}.queue_owners WHERE owner IN (SELECT owner FROM {s}.queue_owners o WHERE dead AND until < clock_timestamp() - interval '1 day'
		AND NOT EXISTS (SELECT FROM {s}.queue_entries e WHERE e.owner = o.owner) AND NOT EXISTS (SELECT FROM {s}.queue_events v WHERE v.owner = o.owner) LIMIT $1)`,
}

// Sweep gives space back. Every Storage does it by itself each minute; of
// several nodes one does it.
func (s *Storage) Sweep(ctx context.Context) error {
	if err := s.orphans(ctx); err != nil {
		return err
	}
	for _, sql := range sweeps {
		for {
			var n int64
			err := s.transact(ctx, func(ctx context.Context, t pgx.Tx) error {
				n = 0
				var mine bool
				if err := t.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))`, "postrider pgqueue sweep "+s.o.Schema).Scan(&mine); err != nil || !mine {
					return err
				}
				tag, err := t.Exec(ctx, s.sql(sql), sweepRows)
				n = tag.RowsAffected()
				return err
			})
			if err != nil {
				return err
			}
			if n < sweepRows {
				break
			}
		}
	}
	return s.sweepObjects(ctx)
}

// orphans frees entries that were born leased just when their owner died.
func (s *Storage) orphans(ctx context.Context) error {
	return s.transact(ctx, func(ctx context.Context, t pgx.Tx) error {
		rows, err := t.Query(ctx, s.sql(`SELECT owner FROM {s}.queue_owners o WHERE dead AND (EXISTS (SELECT FROM {s}.queue_entries e WHERE e.owner = o.owner)
			OR EXISTS (SELECT FROM {s}.queue_events v WHERE v.owner = o.owner))`))
		if err != nil {
			return err
		}
		dead, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(dead) == 0 {
			return err
		}
		return s.free(ctx, t, `owner = ANY(@dead)`, pgx.NamedArgs{"dead": dead})
	})
}
