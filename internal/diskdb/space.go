package diskdb

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// space watches the disk. The database can do nothing about a full one but
// try again for ever or end the process, so it must never meet one:
//
//   - below minFree no mail is taken, and what is left is for small changes and
//     outcomes;
//   - if others fill the disk, the ballast is given up for more of these;
//   - below the floor these are refused as well, and so are the tables that
//     the database writes in the background: the floor is for its log and its
//     manifest, whose failure it does not survive.
//
// When there is room again all of it goes on by itself.
type space struct {
	mu      sync.Mutex
	minFree int64 // 0 = not watched
	ballast int64
	floor   int64
	gone    bool // the ballast
	free    int64
	asked   time.Time
	written int64 // since then
	pending int64 // on its way to the disk
	logged  time.Time

	freed     atomic.Int64 // octets deleted since the last reclaim
	reclaimed time.Time
	reclaims  bool // one is running
}

const (
	mib           = 1 << 20
	freshFor      = 100 * time.Millisecond
	freshForBytes = 4 * mib
)

// measure sets the bounds by the size of the disk, and how large the
// database's buffers may be.
func (d *DB) measure() {
	d.memTable = 32 * mib
	u, err := d.c.FS.GetDiskUsage(d.c.Dir)
	if err != nil || u.TotalBytes == 0 {
		return // not a disk that can be asked
	}
	d.memTable = max(mib, min(d.memTable, u.TotalBytes/64))
	sp := &d.space
	sp.minFree = d.c.MinFree
	if sp.minFree == 0 {
		sp.minFree = min(256*mib, int64(u.TotalBytes/16)+8*mib)
	}
	sp.minFree = max(sp.minFree, 0)
	sp.ballast = sp.minFree / 4
	sp.floor = min(sp.minFree/8, 8*mib)
}

// askLocked asks the disk how much is free, if the last answer is too old.
func (d *DB) askLocked(n int64, now time.Time) error {
	sp := &d.space
	if low := sp.gone || sp.free-sp.written < sp.minFree; !low && sp.written+n <= freshForBytes && now.Sub(sp.asked) <= freshFor {
		return nil
	}
	u, err := d.c.FS.GetDiskUsage(d.c.Dir)
	if err != nil {
		return err
	}
	sp.free, sp.asked, sp.written = int64(u.AvailBytes), now, 0
	return nil
}

// Room returns ErrFull unless n octets more of mail fit.
func (d *DB) Room(n int64) error {
	sp := &d.space
	if sp.minFree == 0 {
		return nil
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	now := time.Now()
	if err := d.askLocked(n, now); err != nil {
		return err
	}
	if sp.gone && sp.free > sp.minFree+2*sp.ballast {
		sp.gone = !d.writeBallast()
	}
	sp.written += n
	if sp.gone || sp.free-sp.written < sp.minFree {
		if sp.mayLogLocked(now) {
			d.c.Log.Warn(d.c.Name+": the disk is full: no mail is taken", "dir", d.c.Dir, "free", sp.free, "wanted", sp.minFree)
		}
		d.reclaimLocked(now)
		return ErrFull
	}
	return nil
}

// Enter lets n octets more go to the log, unless even these do not fit:
// ErrFull. Leave follows.
func (d *DB) Enter(n int64) error {
	sp := &d.space
	if sp.minFree == 0 {
		return nil
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if err := d.askLocked(n, time.Now()); err != nil {
		return err
	}
	if sp.gone || sp.free-sp.written < sp.minFree {
		// The database may call dropBallast with its lock held.
		sp.mu.Unlock()
		m := d.Metrics()
		sp.mu.Lock()
		if d.stallsLocked(m, n) {
			return ErrFull
		}
	}
	fits := func() bool { return sp.free-sp.written-sp.pending-n >= sp.floor }
	if !fits() && !sp.gone {
		d.dropBallastLocked()
		if err := d.askLocked(n, time.Now()); err != nil {
			return err
		}
	}
	if !fits() {
		return ErrFull
	}
	sp.written += n
	sp.pending += n
	return nil
}

// Leave says that what Enter let in is on the disk.
func (d *DB) Leave(n int64) {
	if d.space.minFree > 0 {
		d.space.mu.Lock()
		d.space.pending -= n
		d.space.mu.Unlock()
	}
}

// stallsLocked reports whether the database might keep a write of n octets
// waiting because it cannot write its tables: for ever, if nobody makes room.
func (d *DB) stallsLocked(m *pebble.Metrics, n int64) bool {
	if m.Levels[0].Sublevels >= stopL0-memTables {
		return true
	}
	inMemory := int64(m.MemTable.Size) + 2*n
	return inMemory > int64(memTables-1)*int64(d.memTable) && d.space.free-d.space.written-d.space.floor < 2*inMemory
}

var errFloor = errors.New("the disk is full: what is left is for the log")

const reclaimEvery = 5 * time.Second

// Freed says that n octets were deleted: on a full disk that is a reason to
// look for them.
func (d *DB) Freed(n int64) { d.space.freed.Add(n) }

// reclaimLocked lets the database give back what was deleted: by itself it
// does so when much is written, and on a full disk nothing is.
func (d *DB) reclaimLocked(now time.Time) {
	sp := &d.space
	if sp.reclaims || sp.freed.Load() == 0 || now.Sub(sp.reclaimed) < reclaimEvery {
		return
	}
	sp.reclaims = true
	d.background.Go(func() {
		sp.freed.Store(0)
		err := d.reclaim()
		if err != nil && d.closing.Err() == nil {
			d.c.Log.Error(d.c.Name+": giving back what was deleted", "dir", d.c.Dir, "err", err)
		}
		sp.mu.Lock()
		sp.reclaims, sp.reclaimed = false, time.Now()
		sp.mu.Unlock()
	})
}

func (d *DB) reclaim() error {
	flushed, err := d.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-flushed:
	case <-d.closing.Done():
		return nil
	}
	return d.Compact(d.closing, []byte{0}, []byte{0xff}, false)
}

// tables is the file system as the database's tables see it: they leave the
// floor free.
type tables struct {
	vfs.FS
	d *DB
}

func (t tables) Unwrap() vfs.FS { return t.FS }

func (t tables) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := t.FS.Create(name, c)
	if err == nil && isLog(name) {
		return t.log(name, f, c)
	}
	if err == nil && (strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")) {
		return &table{File: f, d: t.d}, nil
	}
	return f, err
}

