package pgqueue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/internal/objects"
	"github.com/postrider/postrider/queue"
)

// Blobs keeps large bodies beside the database, as objects with names. The
// package s3blobs does so in an object store. It names no type but those of the
// standard library, so that it is pgstore's as well.
//
// An object is written before the row that names it is committed, and its name
// is never used again. All methods are used from many goroutines and nodes.
type Blobs interface {
	// Create begins an object; ctx bounds the writes. It is there, whole and
	// durable, once Commit returned nil; after an error Commit may be called
	// again. Close without Commit gives it up.
	Create(ctx context.Context, name string) (BlobWriter, error)
	// ReadAt reads len(p) octets from off on, less only with an error: io.EOF
	// at the end, fs.ErrNotExist when there is no such object.
	ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error)
	// Delete removes objects, also those that are still being written. What
	// is not there is no error.
	Delete(ctx context.Context, names ...string) error
	// List yields the names that begin with prefix of objects that were
	// written, or begun, before a time.
	List(ctx context.Context, prefix string, before time.Time) iter.Seq2[string, error]
}

// BlobWriter is an object that is being written.
type BlobWriter = interface {
	io.Writer
	Commit(ctx context.Context) error
	Close() error
}

const (
	defaultBlobsAbove = 128 << 10
	// touchEvery is how often a body that is being written says so: more often
	// than the sweep takes it for a forgotten one.
	touchEvery = time.Hour
)

// errNoBlobs says that a body is in an object and we have no Blobs.
var errNoBlobs = errors.New("pgqueue: the body is in an object store, and Options.Blobs is nil")

// inline is the greatest body that is stored with its message.
func (s *Storage) inline() int64 {
	if s.o.Blobs != nil {
		return int64(s.o.BlobsAbove)
	}
	return chunk
}

// object is the name of a body's.
func (s *Storage) object(id queue.ID) string { return s.data + "/" + uuid(id) }

