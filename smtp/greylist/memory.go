package greylist

import (
	"container/list"
	"context"
	"crypto/sha256"
	"strings"
	"sync"
	"time"
)

// Memory is a Storage in memory. The zero value is ready.
type Memory struct {
	// Max is how many keys of each kind are kept; 0 = 100,000. Beyond it the
	// one that was seen longest ago is forgotten: networks that are known
	// never give way to first attempts. A key costs about 250 octets.
	Max int

	mu               sync.Mutex
	known, attempted shelf
}

// shelf is keys in the order of their last sight.
type shelf struct {
	byKey map[[16]byte]*list.Element // to *item
	order list.List                  // the oldest in front
}

type item struct {
	key          [16]byte
	first, until time.Time
}

// get returns the item of a key, nil if there is none or it is over.
func (s *shelf) get(k [16]byte, now time.Time) *list.Element {
	e := s.byKey[k]
	if e != nil && e.Value.(*item).until.Before(now) {
		s.remove(e)
		return nil
	}
	return e
}

func (s *shelf) remove(e *list.Element) {
	delete(s.byKey, e.Value.(*item).key)
	s.order.Remove(e)
}

func (s *shelf) put(it *item, most int, now time.Time) {
	if s.byKey == nil {
		s.byKey = map[[16]byte]*list.Element{}
	}
	if most <= 0 {
		most = 100_000
	}
	for e := s.order.Front(); e != nil && (len(s.byKey) >= most || e.Value.(*item).until.Before(now)); e = s.order.Front() {
		s.remove(e)
	}
	s.byKey[it.key] = s.order.PushBack(it)
}

// place returns the shelf of a key and the key's hash: collisions of 128 bits
// of SHA-256 cannot be made.
func (m *Memory) place(key string) (*shelf, [16]byte) {
	sum := sha256.Sum256([]byte(key))
	if strings.HasPrefix(key, networkPrefix) {
		return &m.known, [16]byte(sum[:16])
	}
	return &m.attempted, [16]byte(sum[:16])
}

// First implements Storage.
func (m *Memory) First(_ context.Context, key string, now, until time.Time) (time.Time, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, k := m.place(key)
	if e := s.get(k, now); e != nil {
		return e.Value.(*item).first, true, nil
	}
	s.put(&item{k, now, until}, m.Max, now)
	return now, false, nil
}

// Known implements Storage.
func (m *Memory) Known(_ context.Context, key string, now, until time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, k := m.place(key)
	e := s.get(k, now)
	if e == nil {
		return false, nil
	}
	if it := e.Value.(*item); it.until.Before(until) {
		it.until = until
	}
	s.order.MoveToBack(e)
	return true, nil
}

// Keep implements Storage.
func (m *Memory) Keep(_ context.Context, key string, now, until time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, k := m.place(key)
	first := now
	if e := s.get(k, now); e != nil {
		first = e.Value.(*item).first
		s.remove(e)
	}
	s.put(&item{k, first, until}, m.Max, now)
	return nil
}
