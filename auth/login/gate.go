package login

import (
	"container/list"
	"context"
	"sync"
)

// gate lets hash computations in, in order, while their memory fits.
type gate struct {
	size int64 // octets; negative = no limit

	mu    sync.Mutex
	used  int64
	queue list.List // of *turn
}

type turn struct {
	need  int64
	ready chan struct{}
}

func newGate(size int64) *gate { return &gate{size: size} }

// enter waits until need octets are free, or ctx is done. Whoever got in
// calls leave, once.
func (g *gate) enter(ctx context.Context, need int64) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if g.size < 0 {
		return func() {}, nil
	}
	need = min(need, g.size) // one that is too big runs alone
	leave = func() {
		g.mu.Lock()
		g.used -= need
		g.admit()
		g.mu.Unlock()
	}
	g.mu.Lock()
	if g.queue.Len() == 0 && g.used+need <= g.size {
		g.used += need
		g.mu.Unlock()
		return leave, nil
	}
	t := &turn{need, make(chan struct{})}
	e := g.queue.PushBack(t)
	g.mu.Unlock()
	select {
	case <-t.ready:
		return leave, nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-t.ready: // it came in at the same moment
		g.used -= need
	default:
		g.queue.Remove(e)
	}
	g.admit()
	return nil, ctx.Err()
}

// admit lets in whoever is next and fits. g.mu is held.
func (g *gate) admit() {
	for e := g.queue.Front(); e != nil; e = g.queue.Front() {
		t := e.Value.(*turn)
		if g.used+t.need > g.size {
			return
		}
		g.used += t.need
		g.queue.Remove(e)
		close(t.ready)
	}
}
