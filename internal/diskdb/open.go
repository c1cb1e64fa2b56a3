package diskdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Errors of Open, and of a database that is used after the disk failed.
var (
	ErrLocked = errors.New("directory is in use")
	ErrFormat = errors.New("not a directory of a known format")
	ErrFailed = errors.New("the disk failed: nothing is written any more")
	ErrFull   = errors.New("the disk is full")
)

// Config says what Open opens.
type Config struct {
	Dir    string
	Name   string // of the engine, for the log
	Format string // the text of FORMAT, with its line end
	// Migrations lead from older formats to Format, the oldest first: each
	// ends where the next begins.
	Migrations []Migration
	Dirs       []string // folders in Dir that the engine keeps files in
	FS         vfs.FS   // nil = the system's
	// MinFree is how much of the disk stays free for the engine's own work,
	// in octets; 0 = 256 MiB, less on a disk smaller than 16 GiB; negative =
	// none.
	MinFree int64
	Cache   int64 // octets; 0 = 32 MiB
	Log     *slog.Logger
}

// DB is an open database.
type DB struct {
	*pebble.DB
	c      Config
	lock   io.Closer
	space  space
	failed atomic.Pointer[error]
	opened atomic.Bool // the database is there

	memTable   uint64          // octets
	closing    context.Context // of what goes on in the background
	end        context.CancelFunc
	background sync.WaitGroup
}

// Open opens the database of a directory, which is made if it is not there.
func Open(c Config) (*DB, error) {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	d := &DB{c: c}
	d.closing, d.end = context.WithCancel(context.Background())
	if err := d.open(); err != nil {
		d.end()
		if d.lock != nil {
			d.lock.Close()
		}
		return nil, err
	}
	return d, nil
}

// Path returns the path of a file of the directory.
func (d *DB) Path(name ...string) string {
	return d.c.FS.PathJoin(append([]string{d.c.Dir}, name...)...)
}

// FS is the file system that the directory is on.
func (d *DB) FS() vfs.FS { return d.c.FS }

func (d *DB) open() error {
	disk := d.c.FS
	if err := MakeDir(disk, d.c.Dir); err != nil {
		return err
	}
	lock, err := disk.Lock(d.Path("LOCK"))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLocked, err)
	}
	d.lock = lock
	migration, begun, err := d.checkFormat()
	if err != nil {
		return err
	}
	for _, name := range d.c.Dirs {
		if err := disk.MkdirAll(d.Path(name), 0o700); err != nil {
			return err
		}
	}
	if err := SyncDir(disk, d.c.Dir); err != nil {
		return err
	}
	d.measure()
	if err := d.roomToOpen(); err != nil {
		return err
	}
	if d.DB, err = pebble.Open(d.Path("db"), d.options()); err != nil {
		return err
	}
	if err := d.migrate(migration, begun); err != nil {
		return errors.Join(err, d.DB.Close())
	}
	d.opened.Store(true)
	d.makeBallast()
	return nil
}

// When the database lets writes wait for its tables.
const (
	memTables = 4
	stopL0    = 24
)

// options are part of the format where they say how it lies on the disk.
func (d *DB) options() *pebble.Options {
	cache := d.c.Cache
	if cache == 0 {
		cache = 32 << 20
	}
	log := pebbleLog{d}
	o := &pebble.Options{
		FS:                          tables{vfs.OnDiskFull(d.c.FS, d.dropBallast), d},
		FormatMajorVersion:          pebble.FormatValueSeparation,
		MemTableSize:                d.memTable,
		MemTableStopWritesThreshold: memTables,
		L0StopWritesThreshold:       stopL0,
		L0CompactionThreshold:       4,
		CacheSize:                   cache,
		Logger:                      log,
		EventListener:               &pebble.EventListener{BackgroundError: log.background},
	}
	// Large values are the engine's to compress: twice is once too often, and
	// what is not compressed is read at the speed of a plain file.
	packing := *sstable.SnappyCompression
	packing.ValueBlocks = sstable.NoCompression.ValueBlocks
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return &packing }
	}
	o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{Enabled: true, MinimumSize: 1 << 10, MaxBlobReferenceDepth: 10,
			RewriteMinimumAge: time.Minute, TargetGarbageRatio: 0.3}
	}
	return o
}

// WriteFile writes a small file so that it is there, whole, or not at all.
func WriteFile(disk vfs.FS, dir, name, text string) error {
	path := disk.PathJoin(dir, name)
	f, err := disk.Create(path+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(text))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := disk.Rename(path+".new", path); err != nil {
		return err
	}
	return SyncDir(disk, dir)
}

// MakeDir makes a directory that is there after a crash: its name, and those
// of the ones above that had to be made, are synced into what holds them.
func MakeDir(disk vfs.FS, dir string) error {
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
	if len(made) == 0 {
		return nil
	}
	if err := disk.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range made {
		if err := SyncDir(disk, disk.PathDir(d)); err != nil {
			return err
		}
	}
	return nil
}

// SyncDir makes the names in a directory durable.
func SyncDir(disk vfs.FS, dir string) error {
	d, err := disk.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Failure returns ErrFailed with its reason once the disk has failed.
func (d *DB) Failure() error {
	if err := d.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Close ends the database and gives the directory free.
func (d *DB) Close() error {
	d.end()
	d.background.Wait()
	return errors.Join(d.closeDB(), d.lock.Close())
}

func (d *DB) closeDB() (err error) {
	defer recovered(&err) // again, of what it panicked at
	return d.DB.Close()
}

// Value reads a key. The value is the caller's; nil when there is none.
func (d *DB) Value(key []byte) ([]byte, error) { return Get(d.DB, key) }

// Get reads a key of a database or a snapshot of one, as Value does. What the
// disk changed is ErrDamaged.
func Get(r pebble.Reader, key []byte) (value []byte, err error) {
	defer recovered(&err)
	v, c, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err == nil {
		v = append(make([]byte, 0, len(v)), v...)
		err = c.Close() // here it says that it could not read the value
	}
	if err != nil {
		return nil, damaged(err)
	}
	return v, nil
}

// IterValue returns the value where it stands, as Get does; it is good until
// it moves. Behind an error it must seek.
func IterValue(it *pebble.Iterator) (value []byte, err error) {
	defer recovered(&err)
	value, err = it.ValueAndErr()
	return value, damaged(err)
}

func damaged(err error) error {
	if pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// recovered makes an error of a panic of the database, which it has when a
// file of values was gone before it was opened.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", ErrDamaged, p)
	}
}

// pebbleLog takes what the database says.
type pebbleLog struct{ d *DB }

func (l pebbleLog) Infof(string, ...any) {}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.d.c.Log.Error(l.d.c.Name+": database", "dir", l.d.c.Dir, "text", fmt.Sprintf(format, args...))
}

// Fatalf is called where the database would end the process. We fail instead:
// each call gives the error from now on.
func (l pebbleLog) Fatalf(format string, args ...any) {
	err := fmt.Errorf("%w: %s", ErrFailed, fmt.Sprintf(format, args...))
	if l.d.failed.CompareAndSwap(nil, &err) {
		l.d.c.Log.Error(l.d.c.Name+": nothing is written any more", "dir", l.d.c.Dir, "err", err)
	}
}

// background hears of failures that the database tries again.
func (l pebbleLog) background(err error) {
	if l.d.space.mayLog(time.Now()) {
		l.d.c.Log.Error(l.d.c.Name+": database, tried again", "dir", l.d.c.Dir, "err", err)
	}
}
