package memqueue

import (
	"time"

	"github.com/postrider/postrider/queue"
)

// heap is a binary heap whose items know their place, so that any of them can
// be moved or taken out. It is container/heap without interfaces.
type heap[T any] struct {
	items []T
	less  func(a, b T) bool
	pos   func(T) *int32 // place + 1; 0 = not in it
}

func (h *heap[T]) push(x T) {
	h.items = append(h.items, x)
	*h.pos(x) = int32(len(h.items))
	h.up(len(h.items) - 1)
}

func (h *heap[T]) remove(x T) {
	p := h.pos(x)
	i := int(*p) - 1
	if i < 0 {
		return
	}
	last := len(h.items) - 1
	h.swap(i, last)
	var zero T
	h.items[last] = zero
	h.items = h.items[:last]
	*p = 0
	if i < last {
		h.fix(i)
	}
	// A heap that was once large must not stay so for ever.
	if c := cap(h.items); c > 64 && last < c/4 {
		h.items = append(make([]T, 0, c/2), h.items...)
	}
}

// moved restores the order after x changed.
func (h *heap[T]) moved(x T) {
	if i := int(*h.pos(x)) - 1; i >= 0 {
		h.fix(i)
	}
}

func (h *heap[T]) fix(i int) {
	if !h.down(i) {
		h.up(i)
	}
}

func (h *heap[T]) swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	*h.pos(h.items[i]), *h.pos(h.items[j]) = int32(i+1), int32(j+1)
}

func (h *heap[T]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(h.items[i], h.items[parent]) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *heap[T]) down(i int) bool {
	start := i
	for {
		c := 2*i + 1
		if c >= len(h.items) {
			break
		}
		if c+1 < len(h.items) && h.less(h.items[c+1], h.items[c]) {
			c++
		}
		if !h.less(h.items[c], h.items[i]) {
			break
		}
		h.swap(i, c)
		i = c
	}
	return i != start
}

// node is one entry with its places. Its entry is replaced, never changed:
// readers may keep it.
type node struct {
	entry      *queue.Entry
	m          *message
	owner      *owner // nil = not leased
	prev, next *node  // among the owner's leases
	edits      []queue.Edit
	token      int64
	duePos     int32
	alarmPos   int32
}

func (n *node) free() bool { return n.owner == nil && !n.entry.Held }

// lane holds its free entries, earliest first.
type lane struct {
	key  queue.Lane
	free heap[*node]
	pos  int32
}

func (l *lane) earliest() time.Time { return l.free.items[0].entry.Due }

func laneLess(a, b *lane) bool { return a.earliest().Before(b.earliest()) }
func lanePos(l *lane) *int32   { return &l.pos }

// Equal times are common (one Put of many): IDs keep their order then.
func dueLess(a, b *node) bool {
	if c := a.entry.Due.Compare(b.entry.Due); c != 0 {
		return c < 0
	}
	return string(a.entry.ID[:]) < string(b.entry.ID[:])
}
func duePos(n *node) *int32 { return &n.duePos }

func alarmLess(a, b *node) bool { return a.entry.Alarm.Before(b.entry.Alarm) }
func alarmPos(n *node) *int32   { return &n.alarmPos }

// index enters a free node into the indexes; unindex takes it out.
func (s *Storage) index(n *node) {
	if !n.free() {
		return
	}
	key := n.entry.Lane
	l := s.lanes[key]
	if l == nil {
		l = &lane{key: key, free: heap[*node]{less: dueLess, pos: duePos}}
		s.lanes[key] = l
	}
	l.free.push(n)
	switch {
	case l.pos == 0:
		s.due.push(l)
	case l.free.items[0] == n:
		s.due.moved(l)
	}
	if !n.entry.Alarm.IsZero() {
		s.alarms.push(n)
	}
}

func (s *Storage) unindex(n *node) {
	if n.duePos != 0 {
		l := s.lanes[n.entry.Lane]
		if first := l.free.items[0] == n; len(l.free.items) == 1 {
			// The lane leaves its heap while it still has an entry to be
			// compared by.
			s.due.remove(l)
			l.free.remove(n)
			delete(s.lanes, l.key)
		} else {
			l.free.remove(n)
			if first {
				s.due.moved(l)
			}
		}
	}
	s.alarms.remove(n)
}
