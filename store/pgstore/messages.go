package pgstore

import (
	"context"
	"iter"
	"time"

	"github.com/postrider/postrider/store"
)

const (
	firstPage = 64
	lastPage  = 4096
	// bodyPage is the greatest number of messages in a page with Bodies, and
	// bodyRides how large one may be to ride along.
	bodyPage  = 64
	bodyRides = 64 << 10
	// rangesPage is how many ranges of UIDs one statement is given.
	rangesPage = 256
)

// Messages implements store.Account. It reads pages, each with one statement,
// and holds nothing while it yields.
func (a *account) Messages(ctx context.Context, box store.MailboxID, q store.Query) iter.Seq2[store.Message, error] {
	return func(yield func(store.Message, error) bool) {
		p := pager{a: a, fields: q.Fields, since: q.ChangedSince, uids: q.UIDs}
		if q.UIDs == nil {
			p.uids = store.AllUIDs()
		}
		err := p.open(ctx, box)
		if err != nil {
			yield(store.Message{}, err)
			return
		}
		largest := lastPage
		if q.Fields&(store.WithBody|store.WithSummary) != 0 {
			largest = bodyPage
		}
		for n := min(firstPage, largest); !p.uids.Empty(); n = min(8*n, largest) {
			page, err := p.next(ctx, n)
			for i := range page {
				if !yield(page[i], nil) {
					return
				}
			}
			if err != nil {
				yield(store.Message{}, err)
				return
			}
		}
	}
}

type pager struct {
	a      *account
	box    int64
	fields store.Fields
	since  store.ModSeq
	uids   store.UIDSet // what is still to be read; never written to
}

// open finds the mailbox, and narrows the UIDs to those that exist.
func (p *pager) open(ctx context.Context, id store.MailboxID) error {
	var next int64
	err := p.a.read(ctx, `SELECT num, uidnext FROM {s}.mailboxes WHERE account = $1 AND id = $2`, []any{p.a.num, text(string(id))}, &p.box, &next)
	if err != nil {
		return err
	}
	if next <= 1 {
		p.uids = nil
		return nil
	}
	p.uids = p.uids.Intersect(store.UIDSet{{First: 1, Last: store.UID(next - 1)}})
	return nil
}

// keywordsOf are the keywords of message m in the mailbox whose number is $1:
// those of the mailbox are read once a statement, if at all.
const keywordsOf = `CASE WHEN m.keywords IS NOT NULL THEN ARRAY(SELECT (SELECT b.keywords FROM {s}.mailboxes b WHERE b.num = $1::bigint)[k] FROM unnest(m.keywords) k) END`

// next reads up to n messages. All that a list needs is in one table.
func (p *pager) next(ctx context.Context, n int) ([]store.Message, error) {
	ranges := front(p.uids, n)
	columns, joins := `m.uid, m.modseq, m.flags, `+keywordsOf+`, m.size, m.id`, ``
	var m store.Message
	var uid, modSeq int64 // plain types are read without reflection
	var flags, zone int16
	var words []string
	var date, saved time.Time
	var body content
	into := []any{&uid, &modSeq, &flags, &words, &m.Size, &m.ID}
	if p.fields&store.WithDates != 0 {
		columns += `, m.date, m.zone, m.saved`
		into = append(into, &date, &zone, &saved)
	}
	if p.fields&(store.WithIDs|store.WithSummary|store.WithBody) != 0 {
		joins = ` JOIN {s}.contents c ON c.num = m.content`
	}
	if p.fields&store.WithIDs != 0 {
		columns += `, c.thread`
		into = append(into, &m.ThreadID)
	}
	if p.fields&store.WithSummary != 0 {
		columns += `, c.summary`
		into = append(into, &m.Summary)
	}
	if p.fields&store.WithBody != 0 {
		columns += `, c.thread, c.head, c.blob, CASE WHEN x.size <= $6::bigint THEN x.data END`
		joins += ` JOIN {s}.blobs x ON x.num = c.blob`
		into = append(into, &body.thread, &body.head, &body.blob, &body.data)
	}
	args := []any{p.box, int64(p.since), n}
	var from string
	if len(ranges) == 1 {
		// In the order of the primary key, up to the limit.
		from = `{s}.messages m`
		joins += ` WHERE m.mailbox = $1::bigint AND m.modseq > $2::bigint AND m.uid BETWEEN $4::bigint AND $5::bigint`
		args = append(args, int64(ranges[0].First), int64(ranges[0].Last))
	} else {
		lo, hi := bounds(ranges)
		from = `unnest($4::bigint[], $5::bigint[]) AS r(lo, hi) JOIN {s}.messages m ON m.mailbox = $1::bigint AND m.modseq > $2::bigint AND m.uid BETWEEN r.lo AND r.hi`
		args = append(args, lo, hi)
	}
	if p.fields&store.WithBody != 0 {
		args = append(args, bodyRides)
	}
	ctx, cancel := p.a.s.bounded(ctx)
	defer cancel()
	rows, err := p.a.s.query(ctx, p.a.s.sql(`SELECT `+columns+` FROM `+from+joins+`
		ORDER BY m.uid LIMIT $3::bigint`), args...)
	if err != nil {
		return nil, fail(err)
	}
	defer rows.Close()
	out := make([]store.Message, 0, min(int64(n), ranges.Count()))
	for rows.Next() {
		m, words, body = store.Message{}, nil, content{}
		if err := rows.Scan(into...); err != nil {
			return out, fail(err)
		}
		m.UID, m.ModSeq = store.UID(uid), store.ModSeq(modSeq)
		m.Flags = store.NewFlags(store.SystemFlags(flags), words...)
		if p.fields&store.WithDates != 0 {
			m.InternalDate, m.SaveDate = zoned(date, zone), saved
		}
		if body.data != nil {
			c := body
			c.s, c.id, c.size = p.a.s, m.ID, m.Size
			m.Body = &c
		}
		out = append(out, m)
	}
	if err := rows.Err(); err != nil {
		return out, fail(err)
	}
	// Where to go on: behind the last row of a full page, else behind the
	// ranges that were asked for.
	done := ranges.Last()
	if len(out) == n {
		done = out[n-1].UID
	}
	p.uids = after(p.uids, done)
	if len(out) == 0 && len(p.uids) == 0 {
		// Nothing there, or no mailbox any more?
		return out, p.exists(ctx)
	}
	return out, nil
}

