package diskqueue

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/postrider/postrider/queue"
)

// frameSize is for how many octets of a file there is one checksum.
const frameSize = 64 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sums are the checksums of a body in a file, as it is written.
type sums struct {
	done []uint32
	last uint32
	n    int // octets in last
}

func (s *sums) add(p []byte) {
	for len(p) > 0 {
		k := min(len(p), frameSize-s.n)
		s.last = crc32.Update(s.last, castagnoli, p[:k])
		s.n += k
		p = p[k:]
		if s.n == frameSize {
			s.done = append(s.done, s.last)
			s.last, s.n = 0, 0
		}
	}
}

// encodeFile is the record of a file with a message's body.
func encodeFile(m queue.ID, s *sums) []byte {
	all := s.done
	if s.n > 0 {
		all = append(all[:len(all):len(all)], s.last)
	}
	w := record(32 + 4*len(all))
	w.id(m)
	w.Uint(uint64(len(all)))
	for _, v := range all {
		w.B = append(w.B, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
	}
	return w.Seal()
}

func decodeFile(v []byte) (m queue.ID, all []uint32, err error) {
	r, err := unseal(v)
	if err != nil {
		return m, nil, err
	}
	m = r.id()
	for range r.Count() {
		if b := r.Take(4); b != nil {
			all = append(all, uint32(b[0])<<24|uint32(b[1])<<16|uint32(b[2])<<8|uint32(b[3]))
		}
	}
	return m, all, r.End()
}

// bodyFile reads a body from its file, a frame at a time.
type bodyFile struct {
	f    vfs.File
	size int64
	sums []uint32

	mu  sync.Mutex
	has int // the frame in buf, from 1
	buf []byte
}

func (f *bodyFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for n < len(p) {
		if off >= f.size {
			return n, io.EOF
		}
		i := int(off / frameSize)
		if f.has != i+1 {
			if err := f.load(i); err != nil {
				return n, err
			}
		}
		k := copy(p[n:], f.buf[off-int64(i)*frameSize:])
		n += k
		off += int64(k)
	}
	return n, nil
}

// load reads frame i and holds it against its checksum.
func (f *bodyFile) load(i int) error {
	at := int64(i) * frameSize
	n := int(min(frameSize, f.size-at))
	if f.has = 0; cap(f.buf) < n {
		f.buf = make([]byte, n)
	}
	f.buf = f.buf[:n]
	if k, err := f.f.ReadAt(f.buf, at); k < n {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: the file of a body ends early", ErrDamaged)
		}
		return err
	}
	if i >= len(f.sums) || crc32.Checksum(f.buf, castagnoli) != f.sums[i] {
		return fmt.Errorf("%w: checksum of a body", ErrDamaged)
	}
	f.has = i + 1
	return nil
}
