package diskqueue

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/postrider/postrider/queue"
)

// space watches the disk. The database can do nothing about a full one but
// try again for ever or end the process, so it must never meet one: below
// minFree no mail is taken, and what is left is for outcomes. If others fill
// the disk, the ballast is given up, and no mail is taken until it fits again.
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
func (s *Storage) measure() (memTable uint64) {
	memTable = 32 * mib
	u, err := s.o.fs.GetDiskUsage(s.dir)
	if err != nil || u.TotalBytes == 0 {
		return memTable // not a disk that can be asked
	}
	memTable = max(mib, min(memTable, u.TotalBytes/64))
	sp := &s.space
	sp.minFree = s.o.MinFree
	if sp.minFree == 0 {
		sp.minFree = min(256*mib, int64(u.TotalBytes/16)+8*mib)
	}
	sp.minFree = max(sp.minFree, 0)
	sp.ballast = sp.minFree / 4
	return memTable
}

// room returns queue.ErrFull unless n octets more fit.
func (s *Storage) room(n int64) error {
	sp := &s.space
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.minFree == 0 {
		return nil
	}
	sp.written += n
	if now := time.Now(); sp.gone || sp.written > freshForBytes || now.Sub(sp.asked) > freshFor {
		u, err := s.o.fs.GetDiskUsage(s.dir)
		if err != nil {
			return err
		}
		sp.free, sp.asked, sp.written = int64(u.AvailBytes), now, n
		if sp.gone && sp.free > sp.minFree+2*sp.ballast {
			sp.gone = !s.writeBallast()
		}
	}
	if sp.gone || sp.free-sp.written < sp.minFree {
		if now := time.Now(); sp.mayLogLocked(now) {
			s.log().Warn("diskqueue: the disk is full: no mail is taken", "dir", s.dir, "free", sp.free, "wanted", sp.minFree)
		}
		return queue.ErrFull
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

// makeBallast is called at Open. Without room for it no mail is taken.
func (s *Storage) makeBallast() {
	sp := &s.space
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.ballast == 0 {
		return
	}
	if f, err := s.o.fs.Stat(s.path("BALLAST")); err == nil && f.Size() == sp.ballast {
		return
	}
	u, err := s.o.fs.GetDiskUsage(s.dir)
	sp.gone = err != nil || int64(u.AvailBytes) < sp.minFree+sp.ballast || !s.writeBallast()
}

// writeBallast writes octets: a hole would keep no room.
func (s *Storage) writeBallast() bool {
	name := s.path("BALLAST")
	f, err := s.o.fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return false
	}
	chunk := make([]byte, 256<<10)
	for i := range chunk {
		chunk[i] = byte(i)
	}
	for n := int64(0); n < s.space.ballast && err == nil; n += int64(len(chunk)) {
		_, err = f.Write(chunk[:min(int64(len(chunk)), s.space.ballast-n)])
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		s.o.fs.Remove(name)
		return false
	}
	return true
}

// dropBallast is called by the database's file system when the disk is full;
// its writes wait for us and are tried once more then.
func (s *Storage) dropBallast() {
	s.space.mu.Lock()
	gone := s.space.gone
	s.space.gone = true
	s.space.mu.Unlock()
	if gone {
		return
	}
	s.log().Error("diskqueue: the disk is full: the ballast is given up, and no mail is taken until it fits again", "dir", s.dir)
	s.o.fs.Remove(s.path("BALLAST"))
}

// flight bounds what is being written. A body larger than the bound goes
// alone.
type flight struct {
	mu      sync.Mutex
	max     int64
	n       int64
	waiting []*waiter
}

type waiter struct {
	n     int64
	ready chan struct{}
}

func (f *flight) enter(ctx context.Context, n int64) error {
	f.mu.Lock()
	if len(f.waiting) == 0 && (f.n == 0 || f.n+n <= f.max) {
		f.n += n
		f.mu.Unlock()
		return nil
	}
	w := &waiter{n, make(chan struct{})}
	f.waiting = append(f.waiting, w)
	f.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, other := range f.waiting {
		if other == w {
			f.waiting = append(f.waiting[:i], f.waiting[i+1:]...)
			f.admit()
			return ctx.Err()
		}
	}
	f.n -= n // admitted at the same moment
	f.admit()
	return ctx.Err()
}

func (f *flight) leave(n int64) {
	f.mu.Lock()
	f.n -= n
	f.admit()
	f.mu.Unlock()
}

func (f *flight) admit() {
	for len(f.waiting) > 0 && (f.n == 0 || f.n+f.waiting[0].n <= f.max) {
		f.n += f.waiting[0].n
		close(f.waiting[0].ready)
		f.waiting = f.waiting[1:]
	}
}

// files are the bodies that are files. Those that are read, or copied by a
// backup, are removed later.
type files struct {
	open    map[queue.ID]int
	doomed  map[queue.ID]bool // not wanted any more, but open
	backups int
}

func (s *Storage) bodyPath(id queue.ID) string { return s.path("bodies", id.String()) }

// opened counts a reader; s.mu is held, as in closedFile and dropFile.
func (s *Storage) openedFile(id queue.ID) {
	if s.files.open == nil {
		s.files.open = make(map[queue.ID]int)
		s.files.doomed = make(map[queue.ID]bool)
	}
	s.files.open[id]++
}

// closedFile returns whether the file is to be removed now.
func (s *Storage) closedFile(id queue.ID) bool {
	if s.files.open[id]--; s.files.open[id] > 0 {
		return false
	}
	delete(s.files.open, id)
	if !s.files.doomed[id] || s.files.backups > 0 {
		return false
	}
	delete(s.files.doomed, id)
	return true
}

// dropFile removes a body that nothing in the database names any more.
func (s *Storage) dropFile(id queue.ID) {
	s.mu.Lock()
	if s.files.open[id] > 0 || s.files.backups > 0 {
		if s.files.doomed == nil {
			s.files.open = make(map[queue.ID]int)
			s.files.doomed = make(map[queue.ID]bool)
		}
		s.files.doomed[id] = true
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.removeFile(id)
}

// removeFile: what fails is an orphan, which the next Open removes.
func (s *Storage) removeFile(id queue.ID) {
	if err := s.o.fs.Remove(s.bodyPath(id)); err != nil {
		s.log().Warn("diskqueue: removing a body", "dir", s.dir, "file", id, "err", err)
	}
}

// sweepFiles removes what no message names: bodies that were never put, and
// those whose removal a crash prevented.
func (s *Storage) sweepFiles() error {
	list, err := s.o.fs.List(s.path("bodies"))
	if err != nil {
		return err
	}
	for _, name := range list {
		id, err := queue.ParseID(name)
		if err != nil {
			continue // not ours
		}
		_, c, err := s.db.Get(idKey(kFile, id))
		if err == nil {
			c.Close()
			continue
		}
		s.removeFile(id)
	}
	return nil
}

var _ io.ReaderAt = (vfs.File)(nil)