func (p *pager) exists(ctx context.Context) error {
	var n int
	return p.a.read(ctx, `SELECT 1 FROM {s}.mailboxes WHERE num = $1`, []any{p.box}, &n)
}

// front returns the first ranges of u that one statement is asked for: those
// that have at most n UIDs together, so that sorting them is cheap, or the first
// one, however long.
func front(u store.UIDSet, n int) store.UIDSet {
	k, sum := 0, int64(0)
	for k < len(u) && k < rangesPage {
		sum += int64(u[k].Last-u[k].First) + 1
		if k > 0 && sum > int64(n) {
			break
		}
		k++
	}
	return u[:k]
}

// bounds are ranges as the two arrays that SQL is given.
func bounds(u store.UIDSet) (lo, hi []int64) {
	lo, hi = make([]int64, len(u)), make([]int64, len(u))
	for i, r := range u {
		lo[i], hi[i] = int64(r.First), int64(r.Last)
	}
	return lo, hi
}

// after returns the UIDs of u above done, without writing to u.
func after(u store.UIDSet, done store.UID) store.UIDSet {
	for len(u) > 0 && u[0].Last <= done {
		u = u[1:]
	}
	if len(u) > 0 && u[0].First <= done {
		u = append(store.UIDSet{{First: done + 1, Last: u[0].Last}}, u[1:]...)
	}
	return u
}

// Changes implements store.Account. One statement sees one state, so what it
// says is expunged belongs to the ModSeq it names.
func (a *account) Changes(ctx context.Context, id store.MailboxID, since store.ModSeq) (store.Changes, error) {
	c := store.Changes{Expunged: store.UIDSet{}}
	ctx, cancel := a.s.bounded(ctx)
	defer cancel()
	rows, err := a.s.query(ctx, a.s.sql(`SELECT b.modseq, b.uidnext, b.horizon, e.first, e.last FROM {s}.mailboxes b
		LEFT JOIN {s}.expunged e ON e.mailbox = b.num AND e.modseq > $3
		WHERE b.account = $1 AND b.id = $2 ORDER BY e.first`), a.num, text(string(id)), int64(since))
	if err != nil {
		return c, fail(err)
	}
	defer rows.Close()
	there := false
	var horizon store.ModSeq
	for rows.Next() {
		there = true
		var first, last *int64
		if err := rows.Scan(&c.ModSeq, &c.UIDNext, &horizon, &first, &last); err != nil {
			return c, fail(err)
		}
		if first != nil {
			c.Expunged.AddRange(store.UID(*first), store.UID(*last))
		}
	}
	if err := rows.Err(); err != nil {
		return c, fail(err)
	}
	if !there {
		return c, store.ErrNotExist
	}
	if a.s.o.History < 0 {
		horizon = c.ModSeq
	}
	if since < horizon {
		return store.Changes{}, store.ErrForgotten
	}
	return c, nil
}
