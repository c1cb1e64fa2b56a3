package diskqueue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/postrider/postrider/queue"
)

// space watches the disk. The database can do nothing about a full one but
// try again for ever or end the process, so it must never meet one:
//
//   - below minFree no mail is taken, and what is left is for outcomes;
//   - if others fill the disk, the ballast is given up for more outcomes;
//   - below the floor outcomes are refused as well, and so are the tables that
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

	freed     atomic.Int64 // octets of bodies deleted since the last reclaim
	reclaimed time.Time
	reclaims  bool // one is running
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
	sp.floor = min(sp.minFree/8, 8*mib)
	return memTable
}

// askLocked asks the disk how much is free, if the last answer is too old.
func (s *Storage) askLocked(n int64, now time.Time) error {
	sp := &s.space
	if low := sp.gone || sp.free-sp.written < sp.minFree; !low && sp.written+n <= freshForBytes && now.Sub(sp.asked) <= freshFor {
		return nil
	}
	u, err := s.o.fs.GetDiskUsage(s.dir)
	if err != nil {
		return err
	}
	sp.free, sp.asked, sp.written = int64(u.AvailBytes), now, 0
	return nil
}

// room returns queue.ErrFull unless n octets more of mail fit.
func (s *Storage) room(n int64) error {
	sp := &s.space
	if sp.minFree == 0 {
		return nil
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	now := time.Now()
	if err := s.askLocked(n, now); err != nil {
		return err
	}
	if sp.gone && sp.free > sp.minFree+2*sp.ballast {
		sp.gone = !s.writeBallast()
	}
	sp.written += n
	if sp.gone || sp.free-sp.written < sp.minFree {
		if sp.mayLogLocked(now) {
			s.log().Warn("diskqueue: the disk is full: no mail is taken", "dir", s.dir, "free", sp.free, "wanted", sp.minFree)
		}
		s.reclaimLocked(now)
		return queue.ErrFull
	}
	return nil
}

// enterDisk lets n octets more go to the log, unless even these do not fit.
// leaveDisk follows.
func (s *Storage) enterDisk(n int64) error {
	sp := &s.space
	if sp.minFree == 0 {
		return nil
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if err := s.askLocked(n, time.Now()); err != nil {
		return err
	}
	if sp.gone || sp.free-sp.written < sp.minFree {
		// The database may call dropBallast with its lock held.
		sp.mu.Unlock()
		m := s.db.Metrics()
		sp.mu.Lock()
		if s.stallsLocked(m, n) {
			return queue.ErrFull
		}
	}
	fits := func() bool { return sp.free-sp.written-sp.pending-n >= sp.floor }
	if !fits() && !sp.gone {
		s.dropBallastLocked()
		if err := s.askLocked(n, time.Now()); err != nil {
			return err
		}
	}
	if !fits() {
		return queue.ErrFull
	}
	sp.written += n
	sp.pending += n
	return nil
}

func (s *Storage) leaveDisk(n int64) {
	if s.space.minFree > 0 {
		s.space.mu.Lock()
		s.space.pending -= n
		s.space.mu.Unlock()
	}
}

// stallsLocked reports whether the database might keep a write of n octets
// waiting because it cannot write its tables: for ever, if nobody makes room.
func (s *Storage) stallsLocked(m *pebble.Metrics, n int64) bool {
	if m.Levels[0].Sublevels >= stopL0-memTables {
		return true
	}
	inMemory := int64(m.MemTable.Size) + 2*n
	return inMemory > int64(memTables-1)*int64(s.memTable) && s.space.free-s.space.written-s.space.floor < 2*inMemory
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

var errFloor = errors.New("diskqueue: the disk is full: what is left is for the log")

const reclaimEvery = 5 * time.Second

// reclaimLocked lets the database give back what was deleted: by itself it
// does so when much is written, and on a full disk nothing is.
func (s *Storage) reclaimLocked(now time.Time) {
	sp := &s.space
	if sp.reclaims || sp.freed.Load() == 0 || now.Sub(sp.reclaimed) < reclaimEvery {
		return
	}
	sp.reclaims = true
	s.background.Go(func() {
		sp.freed.Store(0)
		err := s.reclaim()
		if err != nil && s.closing.Err() == nil {
			s.log().Error("diskqueue: giving back what was deleted", "dir", s.dir, "err", err)
		}
		sp.mu.Lock()
		sp.reclaims, sp.reclaimed = false, time.Now()
		sp.mu.Unlock()
	})
}

func (s *Storage) reclaim() error {
	flushed, err := s.db.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-flushed:
	case <-s.closing.Done():
		return nil
	}
	return s.db.Compact(s.closing, []byte{0}, []byte{0xff}, false)
}

// tables is the file system as the database's tables see it: they leave the
// floor free.
type tables struct {
	vfs.FS
	s *Storage
}

func (t tables) Unwrap() vfs.FS { return t.FS }

func (t tables) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := t.FS.Create(name, c)
	if err == nil && (strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")) {
		return &table{File: f, s: t.s}, nil
	}
	return f, err
}

// table is a file being written.
type table struct {
	vfs.File
	s *Storage
}

func (t *table) Write(p []byte) (int, error) {
	if t.s.belowFloor(int64(len(p))) {
		// The database tries again at once, and for ever.
		select {
		case <-time.After(freshFor):
		case <-t.s.closing.Done():
		}
		return 0, errFloor
	}
	return t.File.Write(p)
}

// belowFloor reports whether n octets more would take what is for the log.
// While the database opens all may be used: it writes tables of its log, which
// then goes.
func (s *Storage) belowFloor(n int64) bool {
	if !s.opened.Load() {
		return false
	}
	sp := &s.space
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.minFree == 0 || s.askLocked(n, time.Now()) != nil {
		return false
	}
	if sp.free-sp.written-n < sp.floor {
		return true
	}
	sp.written += n
	return false
}

// roomToOpen makes sure that the database can write what is in its logs to
// tables: it would wait for that.
func (s *Storage) roomToOpen() error {
	sp := &s.space
	if sp.minFree == 0 {
		return nil
	}
	list, err := s.o.fs.List(s.path("db"))
	if err != nil {
		return nil // a new one
	}
	var need int64
	for _, name := range list {
		if !strings.HasSuffix(name, ".log") {
			continue
		}
		if info, err := s.o.fs.Stat(s.path("db", name)); err == nil {
			need += info.Size()
		}
	}
	need = min(need, int64(s.memTable)) + sp.floor/2
	fits := func() (bool, error) {
		u, err := s.o.fs.GetDiskUsage(s.dir)
		return err == nil && int64(u.AvailBytes) >= need, err
	}
	ok, err := fits()
	if !ok && err == nil {
		s.dropBallast()
		ok, err = fits()
	}
	if !ok && err == nil {
		err = fmt.Errorf("%w: to open it, %d octets must be free", queue.ErrFull, need)
	}
	return err
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

// dropBallast is called by the database's file system when the disk is full
// all the same; its writes wait for us and are tried once more then.
func (s *Storage) dropBallast() {
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	s.dropBallastLocked()
}

func (s *Storage) dropBallastLocked() {
	if s.space.gone {
		return
	}
	s.space.gone = true
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
