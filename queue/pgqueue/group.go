package pgqueue

import (
	"context"
	"slices"
	"sync"
)

// group gathers calls that come at the same time, so that one statement does
// the work of all: while as many are under way as may be, those that come wait
// and then go together. Nobody waits for others to come.
type group[R any] struct {
	most   int   // how many may be under way
	calls  int   // how many calls go together at most
	octets int64 // and of what size together
	// run does the work of calls, and says of each how it ended.
	run func(rs []R) []error

	mu      sync.Mutex
	waiting []*member[R]
	running int
	closed  bool
	done    sync.WaitGroup
}

type member[R any] struct {
	r    R
	size int64
	err  chan error
}

// do returns how r ended, or that ctx did: then it may be done all the same.
func (g *group[R]) do(ctx context.Context, r R, size int64) error {
	m := &member[R]{r: r, size: size, err: make(chan error, 1)}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return g.run([]R{r})[0]
	}
	g.waiting = append(g.waiting, m)
	if g.running < g.most {
		g.running++
		g.done.Go(g.work)
	}
	g.mu.Unlock()
	select {
	case err := <-m.err:
		return err
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.waiting, m); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
	}
	return ctx.Err()
}

// work goes on until nobody waits.
func (g *group[R]) work() {
	for {
		g.mu.Lock()
		if len(g.waiting) == 0 {
			g.running--
			g.mu.Unlock()
			return
		}
		n, size := 0, int64(0)
		for n < len(g.waiting) && n < g.calls && (n == 0 || size+g.waiting[n].size <= g.octets) {
			size += g.waiting[n].size
			n++
		}
		now := slices.Clone(g.waiting[:n])
		g.waiting = slices.Delete(g.waiting, 0, n)
		g.mu.Unlock()
		rs := make([]R, n)
		for i, m := range now {
			rs[i] = m.r
		}
		for i, err := range g.run(rs) {
			now[i].err <- err
		}
	}
}

// close waits for what is under way. Calls that come later are done alone.
func (g *group[R]) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.done.Wait()
}
