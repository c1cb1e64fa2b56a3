// Package objects writes message bodies as objects, and reads them back in
// parts whose sums are checked. It is what pgstore and pgqueue have in common
// of their Blobs.
package objects

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"iter"
	"sync"
	"time"
)

// Writer is an object that is being written; see pgstore.Blobs.
type Writer = interface {
	io.Writer
	Commit(ctx context.Context) error
	Close() error
}

// Blobs is pgstore.Blobs and pgqueue.Blobs.
type Blobs interface {
	Create(ctx context.Context, name string) (Writer, error)
	ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error)
	Delete(ctx context.Context, names ...string) error
	List(ctx context.Context, prefix string, before time.Time) iter.Seq2[string, error]
}

// ErrDamaged says that what an object has is not what was written.
var ErrDamaged = errors.New("a body in the object store is missing or damaged")

// Block is how many octets have one sum: the least that is read.
const Block = 64 << 10

var table = crc32.MakeTable(crc32.Castagnoli)

// Sums takes the sums of what is written to it.
type Sums struct {
	sums []byte
	last uint32
	n    int // octets of last
}

// Write never fails.
func (s *Sums) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		n := min(len(p), Block-s.n)
		s.last = crc32.Update(s.last, table, p[:n])
		s.n += n
		p = p[n:]
		if s.n == Block {
			s.sums = binary.BigEndian.AppendUint32(s.sums, s.last)
			s.last, s.n = 0, 0
		}
	}
	return written, nil
}

// Sum returns the CRC-32C of each block, four octets each.
func (s *Sums) Sum() []byte {
	if s.n == 0 {
		return s.sums
	}
	return binary.BigEndian.AppendUint32(s.sums[:len(s.sums):len(s.sums)], s.last)
}

// Upload is one body on its way into an object. One goroutine writes it.
type Upload struct {
	Blobs Blobs
	Name  string

	sums Sums
	size int64

	mu   sync.Mutex
	w    Writer
	done bool // the object is there
	read *Reader
}

var errSealed = errors.New("objects: write to an object that is complete")

// Begin begins an object. ctx bounds what Write does.
func Begin(ctx context.Context, b Blobs, name string) (*Upload, error) {
	w, err := b.Create(ctx, name)
	if err != nil {
		return nil, err
	}
	return &Upload{Blobs: b, Name: name, w: w}, nil
}

// Write implements io.Writer.
func (u *Upload) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.done || u.w == nil {
		return 0, errSealed
	}
	n, err := u.w.Write(p)
	u.sums.Write(p[:n])
	u.size += int64(n)
	return n, err
}

// Commit completes the object. It may be called again, after an error too.
func (u *Upload) Commit(ctx context.Context) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.commit(ctx)
}

func (u *Upload) commit(ctx context.Context) error {
	if u.done {
		return nil
	}
	if u.w == nil {
		return errSealed
	}
	if err := u.w.Commit(ctx); err != nil {
		return err
	}
	u.done = true
	err := u.w.Close()
	u.w = nil
	return err
}

// Close gives up what is not complete.
func (u *Upload) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.w == nil {
		return nil
	}
	w := u.w
	u.w = nil
	return w.Close()
}

// Sums returns those of the blocks.
func (u *Upload) Sums() []byte { return u.sums.Sum() }

// ReadAt reads what was written, which completes the object.
func (u *Upload) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	u.mu.Lock()
	err := u.commit(ctx)
	if err == nil && u.read == nil {
		u.read = &Reader{Blobs: u.Blobs, Name: u.Name, Size: u.size, Sums: u.Sums()}
	}
	r := u.read
	u.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return r.ReadAt(ctx, p, off)
}
