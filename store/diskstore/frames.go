package diskstore

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/zeebo/xxh3"

	"github.com/postrider/postrider/internal/diskdb"
)

// A body is stored in frames of frameSize octets, the last one shorter. A body
// in the database is one frame.
const frameSize = 64 << 10

// coding is how the frames of a body are written; part of its record.
type coding struct {
	zstd bool
	key  []byte // nil = not sealed
	pack *packer
}

const (
	codeZstd   = 1 << 0
	codeSealed = 1 << 1
	codeXXH3   = 1 << 2 // not of the coding: what the checksums are
)

func (c coding) octet() (o byte) {
	if c.zstd {
		o |= codeZstd
	}
	if c.key != nil {
		o |= codeSealed
	}
	return o
}

// readCoding is the inverse of octet; key is the body's.
func (s *Store) readCoding(o byte, key []byte) (coding, error) {
	if o&^(codeZstd|codeSealed) != 0 || (o&codeSealed != 0) != (key != nil) {
		return coding{}, fmt.Errorf("%w: coding %d", diskdb.ErrDamaged, o)
	}
	return coding{zstd: o&codeZstd != 0, key: key, pack: &s.pack}, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// layout is what the record of a file says: how long each frame is in the
// file, and its checksum.
type layout struct {
	coding
	crc    bool // sums are CRC-32C, as they were at first; else XXH3
	size   int64
	ends   []int64 // where each frame ends in the file; nil = as in the body
	sums   []uint32
	stored int64
}

func (l *layout) add(stored []byte, plain int) {
	l.sums = append(l.sums, l.sum(nil, stored))
	l.stored += int64(len(stored))
	if l.octet() != 0 {
		l.ends = append(l.ends, l.stored)
	}
	l.size += int64(plain)
}

// sum returns the checksum of a frame; h is memory for one that is in pieces.
// XXH3 takes a third of the time that CRC-32C takes.
func (l *layout) sum(h *xxh3.Hasher, pieces ...[]byte) uint32 {
	switch {
	case l.crc:
		sum := uint32(0)
		for _, b := range pieces {
			sum = crc32.Update(sum, castagnoli, b)
		}
		return sum
	case len(pieces) == 1:
		return uint32(xxh3.Hash(pieces[0]))
	}
	h.Reset()
	for _, b := range pieces {
		h.Write(b)
	}
	return uint32(h.Sum64())
}

func (l *layout) encode() []byte {
	w := diskdb.Record(16 + 8*len(l.sums))
	if l.crc {
		w.Octet(l.octet())
	} else {
		w.Octet(l.octet() | codeXXH3)
	}
	w.Uint(uint64(l.size))
	w.Uint(uint64(l.stored))
	w.Uint(uint64(len(l.sums)))
	last := int64(0)
	for i, s := range l.sums {
		w.B = append(w.B, byte(s>>24), byte(s>>16), byte(s>>8), byte(s))
		if l.octet() != 0 {
			w.Uint(uint64(l.ends[i] - last))
			last = l.ends[i]
		}
	}
	return w.Seal()
}

// decodeLayout reads the record of a file whose body has this key.
func (s *Store) decodeLayout(v, key []byte) (*layout, error) {
	r, err := diskdb.Unseal(v)
	if err != nil {
		return nil, err
	}
	o := r.Octet()
	l := &layout{crc: o&codeXXH3 == 0}
	o &^= codeXXH3
	if l.coding, err = s.readCoding(o, key); err != nil {
		return nil, err
	}
	l.size, l.stored = r.Size(), r.Size()
	n := r.Count()
	if int64(n) != (l.size+frameSize-1)/frameSize {
		r.Fail()
		n = 0
	}
	l.sums = make([]uint32, 0, n)
	end := int64(0)
	for range n {
		b := r.Take(4)
		if b == nil {
			break
		}
		l.sums = append(l.sums, uint32(b[0])<<24|uint32(b[1])<<16|uint32(b[2])<<8|uint32(b[3]))
		if o != 0 {
			d := r.Size()
			if d > 2*frameSize {
				r.Fail()
			}
			end += d
			l.ends = append(l.ends, end)
		}
	}
	if err := r.End(); err != nil {
		return nil, err
	}
	if o != 0 && end != l.stored || o == 0 && l.stored != l.size {
		return nil, diskdb.ErrDamaged
	}
	return l, nil
}

// frame returns where frame i lies in the file, and its length in the body.
func (l *layout) frame(i int) (from, to int64, plain int) {
	plain = int(min(frameSize, l.size-int64(i)*frameSize))
	if l.ends == nil {
		from = int64(i) * frameSize
		return from, from + int64(plain), plain
	}
	if i > 0 {
		from = l.ends[i-1]
	}
	return from, l.ends[i], plain
}

// frameFile reads a file of frames at any offset.
type frameFile struct {
	f readFile
	*layout

	mu     sync.Mutex
	frame1 int    // index of the frame that plain is of, plus one
	start  int    // where in the frame plain begins
	plain  []byte // to the frame's end
	buf    []byte
	hash   xxh3.Hasher
}

// readFile is a file that is only read.
type readFile interface {
	io.ReaderAt
	io.Closer
}

var errOffset = errors.New("diskstore: negative offset")

func (f *frameFile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errOffset
	}
	n := 0
	f.mu.Lock()
	defer f.mu.Unlock()
	for n < len(p) {
		if off >= f.size {
			return n, io.EOF
		}
		i := int(off / frameSize)
		k, err := f.part(p[n:], i, int(off%frameSize))
		if err != nil {
			return n, err
		}
		n += k
		off += int64(k)
	}
	return n, nil
}

