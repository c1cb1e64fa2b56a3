package diskqueue

import "github.com/postrider/postrider/queue"

// files are the bodies that are files. Those that are read, or copied by a
// backup, are removed later.
type files struct {
	open    map[queue.ID]int
	doomed  map[queue.ID]bool // not wanted any more, but open
	backups int
}

func (s *Storage) bodyPath(id queue.ID) string { return s.db.Path("bodies", id.String()) }

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
	list, err := s.o.fs.List(s.db.Path("bodies"))
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
