package memqueue

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// owner is one who leases. A dead one is remembered, so that it stays dead.
type owner struct {
	name    queue.Owner
	until   time.Time
	dead    bool
	leases  *node // a list through node.next
	revoked map[queue.ID]struct{}
}

func (o *owner) alive(now time.Time) bool { return o != nil && !o.dead && now.Before(o.until) }

// bury frees what dead owners held; s.mu is held. Owners are few.
func (s *Storage) bury(now time.Time) {
	for _, o := range s.owners {
		if o.dead || now.Before(o.until) {
			continue
		}
		o.dead = true
		for o.leases != nil {
			n := o.leases
			s.unlease(n)
			s.applyEdits(n)
		}
		o.revoked = nil
		s.wakeUp()
	}
}

// lease gives n, which is in no index, to o.
func (s *Storage) lease(n *node, o *owner) {
	n.token++
	n.owner = o
	n.next = o.leases
	if n.next != nil {
		n.next.prev = n
	}
	o.leases = n
	e := *n.entry
	e.Owner = o.name
	n.entry = &e
}

// unlease takes n from its owner and leaves it out of every index.
func (s *Storage) unlease(n *node) {
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		n.owner.leases = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	}
	delete(n.owner.revoked, n.entry.ID)
	n.prev, n.next, n.owner = nil, nil, nil
	e := *n.entry
	e.Owner = ""
	n.entry = &e
}

// Wake implements queue.Waker.
func (s *Storage) Wake() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wake == nil {
		s.wake = make(chan struct{})
	}
	return s.wake
}

func (s *Storage) wakeUp() {
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
}

// Lanes implements queue.Storage. Its cost is in proportion to what it yields.
func (s *Storage) Lanes(ctx context.Context, before time.Time) iter.Seq2[queue.LaneDue, error] {
	return func(yield func(queue.LaneDue, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(queue.LaneDue{}, err)
			return
		}
		for _, l := range s.lanesDue(before) {
			if !yield(l, nil) {
				return
			}
		}
	}
}

func (s *Storage) lanesDue(before time.Time) []queue.LaneDue {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bury(s.now())
	var out []queue.LaneDue
	if len(s.alarms.items) > 0 && !s.alarms.items[0].entry.Alarm.After(before) {
		out = append(out, queue.LaneDue{Lane: queue.Lane{Dest: queue.Alarms}, Due: s.alarms.items[0].entry.Alarm})
	}
	// A heap's children are never earlier than their parent: whole branches
	// can be left out. The items found so far are the stack of the walk.
	heap := s.due.items
	var stack []int
	if len(heap) > 0 {
		stack = append(stack, 0)
	}
	for len(stack) > 0 {
		i := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		due := heap[i].earliest()
		if due.After(before) {
			continue
		}
		out = append(out, queue.LaneDue{Lane: heap[i].key, Due: due})
		for c := 2*i + 1; c <= 2*i+2 && c < len(heap); c++ {
			stack = append(stack, c)
		}
	}
	return out
}

// Lease implements queue.Storage.
func (s *Storage) Lease(ctx context.Context, name queue.Owner, want []queue.Want) ([]*queue.Lease, error) {
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
	var out []*queue.Lease
	for _, w := range want {
		for range w.Max {
			n := s.first(w.Lane, now)
			if n == nil {
				break
			}
			s.unindex(n)
			s.lease(n, o)
			out = append(out, &queue.Lease{Entry: n.entry, Owner: name, Token: n.token})
		}
	}
	return out, nil
}

// first returns the earliest entry of a lane if it is due.
func (s *Storage) first(key queue.Lane, now time.Time) *node {
	if key.Dest == queue.Alarms {
		if len(s.alarms.items) == 0 || s.alarms.items[0].entry.Alarm.After(now) {
			return nil
		}
		return s.alarms.items[0]
	}
	l := s.lanes[key]
	if l == nil || l.earliest().After(now) {
		return nil
	}
	return l.free.items[0]
}

// Renew implements queue.Storage.
func (s *Storage) Renew(ctx context.Context, name queue.Owner, d time.Duration) (queue.Renewal, error) {
	if err := ctx.Err(); err != nil {
		return queue.Renewal{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.init()
	now := s.now()
	s.bury(now)
	o := s.owners[name]
	if o == nil {
		o = &owner{name: name}
		s.owners[name] = o
	}
	if o.dead {
		return queue.Renewal{}, queue.ErrLeaseLost
	}
	o.until = now.Add(d)
	r := queue.Renewal{Paused: append([]queue.Filter(nil), s.paused...)}
	for id := range o.revoked {
		r.Revoked = append(r.Revoked, id)
	}
	for _, other := range s.owners {
		if other.dead || !other.name.Delivers() {
			continue
		}
		r.Owners++
		if other.name < name {
			r.Rank++
		}
	}
	return r, nil
}

// Finish implements queue.Storage.
func (s *Storage) Finish(ctx context.Context, out *queue.Outcome) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	copies, err := s.copyBodies(out.Put)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.finish(out, copies); err != nil {
		closeAll(copies)
		return err
	}
	return nil
}

func (s *Storage) finish(out *queue.Outcome, copies []*copied) error {
	s.init()
	now := s.now()
	s.bury(now)
	o := s.owners[out.Lease.Owner]
	n := s.entries[out.Lease.Entry.ID]
	if !o.alive(now) || n == nil || n.owner != o || n.token != out.Lease.Token {
		return queue.ErrLeaseLost
	}
	left, err := without(n.entry.Envelope.To, out.Done)
	if err != nil {
		return err
	}
	if len(out.Last) != 0 && len(out.Last) != len(left) {
		return fmt.Errorf("memqueue: %d results for the %d recipients left", len(out.Last), len(left))
	}
	if err := s.put(out.Put, copies, true); err != nil {
		return err
	}
	s.log(out.Events)
	s.unlease(n)
	e := *n.entry
	e.Envelope.To, e.Last = left, out.Last
	e.Due, e.Alarm, e.Held, e.Suspended, e.Attempt = out.Due, out.Alarm, out.Held, out.Suspended, out.Attempt
	if out.Lane != (queue.Lane{}) {
		e.Lane = out.Lane
	}
	n.entry = &e
	if len(left) == 0 {
		s.remove(n)
		return nil
	}
	edited := len(n.edits) > 0
	s.applyEdits(n)
	if edited || n.free() && !n.entry.Due.After(now) {
		// Put back for whoever is there, or made due by an edit that its
		// owner does not know of.
		s.wakeUp()
	}
	return nil
}

// without returns to without the indexes in done, which must ascend.
func without(to []smtp.Recipient, done []int) ([]smtp.Recipient, error) {
	if len(done) == 0 {
		return to, nil
	}
	for i, d := range done {
		if d < 0 || d >= len(to) || i > 0 && d <= done[i-1] {
			return nil, fmt.Errorf("memqueue: done recipients %v of %d", done, len(to))
		}
	}
	left := make([]smtp.Recipient, 0, len(to)-len(done))
	for i, r := range to {
		if len(done) > 0 && done[0] == i {
			done = done[1:]
			continue
		}
		left = append(left, r)
	}
	return left, nil
}

// remove forgets an entry that is neither leased nor indexed.
func (s *Storage) remove(n *node) {
	delete(s.entries, n.entry.ID)
	s.used -= entryCost
	n.m.entries--
	s.dropIfDone(n.m)
}
