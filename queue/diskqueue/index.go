package diskqueue

import (
	"bytes"
	"context"
	"iter"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/queue"
)

var maxID = queue.ID(bytes.Repeat([]byte{0xff}, idLen))

// lane is one with a free entry; first is where the earliest of them lies.
// Nothing else of a lane is in memory. Whatever was leased or finished lies
// before first, so no search begins among what is deleted.
type lane struct {
	key   string
	first pos
	place int32 // in the heap
}

// heap orders lanes by their earliest entry.
type heap []*lane

func (h heap) less(i, j int) bool { return h[i].first.at < h[j].first.at }

func (h heap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = int32(i), int32(j)
}

func (h *heap) push(l *lane) {
	l.place = int32(len(*h))
	*h = append(*h, l)
	h.up(int(l.place))
}

func (h *heap) remove(l *lane) {
	i, last := int(l.place), len(*h)-1
	h.swap(i, last)
	(*h)[last] = nil
	*h = (*h)[:last]
	if i < last {
		h.moved((*h)[i])
	}
	if c := cap(*h); c > 1024 && last < c/4 {
		*h = append(make(heap, 0, c/2), *h...)
	}
}

func (h heap) moved(l *lane) {
	i := int(l.place)
	h.up(i)
	h.down(int(l.place))
}

func (h heap) up(i int) {
	for i > 0 && h.less(i, (i-1)/2) {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (h heap) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h.less(c+1, c) {
			c++
		}
		if !h.less(c, i) {
			return
		}
		h.swap(c, i)
		i = c
	}
}

// insert notes a free entry; s.mu is held, as in all of these.
func (s *Storage) insert(key string, p pos) {
	l := s.lanes[key]
	switch {
	case l == nil:
		l = &lane{key: strings.Clone(key), first: p}
		s.lanes[l.key] = l
		if l.key != alarmLane {
			s.due.push(l)
		}
	case p.before(l.first):
		l.first = p
		s.moved(l)
	}
}

func (s *Storage) moved(l *lane) {
	if l.key != alarmLane {
		s.due.moved(l)
	}
}

func (s *Storage) insertEntry(e *queue.Entry) {
	if e.Held {
		return
	}
	s.insert(laneKey(e.Lane), pos{stampOf(e.Due), e.ID})
	if !e.Alarm.IsZero() {
		s.insert(alarmLane, pos{stampOf(e.Alarm), e.ID})
	}
}

// iterator reads the keys of free entries, on demand.
type iterator struct {
	s  *Storage
	it *pebble.Iterator
}

func (i *iterator) close() {
	if i.it != nil {
		i.it.Close()
	}
}

// scan calls f with the free entries of a lane from its first on until f
// returns false. What f leaves is the lane's first then.
func (i *iterator) scan(l *lane, f func(p pos) bool) error {
	if i.it == nil {
		it, err := i.s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{kAlarm}, UpperBound: []byte{kDue + 1}})
		if err != nil {
			return err
		}
		i.it = it
	}
	n := len(l.key)
	for ok := i.it.SeekGE(posKey(l.key, l.first)); ok; ok = i.it.Next() {
		key := i.it.Key()
		if len(key) < n || string(key[:n]) != l.key {
			break
		}
		p, good := posOf(key[n:])
		if !good || i.s.busy[p.id] != nil {
			continue
		}
		if !f(p) {
			l.first = p
			i.s.moved(l)
			return nil
		}
	}
	if err := i.it.Error(); err != nil {
		return err
	}
	delete(i.s.lanes, l.key)
	if l.key != alarmLane {
		i.s.due.remove(l)
	}
	return nil
}

// passed lets a lane that has id as its first, id being busy now, find its
// next.
func (i *iterator) passed(key string, id queue.ID) error {
	if l := i.s.lanes[key]; l != nil && l.first.id == id {
		return i.scan(l, func(pos) bool { return false })
	}
	return nil
}

// passedEntry does so for both places of an entry.
func (i *iterator) passedEntry(e *queue.Entry) error {
	if err := i.passed(laneKey(e.Lane), e.ID); err != nil {
		return err
	}
	return i.passed(alarmLane, e.ID)
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
		found, err := s.lanesDue(ctx, before)
		if err != nil {
			yield(queue.LaneDue{}, err)
			return
		}
		for _, l := range found {
			key, _, _ := laneOf([]byte(l.key))
			if !yield(queue.LaneDue{Lane: key, Due: l.first.time()}, nil) {
				return
			}
		}
	}
}

type dueLane struct {
	key   string
	first stamp
}

func (s *Storage) lanesDue(ctx context.Context, before time.Time) ([]dueLane, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	if _, err := s.enter(); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	limit := stampOf(before)
	var out []dueLane
	if l := s.lanes[alarmLane]; l != nil && l.first.at <= limit {
		out = append(out, dueLane{l.key, l.first.at})
	}
	// Whole branches of the heap can be left out.
	var stack []int
	if len(s.due) > 0 {
		stack = append(stack, 0)
	}
	for len(stack) > 0 {
		i := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		l := s.due[i]
		if l.first.at > limit {
			continue
		}
		out = append(out, dueLane{l.key, l.first.at})
		for c := 2*i + 1; c <= 2*i+2 && c < len(s.due); c++ {
			stack = append(stack, c)
		}
	}
	return out, nil
}