// objectError turns an error of the Blobs into one of ours.
func objectError(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled), known(err):
		return err
	case errors.Is(err, objects.ErrDamaged), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("pgqueue: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// begin brings what is in the buffer, and what follows, into an object. Its
// row is there before it.
func (st *staged) begin() error {
	if err := st.s.exec(st.ctx, `INSERT INTO {s}.queue_bodies (id, staged, object) VALUES ($1, clock_timestamp(), $2)`, uuid(st.id), st.s.object(st.id)); err != nil {
		return err
	}
	st.touched = time.Now()
	up, err := objects.Begin(st.ctx, st.s.o.Blobs, st.s.object(st.id))
	if err != nil {
		return objectError(err)
	}
	st.up = up
	_, err = up.Write(st.buf)
	st.buf = nil
	return objectError(err)
}

// writeObject adds to the object. Like flush it says that it is under way.
func (st *staged) writeObject(p []byte) (int, error) {
	n, err := st.up.Write(p)
	st.size += int64(n)
	if err != nil {
		return n, objectError(err)
	}
	if time.Since(st.touched) > touchEvery {
		err = st.s.exec(st.ctx, `UPDATE {s}.queue_bodies SET staged = clock_timestamp() WHERE id = $1 AND staged IS NOT NULL`, uuid(st.id))
		st.touched = time.Now()
	}
	return n, err
}

// endObject completes the object, and tells its row what it has.
func (st *staged) endObject(ctx context.Context) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.complete {
		return nil
	}
	if err := st.up.Commit(ctx); err != nil {
		return objectError(err)
	}
	ctx, cancel := st.s.bounded(ctx)
	defer cancel()
	tag, err := st.s.pool.Exec(ctx, st.s.sql(`UPDATE {s}.queue_bodies SET size = $2, sums = $3, staged = clock_timestamp() WHERE id = $1 AND staged IS NOT NULL`),
		uuid(st.id), st.size, st.up.Sums())
	if err != nil {
		return fail(err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("%w: the body was not put within a day", ErrUnavailable)
	}
	st.complete = true
	return nil
}

// closeObject gives up an object that no message has. Should it fail, the
// sweep does it.
func (st *staged) closeObject(ctx context.Context) error {
	aborted := st.up.Close()
	tag, err := st.s.pool.Exec(ctx, st.s.sql(`WITH gone AS (DELETE FROM {s}.queue_bodies WHERE id = $1 AND staged IS NOT NULL RETURNING object)
		INSERT INTO {s}.queue_dying (object, since) SELECT object, '-infinity' FROM gone ON CONFLICT DO NOTHING`), uuid(st.id))
	if err == nil && tag.RowsAffected() == 0 {
		// A message has it, or it was swept before it was complete.
		_, err = st.s.pool.Exec(ctx, st.s.sql(`INSERT INTO {s}.queue_dying (object, since) SELECT $2, '-infinity'
			WHERE NOT EXISTS (SELECT FROM {s}.queue_bodies WHERE id = $1) ON CONFLICT DO NOTHING`), uuid(st.id), st.up.Name)
	}
	if code(err) == foreignKeyViolation {
		return nil // it was put after all
	}
	return errors.Join(fail(err), objectError(aborted))
}

// copyObject copies a body that is not ours. Its row is within t: should that
// not be committed, the sweep finds the object by its name.
func (s *Storage) copyObject(ctx context.Context, t tx, id queue.ID, b queue.Staged) error {
	up, err := objects.Begin(ctx, s.o.Blobs, s.object(id))
	if err != nil {
		return objectError(err)
	}
	defer up.Close()
	size := b.Size()
	body := &bodyReader{r: io.NewSectionReader(b, 0, size)}
	n, err := io.Copy(up, body)
	if err == nil && n < size {
		body.err = io.ErrUnexpectedEOF
	}
	if body.err != nil {
		return fmt.Errorf("%w: %w", errBody, body.err)
	}
	if err == nil {
		err = up.Commit(ctx)
	}
	if err != nil {
		return objectError(err)
	}
	return t.later(ctx, s.sql(`INSERT INTO {s}.queue_bodies (id, object, size, sums) VALUES ($1, $2, $3, $4)`), uuid(id), up.Name, size, up.Sums())
}

// bodyReader tells an error of the caller's body from one of the Blobs.
type bodyReader struct {
	r   io.Reader
	err error
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// endAll completes the bodies that are ours, before there is a transaction
// that would wait for them.
func (s *Storage) endAll(ctx context.Context, subs []*queue.Submission) error {
	if s.o.Blobs == nil {
		return nil
	}
	for _, sub := range subs {
		if st, ok := sub.Body.(*staged); ok && st.s.data == s.data && !st.linked && !st.over {
			if err := st.end(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweepObjects deletes objects whose bodies are gone for an hour: whoever has
// them open can read on for so long. No transaction is held meanwhile. A node
// takes some for itself; what it cannot delete is tried again in an hour.
func (s *Storage) sweepObjects(ctx context.Context) error {
	if s.o.Blobs == nil {
		return nil
	}
	for {
		names, err := s.dying(ctx)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			if err := s.o.Blobs.Delete(ctx, names...); err != nil {
				return objectError(err)
			}
			if err := s.exec(ctx, `DELETE FROM {s}.queue_dying WHERE object = ANY($1)`, names); err != nil {
				return err
			}
		}
		if len(names) < sweepRows {
			return s.sweepOrphans(ctx)
		}
	}
}

func (s *Storage) dying(ctx context.Context) ([]string, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, s.sql(`WITH old AS (
			SELECT object FROM {s}.queue_dying WHERE since <= clock_timestamp() - interval '1 hour' ORDER BY since LIMIT $1 FOR UPDATE SKIP LOCKED)
		UPDATE {s}.queue_dying d SET since = clock_timestamp() FROM old WHERE d.object = old.object
			AND NOT EXISTS (SELECT FROM {s}.queue_bodies b WHERE b.object = d.object) RETURNING d.object`), sweepRows)
	if err != nil {
		return nil, fail(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return names, fail(err)
}

// sweepOrphans looks, once a day, for objects of which no row has known for a
// day, longer than any transaction lasts.
func (s *Storage) sweepOrphans(ctx context.Context) error {
	before, today, err := s.listing(ctx)
	if err != nil || !today {
		return err
	}
	var names []string
	bury := func() error {
		defer func() { names = names[:0] }()
		return s.exec(ctx, `INSERT INTO {s}.queue_dying (object, since) SELECT n, clock_timestamp() FROM unnest($1::text[]) n
			WHERE NOT EXISTS (SELECT FROM {s}.queue_bodies b WHERE b.object = n) ON CONFLICT DO NOTHING`, names)
	}
	for name, err2 := range s.o.Blobs.List(ctx, s.data+"/", before) {
		if err = objectError(err2); err != nil {
			break
		}
		if names = append(names, name); len(names) == sweepRows {
			if err = bury(); err != nil {
				break
			}
		}
	}
	if err == nil {
		err = bury()
	}
	if err != nil {
		// Not today any more would be too late.
		return errors.Join(err, s.exec(context.WithoutCancel(ctx), `UPDATE {s}.queue_meta SET listed = clock_timestamp() - interval '1 day' + interval '10 minutes'`))
	}
	return nil
}

// listing claims today's look at all objects.
func (s *Storage) listing(ctx context.Context) (before time.Time, mine bool, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	err = s.pool.QueryRow(ctx, s.sql(`UPDATE {s}.queue_meta SET listed = clock_timestamp() WHERE listed < clock_timestamp() - interval '1 day'
		RETURNING clock_timestamp() - interval '1 day'`)).Scan(&before)
	if errors.Is(err, pgx.ErrNoRows) {
		return before, false, nil
	}
	return before, err == nil, fail(err)
}

// exec runs a statement of its own.
func (s *Storage) exec(ctx context.Context, sql string, args ...any) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	_, err := s.pool.Exec(ctx, s.sql(sql), args...)
	return fail(err)
}
