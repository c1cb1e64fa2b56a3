package diskstore

import "sync"

// watchers are those of an account.
type watchers struct {
	watch sync.Mutex
	set   map[*watcher]struct{}
}

// watcher is one Watch. Its mutex makes stop wait for a running call.
type watcher struct {
	mu sync.Mutex
	f  func()
}

// Watch implements store.Watcher: f is called when a commit is durable, on the
// goroutine of whoever committed, with no lock of the store held.
func (a *account) Watch(f func()) (stop func()) {
	w := &watcher{f: f}
	a.watch.Lock()
	if a.set == nil {
		a.set = make(map[*watcher]struct{})
	}
	a.set[w] = struct{}{}
	a.watch.Unlock()
	return func() {
		a.watch.Lock()
		delete(a.set, w)
		a.watch.Unlock()
		w.mu.Lock()
		w.f = nil
		w.mu.Unlock()
	}
}

// notify calls the watchers.
func (a *watchers) notify() {
	a.watch.Lock()
	ws := make([]*watcher, 0, len(a.set))
	for w := range a.set {
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
