package pgstore

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/internal/objects"
	"github.com/postrider/postrider/store"
)

// inline is the greatest body that is kept in one row.
const inline = chunk

// inline is the greatest body that is stored with its message.
func (s *Store) inline() int64 {
	if s.o.Blobs != nil {
		return int64(s.o.BlobsAbove)
	}
	return inline
}

// staged is a body that is written before it is appended. A small one waits in
// memory, so that it can be stored in the same transaction as its message; a
// large one goes into the database as it comes.
type staged struct {
	s       *Store
	ctx     context.Context
	id      string // the message's, when nothing goes before it
	buf     []byte // all of a small body, the end of a large one
	size    int64
	blob    int64           // 0 = small
	n       int64           // chunks written
	object  *objects.Upload // instead of chunks
	touched time.Time       // when object was last said to be under way
	linked  bool            // it is some message's
	given   atomic.Bool     // its id is perhaps some message's
	err     error

	mu       sync.Mutex
	complete bool // object is, and its row says so
}

var errClosed = errors.New("pgstore: write to a closed Staged")

// Stage implements store.Stager.
func (s *Store) Stage(ctx context.Context, size int64) (store.Staged, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.o.MessageSize > 0 && size > s.o.MessageSize {
		return nil, store.ErrTooBig
	}
	st := &staged{s: s, ctx: ctx, id: newID('m')}
	if size > 0 {
		st.buf = make([]byte, 0, min(size, s.inline()))
	}
	return st, nil
}

// Write implements io.Writer.
func (st *staged) Write(p []byte) (int, error) {
	if st.err != nil {
		return 0, st.err
	}
	if st.s.o.MessageSize > 0 && st.size+int64(len(p)) > st.s.o.MessageSize {
		return 0, store.ErrTooBig
	}
	if st.object == nil && st.s.o.Blobs != nil && int64(len(st.buf)+len(p)) > st.s.inline() {
		if st.err = st.begin(); st.err != nil {
			return 0, st.err
		}
	}
	if st.object != nil {
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

// flush writes the buffer as a chunk. A body under way is pending anew with
// each one, so that the sweep does not take it for a forgotten one.
func (st *staged) flush(ctx context.Context) error {
	if len(st.buf) == 0 {
		return nil
	}
	err := st.s.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		blob := st.blob
		var err error
		if blob == 0 {
			err = tx.QueryRow(ctx, st.s.sql(`INSERT INTO {s}.blobs (size, pending) VALUES ($1, now()) RETURNING num`), st.size).Scan(&blob)
		} else {
			_, err = tx.Exec(ctx, st.s.sql(`UPDATE {s}.blobs SET size = $2, pending = now() WHERE num = $1`), blob, st.size)
		}
		if err == nil {
			_, err = tx.Exec(ctx, st.s.sql(`INSERT INTO {s}.chunks (blob, n, data) VALUES ($1, $2, $3)`), blob, st.n, st.buf)
		}
		if err == nil {
			st.blob = blob
		}
		return err
	})
	if err == nil {
		st.n++
		st.buf = st.buf[:0]
	}
	return err
}

// end brings all of a large body into the database.
func (st *staged) end(ctx context.Context) error {
	if st.err != nil {
		return st.err
	}
	switch {
	case st.object != nil:
		return st.endObject(ctx)
	case st.blob == 0:
		return nil
	}
	return st.flush(ctx)
}

func (st *staged) Size() int64 { return st.size }

// ReadAt implements store.Body.
func (st *staged) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errOffset
	}
	if st.object != nil {
		n, err := st.object.ReadAt(st.ctx, p, off)
		if !errors.Is(err, io.EOF) {
			err = objectError(err)
		}
		return n, err
	}
	stored := st.n * chunk
	n := 0
	if off < stored {
		var err error
		if n, err = st.s.readChunks(st.ctx, st.blob, p, off, min(stored, st.size)); err != nil {
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

// Close implements store.Staged.
func (st *staged) Close() error {
	if errors.Is(st.err, errClosed) {
		return nil
	}
	st.err, st.buf = errClosed, nil
	if st.blob == 0 || st.linked {
		return nil
	}
	// Also when the caller has gone. Should it fail, the sweep finds it. One
	// that is being linked is waited for, and is not pending then.
	ctx, cancel := st.s.bounded(context.WithoutCancel(st.ctx))
	defer cancel()
	if st.s.o.Blobs != nil {
		return st.closeObject(ctx)
	}
	_, err := st.s.pool.Exec(ctx, st.s.sql(`DELETE FROM {s}.blobs WHERE num = $1 AND pending IS NOT NULL`), st.blob)
	return fail(err)
}
