package pgstore

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/store"
)

// tellEvery is how long commits wait to be told to other nodes together.
const tellEvery = 10 * time.Millisecond

// hub tells watchers of commits: those of this node at once, those of others
// by NOTIFY. What PostgreSQL does not deliver, a query now and then finds.
type hub struct {
	s    *Store
	node string // names this Store among others, in its own notifications

	mu       sync.Mutex
	watchers map[int64]map[*watcher]struct{} // by the account's number
	seen     map[int64]store.ModSeq          // what the poll has seen
	dirty    map[int64]struct{}              // to be told
	tell     chan struct{}
	listens  bool
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
	h.s, h.node = s, newID('n')
	h.watchers = make(map[int64]map[*watcher]struct{})
	h.seen = make(map[int64]store.ModSeq)
	h.dirty = make(map[int64]struct{})
	h.tell = make(chan struct{}, 1)
	s.running.Go(h.telling)
}

// channel is what NOTIFY and LISTEN call the store.
func (h *hub) channel() string { return h.s.o.Schema + "_mail" }

// Watch implements store.Watcher: f is called after each commit of this node
// on the goroutine of whoever committed, and of others soon after.
func (a *account) Watch(f func()) (stop func()) {
	h, w := &a.s.hub, &watcher{f: f}
	h.mu.Lock()
	if h.watchers[a.num] == nil {
		h.watchers[a.num] = make(map[*watcher]struct{})
	}
	h.watchers[a.num][w] = struct{}{}
	if !h.listens && a.s.ctx.Err() == nil {
		h.listens = true
		a.s.running.Go(h.listening)
		a.s.running.Go(h.polling)
	}
	h.mu.Unlock()
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
	h.mu.Lock()
	h.dirty[account] = struct{}{}
	h.mu.Unlock()
	select {
	case h.tell <- struct{}{}:
	default:
	}
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

func (h *hub) callAll() {
	for _, n := range h.watched() {
		h.call(n)
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

// telling notifies other nodes, many commits at a time: in a transaction of
// its own, for NOTIFY makes commits wait for one another.
func (h *hub) telling() {
	for {
		select {
		case <-h.s.ctx.Done():
			return
		case <-h.tell:
		}
		select {
		case <-h.s.ctx.Done():
		case <-time.After(tellEvery):
		}
		h.mu.Lock()
		dirty := h.dirty
		h.dirty = make(map[int64]struct{})
		h.mu.Unlock()
		for _, text := range payloads(h.node, dirty) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(h.s.ctx), 5*time.Second)
			if _, err := h.s.pool.Exec(ctx, `SELECT pg_notify($1, $2)`, h.channel(), text); err != nil {
				h.s.o.Log.Debug("pgstore: other nodes are not told, they will find it", "err", err)
			}
			cancel()
		}
	}
}

// maxPayload is what fits into one notification.
const maxPayload = 7900

// payloads are notifications: the node, then accounts.
func payloads(node string, accounts map[int64]struct{}) []string {
	var out []string
	b := []byte(node)
	for n := range accounts {
		if len(b) > maxPayload {
			out = append(out, string(b))
			b = []byte(node)
		}
		b = strconv.AppendInt(append(b, ' '), n, 10)
	}
	if len(b) > len(node) {
		out = append(out, string(b))
	}
	return out
}

// listening hears what other nodes tell, and connects again when it must.
func (h *hub) listening() {
	wait := time.Second
	for h.s.ctx.Err() == nil {
		begin := time.Now()
		err := h.listen(h.s.ctx)
		if h.s.ctx.Err() != nil {
			return
		}
		if time.Since(begin) > time.Minute {
			wait = time.Second
		}
		h.s.o.Log.Warn("pgstore: listening for other nodes' commits failed, connecting again", "in", wait, "err", err)
		select {
		case <-h.s.ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, 30*time.Second)
	}
}

// listen has a connection of its own: it must not be one that PgBouncer
// gives to another at the end of a transaction.
func (h *hub) listen(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, h.s.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{h.channel()}.Sanitize()); err != nil {
		return err
	}
	h.callAll() // for what was missed until now
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		node, rest, _ := strings.Cut(n.Payload, " ")
		if node == h.node {
			continue
		}
		for word := range strings.FieldsSeq(rest) {
			if num, err := strconv.ParseInt(word, 10, 64); err == nil {
				h.call(num)
			}
		}
	}
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
	rows, err := h.s.pool.Query(ctx, h.s.sql(`SELECT w.num, coalesce(a.modseq, -1) FROM unnest($1::bigint[]) AS w(num) LEFT JOIN {s}.accounts a ON a.num = w.num`), watched)
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
