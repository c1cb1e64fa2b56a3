package diskqueue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/queue"
)

// Errors of Open, and of a Storage that is used after its end.
var (
	// ErrLocked: another process, or another Storage of this one, uses the
	// directory.
	ErrLocked = diskdb.ErrLocked
	// ErrFormat: the directory is of a format that this version does not
	// know, or holds something else.
	ErrFormat = diskdb.ErrFormat
	// ErrFailed: the disk failed in a way after which nothing can be promised
	// until the directory is opened again. What was acknowledged is there.
	ErrFailed = diskdb.ErrFailed
	// ErrDamaged: a record or a body on the disk is not what was written. See
	// Check.
	ErrDamaged = diskdb.ErrDamaged
	// ErrClosed: Close was called.
	ErrClosed = errors.New("diskqueue: storage is closed")
)

// Options are settings of Open. The zero value has the defaults.
type Options struct {
	// MaxBytes bounds what is kept, in octets; 0 = only by the disk. Beyond
	// it Stage, Put and a body's Write give queue.ErrFull; outcomes always
	// fit.
	MaxBytes int64
	// MinFree is how much of the disk stays free for outcomes and for the
	// storage's own work, in octets: below it there is no room for more mail.
	// 0 = 256 MiB, less on a disk smaller than 16 GiB; negative = all may be
	// used, which is not wise.
	MinFree int64
	// BodyMemory is the longest body, in octets, that is kept in the
	// database and, until it is stored, in memory; longer ones are files.
	// 0 = 128 KiB.
	BodyMemory int
	// KeepEvents turns the event log on. Events that nobody acknowledges
	// stay for ever.
	KeepEvents bool
	// Now is the clock; nil = time.Now.
	Now func() time.Time
	// Log is where what the disk does goes; nil = slog.Default().
	Log *slog.Logger

	fs vfs.FS // nil = the system's
}

const (
	defaultBodyMemory = 128 << 10
	// stageMemory bounds what all bodies together hold in memory before they
	// are stored; what does not fit goes to files.
	stageMemory = 64 << 20
	// inFlight bounds the octets of bodies on their way into the database.
	inFlight = 32 << 20
)

// Storage is a queue.Storage, Waker, Lister, Editor and EventLog.
type Storage struct {
	dir    string
	o      Options
	db     *diskdb.DB
	memory atomic.Int64 // of staged bodies
	flight diskdb.Flight
	known  known

	use     sync.RWMutex // held for reading by each call
	closed  bool         // under use
	stripes [256]sync.Mutex

	// mu is never held while something is written.
	mu       sync.Mutex
	used     int64 // counted if MaxBytes is set
	lanes    map[string]*lane
	due      heap
	busy     map[queue.ID]*hold // entries in somebody's hands
	owners   map[queue.Owner]*owner
	tokens   map[queue.ID]int64 // of leases that ended with no outcome
	late     []*hold            // whose owner died, with edits to be made
	reserved map[string]chan struct{}
	swept    time.Time // when keys were forgotten last
	paused   []queue.Filter
	wake     chan struct{}
	events   events
	files    files
}

var (
	_ queue.Storage  = (*Storage)(nil)
	_ queue.Waker    = (*Storage)(nil)
	_ queue.Lister   = (*Storage)(nil)
	_ queue.Editor   = (*Storage)(nil)
	_ queue.EventLog = (*Storage)(nil)
)

// Open opens the queue in dir, which is made if it is not there. Entries that
// a process before had leased are free. o may be nil.
func Open(dir string, o *Options) (*Storage, error) {
	s := &Storage{dir: dir, lanes: make(map[string]*lane), busy: make(map[queue.ID]*hold),
		owners: make(map[queue.Owner]*owner), tokens: make(map[queue.ID]int64), reserved: make(map[string]chan struct{})}
	if o != nil {
		s.o = *o
	}
	if s.o.fs == nil {
		s.o.fs = vfs.Default
	}
	if s.o.BodyMemory <= 0 {
		s.o.BodyMemory = defaultBodyMemory
	}
	s.flight.Max = inFlight
	if err := s.open(); err != nil {
		if s.db != nil {
			s.db.Close()
		}
		return nil, fmt.Errorf("diskqueue: %s: %w", dir, err)
	}
	return s, nil
}

