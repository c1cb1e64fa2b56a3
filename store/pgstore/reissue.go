package pgstore

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/store"
)

// reissueGap is how far Reissue moves UIDs, ModSeqs and the numbers of rows:
// beyond what the lost history may have used.
const reissueGap = 1 << 20

// Reissue makes the mail of a database that has lost its latest history safe to
// serve: after a replica that lagged was promoted, or a backup was restored.
// What was lost had UIDs and ModSeqs that clients and other nodes remember, and
// that would be given out again for something else.
//
// It moves the UIDs and ModSeqs to come of every mailbox beyond what was lost,
// and gives all messages a new ModSeq: clients keep what they have, ask for
// changes as after any pause, and are told of everything, the lost UIDs as
// expunged. An operator calls it once, from a program of a few lines, before
// any node takes up service with the database:
//
//	s, err := pgstore.Open(ctx, pool, pgstore.Options{Schema: …})
//	…
//	err = s.Reissue(ctx)
//
// It takes a transaction for each account, without a limit in time but ctx's,
// and writes each message's row once. When it failed it is to be called again;
// once more than needed does no harm.
func (s *Store) Reissue(ctx context.Context) error {
	// Handles of nodes that are still there name rows by number, so those are
	// not given out again either.
	err := s.reissue(ctx, func(tx pgx.Tx) error {
		for _, t := range []string{"accounts", "mailboxes", "blobs", "contents"} {
			seq := s.sql(`'{q}.` + t + `_num_seq'`)
			if _, err := tx.Exec(ctx, `SELECT setval(`+seq+`, nextval(`+seq+`) + $1::bigint)`, int64(reissueGap)); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, s.sql(`UPDATE {s}.meta SET validity = validity + $1::bigint`), int64(reissueGap))
		return err
	})
	for after := int64(-1); err == nil; {
		done := false
		err = s.reissue(ctx, func(tx pgx.Tx) error {
			var num int64
			err := tx.QueryRow(ctx, s.sql(`SELECT num FROM {s}.accounts WHERE num > $1::bigint ORDER BY num LIMIT 1 FOR UPDATE`), after).Scan(&num)
			if errors.Is(err, pgx.ErrNoRows) {
				done = true
				return nil
			}
			if err != nil {
				return err
			}
			after = num
			return s.reissueAccount(ctx, tx, num)
		})
		if done {
			break
		}
	}
	return fail(err)
}

func (s *Store) reissue(ctx context.Context, f func(tx pgx.Tx) error) error {
	conn, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	return pgx.BeginFunc(ctx, conn, f)
}

// reissueAccount does it for one account, whose row is locked. A mailbox that
// has no more UIDs then is full.
func (s *Store) reissueAccount(ctx context.Context, tx pgx.Tx, num int64) error {
	b := new(pgx.Batch)
	b.Queue(s.sql(`UPDATE {s}.accounts SET modseq = modseq + $2::bigint WHERE num = $1::bigint`), num, int64(reissueGap))
	if s.o.History >= 0 {
		b.Queue(s.sql(`INSERT INTO {s}.expunged (mailbox, modseq, first, last)
			SELECT b.num, a.modseq, b.uidnext, least(b.uidnext + $2::bigint, $3::bigint) - 1 FROM {s}.accounts a JOIN {s}.mailboxes b ON b.account = a.num
			WHERE a.num = $1::bigint AND b.uidnext < $3::bigint`), num, int64(reissueGap), int64(store.MaxUID))
	}
	b.Queue(s.sql(`UPDATE {s}.messages m SET modseq = a.modseq FROM {s}.accounts a JOIN {s}.mailboxes b ON b.account = a.num
		WHERE a.num = $1::bigint AND m.mailbox = b.num`), num)
	b.Queue(s.sql(`UPDATE {s}.mailboxes b SET modseq = a.modseq, uidnext = least(b.uidnext + $2::bigint, $3::bigint)
		FROM {s}.accounts a WHERE a.num = $1::bigint AND b.account = a.num`), num, int64(reissueGap), int64(store.MaxUID))
	return tx.SendBatch(ctx, b).Close()
}
