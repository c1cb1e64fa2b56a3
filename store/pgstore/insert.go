package pgstore

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/store"
)

// entry is one message on its way in by the statement of insert. It is one
// write of its own, or one message of a write.
type entry struct {
	p       *prepared
	account int64  // 0 = by its name
	name    string // of the account
	box     store.MailboxID
	rank    int64  // of its write among those to the account, from 1
	once    []byte // hash of Target.Once; nil = none

	// What became of it.
	done     bool // it is stored, or was so before
	taken    bool // it was so before
	num      int64
	uid      int64
	modSeq   int64
	prev     int64 // ModSeq of the mailbox before the statement
	validity uint32
	id       string
	thread   string
	blob     int64
	words    []string // keywords in the mailbox's spelling
}

// plain reports whether the statement of insert can take p: what is linked
// with its ID and thread is looked up by append.
func (p *prepared) plain() bool { return p.fresh && p.thread == "" }

// insertSQL stores messages in any number of mailboxes. It runs as the last of
// a batch, in whose transaction their accounts are locked already: so what it
// sees is the latest, and it is the only one that runs under the lock. Either
// all messages for an account are stored or none is, and those that are not
// come back in no row. There are no keywords in it that a mailbox does not
// know, and no two messages for one account that share a Message-ID.
const insertSQL = `WITH i AS MATERIALIZED (
	SELECT u.*, a.num AS account, a.modseq AS had, a.quota, a.used, b.num AS mailbox, b.modseq AS prev, b.uidnext, b.uidvalidity, b.keywords
	FROM unnest($1::{type}[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[], $8::smallint[],
			$9::smallint[], $10::bytea[], $11::bytea[], $12::int[], $13::bigint[], $14::bytea[])
		WITH ORDINALITY AS u(key, box, rank, id, thread, size, date, zone, flags, head, summary, body, blob, once, n)
	JOIN {s}.accounts a ON a.{key} = u.key
	LEFT JOIN {s}.mailboxes b ON b.account = a.num AND b.id = u.box
), taken AS MATERIALIZED (
	SELECT i.n, i.account FROM i JOIN {s}.deliveries d ON d.account = i.account AND d.hash = i.once WHERE i.once IS NOT NULL
), k AS MATERIALIZED (
	SELECT i.n, array_agg(w.n::smallint ORDER BY w.n) AS numbers, array_agg(w.word ORDER BY w.n) AS words, bool_and(w.n IS NOT NULL) AS known
	FROM unnest($15::int[], $16::text[]) AS u(n, word) JOIN i ON i.n = u.n
	LEFT JOIN LATERAL (SELECT x.n, x.word FROM unnest(i.keywords) WITH ORDINALITY AS x(word, n)
		WHERE lower(x.word COLLATE "C") = lower(u.word COLLATE "C") LIMIT 1) w ON true
	GROUP BY i.n
), fit AS MATERIALIZED (
	SELECT i.account FROM i LEFT JOIN k ON k.n = i.n
	WHERE NOT EXISTS (SELECT FROM taken t WHERE t.n = i.n)
	GROUP BY i.account, i.quota, i.used
	HAVING bool_and(i.mailbox IS NOT NULL AND coalesce(k.known, true) AND i.uidnext < 4294000000
			AND (i.blob = 0 OR EXISTS (SELECT FROM {s}.blobs x WHERE x.num = i.blob)))
		AND (i.quota = 0 OR sum(i.size) = 0 OR i.used + sum(i.size) <= i.quota)
), m AS MATERIALIZED (
	SELECT i.*, i.had + i.rank AS modseq, nextval('{q}.contents_num_seq') AS content, k.numbers, k.words,
		i.uidnext - 1 + row_number() OVER (PARTITION BY i.mailbox ORDER BY i.n) AS uid
	FROM i JOIN fit ON fit.account = i.account LEFT JOIN k ON k.n = i.n
	WHERE NOT EXISTS (SELECT FROM taken t WHERE t.n = i.n)
), bodies AS MATERIALIZED (
	SELECT u.n, u.data, nextval('{q}.blobs_num_seq') AS num FROM unnest($17::bytea[]) WITH ORDINALITY AS u(data, n)
	WHERE EXISTS (SELECT FROM m WHERE m.body = u.n)
), store_bodies AS (
	INSERT INTO {s}.blobs (num, size, data) OVERRIDING SYSTEM VALUE SELECT num, length(data), data FROM bodies
), link AS (
	UPDATE {s}.blobs b SET pending = NULL WHERE b.num = ANY($13::bigint[]) AND b.pending IS NOT NULL AND EXISTS (SELECT FROM m WHERE m.blob = b.num)
), h AS MATERIALIZED (
	SELECT m.n, m.account, u.hash, t.thread, u.nr FROM unnest($18::int[], $19::bytea[]) WITH ORDINALITY AS u(n, hash, nr) JOIN m ON m.n = u.n
	LEFT JOIN LATERAL (SELECT x.thread FROM {s}.threads x WHERE x.account = m.account AND x.hash = u.hash LIMIT 1) t ON true
), found AS MATERIALIZED (
	SELECT n, (array_agg(thread ORDER BY nr))[1] AS thread FROM h WHERE thread IS NOT NULL GROUP BY n
), store_threads AS (
	INSERT INTO {s}.threads (account, hash, thread) SELECT h.account, h.hash, coalesce(f.thread, m.thread)
	FROM h JOIN m ON m.n = h.n LEFT JOIN found f ON f.n = h.n WHERE h.thread IS NULL
	ON CONFLICT (account, hash) DO NOTHING
), store_contents AS (
	INSERT INTO {s}.contents (num, account, id, thread, size, refs, head, summary, blob) OVERRIDING SYSTEM VALUE
	SELECT m.content, m.account, m.id, coalesce(f.thread, m.thread), m.size, 1, m.head, m.summary, coalesce(b.num, m.blob)
	FROM m LEFT JOIN found f ON f.n = m.n LEFT JOIN bodies b ON b.n = m.body
), store_messages AS (
	INSERT INTO {s}.messages (mailbox, uid, modseq, content, id, size, date, saved, zone, flags, keywords)
	SELECT m.mailbox, m.uid, m.modseq, m.content, m.id, m.size, m.date, $20::timestamptz, m.zone, m.flags, m.numbers FROM m
), store_once AS (
	INSERT INTO {s}.deliveries (account, hash) SELECT m.account, m.once FROM m WHERE m.once IS NOT NULL
), count_boxes AS (
	UPDATE {s}.mailboxes b SET uidnext = b.uidnext + g.n, modseq = g.modseq, messages = b.messages + g.n, unseen = b.unseen + g.unseen,
		deleted = b.deleted + g.deleted, size = b.size + g.size, deleted_size = b.deleted_size + g.deleted_size
	FROM (SELECT mailbox, count(*) AS n, max(modseq) AS modseq, count(*) FILTER (WHERE flags & 1 = 0) AS unseen, count(*) FILTER (WHERE flags & 8 <> 0) AS deleted,
		sum(size)::bigint AS size, coalesce(sum(size) FILTER (WHERE flags & 8 <> 0), 0)::bigint AS deleted_size FROM m GROUP BY mailbox) g
	WHERE b.num = g.mailbox
), count_accounts AS (
	UPDATE {s}.accounts a SET modseq = g.modseq, used = a.used + g.size
	FROM (SELECT account, max(modseq) AS modseq, sum(size)::bigint AS size FROM m GROUP BY account) g WHERE a.num = g.account
)
SELECT m.n, false, m.account, m.uid, m.modseq, m.prev, m.uidvalidity, coalesce(f.thread, m.thread), m.words, coalesce(b.num, m.blob)
FROM m LEFT JOIN found f ON f.n = m.n LEFT JOIN bodies b ON b.n = m.body
UNION ALL SELECT t.n, true, t.account, 0::bigint, 0::bigint, 0::bigint, 0::bigint, ''::text, NULL::text[], 0::bigint FROM taken t`

