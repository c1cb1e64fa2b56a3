package memstore

import "sync"

// watcher is one Watch. Its mutex makes stop wait for a running call.
type watcher struct {
	mu sync.Mutex
	f  func()
}

// Watch implements store.Watcher: f is called after each commit, on the
// goroutine of whoever committed, with no lock of the store held.
func (a *account) Watch(f func()) (stop func()) {
	w := &watcher{f: f}
	a.watch.Lock()
	a.watchers[w] = struct{}{}
	a.watch.Unlock()
	return func() {
		a.watch.Lock()
		delete(a.watchers, w)
		a.watch.Unlock()
		w.mu.Lock()
		w.f = nil
		w.mu.Unlock()
	}
}

// notify calls the watchers. The account's lock is not held.
func (a *account) notify() {
	a.watch.Lock()
	if len(a.watchers) == 0 {
		a.watch.Unlock()
		return
	}
	ws := make([]*watcher, 0, len(a.watchers))
	for w := range a.watchers {
		ws = append(ws, w)
	}
	a.watch.Unlock()
	for _, w := range ws {
		w.mu.Lock()
		if w.f != nil {
			w.f()
		}
		w.mu.Unlock()
	}
}
