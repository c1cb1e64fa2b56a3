package memqueue

import (
	"context"
	"iter"

	"github.com/postrider/postrider/queue"
)

// List implements queue.Lister.
func (s *Storage) List(ctx context.Context, f queue.Filter) iter.Seq2[*queue.Entry, error] {
	return func(yield func(*queue.Entry, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(nil, err)
			return
		}
		s.mu.Lock()
		s.bury(s.now())
		nodes := s.choose(&f)
		found := make([]*queue.Entry, len(nodes))
		for i, n := range nodes {
			found[i] = n.entry
		}
		s.mu.Unlock()
		for _, e := range found {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// choose returns what f matches; s.mu is held. Entries asked for by their IDs
// are looked up.
func (s *Storage) choose(f *queue.Filter) []*node {
	var found []*node
	byID := len(f.IDs) > 0
	for _, id := range f.IDs {
		n := s.entries[id]
		if n == nil {
			byID = false // a message's, perhaps
			break
		}
	}
	if byID {
		seen := make(map[queue.ID]bool, len(f.IDs))
		for _, id := range f.IDs {
			if n := s.entries[id]; !seen[id] && f.Match(n.entry) {
				seen[id] = true
				found = append(found, n)
			}
		}
		return found
	}
	for _, n := range s.entries {
		if f.Match(n.entry) {
			found = append(found, n)
		}
	}
	return found
}

// Edit implements queue.Editor.
func (s *Storage) Edit(ctx context.Context, f queue.Filter, e queue.Edit) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bury(s.now())
	nodes := s.choose(&f)
	for _, n := range nodes {
		n.edits = append(n.edits, e)
		if o := n.owner; o != nil {
			if e.Revokes() {
				if o.revoked == nil {
					o.revoked = make(map[queue.ID]struct{})
				}
				o.revoked[n.entry.ID] = struct{}{}
			}
			continue
		}
		s.unindex(n)
		s.applyEdits(n)
	}
	s.wakeUp()
	return len(nodes), nil
}

// applyEdits changes a node that is in no index and indexes it again.
func (s *Storage) applyEdits(n *node) {
	if len(n.edits) > 0 {
		e, now := *n.entry, s.now()
		for _, edit := range n.edits {
			if ev, ok := edit.Event(&e, now); ok {
				s.log([]queue.Event{ev})
			}
			if edit.Apply(&e, now) {
				s.remove(n)
				return
			}
		}
		n.entry, n.edits = &e, nil
	}
	s.index(n)
}

// Pause implements queue.Editor. A rule is removed by the Filter that it was
// made with.
func (s *Storage) Pause(ctx context.Context, f queue.Filter, on bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.paused[:0:0]
	for _, p := range s.paused {
		if !same(p, f) {
			kept = append(kept, p)
		}
	}
	if on {
		kept = append(kept, f)
	}
	s.paused = kept
	s.wakeUp()
	return nil
}

// Paused implements queue.Editor.
func (s *Storage) Paused(ctx context.Context) ([]queue.Filter, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]queue.Filter(nil), s.paused...), ctx.Err()
}

func same(a, b queue.Filter) bool {
	if len(a.IDs) != len(b.IDs) {
		return false
	}
	for i := range a.IDs {
		if a.IDs[i] != b.IDs[i] {
			return false
		}
	}
	return a.Dest == b.Dest && a.Tenant == b.Tenant && a.Campaign == b.Campaign && a.From == b.From && a.To == b.To && a.Held == b.Held
}
