package memqueue

import (
	"context"

	"github.com/postrider/postrider/queue"
)

// eventLog keeps events, oldest first, and who leases them.
type eventLog struct {
	items []loggedEvent
}

type loggedEvent struct {
	queue.Event
	owner *owner
	acked bool
}

// log appends events; s.mu is held.
func (s *Storage) log(events []queue.Event) {
	if !s.KeepEvents {
		return
	}
	for _, e := range events {
		s.events.items = append(s.events.items, loggedEvent{Event: e})
		s.used += eventCost
	}
}

// NextEvents implements queue.EventLog. Events leased by an owner that died
// are handed out again.
func (s *Storage) NextEvents(ctx context.Context, name queue.Owner, max int) ([]queue.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.bury(now)
	o := s.owners[name]
	if !o.alive(now) {
		return nil, queue.ErrLeaseLost
	}
	var out []queue.Event
	for i := range s.events.items {
		e := &s.events.items[i]
		if len(out) == max {
			break
		}
		if e.acked || e.owner != nil && !e.owner.dead {
			continue
		}
		e.owner = o
		out = append(out, e.Event)
	}
	return out, nil
}

// AckEvents implements queue.EventLog.
func (s *Storage) AckEvents(ctx context.Context, ids ...queue.ID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	acked := make(map[queue.ID]bool, len(ids))
	for _, id := range ids {
		acked[id] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	items := s.events.items
	for i := 0; i < len(items) && len(acked) > 0; i++ {
		if id := items[i].ID; acked[id] && !items[i].acked {
			delete(acked, id)
			items[i] = loggedEvent{acked: true}
			s.used -= eventCost
		}
	}
	for len(items) > 0 && items[0].acked {
		items = items[1:]
	}
	s.events.items = items
	return nil
}
