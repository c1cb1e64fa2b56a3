package memstore

import (
	"context"
	"errors"

	"github.com/postrider/postrider/store"
)

// staged is a body that is written before it is appended.
type staged struct {
	owner  *Store
	id     string
	data   []byte
	closed bool
	max    int64
}

var errClosed = errors.New("memstore: write to a closed Staged")

// Stage implements store.Stager.
func (s *Store) Stage(ctx context.Context, size int64) (store.Staged, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.MessageSize > 0 && size > s.MessageSize {
		return nil, store.ErrTooBig
	}
	st := &staged{owner: s, id: newID('m'), max: s.MessageSize}
	// A hint is believed up to a point: whoever announces a gigabyte sends it
	// before it is allocated.
	if size > 0 {
		st.data = make([]byte, 0, min(size, 1<<20))
	}
	return st, nil
}

func (s *staged) Write(p []byte) (int, error) {
	if s.closed {
		return 0, errClosed
	}
	if s.max > 0 && int64(len(s.data)+len(p)) > s.max {
		return 0, store.ErrTooBig
	}
	s.data = append(s.data, p...)
	return len(p), nil
}

func (s *staged) Size() int64 { return int64(len(s.data)) }

func (s *staged) ReadAt(p []byte, off int64) (int, error) {
	return (&content{data: s.data}).ReadAt(p, off)
}

func (s *staged) Close() error {
	s.closed, s.data = true, nil
	return nil
}

// Deliver implements store.Deliverer.
func (s *Store) Deliver(ctx context.Context, d store.Draft, targets []store.Target) []error {
	errs := make([]error, len(targets))
	// A body that is not ours is copied once, for all targets.
	if _, ours := d.Body.(*staged); !ours {
		if c, ours := d.Body.(*content); (!ours || c.owner != s) && d.Body != nil && len(targets) > 1 {
			p, err := s.prepare(ctx, store.Draft{Body: d.Body})
			if err != nil {
				for i := range errs {
					errs[i] = err
				}
				return errs
			}
			st := &staged{owner: s, id: newID('m'), data: p.c.data}
			defer st.Close()
			d.Body = st
		}
	}
	for i, t := range targets {
		errs[i] = s.deliver(ctx, d, t)
	}
	return errs
}

func (s *Store) deliver(ctx context.Context, d store.Draft, t store.Target) error {
	a := s.find(t.Account)
	if a == nil {
		return store.ErrNotExist
	}
	box := t.Mailbox
	if box == "" {
		box = store.Inbox
	}
	p, err := s.prepare(ctx, t.Draft(d))
	if err != nil {
		return err
	}
	a.mu.Lock()
	err = a.deliver(ctx, box, p, t.Once)
	a.mu.Unlock()
	if err == nil {
		a.notify()
	}
	return err
}

// deliver appends unless an earlier delivery had the same name.
func (a *account) deliver(ctx context.Context, box store.MailboxID, p prepared, once string) error {
	if _, again := a.once[once]; again && once != "" {
		return a.begin(ctx)
	}
	if _, err := a.append(ctx, box, nil, []prepared{p}, store.AppendOptions{}); err != nil || once == "" {
		return err
	}
	if len(a.onceRing) < onceMemory {
		a.onceRing = append(a.onceRing, once)
	} else {
		delete(a.once, a.onceRing[a.onceNext])
		a.onceRing[a.onceNext] = once
		a.onceNext = (a.onceNext + 1) % onceMemory
	}
	a.once[once] = struct{}{}
	return nil
}
