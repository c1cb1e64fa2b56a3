package diskqueue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// Report is what Check found, or Repair mended.
type Report struct {
	Messages, Entries int
	// SetAside counts records that could not be read and lie apart.
	SetAside int
	// Problems describes what is wrong, at most 1,000 of it.
	Problems []string
}

const maxProblems = 1000

var errBusy = errors.New("diskqueue: entries are leased or being written: repair a queue that is not running")

// Check reads all of the queue and says what does not fit together. It may be
// called while the queue runs: it reads the state of one moment.
func (s *Storage) Check(ctx context.Context) (Report, error) {
	if err := s.begin(ctx); err != nil {
		return Report{}, err
	}
	defer s.end()
	c, err := s.check(ctx, nil)
	return c.Report, err
}

// Repair mends what Check finds: places are made anew from the entries,
// and entries without messages, messages without entries and records that
// cannot be read are set aside. Entries whose message cannot be read are
// ended: when the queue runs, their senders are told. It must not run
// meanwhile.
func (s *Storage) Repair(ctx context.Context) (Report, error) {
	if err := s.begin(ctx); err != nil {
		return Report{}, err
	}
	defer s.end()
	s.mu.Lock()
	busy := len(s.busy) > 0
	s.mu.Unlock()
	if busy {
		return Report{}, errBusy
	}
	b := s.db.NewBatch()
	c, err := s.check(ctx, b)
	if err != nil {
		b.Close()
		return c.Report, err
	}
	if err := s.commit(b, nil); err != nil {
		return c.Report, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	it, err := s.db.NewIter(nil)
	if err != nil {
		return c.Report, err
	}
	defer it.Close()
	s.loadLanes(it)
	s.wakeUp()
	return c.Report, it.Error()
}

// errUnreadable is what the sender of a message hears that is damaged here.
func errUnreadable() *smtp.Error {
	return &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 3, 0}, Text: "The message was damaged where it was kept"}
}

// checker reads one state of the database.
type checker struct {
	Report
	s    *Storage
	at   *pebble.Snapshot
	mend *pebble.Batch // nil = only look

	unread map[queue.ID]bool // messages that cannot be read
	used   map[queue.ID]bool // messages with entries
}

func (c *checker) problem(format string, args ...any) {
	if len(c.Problems) < maxProblems {
		c.Problems = append(c.Problems, fmt.Sprintf(format, args...))
	}
}

func (c *checker) drop(key []byte) {
	if c.mend != nil {
		c.mend.Delete(key, nil)
	}
}

func (c *checker) setAside(key, value []byte) {
	if c.mend != nil {
		c.mend.Set(append([]byte{kBad}, key...), value, nil)
		c.mend.Delete(key, nil)
		c.SetAside++
	}
}

func (c *checker) get(key []byte) []byte {
	v, err := diskdb.Get(c.at, key)
	if err != nil {
		return nil // the kind that it is of tells of it
	}
	return v
}

func (c *checker) has(key []byte) bool {
	_, closer, err := c.at.Get(key)
	if err == nil {
		closer.Close()
	}
	return err == nil
}

// each calls f for the keys of one kind.
func (c *checker) each(ctx context.Context, kind byte, f func(key, value []byte)) error {
	it, err := c.at.NewIter(&pebble.IterOptions{LowerBound: []byte{kind}, UpperBound: []byte{kind + 1}})
	if err != nil {
		return err
	}
	n := 0
	for ok := it.First(); ok; {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			it.Close()
			return ctx.Err()
		}
		key := slices.Clone(it.Key())
		v, err := diskdb.IterValue(it)
		if err != nil && !errors.Is(err, ErrDamaged) {
			it.Close()
			return err
		}
		f(key, v) // nil is no record either
		if err != nil {
			ok = it.SeekGE(append(key, 0)) // it stands nowhere now
		} else {
			ok = it.Next()
		}
	}
	return it.Close()
}

