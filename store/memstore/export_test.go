package memstore

import "github.com/postrider/postrider/store"

// Sweep ends the grace of all that waits for it, and counts what is kept.
func Sweep(s store.Store) (bodies int64, err error) {
	m := s.(*Store)
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, a := range m.accounts {
		a.mu.Lock()
		for _, d := range a.dying {
			if d.c.refs == 0 && a.contents[d.c.id] == d.c {
				delete(a.contents, d.c.id)
				a.unthread(d.c)
			}
		}
		a.dying, a.dyingSum = nil, 0
		bodies += int64(len(a.contents) + len(a.threads))
		a.mu.Unlock()
	}
	return bodies, nil
}