// part reads of frame i, from at on.
func (f *frameFile) part(p []byte, i, at int) (int, error) {
	if f.frame1 == i+1 && at >= f.start {
		return copy(p, f.plain[at-f.start:]), nil
	}
	from, _, plain := f.layout.frame(i)
	if f.octet() == 0 && at == 0 && len(p) >= plain {
		// As it is in the file, straight to its place.
		return plain, f.read(from, i, p[:plain])
	}
	if f.octet() != 0 || at > 0 || len(p) < plain/2 {
		if err := f.load(i); err != nil {
			return 0, err
		}
		return copy(p, f.plain[at:]), nil
	}
	// Most of it is wanted: that goes straight to its place, too. Who reads on
	// begins with the rest.
	k := len(p)
	f.frame1 = 0
	f.plain = append(f.plain[:0], make([]byte, plain-k)...)
	if err := f.read(from, i, p[:k], f.plain); err != nil {
		return 0, err
	}
	f.frame1, f.start = i+1, k
	return k, nil
}

// load reads and checks one frame.
func (f *frameFile) load(i int) error {
	f.frame1 = 0
	from, to, plain := f.layout.frame(i)
	if n := int(to - from); cap(f.buf) < n {
		f.buf = make([]byte, n, max(n, min(frameSize, int(f.stored))))
	}
	f.buf = f.buf[:to-from]
	if err := f.read(from, i, f.buf); err != nil {
		return err
	}
	out, err := f.open(f.plain[:0], f.buf, i, plain)
	if err != nil {
		return unavailable(err)
	}
	if f.octet() == 0 {
		// The frame is the body: no copy.
		f.plain, f.buf = out, f.plain[:0]
	} else {
		f.plain = out
	}
	f.frame1, f.start = i+1, 0
	return nil
}

// read reads frame i from the file, piece by piece, and holds it against its
// checksum.
func (f *frameFile) read(from int64, i int, pieces ...[]byte) error {
	for _, buf := range pieces {
		if n, err := f.f.ReadAt(buf, from); err != nil && n < len(buf) {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("%w: the file ends early", diskdb.ErrDamaged)
			}
			return unavailable(err)
		}
		from += int64(len(buf))
	}
	if f.sum(&f.hash, pieces...) != f.sums[i] {
		return unavailable(fmt.Errorf("%w: checksum of a body", diskdb.ErrDamaged))
	}
	return nil
}
