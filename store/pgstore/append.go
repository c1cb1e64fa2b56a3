package pgstore

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/store"
)

// maxReferences bounds what one message adds to the table of threads.
const maxReferences = 100

// prepared is a Draft ready to become a row.
type prepared struct {
	id      string // of a content that may be there already; "" = a new one
	fresh   bool   // id is not there already, as far as we know
	thread  string // "" = by ids
	head    []byte
	size    int64 // of head and body
	blob    int64 // 0 = data is stored with the message
	data    []byte
	summary []byte
	ids     [][]byte // hashes of Message-ID and References, each once
	flags   store.Flags
	date    time.Time
	saved   time.Time // by insert
}

// prepare reads a Draft's body, before any lock is taken. A body larger than a
// row is stored by it.
func (s *Store) prepare(ctx context.Context, d store.Draft) (*prepared, func(), error) {
	p := &prepared{fresh: true, head: d.Head, size: int64(len(d.Head)), summary: d.Summary, flags: store.NewFlags(d.Flags.System, d.Flags.Keywords...), date: d.InternalDate}
	if d.Body != nil {
		p.size += d.Body.Size()
	}
	if s.o.MessageSize > 0 && p.size > s.o.MessageSize || p.size > math.MaxInt64/2 {
		return nil, nil, store.ErrTooBig
	}
	for _, id := range append([]string{d.MessageID}, d.References...) {
		if id != "" && len(p.ids) < maxReferences {
			sum := sha256.Sum256([]byte(id))
			if !slices.ContainsFunc(p.ids, func(o []byte) bool { return string(o) == string(sum[:16]) }) {
				p.ids = append(p.ids, sum[:16])
			}
		}
	}
	drop := func() {}
	switch b := d.Body.(type) {
	case nil:
		p.data = []byte{}
	case *opened:
		if b.s.data != s.data {
			return p, drop, s.copyBody(ctx, p, d.Body, &drop)
		}
		p.link(b.content, d.Head)
	case *content:
		if b.s.data != s.data {
			return p, drop, s.copyBody(ctx, p, d.Body, &drop)
		}
		p.link(b, d.Head)
	case *staged:
		if b.s.data != s.data {
			return p, drop, s.copyBody(ctx, p, d.Body, &drop)
		}
		if err := b.end(ctx); err != nil {
			return nil, nil, err
		}
		p.blob, p.data = b.blob, b.buf
		if b.blob != 0 {
			p.data = nil
			b.linked = true // whether it becomes so or not: the sweep knows
		}
		if len(d.Head) == 0 {
			p.id = b.id
			p.fresh = !b.given.Swap(true)
		}
	default:
		return p, drop, s.copyBody(ctx, p, d.Body, &drop)
	}
	return p, drop, nil
}

// link makes p a message over the body of c.
func (p *prepared) link(c *content, head []byte) {
	p.blob, p.thread, p.data = c.blob, c.thread, nil
	if len(head) == 0 {
		p.id, p.head, p.fresh = c.id, c.head, false
	} else {
		p.head = slices.Concat(head, c.head)
	}
}

