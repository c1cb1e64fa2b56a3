package ratelimit

import (
	"context"
	"hash/maphash"
	"sync"
	"time"
)

// Memory is a Storage in memory. The zero value is ready.
type Memory struct {
	// Max is how many keys are kept; 0 = 100,000. Beyond it some keys are
	// forgotten early, and their peers begin anew. A key costs about 50
	// octets.
	Max int

	mu   sync.Mutex
	seed maphash.Seed
	paid map[uint64]time.Time // by hash: attackers choose keys, so seeded
	next int                  // size at which to look for what is over
}

const firstSweep = 1024

// Take implements Storage.
func (m *Memory) Take(_ context.Context, key string, n int, r Rate, now time.Time) (time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.paid == nil {
		m.paid, m.seed, m.next = map[uint64]time.Time{}, maphash.MakeSeed(), firstSweep
	}
	h := maphash.String(m.seed, key)
	old, known := m.paid[h]
	next, wait := r.Next(old, n, now)
	if wait > 0 || !next.After(now) {
		return wait, nil
	}
	if !known {
		m.room(now)
	}
	m.paid[h] = next
	return 0, nil
}

// room makes place for one more key. Sweeps come at doubling sizes, so that
// a key pays for a constant part of one.
func (m *Memory) room(now time.Time) {
	most := m.Max
	if most <= 0 {
		most = 100_000
	}
	if len(m.paid) < min(m.next, most) {
		return
	}
	for k, t := range m.paid {
		if !t.After(now) {
			delete(m.paid, k)
		}
	}
	m.next = max(2*len(m.paid), firstSweep)
	// Full of keys that are all in use: any of a few that random order shows
	// gives way, and an eighth at a time so that sweeps stay rare.
	if len(m.paid) >= most {
		leave := most - max(most/8, 1)
		for k := range m.paid {
			if len(m.paid) <= leave {
				break
			}
			delete(m.paid, k)
		}
	}
}
