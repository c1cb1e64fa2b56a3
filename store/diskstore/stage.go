package diskstore

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// staged is a body of ours, in memory up to BodyMemory, then in its file. The
// file has its name from the start: nothing refers to it before an Append.
type staged struct {
	s       *Store
	no      uint64 // of the blob, and of the email that is this body alone
	lent           // the beginning of its record, then the body, while it is not a file
	hint    int64  // of the size
	memory  int64  // of s.memory
	file    vfs.File
	frames  layout
	pending []byte // of the frame that is not full yet; a file's
	size    int64
	unasked int64       // octets for which the disk was not asked
	err     error       // of a write: it cannot be stored any more
	stored  atomic.Bool // the database has it

	mu     sync.Mutex // what follows
	sealed bool       // the file is durable
	record []byte     // of what is in memory
	read   *frameFile
}

var errBodyClosed = errors.New("diskstore: body is closed")

const askEvery = 256 << 10

// Stage implements store.Stager.
func (s *Store) Stage(ctx context.Context, size int64) (store.Staged, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	if s.o.MessageSize > 0 && size > s.o.MessageSize {
		return nil, store.ErrTooBig
	}
	if err := s.db.Room(max(size, 0)); err != nil {
		return nil, full(err)
	}
	return s.newStaged(size)
}

func (s *Store) newStaged(size int64) (*staged, error) {
	b := &staged{s: s, no: s.nums.next(), hint: min(size, int64(s.o.BodyMemory))}
	b.frames.coding = coding{zstd: s.o.Compress, pack: &s.pack}
	if s.o.Keys != nil {
		b.frames.key = newKey()
	}
	s.pins.add(b.no)
	if size > int64(s.o.BodyMemory) {
		if err := b.spill(); err != nil {
			b.Close()
			return nil, unavailable(err)
		}
	}
	return b, nil
}

func (b *staged) Write(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, errBodyClosed
	}
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.write(p)
	if err != nil && b.err == nil {
		b.err = full(err)
	}
	return n, b.err
}

func (b *staged) write(p []byte) (int, error) {
	n := int64(len(p))
	if b.s.o.MessageSize > 0 && b.size+n > b.s.o.MessageSize {
		b.err = store.ErrTooBig
		return 0, b.err
	}
	if b.unasked += n; b.unasked >= askEvery {
		if err := b.s.db.Room(b.unasked); err != nil {
			return 0, err
		}
		b.unasked = 0
	}
	if b.file == nil {
		if b.fits(len(p)) {
			b.mem = append(b.mem, p...)
			b.size += n
			return len(p), nil
		}
		if err := b.spill(); err != nil {
			return 0, err
		}
	}
	b.size += n
	return len(p), b.frame(p)
}

