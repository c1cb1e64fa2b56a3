package diskqueue

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/queue"
)

// What a message and an entry cost beside the body, for MaxBytes.
const (
	messageCost = 400
	entryCost   = 640
)

func (m *message) cost() int64 { return messageCost + m.Size + int64(m.entries)*entryCost }

// reserve takes n octets of MaxBytes, unless that would exceed it.
func (s *Storage) reserve(n int64, force bool) error {
	if s.o.MaxBytes <= 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !force && n > s.o.MaxBytes-s.used {
		return queue.ErrFull
	}
	s.used += n
	return nil
}

func (s *Storage) release(n int64) {
	if s.o.MaxBytes <= 0 || n == 0 {
		return
	}
	s.mu.Lock()
	s.used -= n
	s.mu.Unlock()
}

// Stage implements queue.Storage.
func (s *Storage) Stage(ctx context.Context, size int64) (queue.Staged, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	need := max(size, 0) + messageCost + entryCost
	if err := s.reserve(need, false); err != nil {
		return nil, err
	}
	s.release(need)
	if err := s.db.Room(max(size, 0)); err != nil {
		return nil, full(err)
	}
	b := &staged{s: s}
	if size > int64(s.o.BodyMemory) {
		return b, b.spill()
	}
	return b, nil
}

// staged is a body of ours, in memory up to BodyMemory, then in its file. The
// file has its name from the start: nothing refers to it before Put does.
type staged struct {
	s        *Storage
	mem      []byte
	memory   int64 // of s.memory
	file     vfs.File
	id       queue.ID // of the file
	sums     sums     // of the file
	size     int64
	reserved int64
	unasked  int64 // octets for which the disk was not asked
	err      error // of a write: it cannot be stored any more
	over     atomic.Bool
}

var (
	errBodyClosed = errors.New("diskqueue: body is closed or stored")
	errOffset     = errors.New("diskqueue: negative offset")
)

const askEvery = 256 << 10

func (b *staged) Write(p []byte) (int, error) {
	if b.over.Load() {
		return 0, errBodyClosed
	}
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.write(p)
	b.err = err
	return n, err
}

func (b *staged) write(p []byte) (int, error) {
	n := int64(len(p))
	if err := b.s.reserve(n, false); err != nil {
		return 0, err
	}
	b.reserved += n
	if b.unasked += n; b.unasked >= askEvery {
		if err := b.s.db.Room(b.unasked); err != nil {
			return 0, full(err)
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
	return b.writeFile(p)
}

func (b *staged) writeFile(p []byte) (int, error) {
	b.sums.add(p) // before: a file may change what it is given
	k, err := b.file.Write(p)
	b.size += int64(k)
	return k, full(err)
}

// fits takes memory for n octets more, if there is some.
func (b *staged) fits(n int) bool {
	if len(b.mem)+n > b.s.o.BodyMemory {
		return false
	}
	if b.size+int64(n) <= b.memory {
		return true
	}
	more := max(int64(n), min(b.memory, int64(b.s.o.BodyMemory)-b.memory), 4<<10)
	if b.s.memory.Add(more) > stageMemory {
		b.s.memory.Add(-more)
		return false
	}
	b.memory += more
	return true
}

// spill moves what is in memory to a file.
func (b *staged) spill() error {
	b.id = queue.NewID()
	f, err := b.s.o.fs.Create(b.s.bodyPath(b.id), vfs.WriteCategoryUnspecified)
	if err != nil {
		return full(err)
	}
	// So that a large body does not wait for the disk at its end only.
	b.file = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: 1 << 20})
	if len(b.mem) > 0 {
		b.size = 0
		if _, err := b.writeFile(b.mem); err != nil {
			return err
		}
	}
	b.mem = nil
	b.s.memory.Add(-b.memory)
	b.memory = 0
	return nil
}

// seal makes the file durable, with its name.
func (b *staged) seal() error {
	if b.file == nil {
		return nil
	}
	if err := b.file.Sync(); err != nil {
		return full(err)
	}
	return full(diskdb.SyncDir(b.s.o.fs, b.s.db.Path("bodies")))
}

func (b *staged) ReadAt(p []byte, off int64) (int, error) {
	switch {
	case b.over.Load():
		return 0, errBodyClosed
	case off < 0:
		return 0, errOffset
	case b.file == nil:
		return bytes.NewReader(b.mem).ReadAt(p, off)
	}
	f, err := b.s.o.fs.Open(b.s.bodyPath(b.id))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(p, off)
}