func (t tables) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := t.FS.ReuseForWrite(oldname, newname, c)
	if err == nil && isLog(newname) {
		return t.log(newname, f, c)
	}
	return f, err
}

// table is a file being written.
type table struct {
	vfs.File
	d *DB
}

func (t *table) Write(p []byte) (int, error) {
	if t.d.belowFloor(int64(len(p))) {
		// The database tries again at once, and for ever.
		select {
		case <-time.After(freshFor):
		case <-t.d.closing.Done():
		}
		return 0, errFloor
	}
	return t.File.Write(p)
}

// belowFloor reports whether n octets more would take what is for the log.
// While the database opens all may be used: it writes tables of its log, which
// then goes.
func (d *DB) belowFloor(n int64) bool {
	if !d.opened.Load() {
		return false
	}
	sp := &d.space
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.minFree == 0 || d.askLocked(n, time.Now()) != nil {
		return false
	}
	if sp.free-sp.written-n < sp.floor {
		return true
	}
	sp.written += n
	return false
}

// spare reports whether n octets more can be taken for nothing but speed.
func (d *DB) spare(n int64) bool {
	sp := &d.space
	if sp.minFree == 0 {
		return true
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.gone || d.askLocked(n, time.Now()) != nil || sp.free-sp.written-n < sp.minFree {
		return false
	}
	sp.written += n
	return true
}

// roomToOpen makes sure that the database can write what is in its logs to
// tables: it would wait for that.
func (d *DB) roomToOpen() error {
	sp := &d.space
	if sp.minFree == 0 {
		return nil
	}
	list, err := d.c.FS.List(d.Path("db"))
	if err != nil {
		return nil // a new one
	}
	var need int64
	for _, name := range list {
		if !isLog(name) {
			continue
		}
		if info, err := d.c.FS.Stat(d.Path("db", name)); err == nil {
			need += info.Size()
		}
	}
	need = min(need, int64(d.memTable)) + sp.floor/2
	fits := func() (bool, error) {
		u, err := d.c.FS.GetDiskUsage(d.c.Dir)
		return err == nil && int64(u.AvailBytes) >= need, err
	}
	ok, err := fits()
	if !ok && err == nil {
		d.dropBallast()
		ok, err = fits()
	}
	if !ok && err == nil {
		err = fmt.Errorf("%w: to open it, %d octets must be free", ErrFull, need)
	}
	return err
}

// mayLog keeps what happens often from filling the log.
func (sp *space) mayLog(now time.Time) bool {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return sp.mayLogLocked(now)
}

func (sp *space) mayLogLocked(now time.Time) bool {
	if now.Sub(sp.logged) < 10*time.Second {
		return false
	}
	sp.logged = now
	return true
}

// makeBallast is called at Open. Without room for it no mail is taken.
func (d *DB) makeBallast() {
	sp := &d.space
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.ballast == 0 {
		return
	}
	if f, err := d.c.FS.Stat(d.Path("BALLAST")); err == nil && f.Size() == sp.ballast {
		return
	}
	u, err := d.c.FS.GetDiskUsage(d.c.Dir)
	sp.gone = err != nil || int64(u.AvailBytes) < sp.minFree+sp.ballast || !d.writeBallast()
}

// writeBallast writes octets: a hole would keep no room.
func (d *DB) writeBallast() bool {
	name := d.Path("BALLAST")
	f, err := d.c.FS.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return false
	}
	chunk := make([]byte, 256<<10)
	for i := range chunk {
		chunk[i] = byte(i)
	}
	for n := int64(0); n < d.space.ballast && err == nil; n += int64(len(chunk)) {
		_, err = f.Write(chunk[:min(int64(len(chunk)), d.space.ballast-n)])
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		d.c.FS.Remove(name)
		return false
	}
	return true
}

// dropBallast is called by the database's file system when the disk is full
// all the same; its writes wait for us and are tried once more then.
func (d *DB) dropBallast() {
	d.space.mu.Lock()
	defer d.space.mu.Unlock()
	d.dropBallastLocked()
}

func (d *DB) dropBallastLocked() {
	if d.space.gone {
		return
	}
	d.space.gone = true
	d.c.Log.Error(d.c.Name+": the disk is full: the ballast is given up, and no mail is taken until it fits again", "dir", d.c.Dir)
	d.c.FS.Remove(d.Path("BALLAST"))
}

// DiskError says ErrFull where the disk is.
func DiskError(err error) error {
	if err != nil && isFull(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
