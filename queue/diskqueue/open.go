package diskqueue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/postrider/postrider/queue"
)

// Errors of Open, and of a Storage that is used after its end.
var (
	// ErrLocked: another process, or another Storage of this one, uses the
	// directory.
	ErrLocked = errors.New("diskqueue: directory is in use")
	// ErrFormat: the directory is of a format that this version does not
	// know, or holds something else.
	ErrFormat = errors.New("diskqueue: not a queue of a known format")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("diskqueue: storage is closed")
	// ErrFailed: the disk failed in a way after which nothing can be promised
	// until the directory is opened again. What was acknowledged is there.
	ErrFailed = errors.New("diskqueue: storage failed")
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
	fs     vfs.FS // the database's; knows the ballast
	db     *pebble.DB
	lock   io.Closer
	space  space
	memory atomic.Int64 // of staged bodies
	flight flight
	failed atomic.Pointer[error]

	memTable   uint64          // octets
	opened     atomic.Bool     // the database is there
	closing    context.Context // of what goes on in the background
	close      context.CancelFunc
	background sync.WaitGroup

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
	s.flight.max = inFlight
	s.closing, s.close = context.WithCancel(context.Background())
	if err := s.open(); err != nil {
		s.close()
		if s.db != nil {
			s.db.Close()
		}
		if s.lock != nil {
			s.lock.Close()
		}
		return nil, fmt.Errorf("diskqueue: %s: %w", dir, err)
	}
	return s, nil
}

func (s *Storage) path(name ...string) string {
	return s.o.fs.PathJoin(append([]string{s.dir}, name...)...)
}

func (s *Storage) open() error {
	disk := s.o.fs
	if err := makeDir(disk, s.dir); err != nil {
		return err
	}
	lock, err := disk.Lock(s.path("LOCK"))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLocked, err)
	}
	s.lock = lock
	if err := s.checkFormat(); err != nil {
		return err
	}
	if err := disk.MkdirAll(s.path("bodies"), 0o700); err != nil {
		return err
	}
	if err := syncDir(disk, s.dir); err != nil {
		return err
	}
	s.memTable = s.measure()
	s.fs = tables{vfs.OnDiskFull(disk, s.dropBallast), s}
	if err := s.roomToOpen(); err != nil {
		return err
	}
	if s.db, err = pebble.Open(s.path("db"), s.pebbleOptions()); err != nil {
		return err
	}
	s.opened.Store(true)
	s.makeBallast()
	if err := s.load(); err != nil {
		return err
	}
	return s.sweepFiles()
}

// When the database lets writes wait for its tables.
const (
	memTables = 4
	stopL0    = 24
)

// pebbleOptions are part of the format where they say how it lies on the disk.
func (s *Storage) pebbleOptions() *pebble.Options {
	log := pebbleLog{s}
	o := &pebble.Options{
		FS:                          s.fs,
		FormatMajorVersion:          pebble.FormatValueSeparation,
		MemTableSize:                s.memTable,
		MemTableStopWritesThreshold: memTables,
		L0StopWritesThreshold:       stopL0,
		L0CompactionThreshold:       4,
		CacheSize:                   32 << 20,
		Logger:                      log,
		EventListener:               &pebble.EventListener{BackgroundError: log.background},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{Enabled: true, MinimumSize: 1 << 10, MaxBlobReferenceDepth: 10,
			RewriteMinimumAge: time.Minute, TargetGarbageRatio: 0.3}
	}
	return o
}

// checkFormat reads FORMAT, or writes it where nothing is yet.
func (s *Storage) checkFormat() error {
	disk, name := s.o.fs, s.path("FORMAT")
	f, err := disk.Open(name)
	switch {
	case err == nil:
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, 100))
		if err != nil {
			return err
		}
		if string(text) != formatLine {
			return fmt.Errorf("%w: FORMAT says %q, want %q", ErrFormat, text, formatLine)
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	list, err := disk.List(s.dir)
	if err != nil {
		return err
	}
	for _, n := range list {
		if n != "LOCK" && n != "FORMAT.new" && n != "lost+found" {
			return fmt.Errorf("%w: there is %s and no FORMAT", ErrFormat, n)
		}
	}
	if f, err = disk.Create(s.path("FORMAT.new"), vfs.WriteCategoryUnspecified); err != nil {
		return err
	}
	_, err = io.WriteString(f, formatLine)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := disk.Rename(s.path("FORMAT.new"), name); err != nil {
		return err
	}
	return syncDir(disk, s.dir)
}

// makeDir makes a directory that is there after a crash: its name, and those
// of the ones above that had to be made, are synced into what holds them.
func makeDir(disk vfs.FS, dir string) error {
	var made []string
	for d := dir; ; {
		if _, err := disk.Stat(d); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		made = append(made, d)
		up := disk.PathDir(d)
		if up == d {
			break
		}
		d = up
	}
	if err := disk.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range made {
		if err := syncDir(disk, disk.PathDir(d)); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(disk vfs.FS, dir string) error {
	d, err := disk.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
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
	if err := s.failure(); err != nil {
		s.use.RUnlock()
		return err
	}
	return nil
}

func (s *Storage) end() { s.use.RUnlock() }

func (s *Storage) failure() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

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
	s.close()
	s.background.Wait()
	err := s.db.Close()
	return errors.Join(err, s.lock.Close())
}

// commit writes b and returns when it is durable. applied, if not nil, is
// called when b is visible, before the sync, or will not be. queue.ErrFull:
// not even an outcome fits.
func (s *Storage) commit(b *pebble.Batch, applied func()) error {
	n := int64(b.Len())
	if err := s.enterDisk(n); err != nil {
		if applied != nil {
			applied()
		}
		b.Close()
		return err
	}
	defer s.leaveDisk(n)
	err := s.db.ApplyNoSyncWait(b, pebble.Sync)
	if applied != nil {
		applied()
	}
	if err != nil {
		return err
	}
	err = b.SyncWait()
	b.Close()
	if failed := s.failure(); failed != nil {
		return failed
	}
	return err
}

// commitLater writes what need not survive a crash. On a full disk it waits
// for another time.
func (s *Storage) commitLater(b *pebble.Batch) error {
	n := int64(b.Len())
	if err := s.enterDisk(n); err != nil {
		if errors.Is(err, queue.ErrFull) {
			return nil
		}
		return err
	}
	defer s.leaveDisk(n)
	return b.Commit(pebble.NoSync)
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

// get reads a key; the value is the caller's. A nil value: there is none.
func (s *Storage) get(key []byte) ([]byte, error) {
	v, c, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return append(make([]byte, 0, len(v)), v...), nil
}

// pebbleLog takes what the database says.
type pebbleLog struct{ s *Storage }

func (l pebbleLog) Infof(string, ...any) {}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.s.log().Error("diskqueue: database", "dir", l.s.dir, "text", fmt.Sprintf(format, args...))
}

// Fatalf is called where the database would end the process. We fail instead:
// each call gives the error from now on.
func (l pebbleLog) Fatalf(format string, args ...any) {
	err := fmt.Errorf("%w: %s", ErrFailed, fmt.Sprintf(format, args...))
	if l.s.failed.CompareAndSwap(nil, &err) {
		l.s.log().Error("diskqueue: nothing is written any more", "dir", l.s.dir, "err", err)
	}
}

// background hears of failures that the database tries again.
func (l pebbleLog) background(err error) {
	if l.s.space.mayLog(time.Now()) {
		l.s.log().Error("diskqueue: database, tried again", "dir", l.s.dir, "err", err)
	}
}
