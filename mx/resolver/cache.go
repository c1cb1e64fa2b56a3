package resolver

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/postrider/postrider/mx"
)

// How long an answer is kept at most, in seconds, whatever it says.
const (
	maxTTL         = 24 * 60 * 60
	maxNegativeTTL = 60 * 60
)

// maxKept is the largest answer kept, in octets on the wire.
const maxKept = 8 << 10

type cacheKey struct {
	name  string // absolute, lower case
	qtype uint16
}

type cacheEntry struct {
	answer  *mx.Answer
	err     error
	expires time.Time
}

// cache keeps answers and their absence. It is bounded in entries, and each
// of those in octets.
type cache struct {
	once   sync.Once
	seed   maphash.Seed
	shards [shardCount]shard
}

// shardCount keeps those who look up different names out of each other's way.
const shardCount = 16

type shard struct {
	mu      sync.RWMutex
	entries map[cacheKey]cacheEntry
}

func (c *cache) shard(key cacheKey) *shard {
	c.once.Do(func() { c.seed = maphash.MakeSeed() })
	return &c.shards[maphash.Comparable(c.seed, key)%shardCount]
}

func (all *cache) get(key cacheKey, now time.Time) (*mx.Answer, error, bool) {
	c := all.shard(key)
	c.mu.RLock()
	e, ok := c.entries[key]
	c.mu.RUnlock()
	if !ok || !now.Before(e.expires) {
		return nil, nil, false
	}
	return e.answer, e.err, true
}

func (all *cache) put(key cacheKey, a *mx.Answer, err error, ttl uint32, size int) {
	if ttl == 0 || size <= 0 {
		return
	}
	size = max(size/shardCount, 1)
	now := time.Now()
	c := all.shard(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = map[cacheKey]cacheEntry{}
	}
	if _, ok := c.entries[key]; !ok && len(c.entries) >= size {
		c.evict(now)
	}
	c.entries[key] = cacheEntry{a, err, now.Add(time.Duration(ttl) * time.Second)}
}

// evict drops, of a few entries that chance picks, those that are over, or
// else the one that will be first.
func (c *shard) evict(now time.Time) {
	var soonest cacheKey
	var at time.Time
	n, dropped := 0, false
	for k, e := range c.entries {
		if !now.Before(e.expires) {
			delete(c.entries, k)
			dropped = true
		} else if at.IsZero() || e.expires.Before(at) {
			soonest, at = k, e.expires
		}
		if n++; n == 8 {
			break
		}
	}
	if !dropped {
		delete(c.entries, soonest)
	}
}

// flights lets one question be asked once at a time.
type flights struct {
	mu sync.Mutex
	m  map[cacheKey]*flight
}

type flight struct {
	ended     chan struct{}
	answer    *mx.Answer
	err       error
	abandoned bool // by its leader's context: the outcome says nothing
}

// join returns the flight for key, and whether the caller has to lead it.
func (f *flights) join(key cacheKey) (*flight, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl, ok := f.m[key]; ok {
		return fl, false
	}
	if f.m == nil {
		f.m = map[cacheKey]*flight{}
	}
	fl := &flight{ended: make(chan struct{})}
	f.m[key] = fl
	return fl, true
}

func (f *flights) done(key cacheKey, fl *flight, a *mx.Answer, err error, abandoned bool) {
	f.mu.Lock()
	delete(f.m, key)
	f.mu.Unlock()
	fl.answer, fl.err, fl.abandoned = a, err, abandoned && err != nil
	close(fl.ended)
}
