package pgqueue

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/queue"
)

const (
	// groups is how many statements with what several calls write are under
	// way: one is written while another is made durable.
	groups = 2
	// groupCalls and groupOctets bound what goes together.
	groupCalls  = 256
	groupOctets = 4 << 20
)

// newPut is a Put as rows. They are the storage's own: whoever called may be
// gone when they are written.
type newPut struct {
	call     int64
	messages []newMessage
	entries  []newEntry
	events   []newEvent
	octets   int64
	known    []bool // which messages were there already; set when it is written
}

type newMessage struct {
	id               queue.ID
	tenant, campaign string
	size             int64
	entries          int32
	json             string
	head, data       []byte
	body             *string // the ID of a large one
}

type newEntry struct {
	id, message  queue.ID
	dest, tenant string
	priority     int16
	sender, to   string
	due          time.Time
	alarm        *time.Time
	held         bool
	suspended    bool
	attempt      int32
	owner        *string
	call         int64
	json         string
}

type newEvent struct {
	id, message queue.ID // message: or, of an outcome, the entry
	json        string
}

// rows returns a Put that can go together with others, or nil: those with much
// or with bodies that go their own way take a transaction of their own, and
// those with keys, which may have to wait for somebody's.
func (s *Storage) rows(ctx context.Context, call int64, subs []*queue.Submission) (*newPut, puts, error) {
	p, done := &newPut{call: call}, make(puts, len(subs))
	seen := make(map[queue.ID]bool, len(subs))
	bodies := make(map[*staged]bool)
	for i, sub := range subs {
		m := *sub.Message
		st, ours := sub.Body.(*staged)
		ours = ours && st.s.data == s.data
		if m.Key != "" || seen[m.ID] || sub.Body.Size() > s.inline() && !ours {
			return nil, nil, nil
		}
		if ours && (st.linked || st.over || bodies[st]) {
			return nil, nil, nil
		}
		seen[m.ID] = true
		var data []byte
		var body *string
		var linked *staged
		content, id, own, err := s.bodyOf(ctx, nil, sub.Body) // which writes nothing for these
		if err != nil {
			return nil, nil, err
		}
		if own != nil {
			bodies[own], linked = true, own
		}
		if v, ok := id.(string); ok {
			body = &v
		} else if data, ok = content.([]byte); !ok {
			return nil, nil, nil
		}
		m.Size = int64(len(sub.Head)) + sub.Body.Size()
		done[i].sub, done[i].size, done[i].linked = sub, m.Size, linked
		row := newMessage{m.ID, text(m.Tenant), text(m.Campaign), m.Size, int32(len(sub.Entries)), encode(messageOf(&m)), sub.Head, data, body}
		p.messages = append(p.messages, row)
		p.octets += int64(len(sub.Head) + len(data) + len(row.json))
		for _, e := range sub.Entries {
			var owner *string
			if e.Owner != "" && !e.Held {
				o := string(e.Owner)
				owner = &o
			}
			row := newEntry{e.ID, m.ID, text(e.Lane.Dest), text(e.Lane.Tenant), int16(e.Lane.Priority), senderOf(e), recipientsOf(e),
				e.Due, never(e.Alarm), e.Held, e.Suspended, int32(e.Attempt), owner, call, encode(entryOf(e))}
			p.entries = append(p.entries, row)
			p.octets += int64(len(row.json) + len(row.to))
		}
		if s.o.KeepEvents {
			for i := range sub.Events {
				p.events = append(p.events, newEvent{sub.Events[i].ID, m.ID, encode(eventOf(&sub.Events[i]))})
			}
		}
	}
	if p.octets > groupOctets {
		return nil, nil, nil
	}
	return p, done, nil
}

// putRows writes what several Puts have in one statement, which is a
// transaction of its own: a row of messages that is there already leaves out
// what belongs to it. "IS TRUE" makes PostgreSQL look in a hash table.
const putRows = `WITH m AS (
	INSERT INTO {s}.queue_messages (id, tenant, campaign, size, entries, message, head, data, body)
	SELECT u.id, u.tenant, u.campaign, u.size, u.entries, u.message::json,
		CASE WHEN u.head > 0 THEN substr($7::bytea, u.at, u.head) END, CASE WHEN u.body IS NULL THEN substr($7::bytea, u.at + u.head, u.data) END, u.body
	FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::int[], $6::text[], $8::int[], $30::int[], $31::int[], $9::uuid[])
		AS u(id, tenant, campaign, size, entries, message, at, head, data, body)
	ON CONFLICT (id) DO NOTHING RETURNING id, body
), e AS (
	INSERT INTO {s}.queue_entries (id, message, dest, tenant, priority, sender, recipients, due, alarm, held, suspended, attempt, owner, token, call, entry)
	SELECT u.id, u.message, u.dest, u.tenant, u.priority, u.sender, u.recipients::text[], u.due, u.alarm, u.held, u.suspended, u.attempt,
		o.owner, CASE WHEN o.owner IS NULL THEN 0 ELSE 1 END, u.call, u.entry::json
	FROM unnest($10::uuid[], $11::uuid[], $12::text[], $13::text[], $14::smallint[], $15::text[], $16::text[], $17::timestamptz[], $18::timestamptz[],
			$19::boolean[], $20::boolean[], $21::int[], $22::text[], $23::bigint[], $24::text[])
		AS u(id, message, dest, tenant, priority, sender, recipients, due, alarm, held, suspended, attempt, owner, call, entry)
	LEFT JOIN {s}.queue_owners o ON o.owner = u.owner AND NOT o.dead AND o.until > coalesce($25::timestamptz, clock_timestamp())
	WHERE (u.message IN (SELECT id FROM m)) IS TRUE
), v AS (
	INSERT INTO {s}.queue_events (id, event)
	SELECT u.id, u.event::json FROM unnest($26::uuid[], $27::uuid[], $28::text[]) AS u(id, message, event)
	WHERE (u.message IN (SELECT id FROM m)) IS TRUE
), b AS (
	UPDATE {s}.queue_bodies SET staged = NULL WHERE id = ANY($29::uuid[]) AND (id IN (SELECT body FROM m)) IS TRUE
)
SELECT id FROM m`