func (s *Storage) open() (err error) {
	s.db, err = diskdb.Open(diskdb.Config{Dir: s.dir, Name: "diskqueue", Format: formatLine, Dirs: []string{"bodies"},
		FS: s.o.fs, MinFree: s.o.MinFree, Log: s.log()})
	if err != nil {
		return full(err)
	}
	if err := s.load(); err != nil {
		return err
	}
	return s.sweepFiles()
}

// load makes the index, one step per lane, and takes in what else is known.
func (s *Storage) load() error {
	before, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	s.loadEvents(before) // the edits add to them
	if err := before.Close(); err != nil {
		return err
	}
	if err := s.loadEdits(); err != nil {
		return err
	}
	it, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer it.Close()
	s.loadLanes(it)
	if err := s.loadPaused(it); err != nil {
		return err
	}
	if s.o.MaxBytes > 0 {
		for ok := it.SeekGE([]byte{kMessage}); ok && it.Key()[0] == kMessage; ok = it.Next() {
			if m, err := decodeMessage(it.Value()); err == nil {
				s.used += m.cost()
			}
		}
	}
	return it.Error()
}

// loadLanes finds the first entry of each lane. The lanes are made before the
// map and the heap of them, which then have their size from the start.
func (s *Storage) loadLanes(it *pebble.Iterator) {
	var found []*lane
	defer func() {
		s.lanes = make(map[string]*lane, len(found)+1)
		s.due = make(heap, 0, len(found))
		for _, l := range found {
			s.lanes[l.key] = l
			if l.key != alarmLane {
				l.place = int32(len(s.due))
				s.due = append(s.due, l)
			}
		}
		for i := len(s.due)/2 - 1; i >= 0; i-- {
			s.due.down(i)
		}
	}()
	var last string
	steps := 0
	for ok := it.SeekGE([]byte{kAlarm}); ok && it.Key()[0] == kAlarm; ok = it.Next() {
		if p, good := posOf(it.Key()[1:]); good {
			found = append(found, &lane{key: alarmLane, first: p})
			break
		}
	}
	for ok := it.SeekGE([]byte{kDue}); ok && it.Key()[0] == kDue; {
		key := it.Key()
		if n := len(last); n > 0 && len(key) > n && string(key[:n]) == last {
			// The lanes may have one entry each or millions.
			if steps++; steps > 8 {
				ok = it.SeekGE(append(posKey(last, pos{at: math.MaxInt64, id: maxID}), 0))
				continue
			}
			ok = it.Next()
			continue
		}
		n, good := laneLen(key)
		p, good2 := pos{}, false
		if good {
			p, good2 = posOf(key[n:])
		}
		if good2 {
			last, steps = string(key[:n]), 0
			found = append(found, &lane{key: last, first: p})
		}
		ok = it.Next()
	}
}

// begin enters a call. Each that succeeds is followed by end.
func (s *Storage) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.use.RLock()
	if s.closed {
		s.use.RUnlock()
		return ErrClosed
	}
	if err := s.db.Failure(); err != nil {
		s.use.RUnlock()
		return fmt.Errorf("diskqueue: %w", err)
	}
	return nil
}

func (s *Storage) end() { s.use.RUnlock() }

// Close waits for the calls under way and ends. Blobs that are open stay
// readable.
func (s *Storage) Close() error {
	s.use.Lock()
	defer s.use.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.mu.Lock()
	s.wakeUp()
	s.mu.Unlock()
	return s.db.Close()
}

// commit writes b and returns when it is durable. applied, if not nil, is
// called when b is visible, before the sync, or will not be. queue.ErrFull:
// not even an outcome fits.
func (s *Storage) commit(b *pebble.Batch, applied func()) error {
	c, err := s.db.Commit(b)
	if applied != nil {
		applied()
	}
	if err == nil {
		err = c.Wait()
	}
	return full(err)
}

// full says queue.ErrFull where the disk is.
func full(err error) error {
	if err = diskdb.DiskError(err); errors.Is(err, diskdb.ErrFull) {
		return fmt.Errorf("%w: %w", queue.ErrFull, err)
	}
	return err
}

func (s *Storage) now() time.Time {
	if s.o.Now != nil {
		return s.o.Now()
	}
	return time.Now()
}

func (s *Storage) log() *slog.Logger {
	if s.o.Log != nil {
		return s.o.Log
	}
	return slog.Default()
}
