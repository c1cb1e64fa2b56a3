package pgstore

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// sweepEvery is how often a node looks for what can go.
	sweepEvery = time.Minute
	// sweepAll is how many times of that it looks at everything.
	sweepAll = 30
	// sweepRows is how much of it one transaction takes.
	sweepRows = 500
	// onceMemory is how long deliveries are remembered.
	onceMemory = "7 days"
)

func (s *Store) sweepNowAndThen() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		// What History is too much for is looked for in the whole of it.
		sweep := s.sweepDue
		if n%sweepAll == 0 {
			sweep = s.Sweep
		}
		if err := sweep(s.ctx); err != nil && !errors.Is(err, context.Canceled) {
			s.o.Log.Warn("pgstore: the sweep failed, it will be done again", "err", err)
		}
	}
}

// sweepDue asks whether there is something to sweep, in one query, and does it.
func (s *Store) sweepDue(ctx context.Context) error {
	var due bool
	a := &account{s: s}
	err := a.read(ctx, `SELECT EXISTS (SELECT FROM {s}.contents WHERE expunged < now() - $1::interval AND refs = 0)
		OR EXISTS (SELECT FROM {s}.blobs WHERE pending <= now() - $1::interval)
		OR EXISTS (SELECT FROM {s}.deliveries WHERE at < now() - $2::interval)
		OR $3::boolean AND (EXISTS (SELECT FROM {s}.dying WHERE since <= now() - $1::interval) OR EXISTS (SELECT FROM {s}.meta WHERE listed < now() - $4::interval))`,
		[]any{s.o.Grace, onceMemory, s.o.Blobs != nil, listEvery}, &due)
	if err != nil || !due {
		return err
	}
	return s.Sweep(ctx)
}

// Sweep gives space back: messages and bodies whose grace is over, history
// beyond Options.History, and deliveries that need not be remembered any more.
// Every Store asks each minute whether there is something to give back, and does
// it by itself; of several nodes one does it.
func (s *Store) Sweep(ctx context.Context) error {
	for _, step := range []func(context.Context, pgx.Tx) (int64, error){s.sweepContents, s.sweepBlobs, s.sweepHistory, s.sweepDeliveries} {
		for {
			var n int64
			err := s.transact(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
				var mine bool
				if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))`, "postrider pgstore sweep "+s.o.Schema).Scan(&mine); err != nil || !mine {
					n = 0
					return err
				}
				n, err = step(ctx, tx)
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

// sweepContents removes what no message has used since the grace. Its blobs
// become pending.
func (s *Store) sweepContents(ctx context.Context, tx pgx.Tx) (int64, error) {
	tag, err := tx.Exec(ctx, s.sql(`WITH old AS (
			SELECT num FROM {s}.contents WHERE expunged < now() - $1::interval AND refs = 0 ORDER BY expunged LIMIT $2 FOR UPDATE SKIP LOCKED),
		gone AS (DELETE FROM {s}.contents c USING old WHERE c.num = old.num AND c.refs = 0 RETURNING c.blob)
		UPDATE {s}.blobs b SET pending = now() - $1::interval FROM gone WHERE b.num = gone.blob`), s.o.Grace, sweepRows)
	return tag.RowsAffected(), err
}

// sweepBlobs removes bodies that nothing uses. One that is being linked is
// locked, and left for the next time. Whether something uses them is asked once
// they are locked themselves: by a statement of its own, which sees all who
// were first. Their objects are dying then: no row names them, so none can be
// linked.
func (s *Store) sweepBlobs(ctx context.Context, tx pgx.Tx) (int64, error) {
	rows, err := tx.Query(ctx, s.sql(`SELECT num FROM {s}.blobs WHERE pending <= now() - $1::interval
		ORDER BY pending LIMIT $2::int FOR UPDATE SKIP LOCKED`), s.o.Grace, sweepRows)
	if err != nil {
		return 0, err
	}
	old, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil || len(old) == 0 {
		return 0, err
	}
	_, err = tx.Exec(ctx, s.sql(`WITH live AS (UPDATE {s}.blobs b SET pending = NULL
			WHERE num = ANY($1::bigint[]) AND EXISTS (SELECT FROM {s}.contents c WHERE c.blob = b.num)),
		gone AS (DELETE FROM {s}.blobs b WHERE num = ANY($1::bigint[]) AND NOT EXISTS (SELECT FROM {s}.contents c WHERE c.blob = b.num) RETURNING b.object)
		INSERT INTO {s}.dying (object, since) SELECT object, now() FROM gone WHERE object IS NOT NULL ON CONFLICT DO NOTHING`), old)
	return int64(len(old)), err
}

// sweepHistory forgets expunged UIDs beyond what is to be remembered, and
// deleted mailboxes beyond a great many.
func (s *Store) sweepHistory(ctx context.Context, tx pgx.Tx) (int64, error) {
	if s.o.History < 0 {
		return 0, nil
	}
	// The account's row is locked first, as everywhere.
	rows, err := tx.Query(ctx, s.sql(`SELECT e.mailbox, b.account FROM {s}.expunged e JOIN {s}.mailboxes b ON b.num = e.mailbox
		GROUP BY e.mailbox, b.account HAVING count(*) > $1 ORDER BY b.account LIMIT 20`), s.o.History)
	if err != nil {
		return 0, err
	}
	type full struct{ Mailbox, Account int64 }
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[full])
	for _, f := range list {
		if _, err := tx.Exec(ctx, s.sql(`SELECT FROM {s}.accounts WHERE num = $1 FOR UPDATE`), f.Account); err != nil {
			return 0, err
		}
		if _, err := tx.Exec(ctx, s.sql(`WITH cut AS (
				SELECT modseq FROM {s}.expunged WHERE mailbox = $1 ORDER BY modseq DESC, first OFFSET $2 LIMIT 1),
			gone AS (DELETE FROM {s}.expunged e USING cut WHERE e.mailbox = $1 AND e.modseq <= cut.modseq)
			UPDATE {s}.mailboxes b SET horizon = greatest(b.horizon, cut.modseq) FROM cut WHERE b.num = $1`), f.Mailbox, s.o.History); err != nil {
			return 0, err
		}
	}
	return 0, err
}

func (s *Store) sweepDeliveries(ctx context.Context, tx pgx.Tx) (int64, error) {
	tag, err := tx.Exec(ctx, s.sql(`WITH old AS (SELECT account, hash FROM {s}.deliveries WHERE at < now() - $1::interval LIMIT $2)
		DELETE FROM {s}.deliveries d USING old WHERE d.account = old.account AND d.hash = old.hash`), onceMemory, sweepRows)
	return tag.RowsAffected(), err
}