func (s *Storage) check(ctx context.Context, mend *pebble.Batch) (*checker, error) {
	c := &checker{s: s, mend: mend, unread: make(map[queue.ID]bool), used: make(map[queue.ID]bool)}
	s.keepFiles(1) // what the snapshot names stays
	defer s.keepFiles(-1)
	c.at = s.db.NewSnapshot()
	defer c.at.Close()
	for _, k := range []struct {
		kind byte
		f    func(key, value []byte)
	}{
		{kMessage, c.message}, {kEntry, c.entry}, {kContent, c.content}, {kOf, c.of},
		{kDue, c.place}, {kAlarm, c.place}, {kFile, c.file}, {kMessage, c.unused}, {kBad, func(_, _ []byte) { c.SetAside++ }},
	} {
		if err := c.each(ctx, k.kind, k.f); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c *checker) entry(key, value []byte) {
	e, err := decodeEntry(value)
	if err == nil && string(key) != string(idKey(kEntry, e.ID)) {
		err = fmt.Errorf("%w: it is of entry %v", ErrDamaged, e.ID)
	}
	if err != nil {
		c.problem("entry %x: %v", key[1:], err)
		c.setAside(key, value)
		return
	}
	if _, err := decodeMessage(c.get(idKey(kMessage, e.message))); err != nil {
		c.problem("entry %v: its message %v: %v", e.ID, e.message, err)
		c.setAside(key, value)
		return
	}
	c.Entries++
	c.used[e.message] = true
	if c.mend != nil && c.unread[e.message] {
		e.Message = &queue.Message{ID: e.message}
		next := *e.Entry
		(&queue.Edit{End: errUnreadable()}).Apply(&next, c.s.now())
		unplace(c.mend, e.Entry)
		writeEntry(c.mend, &next, e.token)
		return
	}
	for _, place := range places(e.Entry) {
		if !c.has(place) {
			c.problem("entry %v is not where it would be found", e.ID)
			if c.mend != nil {
				c.mend.Set(place, nil, nil)
			}
		}
	}
}

// places are the keys under which an entry is found.
func places(e *queue.Entry) [][]byte {
	if e.Held {
		return nil
	}
	p := [][]byte{posKey(laneKey(e.Lane), pos{stampOf(e.Due), e.ID})}
	if !e.Alarm.IsZero() {
		p = append(p, posKey(alarmLane, pos{stampOf(e.Alarm), e.ID}))
	}
	return p
}

func (c *checker) message(key, value []byte) {
	m, err := decodeMessage(value)
	if err != nil {
		c.problem("message %x: %v", key[1:], err)
		c.setAside(key, value)
		return
	}
	c.Messages++
	if err := c.body(m); err != nil {
		c.problem("message %v: %v", m.ID, err)
		c.unread[m.ID] = true
	}
}

// body reads all of a message.
func (c *checker) body(m *message) error {
	_, file, err := c.s.openContent(c.at, m)
	if file == nil || err != nil {
		return err
	}
	defer file.f.Close()
	_, err = io.Copy(io.Discard, io.NewSectionReader(file, 0, file.size))
	return err
}

// unused looks at a message again when all entries are known.
func (c *checker) unused(key, value []byte) {
	m, err := decodeMessage(value)
	if err == nil && !c.used[m.ID] {
		c.problem("message %v has no entry", m.ID)
		c.Messages--
		c.setAside(key, value)
	}
}

// isThere reports whether a message is there, or set aside.
func (c *checker) isThere(id []byte) bool {
	key := append([]byte{kBad, kMessage}, id...)
	return c.has(key[1:]) || c.has(key)
}

func (c *checker) content(key, _ []byte) {
	// Kept if its message was set aside: somebody may want to read it.
	if !c.isThere(key[1:]) {
		c.problem("content %x has no message", key[1:])
		c.drop(key)
	}
}

func (c *checker) of(key, _ []byte) {
	if len(key) != 1+2*idLen || !c.has(append([]byte{kEntry}, key[1+idLen:]...)) {
		c.problem("message %x counts an entry that is not there", key[1:])
		c.drop(key)
	}
}

func (c *checker) place(key, _ []byte) {
	_, n, ok := laneOf(key)
	var p pos
	if ok {
		p, ok = posOf(key[n:])
	}
	if ok {
		e, err := decodeEntry(c.get(idKey(kEntry, p.id)))
		ok = err == nil && slices.ContainsFunc(places(e.Entry), func(k []byte) bool { return string(k) == string(key) })
	}
	if !ok {
		c.problem("a place without an entry: %x", key)
		c.drop(key)
	}
}

func (c *checker) file(key, value []byte) {
	m, _, err := decodeFile(value)
	if err != nil {
		return // its message says so
	}
	if !c.isThere(m[:]) {
		c.problem("file %x belongs to no message", key[1:])
		c.drop(key)
	}
}

// keepFiles holds back the removal of bodies while it is counted up.
func (s *Storage) keepFiles(n int) {
	s.mu.Lock()
	s.files.backups += n
	var free []queue.ID
	if s.files.backups == 0 {
		for id := range s.files.doomed {
			if s.files.open[id] == 0 {
				free = append(free, id)
				delete(s.files.doomed, id)
			}
		}
	}
	s.mu.Unlock()
	for _, id := range free {
		s.removeFile(id)
	}
}

// Backup writes a copy of the queue, as it is at one moment, to dir, which
// must not exist. It may be called while the queue runs. Files are linked
// where the file system can, else copied. A backup that is opened delivers
// what it holds: what the queue has delivered since is delivered again.
func (s *Storage) Backup(ctx context.Context, dir string) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	disk := s.o.fs
	if _, err := disk.Stat(dir); err == nil {
		return fmt.Errorf("diskqueue: backup: %s is there already", dir)
	}
	bodies := disk.PathJoin(dir, "bodies")
	if err := diskdb.MakeDir(disk, bodies); err != nil {
		return err
	}
	s.keepFiles(1)
	defer s.keepFiles(-1)
	if err := s.db.Checkpoint(disk.PathJoin(dir, "db"), pebble.WithFlushedWAL()); err != nil {
		return fmt.Errorf("diskqueue: backup: %w", err)
	}
	// What is in the checkpoint is still there; what came later is an orphan
	// that the copy's Open removes.
	list, err := disk.List(s.db.Path("bodies"))
	if err != nil {
		return err
	}
	for _, name := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := vfs.LinkOrCopy(disk, s.db.Path("bodies", name), disk.PathJoin(bodies, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // one that was never stored
			return fmt.Errorf("diskqueue: backup: %w", err)
		}
	}
	if err := diskdb.SyncDir(disk, bodies); err != nil {
		return err
	}
	return diskdb.WriteFile(disk, dir, "FORMAT", formatLine)
}
