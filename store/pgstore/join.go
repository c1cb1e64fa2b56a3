package pgstore

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"github.com/postrider/postrider/store"
)

const (
	// joinMessages and joinBytes bound what one transaction takes together,
	// beyond its first write.
	joinMessages = 128
	joinBytes    = 4 << 20
	// plainBytes is how much of bodies one Append may have to go through
	// insert, which has them in memory once more.
	plainBytes = 16 << 20
)

// joiner lets Appends to one account that come at the same time go together:
// while one transaction is under way, those that come wait and are the next.
type joiner struct {
	mu      sync.Mutex
	closed  bool
	waiting map[int64][]*joined // by account; there is a goroutine for each
	// slots bounds how many transactions there are at once, to half of the
	// pool: more would only be smaller, and leave no connection to readers.
	slots chan struct{}
}

// joined is one Append that goes together with others.
type joined struct {
	a   *account
	box store.MailboxID
	d   []*prepared
	// out and err are there when done is closed. When neither plain nor err is
	// set, the write is to be done alone.
	out   store.Appended
	err   error
	plain bool
	done  chan struct{}
}

// join appends d, perhaps together with others, and says whether it has: if
// not, nothing happened, and the write is to be done alone.
func (a *account) join(ctx context.Context, box store.MailboxID, d []*prepared) (store.Appended, bool, error) {
	ctx, cancel := a.s.bounded(ctx)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return store.Appended{}, true, fail(err)
	}
	for _, p := range d {
		// The write may outlive a caller who gives up.
		p.head, p.summary = bytes.Clone(p.head), bytes.Clone(p.summary)
	}
	w := &joined{a: a, box: box, d: d, done: make(chan struct{})}
	j := &a.s.joiner
	j.mu.Lock()
	list, runs := j.waiting[a.num]
	switch {
	case j.closed:
		j.mu.Unlock()
		a.s.appendTogether(ctx, []*joined{w})
		return w.out, w.plain || w.err != nil, w.err
	case !runs:
		a.s.running.Go(func() { a.s.joining(a.num) })
	}
	j.waiting[a.num] = append(list, w)
	j.mu.Unlock()
	select {
	case <-w.done:
		return w.out, w.plain || w.err != nil, w.err
	case <-ctx.Done():
	}
	// If it still waits, nothing happens. Otherwise nobody knows.
	j.mu.Lock()
	defer j.mu.Unlock()
	if i := slices.Index(j.waiting[a.num], w); i >= 0 {
		j.waiting[a.num] = slices.Delete(j.waiting[a.num], i, i+1)
	}
	return store.Appended{}, true, fail(ctx.Err())
}

// joining writes what waits for an account, until nothing does.
func (s *Store) joining(account int64) {
	for {
		s.joiner.slots <- struct{}{}
		s.joiner.mu.Lock()
		part, rest := nextGroup(s.joiner.waiting[account])
		if len(part) == 0 {
			delete(s.joiner.waiting, account)
			s.joiner.mu.Unlock()
			<-s.joiner.slots
			return
		}
		s.joiner.waiting[account] = rest
		s.joiner.mu.Unlock()
		// Nobody who gives up takes the others along, and Close waits.
		ctx, cancel := s.bounded(context.WithoutCancel(s.ctx))
		s.appendTogether(ctx, part)
		cancel()
		<-s.joiner.slots
		for _, w := range part {
			close(w.done)
		}
	}
}

// nextGroup takes from the front of what waits what one statement can store.
// Messages that share a Message-ID go one after the other: the thread of the
// second is that of the first.
func nextGroup(waiting []*joined) (part, rest []*joined) {
	var hashes map[string]struct{}
	n, size := 0, int64(0)
	for i, w := range waiting {
		m, b := len(w.d), int64(0)
		shared := false
		for _, p := range w.d {
			b += int64(len(p.data))
			for _, h := range p.ids {
				_, has := hashes[string(h)]
				shared = shared || has
			}
		}
		if i > 0 && (n+m > joinMessages || size+b > joinBytes) {
			return part, append(rest, waiting[i:]...)
		}
		if shared {
			rest = append(rest, w)
			continue
		}
		if hashes == nil {
			hashes = make(map[string]struct{})
		}
		for _, p := range w.d {
			for _, h := range p.ids {
				hashes[string(h)] = struct{}{}
			}
		}
		part, n, size = append(part, w), n+m, size+b
	}
	return part, rest
}

// appendTogether stores writes to one account in one transaction. Those that
// it cannot store so are left as they are.
func (s *Store) appendTogether(ctx context.Context, part []*joined) {
	a := part[0].a
	var list []*entry
	for i, w := range part {
		for _, p := range w.d {
			list = append(list, &entry{p: p, account: a.num, box: w.box, rank: int64(i + 1)})
		}
	}
	err := s.insert(ctx, list)
	if err != nil && !one(err) {
		for _, w := range part {
			w.err = fail(err)
		}
		return
	}
	// Each write is the one before the next in its mailbox.
	prev := make(map[store.MailboxID]store.ModSeq)
	stored := false
	for _, w := range part {
		mine := list[:len(w.d)]
		list = list[len(w.d):]
		if w.plain = err == nil && mine[0].done; !w.plain {
			continue
		}
		stored = true
		if _, there := prev[w.box]; !there {
			prev[w.box] = store.ModSeq(mine[0].prev)
		}
		w.out = store.Appended{UIDValidity: mine[0].validity, Commit: store.Commit{Prev: prev[w.box], ModSeq: store.ModSeq(mine[0].modSeq)}}
		prev[w.box] = w.out.ModSeq
		for _, e := range mine {
			w.out.Messages = append(w.out.Messages, e.message())
		}
	}
	if stored {
		s.hub.committed(a.num)
	}
}

// unshared reports whether no two messages share a Message-ID.
func unshared(d []*prepared) bool {
	if len(d) == 1 {
		return true
	}
	hashes := make(map[string]struct{})
	for _, p := range d {
		for _, h := range p.ids {
			if _, has := hashes[string(h)]; has {
				return false
			}
			hashes[string(h)] = struct{}{}
		}
	}
	return true
}
