package pgqueue

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/queue"
)

// keyLife is how long an idempotency key is known.
const keyLife = 72 * time.Hour

var (
	errSubmission = errors.New("pgqueue: a submission needs a message with an ID, a body and entries with IDs")
	errBody       = errors.New("pgqueue: reading a body")
)

// Put implements queue.Storage.
func (s *Storage) Put(ctx context.Context, subs ...*queue.Submission) error {
	if err := check(subs); err != nil {
		return err
	}
	if err := s.endAll(ctx, subs); err != nil {
		return err
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	call := newCall()
	rows, done, err := s.rows(ctx, call, subs)
	if rows != nil {
		if err = fail(s.puts.do(ctx, rows, rows.octets)); err != nil {
			s.failed(call, err)
			return err
		}
		for i, known := range rows.known {
			if done[i].known = known; known {
				done[i].linked = nil
			}
		}
		done.apply()
		return nil
	}
	if err != nil {
		return fail(err)
	}
	err = s.transact(ctx, func(ctx context.Context, t pgx.Tx) (err error) {
		done, err = s.put(ctx, &pgxTx{tx: t}, call, subs)
		return err
	})
	if err != nil {
		s.failed(call, err)
		return err
	}
	done.apply()
	if done.stored() {
		s.changed()
	}
	return nil
}

// PutTx is Put within a transaction of the caller's: all of it is queued if,
// and only if, that commits. It writes no row that other messages have, so
// that transactions do not wait for one another, except those with the same
// idempotency key. Other nodes find it by themselves within a second; Notify,
// after the commit, is faster.
//
// Duplicate, Message.ID and Message.Size are set as Put sets them. The bodies
// become the storage's; the caller closes them all the same after a rollback.
func (s *Storage) PutTx(ctx context.Context, t pgx.Tx, subs ...*queue.Submission) error {
	return s.putTx(ctx, &pgxTx{tx: t}, subs)
}

// PutSQL is PutTx for database/sql, with any driver for PostgreSQL.
func (s *Storage) PutSQL(ctx context.Context, t *sql.Tx, subs ...*queue.Submission) error {
	return s.putTx(ctx, sqlTx{t}, subs)
}

func (s *Storage) putTx(ctx context.Context, t tx, subs []*queue.Submission) error {
	if err := check(subs); err != nil {
		return err
	}
	done, err := s.put(ctx, t, newCall(), subs)
	if err != nil {
		return fail(err)
	}
	done.apply()
	return nil
}

// Notify wakes the queues of all nodes, after a PutTx was committed.
func (s *Storage) Notify() { s.changed() }

func check(subs []*queue.Submission) error {
	for _, sub := range subs {
		if sub.Message == nil || sub.Message.ID.IsZero() || sub.Body == nil || len(sub.Entries) == 0 {
			return errSubmission
		}
		for _, e := range sub.Entries {
			if e.ID.IsZero() || len(e.Envelope.To) == 0 {
				return errSubmission
			}
		}
	}
	return nil
}

// puts is what a put tells its caller once it is over: a transaction that is
// run again must find submissions as they were.
type puts []struct {
	sub       *queue.Submission
	size      int64
	duplicate queue.ID // zero = it is none
	known     bool     // it was there already
	linked    *staged  // its body is the storage's now
}

func (p puts) apply() {
	for i := range p {
		sub := p[i].sub
		if !p[i].duplicate.IsZero() {
			sub.Duplicate, sub.Message.ID = true, p[i].duplicate
		} else if !p[i].known {
			sub.Message.Size = p[i].size
		}
		if b := p[i].linked; b != nil {
			b.linked = true
		}
		sub.Body.Close() // what was staged for nothing, or was copied
	}
}

func (p puts) stored() bool {
	for i := range p {
		if !p[i].known && p[i].duplicate.IsZero() {
			return true
		}
	}
	return false
}

func (s *Storage) put(ctx context.Context, t tx, call int64, subs []*queue.Submission) (_ puts, err error) {
	done := make(puts, len(subs))
	bodies := make(map[*staged]queue.ID)
	for i, sub := range subs {
		p := &done[i]
		p.sub = sub
		m := *sub.Message
		if m.Key != "" {
			id, err := s.claimKey(ctx, t, &m)
			if err != nil {
				return nil, err
			}
			if id != m.ID {
				p.duplicate = id
				continue
			}
		}
		if st, ok := sub.Body.(*staged); ok {
			if other, ok := bodies[st]; ok && other != m.ID {
				return nil, errClosed // a body of ours is stored once
			}
			bodies[st] = m.ID
		}
		if st, ok := sub.Body.(*staged); ok && (st.linked || st.over) {
			// Perhaps a Put that is done again.
			var n int
			if p.known, err = t.row(ctx, s.sql(`SELECT 1 FROM {s}.queue_messages WHERE id = $1`), []any{uuid(m.ID)}, &n); err != nil {
				return nil, err
			}
			if !p.known {
				return nil, errClosed
			}
			continue
		}
		data, body, linked, err := s.bodyOf(ctx, t, sub.Body)
		if err != nil {
			return nil, err
		}
		m.Size = int64(len(sub.Head)) + sub.Body.Size()
		n, err := t.exec(ctx, s.sql(`INSERT INTO {s}.queue_messages (id, tenant, campaign, size, entries, message, head, data, body)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING`),
			uuid(m.ID), text(m.Tenant), text(m.Campaign), m.Size, len(sub.Entries), encode(messageOf(&m)), none(sub.Head), data, body)
		if err != nil {
			return nil, err
		}
		p.size, p.linked = m.Size, linked
		if n == 0 {
			p.known, p.linked = true, nil
			continue
		}
		if linked != nil && linked.large() {
			if err := t.later(ctx, s.sql(`UPDATE {s}.queue_bodies SET staged = NULL WHERE id = $1`), uuid(linked.id)); err != nil {
				return nil, err
			}
		}
		for _, e := range sub.Entries {
			if err := s.putEntry(ctx, t, call, &m, e); err != nil {
				return nil, err
			}
		}
		if err := s.logEvents(ctx, t, sub.Events); err != nil {
			return nil, err
		}
	}
	return done, t.flush(ctx)
}

// claimKey returns the ID of the message that has the key: m's own when it is
// new.
func (s *Storage) claimKey(ctx context.Context, t tx, m *queue.Message) (queue.ID, error) {
	var held string
	won, err := t.row(ctx, s.sql(`INSERT INTO {s}.queue_keys AS k (tenant, key, message, expires)
		VALUES ($1, $2, $3, coalesce($4::timestamptz, clock_timestamp()) + $5 * interval '1 second')
		ON CONFLICT (tenant, key) DO UPDATE SET message = EXCLUDED.message, expires = EXCLUDED.expires
			WHERE k.expires <= coalesce($4::timestamptz, clock_timestamp()) RETURNING message::text`),
		[]any{text(m.Tenant), text(m.Key), uuid(m.ID), s.now(), int64(keyLife / time.Second)}, &held)
	if err != nil || won {
		return m.ID, err
	}
	if _, err := t.row(ctx, s.sql(`SELECT message::text FROM {s}.queue_keys WHERE tenant = $1 AND key = $2`), []any{text(m.Tenant), text(m.Key)}, &held); err != nil {
		return m.ID, err
	}
	return parseUUID(held)
}

func parseUUID(s string) (id queue.ID, err error) {
	if b, err := hex.DecodeString(strings.ReplaceAll(s, "-", "")); err == nil && len(b) == len(id) {
		copy(id[:], b)
		return id, nil
	}
	return id, fmt.Errorf("pgqueue: damaged ID %q", s)
}

// putEntry stores an entry, born leased if its owner lives.
func (s *Storage) putEntry(ctx context.Context, t tx, call int64, m *queue.Message, e *queue.Entry) error {
	var owner any
	if e.Owner != "" && !e.Held {
		owner = string(e.Owner)
	}
	recipients := recipientsOf(e)
	return t.later(ctx, s.sql(`INSERT INTO {s}.queue_entries (id, message, dest, tenant, priority, sender, recipients, due, alarm, held, suspended, attempt, owner, token, call, entry)
		SELECT $1::uuid, $2::uuid, $3, $4, $5::smallint, $6, $7::text[], $8::timestamptz, $9::timestamptz, $10::boolean, $11::boolean, $12::int, o.owner, CASE WHEN o.owner IS NULL THEN 0 ELSE 1 END, $16::bigint, $13::json
		FROM (SELECT 1) one LEFT JOIN {s}.queue_owners o ON o.owner = $14::text AND NOT o.dead AND o.until > coalesce($15::timestamptz, clock_timestamp())`),
		uuid(e.ID), uuid(m.ID), text(e.Lane.Dest), text(e.Lane.Tenant), int64(e.Lane.Priority), senderOf(e), recipients, e.Due, never(e.Alarm), e.Held, e.Suspended, int64(e.Attempt),
		encode(entryOf(e)), owner, s.now(), call)
}

func senderOf(e *queue.Entry) string {
	if e.Envelope.From.IsZero() {
		return ""
	}
	return text(e.Envelope.From.String())
}

var quoteElement = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// recipientsOf is an array as PostgreSQL reads it.
func recipientsOf(e *queue.Entry) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, r := range e.Envelope.To {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"` + quoteElement.Replace(text(r.Address.String())) + `"`)
	}
	b.WriteByte('}')
	return b.String()
}

func never(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func none(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

// text makes a string one that PostgreSQL takes.
func text(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\ufffd"), "\ufffd")
}

// bodyOf returns what goes into a message's row: a small body, or the ID of a
// large one. One that is not ours is copied, a large one within t.
func (s *Storage) bodyOf(ctx context.Context, t tx, b queue.Staged) (data, body any, linked *staged, err error) {
	if st, ok := b.(*staged); ok && st.s.data == s.data {
		if err := st.end(ctx); err != nil {
			return nil, nil, nil, err
		}
		if st.large() {
			return nil, uuid(st.id), st, nil
		}
		return st.buf, nil, st, nil
	}
	size := b.Size()
	buf := make([]byte, min(size, s.inline()))
	if size <= s.inline() {
		if _, err := io.ReadFull(io.NewSectionReader(b, 0, size), buf); err != nil {
			return nil, nil, nil, fmt.Errorf("%w: %w", errBody, err)
		}
		return buf, nil, nil, nil
	}
	id := queue.NewID()
	if s.o.Blobs != nil {
		return nil, uuid(id), nil, s.copyObject(ctx, t, id, b)
	}
	if err := t.later(ctx, s.sql(`INSERT INTO {s}.queue_bodies (id) VALUES ($1)`), uuid(id)); err != nil {
		return nil, nil, nil, err
	}
	for n, off := 0, int64(0); off < size; n++ {
		part := make([]byte, min(size-off, chunk))
		if _, err := io.ReadFull(io.NewSectionReader(b, off, int64(len(part))), part); err != nil {
			return nil, nil, nil, fmt.Errorf("%w: %w", errBody, err)
		}
		if _, err := t.exec(ctx, s.sql(`INSERT INTO {s}.queue_chunks (body, n, data) VALUES ($1, $2, $3)`), uuid(id), n, part); err != nil {
			return nil, nil, nil, err
		}
		off += int64(len(part))
	}
	return nil, uuid(id), nil, nil
}
