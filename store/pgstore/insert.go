package pgstore

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
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
func (p *prepared) plain() bool {
	return p.fresh && p.thread == "" &&
		!slices.ContainsFunc(p.flags.Keywords, func(k string) bool { return k == "" || !storable(k) || strings.Contains(k, "\n") })
}

// insertSQL stores messages in any number of mailboxes. It runs as the last of
// a batch, in whose transaction their accounts are locked already: so what it
// sees is the latest, and it is the only one that runs under the lock. Either
// all messages for an account are stored or none is, and those that are not
// come back in no row. No two messages for one account share a Message-ID.
//
// What is looked up for each message is so by a subquery with a LIMIT, so that
// it is an index's work however many messages there are.
const insertSQL = `WITH i AS MATERIALIZED (
	SELECT u.*, a.num AS account, a.modseq + u.rank AS modseq, a.quota, a.used, b.num AS mailbox, b.modseq AS prev, b.uidnext, b.uidvalidity, b.keywords,
		u.once IS NOT NULL AND (SELECT true FROM {s}.deliveries d WHERE d.account = a.num AND d.hash = u.once LIMIT 1) IS NOT NULL AS taken,
		u.blob = 0 OR (SELECT true FROM {s}.blobs x WHERE x.num = u.blob LIMIT 1) IS NOT NULL AS there,
		CASE WHEN u.words <> '' THEN ARRAY(SELECT (SELECT x.n FROM unnest(b.keywords) WITH ORDINALITY AS x(word, n)
			WHERE lower(x.word COLLATE "C") = lower(w.word COLLATE "C") LIMIT 1)::smallint AS n
			FROM unnest(string_to_array(u.words, chr(10))) AS w(word) ORDER BY n) END AS numbers,
		(SELECT x.thread FROM unnest(string_to_array(u.hashes, ' ')) WITH ORDINALITY AS h(hash, n),
			LATERAL (SELECT t.thread FROM {s}.threads t WHERE t.account = a.num AND t.hash = decode(h.hash, 'hex') LIMIT 1) x
			ORDER BY h.n LIMIT 1) AS known
	FROM unnest($1::{type}[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[], $8::smallint[],
			$9::smallint[], $10::bytea[], $11::bytea[], $12::int[], $13::bigint[], $14::bytea[], $15::text[], $16::text[])
		WITH ORDINALITY AS u(key, box, rank, id, thread, size, date, zone, flags, head, summary, body, blob, once, words, hashes, n)
	CROSS JOIN LATERAL (SELECT * FROM {s}.accounts a WHERE a.{key} = u.key LIMIT 1) a
	LEFT JOIN LATERAL (SELECT * FROM {s}.mailboxes b WHERE b.account = a.num AND b.id = u.box LIMIT 1) b ON true
), bodies AS MATERIALIZED (
	SELECT u.n, u.data, nextval('{q}.blobs_num_seq') AS num FROM unnest($17::bytea[]) WITH ORDINALITY AS u(data, n)
), m AS MATERIALIZED (
	SELECT f.account, f.mailbox, f.modseq, f.n, f.id, coalesce(f.known, f.thread) AS thread, f.size, f.date, f.zone, f.flags, f.head, f.summary,
		f.once, f.hashes, f.prev, f.uidvalidity, f.keywords, f.numbers, f.body,
		nextval('{q}.contents_num_seq') AS content, coalesce(b.num, f.blob) AS blob,
		f.uidnext - 1 + row_number() OVER (PARTITION BY f.mailbox ORDER BY f.n) AS uid
	FROM (SELECT i.*, sum(i.size) FILTER (WHERE NOT i.taken) OVER w AS added,
			bool_and(i.taken OR i.mailbox IS NOT NULL AND i.there AND i.uidnext < 4294000000
				AND (i.numbers IS NULL OR array_position(i.numbers, NULL) IS NULL)) OVER w AS fits
		FROM i WINDOW w AS (PARTITION BY i.account)) f LEFT JOIN bodies b ON b.n = f.body
	WHERE f.fits AND NOT f.taken AND (f.quota = 0 OR f.added = 0 OR f.used + f.added <= f.quota)
), store_bodies AS (
	INSERT INTO {s}.blobs (num, size, data) OVERRIDING SYSTEM VALUE SELECT num, length(data), data FROM bodies WHERE n IN (SELECT body FROM m)
), link AS (
	UPDATE {s}.blobs b SET pending = NULL WHERE b.num = ANY($13::bigint[]) AND b.pending IS NOT NULL AND b.num IN (SELECT blob FROM m)
), store_threads AS (
	INSERT INTO {s}.threads (account, hash, thread) SELECT m.account, decode(h.hash, 'hex'), m.thread
	FROM m, unnest(string_to_array(m.hashes, ' ')) AS h(hash)
	ON CONFLICT (account, hash) DO NOTHING
), store_contents AS (
	INSERT INTO {s}.contents (num, account, id, thread, size, refs, head, summary, blob) OVERRIDING SYSTEM VALUE
	SELECT content, account, id, thread, size, 1, head, summary, blob FROM m
), store_messages AS (
	INSERT INTO {s}.messages (mailbox, uid, modseq, content, id, size, date, saved, zone, flags, keywords)
	SELECT mailbox, uid, modseq, content, id, size, date, $18::timestamptz, zone, flags, numbers FROM m
), store_once AS (
	INSERT INTO {s}.deliveries (account, hash) SELECT account, once FROM m WHERE once IS NOT NULL
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
SELECT n, false, account, uid, modseq, prev, uidvalidity, thread, blob, CASE WHEN numbers IS NOT NULL THEN ARRAY(SELECT keywords[k] FROM unnest(numbers) k) END FROM m
UNION ALL SELECT n, true, account, 0::bigint, 0::bigint, 0::bigint, 0::bigint, '', 0::bigint, NULL FROM i WHERE taken`

