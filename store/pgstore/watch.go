package pgstore

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/postrider/postrider/internal/pgnotify"
	"github.com/postrider/postrider/store"
)

// hub tells watchers of commits: those of this node at once, those of others
// by NOTIFY. What PostgreSQL does not deliver, a query now and then finds.
type hub struct {
	s    *Store
	line *pgnotify.Line

	mu       sync.Mutex
	watchers map[int64]map[*watcher]struct{} // by the account's number
	seen     map[int64]store.ModSeq          // what the poll has seen
	polls    bool
}

// watcher is one Watch. Its mutex makes stop wait for a running call.
type watcher struct {
	mu sync.Mutex
	f  func()
}

func (w *watcher) call() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f != nil {
		w.f()
	}
}

func (h *hub) init(s *Store) {
	h.s = s
	h.watchers = make(map[int64]map[*watcher]struct{})
	h.seen = make(map[int64]store.ModSeq)
	h.line = pgnotify.New(s.pool, s.o.Listen, s.o.Schema+"_mail", s.o.Log, h.heard)
}

// heard is told by another node of an account, or of all of them.
func (h *hub) heard(key string) {
	if key == "" {
		for _, n := range h.watched() {
			h.call(n)
		}
		return
	}
	if num, err := strconv.ParseInt(key, 10, 64); err == nil {
		h.call(num)
	}
}

// Watch implements store.Watcher: f is called after each commit of this node
// on the goroutine of whoever committed, and of others soon after.
func (a *account) Watch(f func()) (stop func()) {
	h, w := &a.s.hub, &watcher{f: f}
	h.mu.Lock()
	if h.watchers[a.num] == nil {
		h.watchers[a.num] = make(map[*watcher]struct{})
	}
	h.watchers[a.num][w] = struct{}{}
	if !h.polls && a.s.ctx.Err() == nil {
		h.polls = true
		a.s.running.Go(h.polling)
	}
	h.mu.Unlock()
	h.line.Listen()
	return func() {
		h.mu.Lock()
		delete(h.watchers[a.num], w)
		if len(h.watchers[a.num]) == 0 {
			delete(h.watchers, a.num)
			delete(h.seen, a.num)
		}
		h.mu.Unlock()
		w.mu.Lock()
		w.f = nil
		w.mu.Unlock()
	}
}

// committed tells of a commit of this node. No lock of the database is held.
func (h *hub) committed(account int64) {
	h.call(account)
	h.line.Tell(strconv.FormatInt(account, 10))
}

// call calls the watchers of an account.
func (h *hub) call(account int64) {
	h.mu.Lock()
	var ws []*watcher
	for w := range h.watchers[account] {
		ws = append(ws, w)
	}
	h.mu.Unlock()
	for _, w := range ws {
		w.call()
	}
}

func (h *hub) watched() []int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]int64, 0, len(h.watchers))
	for n := range h.watchers {
		out = append(out, n)
	}
	return out
}

// polling looks for commits that nobody told of.
func (h *hub) polling() {
	tick := time.NewTicker(h.s.o.Poll)
	defer tick.Stop()
	for {
		select {
		case <-h.s.ctx.Done():
			return
		case <-tick.C:
		}
		if err := h.poll(h.s.ctx); err != nil && !errors.Is(err, context.Canceled) {
			h.s.o.Log.Warn("pgstore: looking for other nodes' commits failed", "err", err)
		}
	}
}

func (h *hub) poll(ctx context.Context) error {
	watched := h.watched()
	if len(watched) == 0 {
		return nil
	}
	ctx, cancel := h.s.bounded(ctx)
	defer cancel()
	rows, err := h.s.query(ctx, h.s.sql(`SELECT w.num, coalesce(a.modseq, -1) FROM unnest($1::bigint[]) AS w(num) LEFT JOIN {s}.accounts a ON a.num = w.num`), watched)
	if err != nil {
		return err
	}
	defer rows.Close()
	var changed []int64
	h.mu.Lock()
	for rows.Next() {
		var num, modSeq int64
		if err := rows.Scan(&num, &modSeq); err != nil {
			h.mu.Unlock()
			return err
		}
		was, known := h.seen[num]
		if known && was != store.ModSeq(modSeq) {
			changed = append(changed, num)
		}
		if h.watchers[num] != nil {
			h.seen[num] = store.ModSeq(modSeq)
		}
	}
	h.mu.Unlock()
	for _, num := range changed {
		h.call(num)
	}
	return rows.Err()
}