// putTogether does what several Puts say. Should one of them not be possible,
// the others are done without it.
func (s *Storage) putTogether(ps []*newPut) []error {
	errs := make([]error, len(ps))
	err := s.tryPut(ps)
	if len(ps) > 1 && oneToBlame(err) {
		for i := range ps {
			errs[i] = s.tryPut(ps[i : i+1])
		}
	} else {
		for i := range ps {
			errs[i] = err
		}
	}
	if slices.Contains(errs, nil) {
		s.changed()
	}
	return errs
}

// oneToBlame reports whether a statement failed for what is in it, and would
// not fail with less.
func oneToBlame(err error) bool {
	c := code(err)
	if len(c) < 2 {
		return false
	}
	switch c[:2] {
	case "21", "22", "23", "54": // cardinality, data, constraint, program limit
		return true
	}
	return false
}

// column returns one column of rows.
func column[R, V any](rows []R, of func(*R) V) []V {
	out := make([]V, len(rows))
	for i := range rows {
		out[i] = of(&rows[i])
	}
	return out
}

func (s *Storage) tryPut(ps []*newPut) error {
	var ms []newMessage
	var es []newEntry
	var vs []newEvent
	bodies := []string{}
	for _, p := range ps {
		ms, es, vs = append(ms, p.messages...), append(es, p.entries...), append(vs, p.events...)
	}
	// Heads and bodies are one value, and where in it they are: that is copied
	// less often than many values on their way to the server.
	total := 0
	for i := range ms {
		total += len(ms[i].head) + len(ms[i].data)
	}
	content, at := make([]byte, 0, total), make([]int32, len(ms))
	for i := range ms {
		at[i] = int32(len(content)) + 1
		content = append(append(content, ms[i].head...), ms[i].data...)
		if ms[i].body != nil {
			bodies = append(bodies, *ms[i].body)
		}
	}
	ids, err := s.together(s.putSQL,
		column(ms, func(m *newMessage) string { return uuid(m.id) }),
		column(ms, func(m *newMessage) string { return m.tenant }),
		column(ms, func(m *newMessage) string { return m.campaign }),
		column(ms, func(m *newMessage) int64 { return m.size }),
		column(ms, func(m *newMessage) int32 { return m.entries }),
		column(ms, func(m *newMessage) string { return m.json }),
		content, at,
		column(ms, func(m *newMessage) *string { return m.body }),
		column(es, func(e *newEntry) string { return uuid(e.id) }),
		column(es, func(e *newEntry) string { return uuid(e.message) }),
		column(es, func(e *newEntry) string { return e.dest }),
		column(es, func(e *newEntry) string { return e.tenant }),
		column(es, func(e *newEntry) int16 { return e.priority }),
		column(es, func(e *newEntry) string { return e.sender }),
		column(es, func(e *newEntry) string { return e.to }),
		column(es, func(e *newEntry) time.Time { return e.due }),
		column(es, func(e *newEntry) *time.Time { return e.alarm }),
		column(es, func(e *newEntry) bool { return e.held }),
		column(es, func(e *newEntry) bool { return e.suspended }),
		column(es, func(e *newEntry) int32 { return e.attempt }),
		column(es, func(e *newEntry) *string { return e.owner }),
		column(es, func(e *newEntry) int64 { return e.call }),
		column(es, func(e *newEntry) string { return e.json }),
		s.now(),
		column(vs, func(v *newEvent) string { return uuid(v.id) }),
		column(vs, func(v *newEvent) string { return uuid(v.message) }),
		column(vs, func(v *newEvent) string { return v.json }),
		bodies,
		column(ms, func(m *newMessage) int32 { return int32(len(m.head)) }),
		column(ms, func(m *newMessage) int32 { return int32(len(m.data)) }))
	if err != nil {
		return err
	}
	for _, p := range ps {
		p.known = make([]bool, len(p.messages))
		for i := range p.messages {
			_, written := ids[p.messages[i].id]
			p.known[i] = !written
		}
	}
	return nil
}

