package diskdb

import (
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// space watches the disk. The database can do nothing about a full one but
// try again for ever or end the process, so it must never meet one: below
// minFree nothing that is large is taken, and what is left is for small
// changes. If others fill the disk, the ballast is given up, and nothing is
// taken until it fits again.
type space struct {
	mu      sync.Mutex
	minFree int64 // 0 = not watched
	ballast int64
	gone    bool // the ballast
	free    int64
	asked   time.Time
	written int64 // since then
	logged  time.Time
}

const (
	mib           = 1 << 20
	freshFor      = 100 * time.Millisecond
	freshForBytes = 4 * mib
)

// measure sets the bounds by the size of the disk, and returns how large the
// database's buffers may be.
func (d *DB) measure() (memTable uint64) {
	memTable = 32 * mib
	u, err := d.c.FS.GetDiskUsage(d.c.Dir)
	if err != nil || u.TotalBytes == 0 {
		return memTable // not a disk that can be asked
	}
	memTable = max(mib, min(memTable, u.TotalBytes/64))
	sp := &d.space
	sp.minFree = d.c.MinFree
	if sp.minFree == 0 {
		sp.minFree = min(256*mib, int64(u.TotalBytes/16)+8*mib)
	}
	sp.minFree = max(sp.minFree, 0)
	sp.ballast = sp.minFree / 4
	return memTable
}

// Room returns ErrFull unless n octets more fit.
func (d *DB) Room(n int64) error {
	sp := &d.space
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.minFree == 0 {
		return nil
	}
	if err := d.ask(n); err != nil {
		return err
	}
	if sp.gone || sp.free-sp.written < sp.minFree {
		if sp.mayLogLocked(time.Now()) {
			d.c.Log.Warn(d.c.Name+": the disk is full", "dir", d.c.Dir, "free", sp.free, "wanted", sp.minFree)
		}
		return ErrFull
	}
	return nil
}

// Reserve is Room for changes that free what they can: they may use the last
// quarter above nothing, and are refused only when the database itself could
// not work on.
func (d *DB) Reserve(n int64) error {
	sp := &d.space
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.minFree == 0 {
		return nil
	}
	if err := d.ask(n); err != nil {
		return err
	}
	if sp.free-sp.written < sp.minFree/4 {
		return ErrFull
	}
	return nil
}

// ask looks at the disk when what is known of it is old. sp.mu is held.
func (d *DB) ask(n int64) error {
	sp := &d.space
	sp.written += n
	now := time.Now()
	if !sp.gone && sp.written <= freshForBytes && now.Sub(sp.asked) <= freshFor {
		return nil
	}
	u, err := d.c.FS.GetDiskUsage(d.c.Dir)
	if err != nil {
		return err
	}
	sp.free, sp.asked, sp.written = int64(u.AvailBytes), now, n
	if sp.gone && sp.free > sp.minFree+2*sp.ballast {
		sp.gone = !d.writeBallast()
	}
	return nil
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

// makeBallast is called at Open.
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

// dropBallast is called by the database's file system when the disk is full;
// its writes wait for us and are tried once more then.
func (d *DB) dropBallast() {
	d.space.mu.Lock()
	gone := d.space.gone
	d.space.gone = true
	d.space.mu.Unlock()
	if gone {
		return
	}
	d.c.Log.Error(d.c.Name+": the disk is full: the ballast is given up, and little is taken until it fits again", "dir", d.c.Dir)
	d.c.FS.Remove(d.Path("BALLAST"))
}

// DiskError says ErrFull where the disk is.
func DiskError(err error) error {
	if err != nil && isFull(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
