package pgstore

import (
	"context"
	"fmt"
	"slices"

	"github.com/postrider/postrider/store"
)

// flagged are messages that get the same flags.
type flagged struct {
	system   int16
	keywords []int16
	uids     store.UIDSet
}

// SetFlags implements store.Account. What is to be changed is worked out from
// the rows as they are under the lock; messages that end up with the same flags
// are written together.
func (a *account) SetFlags(ctx context.Context, id store.MailboxID, uids store.UIDSet, op store.FlagOp) (store.FlagResult, error) {
	var out store.FlagResult
	err := a.write(ctx, func(w *write) error {
		b, err := w.box(id)
		if err != nil {
			return err
		}
		prev := b.modSeq
		out = store.FlagResult{Commit: b.commitOf(prev), Changed: store.UIDSet{}, Modified: store.UIDSet{}}
		groups, err := w.compute(b, uids, op, &out)
		if err != nil || len(groups) == 0 {
			return err
		}
		b.modSeq = w.commit()
		for _, g := range groups {
			lo, hi := bounds(g.uids)
			if err := w.exec(`UPDATE {s}.messages m SET flags = $4, keywords = $5, modseq = $6 FROM unnest($2::bigint[], $3::bigint[]) AS r(lo, hi)
				WHERE m.mailbox = $1 AND m.uid BETWEEN r.lo AND r.hi`, b.num, lo, hi, g.system, g.keywords, b.modSeq); err != nil {
				return err
			}
		}
		out.Commit = b.commitOf(prev)
		return w.save(b)
	})
	if err != nil {
		return store.FlagResult{}, err
	}
	return out, nil
}

// compute finds what op changes, and fills in Changed and Modified.
func (w *write) compute(b *box, uids store.UIDSet, op store.FlagOp, out *store.FlagResult) (map[string]*flagged, error) {
	var words []int16
	if op.Mode == store.RemoveFlags || op.IfAbsent && op.Mode == store.AddFlags && len(op.Flags.Keywords) == 0 {
		for _, k := range op.Flags.Keywords {
			if i := b.find(k); i >= 0 {
				words = append(words, int16(i+1))
			}
		}
		slices.Sort(words)
	} else {
		var err error
		if words, err = w.number(b, op.Flags.Keywords); err != nil {
			return nil, err
		}
	}
	lo, hi := bounds(uids)
	rows, err := w.query(`SELECT m.uid, m.modseq, m.flags, m.keywords, m.size FROM unnest($2::bigint[], $3::bigint[]) AS r(lo, hi)
		JOIN {s}.messages m ON m.mailbox = $1 AND m.uid BETWEEN r.lo AND r.hi ORDER BY m.uid`, b.num, lo, hi)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	groups := make(map[string]*flagged)
	opSystem := int16(op.Flags.System)
	for rows.Next() {
		var uid store.UID
		var modSeq store.ModSeq
		var system int16
		var keywords []int16
		var size int64
		if err := rows.Scan(&uid, &modSeq, &system, &keywords, &size); err != nil {
			return nil, err
		}
		if op.UnchangedSince > 0 && modSeq > op.UnchangedSince ||
			op.IfAbsent && (system&opSystem != 0 || slices.ContainsFunc(keywords, func(k int16) bool { return slices.Contains(words, k) })) {
			out.Modified.Add(uid)
			continue
		}
		is, isWords := apply(op.Mode, system, keywords, opSystem, words)
		if is == system && slices.Equal(isWords, keywords) {
			continue
		}
		b.count(store.SystemFlags(system), size, -1)
		b.count(store.SystemFlags(is), size, 1)
		out.Changed.Add(uid)
		key := fmt.Sprint(is, isWords)
		g := groups[key]
		if g == nil {
			g = &flagged{system: is, keywords: isWords}
			groups[key] = g
		}
		g.uids.Add(uid)
	}
	return groups, rows.Err()
}

// apply returns flags and keywords after an operation. No keywords are nil.
func apply(mode store.FlagMode, system int16, keywords []int16, opSystem int16, words []int16) (int16, []int16) {
	switch mode {
	case store.AddFlags:
		system |= opSystem
		out := slices.Concat(keywords, words)
		slices.Sort(out)
		keywords = slices.Compact(out)
	case store.RemoveFlags:
		system &^= opSystem
		keywords = slices.DeleteFunc(slices.Clone(keywords), func(k int16) bool { return slices.Contains(words, k) })
	case store.ReplaceFlags:
		system, keywords = opSystem, words
	}
	if len(keywords) == 0 {
		keywords = nil
	}
	return system, keywords
}