// together runs a statement that is for several calls, and returns the IDs it
// gives.
func (s *Storage) together(sql string, args ...any) (map[queue.ID]struct{}, error) {
	ctx, cancel := s.bounded(context.Background())
	defer cancel()
	conn, err := s.acquire(ctx)
	if err != nil {
		return nil, fail(err)
	}
	defer conn.Release()
	for tries := 0; ; tries++ {
		rows, err := conn.Query(ctx, sql, args...)
		if err == nil {
			ids := make(map[queue.ID]struct{})
			var id [16]byte
			if _, err = pgx.ForEachRow(rows, []any{&id}, func() error { ids[id] = struct{}{}; return nil }); err == nil {
				return ids, nil
			}
		}
		if c := code(err); (c == deadlock || c == serialization) && tries < 5 && ctx.Err() == nil {
			continue
		}
		return nil, fail(err)
	}
}

// ended is a Finish that leaves nothing of its entry, as rows.
type ended struct {
	id     queue.ID
	owner  string
	token  int64
	to     int32 // how many recipients it had
	events []newEvent
}

// errAlone: a Finish takes a transaction of its own, perhaps to fail.
var errAlone = errors.New("pgqueue: to be done alone")

// endsOf returns an outcome that can go together with others.
func (s *Storage) endsOf(out *queue.Outcome) (*ended, bool) {
	e := out.Lease.Entry
	if len(out.Put) > 0 || len(out.Done) != len(e.Envelope.To) || len(out.Last) > 0 {
		return nil, false
	}
	for i, n := range out.Done {
		if n != i {
			return nil, false
		}
	}
	v := &ended{id: e.ID, owner: string(out.Lease.Owner), token: out.Lease.Token, to: int32(len(out.Done))}
	if s.o.KeepEvents {
		for i := range out.Events {
			v.events = append(v.events, newEvent{out.Events[i].ID, e.ID, encode(eventOf(&out.Events[i]))})
		}
	}
	return v, true
}

// endRows deletes entries. A message that has no others goes with them, unless
// its body is large: who has that open may read it to its end. Messages with
// other entries are locked in their order: so do other nodes.
const endRows = `WITH gone AS (
	DELETE FROM {s}.queue_entries e USING unnest($1::uuid[], $2::text[], $3::bigint[], $4::int[]) AS u(id, owner, token, n)
	WHERE e.id = u.id AND e.owner = u.owner AND e.token = u.token AND cardinality(e.recipients) = u.n
		AND (u.owner IN (SELECT owner FROM {s}.queue_owners WHERE NOT dead AND until > coalesce($5::timestamptz, clock_timestamp()))) IS TRUE
	RETURNING e.id, e.message
), n AS (
	SELECT m.id, g.n, m.entries = g.n AND m.body IS NULL AS last
	FROM (SELECT message, count(*)::int AS n FROM gone GROUP BY message) g JOIN {s}.queue_messages m ON m.id = g.message
), d AS (
	DELETE FROM {s}.queue_messages m USING n WHERE m.id = n.id AND n.last
), l AS (
	SELECT m.id, n.n FROM n JOIN {s}.queue_messages m ON m.id = n.id WHERE NOT n.last ORDER BY m.id FOR NO KEY UPDATE OF m
), w AS (
	UPDATE {s}.queue_messages m SET entries = m.entries - l.n, done = CASE WHEN m.entries = l.n THEN clock_timestamp() END FROM l WHERE m.id = l.id
), v AS (
	INSERT INTO {s}.queue_events (id, event)
	SELECT u.id, u.event::json FROM unnest($6::uuid[], $7::uuid[], $8::text[]) AS u(id, entry, event)
	WHERE (u.entry IN (SELECT id FROM gone)) IS TRUE
)
SELECT id FROM gone`

func (s *Storage) endTogether(es []*ended) []error {
	errs := make([]error, len(es))
	var vs []newEvent
	for _, e := range es {
		vs = append(vs, e.events...)
	}
	ids, err := s.together(s.endSQL,
		column(es, func(e **ended) string { return uuid((*e).id) }),
		column(es, func(e **ended) string { return (*e).owner }),
		column(es, func(e **ended) int64 { return (*e).token }),
		column(es, func(e **ended) int32 { return (*e).to }),
		s.now(),
		column(vs, func(v *newEvent) string { return uuid(v.id) }),
		column(vs, func(v *newEvent) string { return uuid(v.message) }),
		column(vs, func(v *newEvent) string { return v.json }))
	if oneToBlame(err) {
		err, ids = nil, nil
	}
	for i, e := range es {
		if errs[i] = err; err == nil {
			if _, ok := ids[e.id]; !ok {
				errs[i] = errAlone
			}
		}
	}
	return errs
}