// readFrom takes n octets of a body, n being its size.
func (b *staged) readFrom(r io.ReaderAt, n int64) error {
	if b.file == nil && b.fits(int(n)) {
		b.mem = b.mem[:bodyAt+n]
		k, err := r.ReadAt(b.mem[bodyAt:], 0)
		if b.size = n; int64(k) == n {
			return nil
		}
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	k, err := io.Copy(b, io.NewSectionReader(r, 0, n))
	if err == nil && k < n {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// frame writes to the file, in whole frames.
func (b *staged) frame(p []byte) error {
	for len(p) > 0 {
		if b.pending == nil {
			b.pending = make([]byte, 0, frameSize)
		}
		k := min(len(p), frameSize-len(b.pending))
		b.pending = append(b.pending, p[:k]...)
		if p = p[k:]; len(b.pending) == frameSize {
			if err := b.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *staged) flush() error {
	stored, err := b.frames.seal(b.pending, len(b.frames.sums))
	if err != nil {
		return err
	}
	b.frames.add(stored, len(b.pending))
	_, err = b.file.Write(stored)
	b.pending = b.pending[:0]
	return err
}

// fits takes memory for n octets more, if there is some.
func (b *staged) fits(n int) bool {
	most := b.s.o.BodyMemory
	if b.size+int64(n) > int64(most) {
		return false
	}
	need := bodyAt + int(b.size) + n + bodyEnd
	if need <= cap(b.mem) {
		return true
	}
	// What it will need is taken at once, as far as is known.
	want := max(need, bodyAt+int(b.hint)+bodyEnd, min(2*cap(b.mem), bodyAt+most+bodyEnd))
	loan := borrow(want)
	more := int64(cap(*loan)) - b.memory
	if b.s.memory.Add(more) > stageMemory {
		b.s.memory.Add(-more)
		giveBack(loan)
		return false
	}
	b.memory += more
	mem := beginBody(*loan, coding{})
	was := b.loan
	if b.size > 0 {
		mem = append(mem, b.mem[bodyAt:]...)
	}
	b.mem, b.loan = mem, loan
	giveBack(was)
	return true
}

// inMemory is the body, while it is not a file.
func (b *staged) inMemory() []byte {
	if b.size == 0 {
		return nil
	}
	return b.mem[bodyAt : bodyAt+b.size]
}

func (s *Store) blobPath(no uint64) string { return s.db.Path("blobs", idOf('b', no)) }

// spill moves what is in memory to a file.
func (b *staged) spill() error {
	f, err := b.s.o.fs.Create(b.s.blobPath(b.no), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	// So that a large body does not wait for the disk at its end only.
	b.file = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: 1 << 20})
	err = b.frame(b.inMemory())
	b.mem, b.loan = nil, nil
	b.s.memory.Add(-b.memory)
	b.memory = 0
	return err
}

// seal makes the file durable, with its name. Nothing is written after it.
func (b *staged) seal() (err error) {
	if b.closed.Load() {
		return errBodyClosed
	}
	if b.err != nil {
		return b.err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil {
		switch {
		case b.record != nil || b.size == 0:
		case b.frames.octet() == 0: // the record is there already, but for its end
			b.record = endBody(b.mem[:bodyAt+b.size])
		default:
			b.record, err = encodeBody(b.frames.coding, b.inMemory())
		}
		return err
	}
	if b.sealed {
		return nil
	}
	if len(b.pending) > 0 {
		if err := b.flush(); err != nil {
			return full(err)
		}
	}
	if err := b.file.Sync(); err != nil {
		return full(err)
	}
	if err := diskdb.SyncDir(b.s.o.fs, b.s.db.Path("blobs")); err != nil {
		return full(err)
	}
	b.sealed = true
	return nil
}

func (b *staged) ReadAt(p []byte, off int64) (int, error) {
	if err := b.enter(); err != nil {
		return 0, err
	}
	defer b.leave()
	if b.file == nil {
		return readAt(b.inMemory(), p, off)
	}
	if off < 0 {
		return 0, errOffset
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	if off < b.frames.size {
		if b.read == nil {
			f, err := b.s.readFile(b.no)
			if err != nil {
				return 0, err
			}
			b.read = &frameFile{f: f, layout: &b.frames}
		}
		k, err := b.read.ReadAt(p[:min(int64(len(p)), b.frames.size-off)], off)
		if n = k; err != nil {
			return n, err
		}
	}
	if at := off + int64(n) - b.frames.size; n < len(p) && at >= 0 && at < int64(len(b.pending)) {
		n += copy(p[n:], b.pending[at:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (b *staged) Size() int64 { return b.size }

// Close gives back what was not appended.
func (b *staged) Close() error {
	if !b.release() {
		return nil
	}
	b.s.memory.Add(-b.memory)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read != nil {
		b.read.f.Close()
	}
	if b.file != nil {
		b.file.Close()
		if !b.stored.Load() {
			b.s.removeFile(b.no)
		}
	}
	b.s.pins.drop(b.no)
	return nil
}

// removeFile: what fails is an orphan, which the next Open removes.
func (s *Store) removeFile(no uint64) {
	if err := s.o.fs.Remove(s.blobPath(no)); err != nil {
		s.log().Warn("diskstore: removing a body", "dir", s.dir, "file", idOf('b', no), "err", err)
	}
}

// pins are blobs that somebody may still refer to: those being written and
// those that are open. The sweeper leaves them.
type pins struct {
	mu sync.Mutex
	n  map[uint64]int
}

func (p *pins) add(no uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n == nil {
		p.n = make(map[uint64]int)
	}
	p.n[no]++
}

func (p *pins) drop(no uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n[no]--; p.n[no] <= 0 {
		delete(p.n, no)
	}
}