// Locks are taken before the statement is: in one order, so that two batches
// never wait for one another in a circle, and by statements of their own, so
// that the one that follows sees what those who had them have done.
const (
	lockBodiesSQL   = `SELECT num FROM {s}.blobs WHERE num = ANY($1::bigint[]) ORDER BY num FOR KEY SHARE`
	lockAccountsSQL = `SELECT num FROM {s}.accounts WHERE {key} = ANY($1::{type}[]) ORDER BY num FOR UPDATE`
)

// statements are those of insert, for accounts by number or by name.
type statements struct{ lockBodies, lockAccounts, insert string }

func (s *Store) statements(key, kind string) statements {
	r := strings.NewReplacer("{key}", key, "{type}", kind, "{q}", strings.ReplaceAll(s.tables.Quoted(), "'", "''"))
	return statements{s.sql(lockBodiesSQL), s.sql(r.Replace(lockAccountsSQL)), s.sql(r.Replace(insertSQL))}
}

// insert stores messages for accounts that are all given by number, or all by
// name: in one round trip, a batch that is one transaction. What is not done
// afterwards is to be tried one by one.
func (s *Store) insert(ctx context.Context, list []*entry) error {
	sql, byName := &s.byNum, list[0].account == 0
	if byName {
		sql = &s.byName
	}
	n := len(list)
	var nums, sizes, ranks, blobs []int64
	names, boxes, ids, threads := make([]string, 0, n), make([]string, 0, n), make([]string, 0, n), make([]string, 0, n)
	dates, zones, flags := make([]time.Time, 0, n), make([]int16, 0, n), make([]int16, 0, n)
	heads, summaries, onces := make([][]byte, 0, n), make([][]byte, 0, n), make([][]byte, 0, n)
	var wordOf, hashOf, body []int32
	var words []string
	var hashes, bodies [][]byte
	var linked []int64
	known := make(map[*byte]int32) // a body that several share goes there once
	now := time.Now().UTC().Truncate(time.Microsecond)
	for i, e := range list {
		p := e.p
		nums, names = append(nums, e.account), append(names, text(e.name))
		boxes, ranks, onces = append(boxes, text(string(e.box))), append(ranks, e.rank), append(onces, e.once)
		if e.id = p.id; e.id == "" {
			e.id = newID('m')
		}
		ids, threads, sizes = append(ids, e.id), append(threads, newID('t')), append(sizes, p.size)
		if p.date.IsZero() {
			p.date = now
		}
		p.saved = now
		date, zone := instant(p.date)
		dates, zones, flags = append(dates, date), append(zones, zone), append(flags, int16(p.flags.System))
		heads, summaries = append(heads, none(p.head)), append(summaries, none(p.summary))
		blobs = append(blobs, p.blob)
		var at int32
		switch {
		case p.blob != 0:
			linked = append(linked, p.blob)
		case len(p.data) > 0 && known[&p.data[0]] != 0:
			at = known[&p.data[0]]
		default:
			bodies = append(bodies, p.data)
			at = int32(len(bodies))
			if len(p.data) > 0 {
				known[&p.data[0]] = at
			}
		}
		body = append(body, at)
		for _, h := range p.ids {
			hashOf, hashes = append(hashOf, int32(i+1)), append(hashes, h)
		}
		for _, w := range p.flags.Keywords {
			wordOf, words = append(wordOf, int32(i+1)), append(words, text(w))
		}
	}
	var keys any = nums
	if byName {
		keys = names
	}
	return s.again(ctx, func(ctx context.Context) error {
		batch := new(pgx.Batch)
		if len(linked) > 0 {
			batch.Queue(sql.lockBodies, linked)
		}
		batch.Queue(sql.lockAccounts, keys)
		batch.Queue(sql.insert, keys, boxes, ranks, ids, threads, sizes, dates, zones, flags, heads, summaries, body, blobs, onces,
			wordOf, words, bodies, hashOf, hashes, now)
		conn, err := s.acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		res := conn.SendBatch(ctx, batch)
		err = s.inserted(res, batch.Len()-1, list)
		// The end of the batch is the end of its transaction.
		if cerr := res.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			for _, e := range list {
				e.done = false
			}
		}
		return err
	})
}

