package objects

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"sync"
)

// Window is the most that a Reader asks for at once, and keeps in memory.
const Window = 1 << 20

// Reader reads an object. It may be used from many goroutines. It asks for
// whole blocks; one who reads on from where the last read ended is given more
// and more at once, up to a Window.
type Reader struct {
	Blobs Blobs
	Name  string
	Size  int64
	Sums  []byte

	mu   sync.Mutex
	buf  []byte // what was read last
	at   int64  // where buf begins
	next int64  // where the last read ended
	step int64  // how much is asked for when it goes on there
}

// ReadAt is that of io.ReaderAt, with a context.
func (r *Reader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off+int64(n) < r.Size {
		m, err := r.read(ctx, p[n:], off+int64(n))
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

// read reads some of p.
func (r *Reader) read(ctx context.Context, p []byte, off int64) (int, error) {
	if !r.mu.TryLock() {
		// Another is at it: no window for this one.
		first, last := r.span(off, int64(len(p)))
		buf := make([]byte, last-first)
		if err := r.fetch(ctx, buf, first); err != nil {
			return 0, err
		}
		return copy(p, buf[off-first:]), nil
	}
	defer r.mu.Unlock()
	if off < r.at || off >= r.at+int64(len(r.buf)) {
		want := int64(len(p))
		if off == r.next && off > 0 {
			r.step = min(max(2*r.step, 2*Block), Window)
			want = max(want, r.step)
		} else {
			r.step = 0
		}
		first, last := r.span(off, want)
		if int64(cap(r.buf)) < last-first {
			r.buf = make([]byte, last-first)
		}
		buf := r.buf[:last-first]
		r.buf = nil // nothing, should it fail
		if err := r.fetch(ctx, buf, first); err != nil {
			return 0, err
		}
		r.buf, r.at = buf, first
	}
	n := copy(p, r.buf[off-r.at:])
	r.next = off + int64(n)
	return n, nil
}

// span returns the blocks that n octets from off on are in, a window's worth
// at most.
func (r *Reader) span(off, n int64) (first, last int64) {
	first = off / Block * Block
	last = (off + n + Block - 1) / Block * Block
	return first, min(last, first+Window, r.Size)
}

// fetch reads whole blocks, and checks them.
func (r *Reader) fetch(ctx context.Context, buf []byte, at int64) error {
	n, err := r.Blobs.ReadAt(ctx, r.Name, buf, at)
	if n < len(buf) {
		if err == nil || errors.Is(err, io.EOF) || errors.Is(err, fs.ErrNotExist) {
			return ErrDamaged
		}
		return err
	}
	for len(buf) > 0 {
		block := buf[:min(len(buf), Block)]
		i := at / Block * 4
		if int64(len(r.Sums)) < i+4 || crc32.Checksum(block, table) != binary.BigEndian.Uint32(r.Sums[i:]) {
			return ErrDamaged
		}
		buf, at = buf[len(block):], at+int64(len(block))
	}
	return nil
}