// Locks are taken before the statement is: in one order, so that two batches
// never wait for one another in a circle, and by statements of their own, so
// that the one that follows sees what those who had them have done.
const (
	lockBodiesSQL   = `SELECT num FROM {s}.blobs WHERE num = ANY($1::bigint[]) ORDER BY num FOR KEY SHARE`
	lockAccountsSQL = `SELECT num, ` + byIndexSQL + ` FROM {s}.accounts WHERE {key} = ANY($1::{type}[]) ORDER BY num FOR UPDATE`
)

// byIndexSQL makes the rest of a transaction use indexes, and one plan for each
// statement. That may be made when tables are small, and is kept until they are
// not; to plan anew each time, or to compile the plan, costs more than to store
// a few messages.
const byIndexSQL = `(SELECT set_config('enable_seqscan', 'off', true) || set_config('plan_cache_mode', 'force_generic_plan', true) ||
	set_config('jit', 'off', true))`

// statements are those of insert, for accounts by number or by name.
type statements struct{ lockBodies, lockAccounts, insert string }

func (s *Store) statements(key, kind string) statements {
	r := strings.NewReplacer("{key}", key, "{type}", kind)
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
	var body []int32
	words, hashes := make([]string, 0, n), make([]string, 0, n)
	var bodies [][]byte
	var linked []int64
	known := make(map[*byte]int32) // a body that several share goes there once
	now := time.Now().UTC().Truncate(time.Microsecond)
	for _, e := range list {
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
		words, hashes = append(words, strings.Join(p.flags.Keywords, "\n")), append(hashes, hexes(p.ids))
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
		batch.Queue(sql.insert, keys, boxes, ranks, ids, threads, sizes, dates, zones, flags, heads, summaries, body, blobs, onces, words, hashes, bodies, now)
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

// hexes are hashes as the statement splits them.
func hexes(hashes [][]byte) string {
	var b []byte
	for i, h := range hashes {
		if i > 0 {
			b = append(b, ' ')
		}
		b = hex.AppendEncode(b, h)
	}
	return string(b)
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
		if err := rows.Scan(&n, &e.taken, &e.num, &e.uid, &e.modSeq, &e.prev, &e.validity, &e.thread, &e.blob, &e.words); err != nil {
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
