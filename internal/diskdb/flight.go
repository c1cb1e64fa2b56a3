package diskdb

import (
	"context"
	"sync"
)

// Flight bounds the octets that are on their way into the database. Who wants
// more than the bound goes alone.
type Flight struct {
	Max int64

	mu      sync.Mutex
	n       int64
	waiting []*waiter
}

type waiter struct {
	n     int64
	ready chan struct{}
}

// Enter waits until n octets may go, in the order of the calls.
func (f *Flight) Enter(ctx context.Context, n int64) error {
	f.mu.Lock()
	if len(f.waiting) == 0 && (f.n == 0 || f.n+n <= f.Max) {
		f.n += n
		f.mu.Unlock()
		return nil
	}
	w := &waiter{n, make(chan struct{})}
	f.waiting = append(f.waiting, w)
	f.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, other := range f.waiting {
		if other == w {
			f.waiting = append(f.waiting[:i], f.waiting[i+1:]...)
			f.admit()
			return ctx.Err()
		}
	}
	f.n -= n // admitted at the same moment
	f.admit()
	return ctx.Err()
}

// Leave is called once for each Enter that gave no error.
func (f *Flight) Leave(n int64) {
	f.mu.Lock()
	f.n -= n
	f.admit()
	f.mu.Unlock()
}

func (f *Flight) admit() {
	for len(f.waiting) > 0 && (f.n == 0 || f.n+f.waiting[0].n <= f.Max) {
		f.n += f.waiting[0].n
		close(f.waiting[0].ready)
		f.waiting = f.waiting[1:]
	}
}
