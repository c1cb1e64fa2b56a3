package pgqueue

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/internal/objects"
	"github.com/postrider/postrider/queue"
)

// chunk is the greatest body that is kept in one row, and how much of a larger
// one each row has, in octets.
const chunk = 256 << 10

var (
	errClosed  = errors.New("pgqueue: body is closed or stored")
	errDamaged = errors.New("pgqueue: a body is damaged: some of it is missing")
	errOffset  = errors.New("pgqueue: negative offset")
)

// staged is a body that is not stored yet. A small one waits in memory, to be
// stored in the transaction of its message; a large one goes into the database
// as it comes.
type staged struct {
	s       *Storage
	ctx     context.Context
	id      queue.ID
	buf     []byte
	size    int64
	chunks  int
	up      *objects.Upload // instead of chunks
	touched time.Time       // when up was last said to be under way
	linked  bool            // it is a message's now
	over    bool            // closed
	err     error

	mu       sync.Mutex
	complete bool // up is, and its row says so
}

// large reports whether it is not stored with its message.
func (st *staged) large() bool { return st.chunks > 0 || st.up != nil }

// Stage implements queue.Storage.
func (s *Storage) Stage(ctx context.Context, size int64) (queue.Staged, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	st := &staged{s: s, ctx: ctx, id: queue.NewID()}
	if size > 0 {
		st.buf = make([]byte, 0, min(size, s.inline()))
	}
	return st, nil
}

// Write implements io.Writer.
func (st *staged) Write(p []byte) (int, error) {
	if st.over || st.linked {
		return 0, errClosed
	}
	if st.err != nil {
		return 0, st.err
	}
	if st.up == nil && st.s.o.Blobs != nil && int64(len(st.buf)+len(p)) > st.s.inline() {
		if st.err = st.begin(); st.err != nil {
			return 0, st.err
		}
	}
	if st.up != nil {
		n, err := st.writeObject(p)
		st.err = err
		return n, err
	}
	written := len(p)
	for len(p) > 0 {
		n := min(len(p), chunk-len(st.buf))
		st.buf = append(st.buf, p[:n]...)
		st.size += int64(n)
		p = p[n:]
		// A full buffer is written when more comes, so that what just fills
		// it stays small.
		if len(st.buf) == chunk && len(p) > 0 {
			if st.err = st.flush(st.ctx); st.err != nil {
				return written - len(p), st.err
			}
		}
	}
	return written, nil
}

// flush writes the buffer as a chunk. A body under way is staged anew with each
// one, so that the sweep does not take it for a forgotten one.
func (st *staged) flush(ctx context.Context) error {
	if len(st.buf) == 0 {
		return nil
	}
	err := st.s.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, st.s.sql(`INSERT INTO {s}.queue_bodies (id, staged) VALUES ($1, clock_timestamp()) ON CONFLICT (id) DO UPDATE SET staged = EXCLUDED.staged`), uuid(st.id)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, st.s.sql(`INSERT INTO {s}.queue_chunks (body, n, data) VALUES ($1, $2, $3)`), uuid(st.id), st.chunks, st.buf)
		return err
	})
	if err == nil {
		st.chunks++
		st.buf = st.buf[:0]
	}
	return err
}

// end brings all of a large body into the database.
func (st *staged) end(ctx context.Context) error {
	if st.err == nil && st.up != nil {
		return st.endObject(ctx)
	}
	if st.err != nil || st.chunks == 0 {
		return st.err
	}
	return st.flush(ctx)
}

func (st *staged) Size() int64 { return st.size }

