package diskstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// Errors of Open, and of a Store that is used after its end. Those that calls
// can meet later are store.ErrUnavailable, too.
var (
	// ErrLocked: another process, or another Store of this one, uses the
	// directory.
	ErrLocked = diskdb.ErrLocked
	// ErrFormat: the directory is of a format that this version does not
	// know, or holds something else.
	ErrFormat = diskdb.ErrFormat
	// ErrFailed: the disk failed in a way after which nothing can be promised
	// until the directory is opened again. What was acknowledged is there.
	ErrFailed = diskdb.ErrFailed
	// ErrFull: the disk is full. Nothing was done.
	ErrFull = diskdb.ErrFull
	// ErrDamaged: a record on the disk is not what was written. See Check.
	ErrDamaged = diskdb.ErrDamaged
	// ErrClosed: Close was called.
	ErrClosed = errors.New("diskstore: store is closed")
)

// Options are settings of Open. The zero value has the defaults.
type Options struct {
	// History is how many ranges of expunged UIDs each mailbox remembers;
	// 0 = 65,536, negative = none, so that each sync lists anew.
	History int
	// Keywords is how many different keywords a mailbox may have in use at
	// once; 0 = 256, negative = no limit. Beyond: store.ErrLimit.
	Keywords int
	// Mailboxes is how many an account may have; 0 = 10,000, negative = no
	// limit. Beyond: store.ErrLimit.
	Mailboxes int
	// MessageSize is the greatest message, in octets; 0 = no limit. Beyond:
	// store.ErrTooBig.
	MessageSize int64
	// Grace is how long an expunged message can still be opened, and how
	// long its space stays taken; 0 = one hour, negative = not at all.
	Grace time.Duration
	// BodyMemory is the longest body, in octets, that is kept in the
	// database and, until it is stored, in memory; longer ones are files.
	// 0 = 128 KiB.
	BodyMemory int
	// MinFree is how much of the disk stays free for the store's own work,
	// in octets: below it no mail is taken. 0 = 256 MiB, less on a disk
	// smaller than 16 GiB; negative = all may be used, which is not wise.
	MinFree int64
	// Compress has new bodies compressed, with zstd. What is there already is
	// read either way.
	Compress bool
	// Keys has new messages encrypted; nil = they are not. What is sealed can
	// only be read with it.
	Keys Keys
	// Cache is how much the database keeps in memory, in octets; 0 = 64 MiB.
	Cache int64
	// Log is where what the disk does goes; nil = slog.Default().
	Log *slog.Logger

	fs      vfs.FS // nil = the system's
	lengths lengths
}

const (
	defaultHistory    = 1 << 16
	defaultKeywords   = 256
	defaultMailboxes  = 10_000
	defaultGrace      = time.Hour
	defaultBodyMemory = 128 << 10
	defaultCache      = 64 << 20
	maxName           = 1024    // octets of an account's, a mailbox's or a keyword's name
	maxDeleted        = 1 << 14 // deleted mailboxes that an account remembers
	// stageMemory bounds what all bodies together hold in memory before they
	// are stored; what does not fit goes to files.
	stageMemory = 64 << 20
	// inFlight bounds the octets of bodies on their way into the database.
	inFlight = 32 << 20
	// keptAccounts is how many accounts stay in memory that nobody uses.
	keptAccounts = 4096
)

// limit gives 0 its default and turns a negative one off.
func limit(n, def int) int {
	switch {
	case n == 0:
		return def
	case n < 0:
		return int(^uint(0) >> 1)
	}
	return n
}

// Store is a store on disk. It is also a store.Admin, Stager and Deliverer;
// its accounts are also store.Watcher, Subscriber, RecentClaimer, Quoter,
// SummaryWriter and Importer.
type Store struct {
	dir    string
	o      Options
	db     *diskdb.DB
	nums   numbers
	flight diskdb.Flight
	memory atomic.Int64 // of staged bodies
	pack   packer

	use    sync.RWMutex // held for reading by each call
	closed bool         // under use

	loads [64]sync.Mutex // held while an account is looked up, by its name
	pins  pins

	mu       sync.Mutex
	accounts map[string]weak.Pointer[account]
	kept     []*account // the latest, as a ring
	keep     int

	sweeper sweeper
}

var (
	_ store.Store     = (*Store)(nil)
	_ store.Admin     = (*Store)(nil)
	_ store.Stager    = (*Store)(nil)
	_ store.Deliverer = (*Store)(nil)
)

// Open opens the store in dir, which is made if it is not there. o may be nil.
func Open(dir string, o *Options) (*Store, error) {
	s := &Store{dir: dir, accounts: make(map[string]weak.Pointer[account])}
	if o != nil {
		s.o = *o
	}
	if s.o.fs == nil {
		s.o.fs = vfs.Default
	}
	if s.o.BodyMemory <= 0 {
		s.o.BodyMemory = defaultBodyMemory
	}
	if s.o.Cache <= 0 {
		s.o.Cache = defaultCache
	}
	if s.o.Grace == 0 {
		s.o.Grace = defaultGrace
	}
	s.o.Grace = max(s.o.Grace, 0)
	s.o.lengths = s.o.lengths.orDefault()
	s.flight.Max = inFlight
	if err := s.open(); err != nil {
		if s.db != nil {
			s.db.Close()
		}
		return nil, fmt.Errorf("diskstore: %s: %w", dir, err)
	}
	s.startSweeper()
	return s, nil
}

func (s *Store) open() (err error) {
	s.db, err = diskdb.Open(diskdb.Config{Dir: s.dir, Name: "diskstore", Format: formatLine, Migrations: migrations(), Dirs: []string{"blobs"},
		FS: s.o.fs, MinFree: s.o.MinFree, Cache: s.o.Cache, Log: s.log()})
	if err != nil {
		return err
	}
	if err := s.nums.load(s.db); err != nil {
		if !errors.Is(err, ErrDamaged) {
			return err
		}
		// Far enough ahead of all that can have been given out.
		s.log().Error("diskstore: the record of numbers", "dir", s.dir, "err", err)
		s.nums.last = s.nums.next() + 3600_000_000
	}
	if err := s.reissue(); err != nil {
		return err
	}
	return s.sweepFiles()
}

// Close waits for the calls under way and ends. Blobs that are open stay
// readable.
func (s *Store) Close() error {
	s.use.Lock()
	if s.closed {
		s.use.Unlock()
		return nil
	}
	s.closed = true
	s.use.Unlock()
	s.stopSweeper()
	return s.db.Close()
}

// begin enters a call. Each that succeeds is followed by end.
func (s *Store) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.use.RLock()
	if s.closed {
		s.use.RUnlock()
		return unavailable(ErrClosed)
	}
	if err := s.db.Failure(); err != nil {
		s.use.RUnlock()
		return unavailable(err)
	}
	return nil
}

func (s *Store) end() { s.use.RUnlock() }

func (s *Store) log() *slog.Logger {
	if s.o.Log != nil {
		return s.o.Log
	}
	return slog.Default()
}

// unavailable says of a failure of the disk that it is one.
func unavailable(err error) error {
	if err == nil || errors.Is(err, store.ErrUnavailable) {
		return err
	}
	if errors.Is(err, ErrDamaged) {
		return fmt.Errorf("diskstore: %w, %w: %w", store.ErrDamaged, store.ErrUnavailable, err)
	}
	return fmt.Errorf("diskstore: %w: %w", store.ErrUnavailable, err)
}

// full says of what the guard of the disk found that nothing was done.
func full(err error) error { return unavailable(diskdb.DiskError(err)) }