// inserted reads what became of entries, after the results of some locks.
func (s *Store) inserted(res pgx.BatchResults, locks int, list []*entry) error {
	for range locks {
		if _, err := res.Exec(); err != nil {
			return err
		}
	}
	rows, err := res.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		var e entry
		if err := rows.Scan(&n, &e.taken, &e.num, &e.uid, &e.modSeq, &e.prev, &e.validity, &e.thread, &e.words, &e.blob); err != nil {
			return err
		}
		if n < 1 || n > int64(len(list)) {
			return errors.New("pgstore: a row for a message that was not sent")
		}
		x := list[n-1]
		x.done, x.taken, x.num, x.uid, x.modSeq = true, e.taken, e.num, e.uid, e.modSeq
		x.prev, x.validity, x.thread, x.words, x.blob = e.prev, e.validity, e.thread, e.words, e.blob
	}
	return rows.Err()
}

// message is e as the Message that it became.
func (e *entry) message() store.Message {
	m := store.Message{
		UID: store.UID(e.uid), ModSeq: store.ModSeq(e.modSeq), Flags: e.p.flags, Size: e.p.size,
		InternalDate: e.p.date, SaveDate: e.p.saved, ID: e.id, ThreadID: e.thread,
	}
	if len(e.words) > 0 {
		m.Flags = store.NewFlags(e.p.flags.System, e.words...)
	}
	return m
}
