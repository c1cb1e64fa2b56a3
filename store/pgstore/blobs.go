package pgstore

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
	"github.com/postrider/postrider/store"
)

// Blobs keeps large bodies beside the database, as objects with names. The
// package s3blobs does so in an object store. It names no type but those of the
// standard library, so that it is pgqueue's as well.
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
	// listEvery is how often one node looks for objects that no row names.
	listEvery = "1 day"
)

// errNoBlobs says that a body is in an object and we have no Blobs.
var errNoBlobs = errors.New("pgstore: the body is in an object store, and Options.Blobs is nil")

// objectError turns an error of the Blobs into one of package store.
func objectError(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, objects.ErrDamaged), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("pgstore: %w", err)
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// begin brings what is in the buffer, and what follows, into an object. Its
// row is there before it.
func (st *staged) begin() error {
	name := st.s.data + "/" + newID('b')
	ctx, cancel := st.s.bounded(st.ctx)
	defer cancel()
	err := st.s.pool.QueryRow(ctx, st.s.sql(`INSERT INTO {s}.blobs (size, pending, object) VALUES (0, now(), $1) RETURNING num`), name).Scan(&st.blob)
	if err != nil {
		return fail(err)
	}
	st.touched = time.Now()
	if st.object, err = objects.Begin(st.ctx, st.s.o.Blobs, name); err != nil {
		return objectError(err)
	}
	_, err = st.object.Write(st.buf)
	st.buf = nil
	return objectError(err)
}

// writeObject adds to the object. Like flush it says that it is under way.
func (st *staged) writeObject(p []byte) (int, error) {
	n, err := st.object.Write(p)
	st.size += int64(n)
	if err != nil {
		return n, objectError(err)
	}
	if time.Since(st.touched) > st.s.o.Grace/4 {
		ctx, cancel := st.s.bounded(st.ctx)
		defer cancel()
		if _, err := st.s.pool.Exec(ctx, st.s.sql(`UPDATE {s}.blobs SET pending = now() WHERE num = $1 AND pending IS NOT NULL`), st.blob); err != nil {
			return n, fail(err)
		}
		st.touched = time.Now()
	}
	return n, nil
}

// endObject completes the object, and tells its row what it has.
func (st *staged) endObject(ctx context.Context) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.complete {
		return nil
	}
	if err := st.object.Commit(ctx); err != nil {
		return objectError(err)
	}
	ctx, cancel := st.s.bounded(ctx)
	defer cancel()
	tag, err := st.s.pool.Exec(ctx, st.s.sql(`UPDATE {s}.blobs SET size = $2, sums = $3, pending = now() WHERE num = $1 AND pending IS NOT NULL`), st.blob, st.size, st.object.Sums())
	if err != nil {
		return fail(err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("%w: the body was not appended within the grace", store.ErrUnavailable)
	}
	st.complete = true
	return nil
}

// closeObject gives up an object that no message has.
func (st *staged) closeObject(ctx context.Context) error {
	if st.object == nil {
		_, err := st.s.pool.Exec(ctx, st.s.sql(`DELETE FROM {s}.blobs WHERE num = $1`), st.blob)
		return fail(err)
	}
	// Should it fail, the sweep does it.
	aborted := st.object.Close()
	tag, err := st.s.pool.Exec(ctx, st.s.sql(`WITH gone AS (DELETE FROM {s}.blobs WHERE num = $1 AND pending IS NOT NULL RETURNING object)
		INSERT INTO {s}.dying (object, since) SELECT object, '-infinity' FROM gone ON CONFLICT DO NOTHING`), st.blob)
	if err == nil && tag.RowsAffected() == 0 {
		// A message has it, or it was swept before it was complete.
		_, err = st.s.pool.Exec(ctx, st.s.sql(`INSERT INTO {s}.dying (object, since) SELECT $2, '-infinity'
			WHERE NOT EXISTS (SELECT FROM {s}.blobs WHERE num = $1) ON CONFLICT DO NOTHING`), st.blob, st.object.Name)
	}
	return errors.Join(fail(err), objectError(aborted))
}

// sweepObjects deletes objects whose bodies are gone since the grace: whoever
// has them open can read on for so long. No transaction is held meanwhile. A
// node takes some for itself; what it cannot delete is tried again after the
// grace.
func (s *Store) sweepObjects(ctx context.Context) error {
	if s.o.Blobs == nil {
		return nil
	}
	for {
		names, err := s.dying(ctx)
		if err != nil || len(names) == 0 {
			return err
		}
		if err := s.o.Blobs.Delete(ctx, names...); err != nil {
			return objectError(err)
		}
		if err := s.exec(ctx, `DELETE FROM {s}.dying WHERE object = ANY($1)`, names); err != nil {
			return err
		}
		if len(names) < sweepRows {
			return s.sweepOrphans(ctx)
		}
	}
}

func (s *Store) dying(ctx context.Context) ([]string, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, s.sql(`WITH old AS (
			SELECT object FROM {s}.dying WHERE since <= now() - $1::interval ORDER BY since LIMIT $2 FOR UPDATE SKIP LOCKED)
		UPDATE {s}.dying d SET since = now() FROM old WHERE d.object = old.object
			AND NOT EXISTS (SELECT FROM {s}.blobs b WHERE b.object = d.object) RETURNING d.object`), s.o.Grace, sweepRows)
	if err != nil {
		return nil, fail(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return names, fail(err)
}

// sweepOrphans looks, once a day, for objects that no row names: their node
// died just then, or the database is older than they are. A row is committed
// before its object is begun, so what is in use has one.
func (s *Store) sweepOrphans(ctx context.Context) error {
	var before time.Time
	a := &account{s: s}
	err := a.read(ctx, `UPDATE {s}.meta SET listed = now() WHERE listed < now() - $1::interval RETURNING now() - $2::interval`, []any{listEvery, s.o.Grace}, &before)
	if errors.Is(err, store.ErrNotExist) {
		return nil // it was done today
	}
	if err != nil {
		return err
	}
	var names []string
	bury := func() error {
		defer func() { names = names[:0] }()
		return s.exec(ctx, `INSERT INTO {s}.dying (object, since) SELECT n, now() FROM unnest($1::text[]) n
			WHERE NOT EXISTS (SELECT FROM {s}.blobs b WHERE b.object = n) ON CONFLICT DO NOTHING`, names)
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
		return errors.Join(err, s.exec(context.WithoutCancel(ctx), `UPDATE {s}.meta SET listed = now() - $1::interval + interval '10 minutes'`, listEvery))
	}
	return nil
}

// exec runs a statement of its own.
func (s *Store) exec(ctx context.Context, sql string, args ...any) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	_, err := s.pool.Exec(ctx, s.sql(sql), args...)
	return fail(err)
}