func (b *staged) Size() int64 { return b.size }

// Close discards what was not put.
func (b *staged) Close() error {
	if b.over.Swap(true) {
		return nil
	}
	b.give(true)
	return nil
}

// give gives back what the body holds; discard says that the file goes, too,
// and that nothing of it counts any more.
func (b *staged) give(discard bool) {
	b.s.memory.Add(-b.memory)
	b.memory, b.mem = 0, nil
	if b.file != nil {
		b.file.Close()
		if discard {
			b.s.removeFile(b.id)
		}
	}
	b.s.release(b.reserved)
	b.reserved = 0
}

// blob is an open message.
type blob struct {
	s      *Storage
	head   []byte // and all of the body if there is no file
	file   *bodyFile
	id     queue.ID
	size   int64
	closed atomic.Bool
}

// Open implements queue.Storage.
func (s *Storage) Open(ctx context.Context, m *queue.Message) (queue.Blob, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	stored := s.known.get(m.ID)
	if stored == nil {
		v, err := s.db.Value(idKey(kMessage, m.ID))
		if err != nil {
			return nil, err
		}
		if v == nil {
			return nil, queue.ErrNotFound
		}
		if stored, err = decodeMessage(v); err != nil {
			return nil, fmt.Errorf("message %v: %w", m.ID, err)
		}
	}
	var err error
	b := &blob{s: s, id: stored.file, size: stored.Size}
	if !stored.file.IsZero() {
		s.mu.Lock()
		s.openedFile(b.id)
		s.mu.Unlock()
	}
	if b.head, b.file, err = s.openContent(s.db, stored); err != nil {
		b.Close()
		// Finished between the two, or damaged.
		if v, gerr := s.db.Value(idKey(kMessage, m.ID)); v == nil && gerr == nil {
			return nil, queue.ErrNotFound
		}
		return nil, fmt.Errorf("message %v: %w", m.ID, err)
	}
	return b, nil
}

// openContent reads what a message has in the database, and opens its file.
func (s *Storage) openContent(r pebble.Reader, m *message) (head []byte, file *bodyFile, err error) {
	head, err = diskdb.Get(r, idKey(kContent, m.ID))
	if err != nil {
		return nil, nil, err
	}
	n := len(head) - crc32.Size
	if n < 0 {
		return nil, nil, fmt.Errorf("%w: there is no content", ErrDamaged)
	}
	sum := binary.BigEndian.Uint32(head[n:])
	if head = head[:n]; crc32.Checksum(head, castagnoli) != sum {
		return nil, nil, fmt.Errorf("%w: checksum of the content", ErrDamaged)
	}
	want := m.Size
	if !m.file.IsZero() {
		want = int64(m.head)
	}
	if int64(n) != want {
		return nil, nil, fmt.Errorf("%w: the content has %d octets of %d", ErrDamaged, n, want)
	}
	if m.file.IsZero() {
		return head, nil, nil
	}
	v, err := diskdb.Get(r, idKey(kFile, m.file))
	if err != nil {
		return nil, nil, err
	}
	_, sums, err := decodeFile(v)
	if err != nil {
		return nil, nil, fmt.Errorf("file %v: %w", m.file, err)
	}
	f, err := s.o.fs.Open(s.bodyPath(m.file))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return nil, nil, err
	}
	return head, &bodyFile{f: f, size: m.Size - want, sums: sums}, nil
}

func (b *blob) Size() int64 { return b.size }

func (b *blob) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errOffset
	}
	if b.closed.Load() {
		return 0, errBodyClosed
	}
	n := 0
	if off < int64(len(b.head)) {
		n = copy(p, b.head[off:])
		if n == len(p) {
			return n, nil
		}
	}
	if b.file == nil {
		return n, io.EOF
	}
	k, err := b.file.ReadAt(p[n:], off+int64(n)-int64(len(b.head)))
	return n + k, err
}

func (b *blob) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	if b.id.IsZero() {
		return nil
	}
	var err error
	if b.file != nil {
		err = b.file.f.Close()
	}
	b.s.mu.Lock()
	remove := b.s.closedFile(b.id)
	b.s.mu.Unlock()
	if remove {
		b.s.removeFile(b.id)
	}
	return err
}