// copyBody reads a body that is not ours.
func (s *Store) copyBody(ctx context.Context, p *prepared, b store.Body, drop *func()) error {
	size := b.Size()
	r := io.NewSectionReader(b, 0, size)
	if size <= s.inline() {
		p.data = make([]byte, size)
		if _, err := io.ReadFull(r, p.data); err != nil {
			return bodyError{unexpected(err)}
		}
		return nil
	}
	st, err := s.Stage(ctx, size)
	if err != nil {
		return err
	}
	*drop = func() { st.Close() }
	if n, err := io.Copy(st, r); err != nil || n < size {
		st.Close()
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		if known(err) {
			return err
		}
		return bodyError{err}
	}
	x := st.(*staged)
	if err := x.end(ctx); err != nil {
		st.Close()
		return err
	}
	p.blob, p.data = x.blob, nil
	return nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// prepareAll prepares several; drop gives back what no message came to use.
func (s *Store) prepareAll(ctx context.Context, d []store.Draft) (out []*prepared, drop func(), err error) {
	var drops []func()
	drop = func() {
		for _, f := range drops {
			f()
		}
	}
	for i := range d {
		p, f, err := s.prepare(ctx, d[i])
		if err != nil {
			drop()
			return nil, nil, err
		}
		drops = append(drops, f)
		out = append(out, p)
	}
	return out, drop, nil
}

// Append implements store.Account.
func (a *account) Append(ctx context.Context, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
	return a.add(ctx, box, nil, d, o)
}

// add is Append, or Import when UIDs are given.
func (a *account) add(ctx context.Context, box store.MailboxID, uids []store.UID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
	ready, drop, err := a.s.prepareAll(ctx, d)
	if err != nil {
		return store.Appended{}, err
	}
	defer drop()
	if uids == nil && o.Replace.UID == 0 && plain(ready) {
		if out, done, err := a.join(ctx, box, ready); done {
			return out, err
		}
	}
	var out store.Appended
	err = a.write(ctx, []store.MailboxID{box}, func(w *write) (err error) {
		out, err = w.append(box, uids, ready, o)
		return err
	})
	if err != nil {
		return store.Appended{}, err
	}
	return out, nil
}

// plain reports whether one statement can store all of d.
func plain(d []*prepared) bool {
	size := 0
	for _, p := range d {
		if !p.plain() {
			return false
		}
		size += len(p.data)
	}
	return len(d) > 0 && size <= plainBytes && unshared(d)
}

func (w *write) append(id store.MailboxID, uids []store.UID, d []*prepared, o store.AppendOptions) (store.Appended, error) {
	b, err := w.box(id)
	if err != nil {
		return store.Appended{}, err
	}
	next := b.next
	var passed store.UIDSet // UIDs that are given to nobody
	for _, uid := range uids {
		if int64(uid) < next {
			return store.Appended{}, store.ErrExist
		}
		if int64(uid) > next {
			passed.AddRange(store.UID(next), uid-1)
		}
		next = int64(uid) + 1
	}
	if uids == nil {
		next += int64(len(d))
	}
	if next > int64(store.MaxUID) {
		return store.Appended{}, store.ErrLimit
	}

	// What is replaced goes first, so that the quota is net.
	from := b // the mailbox of what is replaced
	prev, fromPrev := b.modSeq, b.modSeq
	var old removed
	if o.Replace.UID != 0 {
		if o.Replace.Box != id {
			if from, err = w.box(o.Replace.Box); err != nil {
				return store.Appended{}, err
			}
			fromPrev = from.modSeq
		}
		if old, err = w.take(from, store.UIDs(o.Replace.UID), false, false); err != nil {
			return store.Appended{}, err
		}
		if old.uids.Empty() {
			return store.Appended{}, store.ErrNotExist
		}
	}
	var size int64
	for _, p := range d {
		size += p.size
	}
	if err := w.room(size, old.size); err != nil {
		return store.Appended{}, err
	}
	r := store.Appended{UIDValidity: b.validity, Commit: b.commitOf(prev)}
	if o.Replace.UID != 0 {
		r.Replaced = from.commitOf(fromPrev)
	}
	if len(d) == 0 && old.uids.Empty() {
		return r, nil
	}
	modSeq := w.commit()
	if len(d) > 0 {
		b.modSeq = modSeq
		if r.Messages, err = w.insert(b, uids, d); err != nil {
			return store.Appended{}, err
		}
		w.bury(b, passed)
	}
	if from != b {
		w.save(from)
	}
	r.Commit = b.commitOf(prev)
	w.save(b)
	return r, nil
}

// insert stores d as new messages of b and returns them.
func (w *write) insert(b *box, uids []store.UID, d []*prepared) ([]store.Message, error) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	out := make([]store.Message, len(d))
	contents := make([]int64, len(d))
	for i, p := range d {
		id, thread, num, err := w.content(p, 1)
		if err != nil {
			return nil, err
		}
		contents[i] = num
		uid := b.next
		if uids != nil {
			uid = int64(uids[i])
		}
		b.next = uid + 1
		date := p.date
		if date.IsZero() {
			date = now
		}
		out[i] = store.Message{
			UID: store.UID(uid), ModSeq: store.ModSeq(b.modSeq), Flags: p.flags, Size: p.size,
			InternalDate: date, SaveDate: now, ID: id, ThreadID: thread,
		}
	}
	for i, p := range d {
		m := &out[i]
		numbers, err := w.number(b, p.flags.Keywords)
		if err != nil {
			return nil, err
		}
		if len(numbers) > 0 {
			m.Flags = b.flags(p.flags.System, numbers)
		}
		date, zone := instant(m.InternalDate)
		w.exec(`INSERT INTO {s}.messages (mailbox, uid, modseq, content, id, size, date, saved, zone, flags, keywords)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
			b.num, int64(m.UID), b.modSeq, contents[i], m.ID, m.Size, date, m.SaveDate, zone, int16(m.Flags.System), numbers)
		b.count(m.Flags.System, m.Size, 1)
	}
	return out, nil
}

// content stores what a message says, or finds it, for n more messages.
func (w *write) content(p *prepared, n int) (id, thread string, num int64, err error) {
	if p.id != "" {
		err = w.row(`UPDATE {s}.contents SET refs = refs + $3, expunged = NULL WHERE account = $1 AND id = $2 RETURNING id, thread, num`,
			w.a.num, p.id, n).Scan(&id, &thread, &num)
		if !errors.Is(err, pgx.ErrNoRows) {
			return id, thread, num, err
		}
	}
	if id = p.id; id == "" {
		id = newID('m')
	}
	if thread, err = w.thread(p); err != nil {
		return "", "", 0, err
	}
	blob := p.blob
	if blob != 0 {
		// Locked, so that the sweep leaves it.
		err := w.row(`SELECT num FROM {s}.blobs WHERE num = $1::bigint FOR KEY SHARE`, blob).Scan(&blob)
		if errors.Is(err, pgx.ErrNoRows) {
			err = errSwept
		}
		if err != nil {
			return "", "", 0, err
		}
	} else {
		// Several accounts may share it: whoever stores it first tells.
		if err := w.row(`INSERT INTO {s}.blobs (size, data) VALUES ($1, $2) RETURNING num`, len(p.data), p.data).Scan(&blob); err != nil {
			return "", "", 0, err
		}
	}
	err = w.row(`WITH b AS (UPDATE {s}.blobs SET pending = NULL WHERE num = $8 AND pending IS NOT NULL)
		INSERT INTO {s}.contents (account, id, thread, size, refs, head, summary, blob) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING num`,
		w.a.num, id, thread, p.size, n, none(p.head), none(p.summary), blob).Scan(&num)
	return id, thread, num, err
}

func none(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// thread returns the thread of a new message: that of a message it refers to
// or is referred to by, else a new one (RFC 8474 §5.2).
func (w *write) thread(p *prepared) (string, error) {
	thread := p.thread
	if len(p.ids) == 0 {
		if thread == "" {
			thread = newID('t')
		}
		return thread, nil
	}
	if thread == "" {
		// The first that is known, in the order of p.ids.
		err := w.row(`SELECT t.thread FROM unnest($2::bytea[]) WITH ORDINALITY AS i(hash, n) JOIN {s}.threads t ON t.account = $1 AND t.hash = i.hash
			ORDER BY i.n LIMIT 1`, w.a.num, p.ids).Scan(&thread)
		if errors.Is(err, pgx.ErrNoRows) {
			thread, err = newID('t'), nil
		}
		if err != nil {
			return "", err
		}
	}
	w.exec(`INSERT INTO {s}.threads (account, hash, thread) SELECT $1::bigint, hash, $3::text FROM unnest($2::bytea[]) AS i(hash)
		ON CONFLICT (account, hash) DO NOTHING`, w.a.num, p.ids, thread)
	return thread, nil
}
