package store

import (
	"container/list"
	"context"
	"errors"
	"sync"
)

// Views shares one [View] among the sessions that have a mailbox open, and
// keeps some for the next session. The zero value is ready; it is safe for
// concurrent use.
type Views struct {
	// MaxBytes is how much memory Views that nobody has open may take, about;
	// 0 = 64 MiB, negative = they are dropped at once.
	MaxBytes int64

	mu    sync.Mutex
	views map[viewKey]*shared
	idle  list.List // of *shared, the longest idle first
	bytes int64     // of the idle ones
}

const defaultViewBytes = 64 << 20

// viewKey: UIDVALIDITY is in it, so that an account that was made again does
// not meet the View of the old one.
type viewKey struct {
	user        string
	box         MailboxID
	uidValidity uint32
}

// shared is one View with its users.
type shared struct {
	key   viewKey
	users int
	idle  *list.Element // nil while in use
	bytes int64         // what it counts while idle

	opening chan struct{} // closed when view or err is set
	view    *View
	err     error
}

// Open returns the View of mailbox m as user sees it, in which everything is
// up to m.ModSeq: read acc.Mailboxes first. When the View is there and as new
// as that, no more is read. user names the account and the viewer, in any form
// that is the same for all their sessions. Give the View back with Close.
func (c *Views) Open(ctx context.Context, user string, acc Account, m Mailbox) (*View, error) {
	key := viewKey{user, m.ID, m.UIDValidity}
	for {
		c.mu.Lock()
		s := c.views[key]
		if s == nil {
			s = &shared{key: key, users: 1, opening: make(chan struct{})}
			if c.views == nil {
				c.views = make(map[viewKey]*shared)
			}
			c.views[key] = s
			c.mu.Unlock()
			return c.open(ctx, s, acc, m)
		}
		s.users++
		if s.idle != nil {
			c.idle.Remove(s.idle)
			c.bytes -= s.bytes
			s.idle = nil
		}
		c.mu.Unlock()

		select {
		case <-s.opening:
		case <-ctx.Done():
			c.leave(s)
			return nil, ctx.Err()
		}
		if s.err != nil {
			// Another's failure, maybe only its context's end: try ourselves.
			c.leave(s)
			continue
		}
		v := s.view
		v.mu.Lock()
		v.acc = acc // the handle of a session that ended may be no good
		v.mu.Unlock()
		if v.Snapshot().ModSeq() >= m.ModSeq {
			return v, nil
		}
		if _, err := v.Sync(ctx); err != nil {
			if errors.Is(err, ErrNotExist) {
				c.mu.Lock()
				c.forget(s)
				c.mu.Unlock()
			}
			c.leave(s)
			return nil, err
		}
		return v, nil
	}
}

func (c *Views) open(ctx context.Context, s *shared, acc Account, m Mailbox) (*View, error) {
	s.view, s.err = OpenView(ctx, acc, m.ID)
	if s.err != nil {
		// Out of the table before the others wake, so that they begin anew.
		c.mu.Lock()
		c.forget(s)
		c.mu.Unlock()
		close(s.opening)
		c.leave(s)
		return nil, s.err
	}
	s.view.shared = s
	close(s.opening)
	return s.view, nil
}

// forget takes s out of the table. c.mu is held.
func (c *Views) forget(s *shared) {
	if c.views[s.key] == s {
		delete(c.views, s.key)
	}
}

// Close gives back a View that Open returned, once for each Open.
func (c *Views) Close(v *View) { c.leave(v.shared) }

func (c *Views) leave(s *shared) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.users--; s.users > 0 || c.views[s.key] != s {
		return
	}
	s.bytes = s.view.Snapshot().bytes()
	s.idle = c.idle.PushBack(s)
	c.bytes += s.bytes
	limit := c.MaxBytes
	if limit == 0 {
		limit = defaultViewBytes
	}
	for c.bytes > limit && c.idle.Len() > 0 {
		old := c.idle.Remove(c.idle.Front()).(*shared)
		old.idle = nil
		c.bytes -= old.bytes
		c.forget(old)
	}
}

// bytes returns about how much memory s takes.
func (s *Snapshot) bytes() int64 {
	const row, perChunk, perView = 20, 200, 1024
	return int64(s.Len())*row + int64(len(s.chunks))*perChunk + int64(len(s.table.sets))*64 + perView
}
