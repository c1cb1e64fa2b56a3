package pgstore

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/store"
)

// SetFlags implements store.Account. What changes is worked out by PostgreSQL:
// one statement says which messages and what of the counters, the other one
// writes them, and both go in one batch under the lock.
func (a *account) SetFlags(ctx context.Context, id store.MailboxID, uids store.UIDSet, op store.FlagOp) (store.FlagResult, error) {
	var out store.FlagResult
	err := a.write(ctx, []store.MailboxID{id}, func(w *write) error {
		b, err := w.box(id)
		if err != nil {
			return err
		}
		prev := b.modSeq
		out = store.FlagResult{Commit: b.commitOf(prev), Changed: store.UIDSet{}, Modified: store.UIDSet{}}
		words, err := w.wordsOf(b, op)
		if err != nil {
			return err
		}
		if err := w.setFlags(b, uids, op, words, &out); err != nil || out.Changed.Empty() {
			return err
		}
		b.modSeq = w.commit()
		out.Commit = b.commitOf(prev)
		w.save(b)
		return nil
	})
	if err != nil {
		return store.FlagResult{}, err
	}
	return out, nil
}

// wordsOf are the numbers of op's keywords, sorted. Only what sets some gives
// new ones a number.
func (w *write) wordsOf(b *box, op store.FlagOp) ([]int16, error) {
	words := []int16{}
	if op.Mode != store.RemoveFlags {
		numbers, err := w.number(b, op.Flags.Keywords)
		return append(words, numbers...), err
	}
	for _, k := range op.Flags.Keywords {
		if i := b.find(k); i >= 0 {
			words = append(words, int16(i+1))
		}
	}
	slices.Sort(words)
	return words, nil
}

// flagSQL are expressions about message m: what op, with system flags $4 and
// keywords $5, makes of it, and when it does nothing.
type flagSQL struct{ system, keywords, changes, refused string }

func flagExpressions(op store.FlagOp, words []int16) flagSQL {
	x := flagSQL{system: `m.flags | $4::smallint`, keywords: `m.keywords`}
	changes := `false`
	switch op.Mode {
	case store.AddFlags:
		if len(words) > 0 {
			changes = `m.keywords @> $5::smallint[] IS NOT TRUE`
			x.keywords = `CASE WHEN ` + changes + ` THEN ARRAY(SELECT DISTINCT k FROM unnest(m.keywords || $5::smallint[]) k ORDER BY k) ELSE m.keywords END`
		}
	case store.RemoveFlags:
		x.system = `m.flags & ~ $4::smallint`
		if len(words) > 0 {
			changes = `m.keywords && $5::smallint[] IS TRUE`
			x.keywords = `(SELECT array_agg(k ORDER BY k) FROM unnest(m.keywords) k WHERE k <> ALL($5::smallint[]))`
		}
	case store.ReplaceFlags:
		x.system = `$4::smallint`
		x.keywords = `nullif($5::smallint[], '{}')`
		changes = `m.keywords IS DISTINCT FROM ` + x.keywords
	}
	x.changes = `(m.flags <> (` + x.system + `) OR ` + changes + `)`
	x.refused = `false`
	if op.UnchangedSince > 0 {
		x.refused = `m.modseq > $6::bigint`
	}
	if op.IfAbsent {
		x.refused += ` OR m.flags & $4::smallint <> 0 OR m.keywords && $5::smallint[] IS TRUE`
	}
	x.refused = `(` + x.refused + `)`
	return x
}

// setFlags writes what op changes, and fills in Changed, Modified and b's
// counters. UIDs come as ranges.
func (w *write) setFlags(b *box, uids store.UIDSet, op store.FlagOp, words []int16, out *store.FlagResult) error {
	x := flagExpressions(op, words)
	lo, hi := bounds(uids)
	args := []any{b.num, lo, hi, int16(op.Flags.System), words, int64(op.UnchangedSince), w.modSeq + 1}
	// Every parameter is named in each statement, so that all have a type.
	const from = ` FROM unnest($2::bigint[], $3::bigint[]) AS r(lo, hi) `
	const where = ` m.mailbox = $1::bigint AND m.uid BETWEEN r.lo AND r.hi AND $4::smallint + $6::bigint + $7::bigint + cardinality($5::smallint[]) >= 0 `
	batch := new(pgx.Batch)
	batch.Queue(w.a.s.sql(`SELECT refused, min(uid), max(uid), sum(unseen), sum(deleted), sum(deleted * size)::bigint
		FROM (SELECT *, uid - row_number() OVER (PARTITION BY refused ORDER BY uid) AS island
			FROM (SELECT m.uid, m.size, `+x.refused+` AS refused, `+x.changes+` AS changed,
				(m.flags & 1) - ((`+x.system+`) & 1) AS unseen, (((`+x.system+`) & 8) - (m.flags & 8)) / 8 AS deleted
				`+from+`JOIN {s}.messages m ON`+where+`) m
			WHERE refused OR changed) m
		GROUP BY refused, island ORDER BY min(uid)`), args...)
	batch.Queue(w.a.s.sql(`UPDATE {s}.messages m SET flags = `+x.system+`, keywords = `+x.keywords+`, modseq = $7::bigint`+from+`WHERE`+where+
		`AND NOT `+x.refused+` AND `+x.changes), args...)
	if err := w.flush(); err != nil {
		return err
	}
	res := w.tx.SendBatch(w.ctx, batch)
	defer res.Close()
	rows, err := res.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var refused bool
		var first, last, unseen, deleted, size int64
		if err := rows.Scan(&refused, &first, &last, &unseen, &deleted, &size); err != nil {
			return err
		}
		if refused {
			out.Modified.AddRange(store.UID(first), store.UID(last))
			continue
		}
		out.Changed.AddRange(store.UID(first), store.UID(last))
		b.counts.Unseen += int(unseen)
		b.counts.Deleted += int(deleted)
		b.counts.DeletedSize += size
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return res.Close()
}
