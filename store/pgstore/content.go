package pgstore

import (
	"context"
	"errors"
	"io"

	"github.com/postrider/postrider/internal/objects"
	"github.com/postrider/postrider/store"
)

// chunk is how many octets of a large body each row of chunks has.
const chunk = 256 << 10

var errOffset = errors.New("pgstore: negative offset")

// content is what a message says, opened: head, then a body by its number.
type content struct {
	s          *Store
	ctx        context.Context // bounds its life
	id, thread string
	size       int64
	head       []byte
	blob       int64
	data       []byte          // nil = in chunks or an object
	object     *objects.Reader // nil = in chunks
}

// Open implements store.Account.
func (a *account) Open(ctx context.Context, m store.Message) (store.Blob, error) {
	c := &content{s: a.s, ctx: ctx, id: m.ID}
	var object *string
	var sums []byte
	err := a.read(ctx, `SELECT c.thread, c.size, c.head, c.blob, x.data, x.object, x.sums FROM {s}.contents c JOIN {s}.blobs x ON x.num = c.blob
		WHERE c.account = $1 AND c.id = $2 AND (c.expunged IS NULL OR c.expunged > now() - $3::interval)`,
		[]any{a.num, text(m.ID), a.s.o.Grace}, &c.thread, &c.size, &c.head, &c.blob, &c.data, &object, &sums)
	if err != nil {
		return nil, err
	}
	if object != nil {
		if a.s.o.Blobs == nil {
			return nil, errNoBlobs
		}
		c.object = &objects.Reader{Blobs: a.s.o.Blobs, Name: *object, Size: c.size - int64(len(c.head)), Sums: sums}
	}
	return &opened{content: c}, nil
}

// opened is a content that can be closed, and read from many goroutines.
type opened struct {
	*content
}

// Close implements store.Blob.
func (o *opened) Close() error { return nil }

// Size implements store.Body.
func (c *content) Size() int64 { return c.size }

// ReadAt implements store.Body.
func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errOffset
	}
	n := 0
	if off < int64(len(c.head)) {
		n = copy(p, c.head[off:])
	}
	at := off + int64(n) - int64(len(c.head))
	switch {
	case c.object != nil && n < len(p):
		m, err := c.object.ReadAt(c.ctx, p[n:], at)
		n += m
		if err != nil && !errors.Is(err, io.EOF) {
			return n, objectError(err)
		}
	case c.object != nil:
	case c.data != nil:
		if n < len(p) && at < int64(len(c.data)) {
			n += copy(p[n:], c.data[at:])
		}
	default:
		m, err := c.s.readChunks(c.ctx, c.blob, p[n:], at, c.size-int64(len(c.head)))
		n += m
		if err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readChunks reads from a body of that size in chunks, up to its end.
func (s *Store) readChunks(ctx context.Context, blob int64, p []byte, at, size int64) (int, error) {
	if at >= size || len(p) == 0 {
		return 0, nil
	}
	p = p[:min(int64(len(p)), size-at)]
	first, last := at/chunk, (at+int64(len(p))-1)/chunk
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	// Only what is wanted of the first and the last chunk is sent.
	rows, err := s.query(ctx, s.sql(`SELECT n, CASE WHEN n = $2 THEN substr(data, $4) ELSE data END FROM {s}.chunks
		WHERE blob = $1 AND n BETWEEN $2 AND $3 ORDER BY n`), blob, first, last, at-first*chunk+1)
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

// errDamaged says that a body is not there in full.
var errDamaged = errors.New("pgstore: a body is damaged: some of it is missing")
