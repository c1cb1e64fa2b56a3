package queue

import (
	"context"
	"sync"
	"time"
)

// Limiter bounds rates. It may be shared by any number of queues, in any number
// of processes: what it counts is then exact for all of them. It is used from
// many goroutines.
//
// A queue asks for these keys, for one delivery of an entry each:
//
//	total              all of them
//	tenant NAME        a tenant's
//	site NAME          those to a site, as Grouper names it: a provider of many domains
//	dest DOMAIN        those of a destination
//	sender ADDRESS     those of a reverse-path
//
// The first four are asked before anything is leased. A sender is known after
// that: entries of one who is over the limit are put back until their turn.
type Limiter interface {
	// Take asks for n of key and returns how many are granted. When it is less
	// than n, again says when it is worth asking for more.
	Take(ctx context.Context, key string, n int) (granted int, again time.Time, err error)
	// Give returns n that were granted and not used. A negative n is debt:
	// what was used beyond the grant, see [Queue.Cost].
	Give(key string, n int)
}

// Rate is N in Per. The zero Rate is no limit.
type Rate struct {
	N   int
	Per time.Duration // 0 = 1 minute
	// Burst is how many may come at once after a rest; 0 = N.
	Burst int
}

// interval is the time between two.
func (r Rate) interval() time.Duration {
	return max(or(r.Per, time.Minute)/time.Duration(r.N), 1)
}

// Rates is a Limiter in memory, of one process. Its Rate must be set and must
// not change; the limits it gives may. All methods may be called from many
// goroutines.
type Rates struct {
	// Rate returns the limit of a key.
	Rate func(key string) Rate

	mu   sync.Mutex
	keys map[string]*time.Time // when the next is free, by what was granted
	next int                   // size at which to look for what is over
}

const firstRateSweep = 1024

// Take implements Limiter.
func (l *Rates) Take(_ context.Context, key string, n int) (int, time.Time, error) {
	r := l.Rate(key)
	if r.N <= 0 || n <= 0 {
		return n, time.Time{}, nil
	}
	now := time.Now()
	step := r.interval()
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.keys[key]
	if k == nil {
		k = new(time.Time)
		l.room(now)
		l.keys[key] = k
	}
	*k = later(*k, now)
	// What a rest earned lies before the time that is paid for.
	most := now.Add(time.Duration(or(r.Burst, r.N)-1) * step)
	granted := 0
	if !k.After(most) {
		granted = min(n, int(most.Sub(*k)/step)+1)
	}
	*k = k.Add(time.Duration(granted) * step)
	if granted == n {
		return n, time.Time{}, nil
	}
	return granted, k.Add(now.Sub(most)), nil
}

// Give implements Limiter.
func (l *Rates) Give(key string, n int) {
	r := l.Rate(key)
	if r.N <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.keys[key]; k != nil { // else it was granted long ago
		*k = k.Add(-time.Duration(n) * r.interval())
	}
}

// room makes place for one more key. Sweeps come at doubling sizes.
func (l *Rates) room(now time.Time) {
	if l.keys == nil {
		l.keys, l.next = make(map[string]*time.Time), firstRateSweep
	}
	if len(l.keys) < l.next {
		return
	}
	for name, k := range l.keys {
		if !k.After(now) {
			delete(l.keys, name)
		}
	}
	l.next = max(2*len(l.keys), firstRateSweep)
}

// turns spread those who are refused, so that they do not come back all at
// once: each is given a turn of its own, as far apart as was seen.
type turns struct {
	mu   sync.Mutex
	keys map[string]*turn
	next int // size at which to look for what is over
}

type turn struct {
	last time.Time
	step time.Duration
}

func (t *turns) after(key string, again, now time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keys == nil {
		t.keys, t.next = make(map[string]*turn), firstRateSweep
	}
	if len(t.keys) >= t.next {
		for name, k := range t.keys {
			if k.last.Before(now) {
				delete(t.keys, name)
			}
		}
		t.next = max(2*len(t.keys), firstRateSweep)
	}
	k := t.keys[key]
	if k == nil {
		k = new(turn)
		t.keys[key] = k
	}
	k.step = max(k.step, again.Sub(now), time.Millisecond)
	if k.last.Before(now) {
		k.last = later(again, now)
	} else {
		k.last = later(k.last.Add(k.step), again)
	}
	return k.last
}

// share is what one of some owners may use of a limit that is all of theirs: the
// shares of all are the limit. Which of them get one more depends on the key.
func share(limit int, key string, rank, owners int) int {
	if owners <= 1 || limit <= 0 {
		return limit
	}
	n := limit / owners
	h := uint64(14695981039346656037) // FNV-1a: the same in each process
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	if int(h%uint64(owners)+uint64(rank))%owners < limit%owners {
		n++
	}
	return n
}