// ReadAt implements io.ReaderAt.
func (st *staged) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errOffset
	}
	if st.up != nil {
		n, err := st.up.ReadAt(st.ctx, p, off)
		if !errors.Is(err, io.EOF) {
			err = objectError(err)
		}
		return n, err
	}
	stored := min(int64(st.chunks)*chunk, st.size-int64(len(st.buf)))
	n := 0
	if off < stored {
		var err error
		if n, err = st.s.readChunks(st.ctx, st.id, p, off, stored); err != nil {
			return n, err
		}
	}
	if at := off + int64(n) - stored; n < len(p) && at >= 0 && at < int64(len(st.buf)) {
		n += copy(p[n:], st.buf[at:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Close implements queue.Staged.
func (st *staged) Close() error {
	if st.over || st.linked {
		return nil
	}
	st.over, st.buf = true, nil
	if !st.large() {
		return nil
	}
	// Also when the caller has gone. Should it fail, the sweep finds it.
	ctx, cancel := st.s.bounded(context.WithoutCancel(st.ctx))
	defer cancel()
	if st.up != nil {
		return st.closeObject(ctx)
	}
	_, err := st.s.pool.Exec(ctx, st.s.sql(`DELETE FROM {s}.queue_bodies WHERE id = $1 AND staged IS NOT NULL`), uuid(st.id))
	return fail(err)
}

// readChunks reads from a body of that size in chunks, up to its end.
func (s *Storage) readChunks(ctx context.Context, body queue.ID, p []byte, at, size int64) (int, error) {
	if at >= size || len(p) == 0 {
		return 0, nil
	}
	p = p[:min(int64(len(p)), size-at)]
	first, last := at/chunk, (at+int64(len(p))-1)/chunk
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	// Only what is wanted of the first chunk is sent.
	rows, err := s.pool.Query(ctx, s.sql(`SELECT n, CASE WHEN n = $2 THEN substr(data, $4) ELSE data END FROM {s}.queue_chunks
		WHERE body = $1 AND n BETWEEN $2 AND $3 ORDER BY n`), uuid(body), first, last, at-first*chunk+1)
	if err != nil {
		return 0, fail(err)
	}
	defer rows.Close()
	done := 0
	for want := first; rows.Next(); want++ {
		var n int64
		var data []byte
		if err := rows.Scan(&n, &data); err != nil {
			return done, fail(err)
		}
		if n != want {
			return done, errDamaged
		}
		done += copy(p[done:], data)
	}
	if err := rows.Err(); err != nil {
		return done, fail(err)
	}
	if done < len(p) {
		return done, errDamaged
	}
	return done, nil
}

// blob is an open message. A small body is in memory, of a large one each read
// asks for the rows that it needs.
type blob struct {
	s      *Storage
	ctx    context.Context
	size   int64
	head   []byte
	data   []byte
	body   queue.ID        // zero = all is in data
	object *objects.Reader // nil = body is in chunks
	closed atomic.Bool
}

// Open implements queue.Storage.
func (s *Storage) Open(ctx context.Context, m *queue.Message) (queue.Blob, error) {
	b := &blob{s: s, ctx: ctx}
	bounded, cancel := s.bounded(ctx)
	defer cancel()
	var body, object *string
	var left int
	var size *int64
	var sums []byte
	err := s.pool.QueryRow(bounded, s.sql(`SELECT m.size, head, data, body::text, entries, object, b.size, sums
		FROM {s}.queue_messages m LEFT JOIN {s}.queue_bodies b ON b.id = m.body WHERE m.id = $1`), uuid(m.ID)).
		Scan(&b.size, &b.head, &b.data, &body, &left, &object, &size, &sums)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && left == 0 {
		return nil, queue.ErrNotFound
	}
	if err != nil {
		return nil, fail(err)
	}
	if body != nil {
		if b.body, err = parseUUID(*body); err != nil {
			return nil, err
		}
	}
	if object != nil && size != nil {
		if s.o.Blobs == nil {
			return nil, errNoBlobs
		}
		b.object = &objects.Reader{Blobs: s.o.Blobs, Name: *object, Size: *size, Sums: sums}
	}
	return b, nil
}

func (b *blob) Size() int64 { return b.size }

func (b *blob) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errOffset
	}
	if b.closed.Load() {
		return 0, errClosed
	}
	n := 0
	if off < int64(len(b.head)) {
		n = copy(p, b.head[off:])
	}
	at := off + int64(n) - int64(len(b.head))
	if b.body.IsZero() {
		if n < len(p) && at < int64(len(b.data)) {
			n += copy(p[n:], b.data[at:])
		}
	} else if b.object != nil && n < len(p) {
		k, err := b.object.ReadAt(b.ctx, p[n:], at)
		n += k
		if err != nil && !errors.Is(err, io.EOF) {
			return n, objectError(err)
		}
	} else if n < len(p) {
		k, err := b.s.readChunks(b.ctx, b.body, p[n:], at, b.size-int64(len(b.head)))
		n += k
		if err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (b *blob) Close() error {
	b.closed.Store(true)
	return nil
}
