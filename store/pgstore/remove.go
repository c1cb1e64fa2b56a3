package pgstore

import (
	"context"
	"slices"

	"github.com/postrider/postrider/store"
)

// removed is what take took out of a mailbox.
type removed struct {
	uids store.UIDSet
	size int64
}

// take removes messages of b: those with these UIDs, or of them those with
// \Deleted. With moved their contents stay in use. b is to be saved.
func (w *write) take(b *box, uids store.UIDSet, onlyDeleted, moved bool) (removed, error) {
	r := removed{uids: store.UIDSet{}}
	lo, hi := bounds(uids)
	rows, err := w.query(`DELETE FROM {s}.messages m USING unnest($2::bigint[], $3::bigint[]) AS r(lo, hi)
		WHERE m.mailbox = $1 AND m.uid BETWEEN r.lo AND r.hi AND (NOT $4 OR m.flags & 8 <> 0)
		RETURNING m.uid, m.flags, m.size, m.content`, b.num, lo, hi, onlyDeleted)
	if err != nil {
		return r, err
	}
	defer rows.Close()
	var gone []store.UID
	uses := make(map[int64]int32)
	for rows.Next() {
		var uid store.UID
		var flags int16
		var size, content int64
		if err := rows.Scan(&uid, &flags, &size, &content); err != nil {
			return r, err
		}
		gone = append(gone, uid)
		uses[content]++
		r.size += size
		b.count(store.SystemFlags(flags), size, -1)
	}
	if err := rows.Err(); err != nil || len(gone) == 0 {
		return r, err
	}
	slices.Sort(gone)
	for _, uid := range gone {
		r.uids.Add(uid)
	}
	if !moved {
		w.release(uses)
	}
	b.modSeq = w.commit()
	w.bury(b, r.uids)
	return r, nil
}

// release gives back uses of contents. What nobody uses any more can still be
// opened for the grace.
func (w *write) release(uses map[int64]int32) {
	nums, n := make([]int64, 0, len(uses)), make([]int32, 0, len(uses))
	for c, k := range uses {
		nums, n = append(nums, c), append(n, k)
	}
	w.exec(`UPDATE {s}.contents c SET refs = refs - u.n, expunged = CASE WHEN refs = u.n THEN now() END
		FROM unnest($1::bigint[], $2::int[]) AS u(num, n) WHERE c.num = u.num`, nums, n)
}

// bury remembers that UIDs are no more. The sweep forgets what is too much.
func (w *write) bury(b *box, uids store.UIDSet) {
	if uids.Empty() || w.a.s.o.History < 0 {
		return
	}
	lo, hi := bounds(uids)
	w.exec(`INSERT INTO {s}.expunged (mailbox, modseq, first, last) SELECT $1, $2, lo, hi FROM unnest($3::bigint[], $4::bigint[]) AS r(lo, hi)`,
		b.num, b.modSeq, lo, hi)
}

// Expunge implements store.Account.
func (a *account) Expunge(ctx context.Context, id store.MailboxID, uids store.UIDSet, o store.ExpungeOptions) (store.Expunged, error) {
	var out store.Expunged
	err := a.write(ctx, []store.MailboxID{id}, func(w *write) error {
		b, err := w.box(id)
		if err != nil {
			return err
		}
		prev := b.modSeq
		out = store.Expunged{Commit: b.commitOf(prev), UIDs: store.UIDSet{}}
		if o.OnlyDeleted && b.counts.Deleted == 0 {
			return nil
		}
		r, err := w.take(b, uids, o.OnlyDeleted, false)
		if err != nil || r.uids.Empty() {
			return err
		}
		if err := w.room(0, r.size); err != nil {
			return err
		}
		out = store.Expunged{Commit: b.commitOf(prev), UIDs: r.uids}
		w.save(b)
		return nil
	})
	if err != nil {
		return store.Expunged{}, err
	}
	return out, nil
}
