package memqueue

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postrider/postrider/internal/spool"
	"github.com/postrider/postrider/queue"
)

// DefaultMaxBytes is the default of Storage.MaxBytes: 1 GiB.
const DefaultMaxBytes = 1 << 30

// keyLife is how long an idempotency key is known.
const keyLife = 72 * time.Hour

// What an entry and a message cost beside their body, roughly, in octets. It
// makes MaxBytes a bound for a queue of many small ones, too.
const (
	entryCost   = 640
	messageCost = 400
	keyCost     = 160
	eventCost   = 400
)

// Storage is a queue.Storage, Waker, Lister, Editor and EventLog. The zero
// value is ready. Its settings must not change once it is used.
type Storage struct {
	// MaxBytes bounds what is kept, in octets, bodies in files included;
	// 0 = DefaultMaxBytes, negative = no bound. Beyond it Stage, Put and a
	// body's Write give queue.ErrFull; outcomes always fit.
	MaxBytes int64
	// BodyMemory is how much of one body stays in memory, in octets, before
	// it goes to a temporary file; 0 = 128 KiB.
	BodyMemory int
	// Dir is where temporary files lie; "" = os.TempDir.
	Dir string
	// KeepEvents turns the event log on. Events that nobody acknowledges
	// count to MaxBytes and in the end fill it.
	KeepEvents bool
	// Now is the clock; nil = time.Now.
	Now func() time.Time

	mu       sync.Mutex
	used     int64
	messages map[queue.ID]*message
	entries  map[queue.ID]*node
	lanes    map[queue.Lane]*lane
	due      heap[*lane] // lanes by their earliest entry
	alarms   heap[*node] // free entries by their alarm
	owners   map[queue.Owner]*owner
	keys     map[key]keyRecord
	keyOrder []key // oldest first, from keyHead on
	keyHead  int
	paused   []queue.Filter
	wake     chan struct{}
	events   eventLog
}

var (
	_ queue.Storage  = (*Storage)(nil)
	_ queue.Waker    = (*Storage)(nil)
	_ queue.Lister   = (*Storage)(nil)
	_ queue.Editor   = (*Storage)(nil)
	_ queue.EventLog = (*Storage)(nil)
)

// message is a queue.Message with its content.
type message struct {
	*queue.Message
	head    []byte
	body    io.ReaderAt
	close   func() error
	entries int   // not finished
	readers int   // open blobs
	cost    int64 // given back when both are 0
}

func (s *Storage) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// init makes the maps; s.mu is held.
func (s *Storage) init() {
	if s.messages != nil {
		return
	}
	s.messages = make(map[queue.ID]*message)
	s.entries = make(map[queue.ID]*node)
	s.lanes = make(map[queue.Lane]*lane)
	s.owners = make(map[queue.Owner]*owner)
	s.keys = make(map[key]keyRecord)
	s.due = heap[*lane]{less: laneLess, pos: lanePos}
	s.alarms = heap[*node]{less: alarmLess, pos: alarmPos}
}

func (s *Storage) max() int64 {
	switch {
	case s.MaxBytes < 0:
		return math.MaxInt64
	case s.MaxBytes == 0:
		return DefaultMaxBytes
	}
	return s.MaxBytes
}

// reserve takes n octets of the bound, unless that would exceed it.
func (s *Storage) reserve(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > s.max()-s.used {
		return queue.ErrFull
	}
	s.used += n
	return nil
}

func (s *Storage) release(n int64) {
	s.mu.Lock()
	s.used -= n
	s.mu.Unlock()
}

// Used returns how many octets count to MaxBytes now.
func (s *Storage) Used() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

// Stage implements queue.Storage.
func (s *Storage) Stage(ctx context.Context, size int64) (queue.Staged, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if max(size, 0)+messageCost+entryCost > s.max()-s.used {
		return nil, queue.ErrFull
	}
	return &staged{storage: s, spool: spool.Spool{Memory: s.BodyMemory, Dir: s.Dir}}, nil
}

// staged is a body of ours, not stored yet.
type staged struct {
	storage  *Storage
	spool    spool.Spool
	reserved int64
	over     bool // closed, or the storage's now
}

var errClosed = errors.New("memqueue: body is closed or stored")

func (b *staged) Write(p []byte) (int, error) {
	if b.over {
		return 0, errClosed
	}
	if err := b.storage.reserve(int64(len(p))); err != nil {
		return 0, err
	}
	b.reserved += int64(len(p))
	return b.spool.Write(p)
}

func (b *staged) ReadAt(p []byte, off int64) (int, error) { return b.spool.ReadAt(p, off) }
func (b *staged) Size() int64                             { return b.spool.Size() }

func (b *staged) Close() error {
	if b.over {
		return nil
	}
	b.over = true
	b.storage.release(b.reserved)
	return b.spool.Close()
}

// blob is an open message.
type blob struct {
	storage *Storage
	m       *message
	head    []byte
	body    io.ReaderAt
	closed  atomic.Bool
}

var errBlobClosed = errors.New("memqueue: blob is closed")

// Open implements queue.Storage.
func (s *Storage) Open(ctx context.Context, m *queue.Message) (queue.Blob, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	stored := s.messages[m.ID]
	if stored == nil || stored.entries == 0 {
		return nil, queue.ErrNotFound
	}
	stored.readers++
	return &blob{storage: s, m: stored, head: stored.head, body: stored.body}, nil
}

func (b *blob) Size() int64 { return b.m.Size }

func (b *blob) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("memqueue: negative offset")
	}
	if b.closed.Load() {
		return 0, errBlobClosed
	}
	n := 0
	if off < int64(len(b.head)) {
		n = copy(p, b.head[off:])
		if n == len(p) {
			return n, nil
		}
	}
	k, err := b.body.ReadAt(p[n:], off+int64(n)-int64(len(b.head)))
	return n + k, err
}

func (b *blob) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	b.storage.mu.Lock()
	defer b.storage.mu.Unlock()
	b.m.readers--
	b.storage.dropIfDone(b.m)
	return nil
}

// dropIfDone forgets m when nobody needs it; s.mu is held.
func (s *Storage) dropIfDone(m *message) {
	if m.entries > 0 {
		return
	}
	if s.messages[m.ID] == m {
		delete(s.messages, m.ID)
	}
	if m.readers == 0 && m.body != nil {
		// What a temporary file says at its end changes nothing.
		m.close()
		m.head, m.body = nil, nil
		s.used -= m.cost
	}
}
