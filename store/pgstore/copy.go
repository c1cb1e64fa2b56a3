package pgstore

import (
	"context"
	"slices"
	"time"

	"github.com/postrider/postrider/store"
)

// Copy implements store.Account.
func (a *account) Copy(ctx context.Context, from store.MailboxID, uids store.UIDSet, to store.MailboxID, o store.CopyOptions) (store.Copied, error) {
	var out store.Copied
	err := a.write(ctx, []store.MailboxID{from, to}, func(w *write) (err error) {
		out, err = w.copy(from, uids, to, o)
		return err
	})
	if err != nil {
		return store.Copied{}, err
	}
	return out, nil
}

func (w *write) copy(from store.MailboxID, uids store.UIDSet, to store.MailboxID, o store.CopyOptions) (store.Copied, error) {
	src, err := w.box(from)
	if err != nil {
		return store.Copied{}, err
	}
	dst := src
	if to != from {
		if dst, err = w.box(to); err != nil {
			return store.Copied{}, err
		}
	}
	srcPrev, dstPrev := src.modSeq, dst.modSeq
	out := store.Copied{
		From: src.commitOf(srcPrev), To: dst.commitOf(dstPrev), UIDValidity: dst.validity,
		Source: store.UIDSet{}, Dest: store.UIDSet{},
	}
	picked, err := w.pick(src, uids)
	if err != nil || picked.uids.Empty() {
		return out, err
	}
	n := picked.uids.Count()
	if dst.next+n > int64(store.MaxUID) {
		return out, store.ErrLimit
	}
	freed := int64(0)
	if o.Move {
		freed = picked.size
	}
	if err := w.room(picked.size, freed); err != nil {
		return out, err
	}

	// The keywords of the one in the numbers of the other.
	numbers := make([]int16, len(src.keywords))
	for k := range picked.keywords {
		if int(k) > len(src.keywords) || src.keywords[k-1] == "" {
			continue
		}
		nums, err := w.number(dst, src.keywords[k-1:k])
		if err != nil {
			return out, err
		}
		numbers[k-1] = nums[0]
	}
	modSeq := w.commit()
	lo, hi := bounds(picked.uids)
	now := time.Now().UTC().Truncate(time.Microsecond)
	w.exec(`INSERT INTO {s}.messages (mailbox, uid, modseq, content, id, size, date, saved, zone, flags, keywords)
		SELECT $4, $5 - 1 + row_number() OVER (ORDER BY m.uid), $6, m.content, m.id, m.size, m.date, $7, m.zone, m.flags,
			CASE WHEN m.keywords IS NOT NULL THEN ARRAY(SELECT n FROM (SELECT ($8::smallint[])[k] AS n FROM unnest(m.keywords) k) x WHERE n > 0 ORDER BY n) END
		FROM unnest($2::bigint[], $3::bigint[]) AS r(lo, hi) JOIN {s}.messages m ON m.mailbox = $1 AND m.uid BETWEEN r.lo AND r.hi`,
		src.num, lo, hi, dst.num, dst.next, modSeq, now, numbers)
	out.Source = picked.uids
	out.Dest.AddRange(store.UID(dst.next), store.UID(dst.next+n-1))
	dst.next += n
	dst.modSeq = modSeq
	for _, m := range picked.messages {
		dst.count(store.SystemFlags(m.flags), m.size, 1)
	}
	if o.Move {
		if _, err := w.take(src, picked.uids, false, true); err != nil {
			return out, err
		}
	} else {
		w.hold(picked.uses)
	}
	w.save(dst)
	if src != dst {
		w.save(src)
	}
	out.From, out.To = src.commitOf(srcPrev), dst.commitOf(dstPrev)
	return out, nil
}

// picked are messages that are there.
type picked struct {
	uids     store.UIDSet
	size     int64
	messages []struct {
		flags int16
		size  int64
	}
	uses     map[int64]int32 // of contents
	keywords map[int16]struct{}
}

func (w *write) pick(b *box, uids store.UIDSet) (*picked, error) {
	p := &picked{uids: store.UIDSet{}, uses: make(map[int64]int32), keywords: make(map[int16]struct{})}
	lo, hi := bounds(uids)
	rows, err := w.query(`SELECT m.uid, m.flags, m.size, m.content, m.keywords FROM unnest($2::bigint[], $3::bigint[]) AS r(lo, hi)
		JOIN {s}.messages m ON m.mailbox = $1 AND m.uid BETWEEN r.lo AND r.hi ORDER BY m.uid`, b.num, lo, hi)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var uid store.UID
		var m struct {
			flags int16
			size  int64
		}
		var content int64
		var keywords []int16
		if err := rows.Scan(&uid, &m.flags, &m.size, &content, &keywords); err != nil {
			return nil, err
		}
		p.uids.Add(uid)
		p.size += m.size
		p.messages = append(p.messages, m)
		p.uses[content]++
		for _, k := range keywords {
			p.keywords[k] = struct{}{}
		}
	}
	return p, rows.Err()
}

// hold counts more uses of contents.
func (w *write) hold(uses map[int64]int32) {
	nums, n := make([]int64, 0, len(uses)), make([]int32, 0, len(uses))
	for c, k := range uses {
		nums, n = append(nums, c), append(n, k)
	}
	w.exec(`UPDATE {s}.contents c SET refs = refs + u.n, expunged = NULL FROM unnest($1::bigint[], $2::int[]) AS u(num, n) WHERE c.num = u.num`, nums, n)
}

// flags are a message's by its numbers of keywords, in their first spelling.
func (b *box) flags(system store.SystemFlags, numbers []int16) store.Flags {
	words := make([]string, len(numbers))
	for i, n := range numbers {
		words[i] = b.keywords[n-1]
	}
	slices.Sort(words)
	return store.NewFlags(system, words...)
}
