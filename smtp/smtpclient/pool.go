package smtpclient

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/postrider/postrider/smtp"
)

// Pool keeps connections and sends messages on them. The zero Pool is ready.
// Its fields are read-only once it is in use, and it may be used from many
// goroutines. 0 = the default named, negative = no limit.
//
// A connection is used again for the same address, source, protocol and
// login, when what it has proven is enough; it is not kept apart by what it
// was opened for.
type Pool struct {
	// Dialer opens the connections.
	Dialer Dialer
	// MaxConns bounds the connections to all hosts, idle ones too; 1000.
	MaxConns int
	// MaxGroup bounds the connections of one Target.Group, idle ones too; 20.
	MaxGroup int
	// MaxIdle is how long a connection may wait for its next message; 30 s.
	// Negative = connections are not kept.
	MaxIdle time.Duration
	// MaxMessages is how many messages one connection carries; 100.
	MaxMessages int
	// MaxAge is how long after its opening a connection takes messages; 5 min.
	MaxAge time.Duration

	mu      sync.Mutex
	wg      sync.WaitGroup // Sends, and goodbyes
	closed  bool
	total   int
	leaving int // of total: evicted, still saying goodbye
	groups  map[string]*group
	active  map[*pooled]struct{}
	dialing map[*context.CancelFunc]struct{}
	waiters []*waiter // first come, first served
}

// group is the connections that share a limit.
type group struct {
	n       int // idle, in use, being opened and leaving
	leaving int
	idle    []*pooled // the longest idle first
	ready   []*pooled // in use, and only the reply to the message is to come
}

type pooled struct {
	*Conn
	key    Target // of the target it was opened for, what matters for reuse
	name   string // Target.Group
	opened time.Time
	idle   time.Time
	count  int // messages, begun too
	users  int // Sends under way on it
	timer  *time.Timer
}

// askAfter is how long a connection may wait before it is asked whether it is
// alive, when the next message comes.
const askAfter = 3 * time.Second

type waiter struct {
	t  Target
	ch chan grant // buffered; the pool sends one
}

// grant is a connection, or a place to open one, or neither: closed.
type grant struct {
	c    *pooled
	slot bool
}

// reuseKey is the part of t that must be equal for reuse.
func reuseKey(t Target) Target {
	return Target{Addr: t.Addr, Source: t.Source, ImplicitTLS: t.ImplicitTLS, LMTP: t.LMTP, Auth: t.Auth}
}

func (p *pooled) serves(t Target) bool {
	return p.key == reuseKey(t) && p.name == t.group() && p.proven.enough(t.need()) &&
		(t.need() != Verified || p.hop.Name == t.name() && p.provenFor == t.Verifier.key())
}

// Send transfers one message on a connection to t, an idle one if there is
// one, and returns a result for each recipient of env, in order. When the
// limits are reached it goes behind a message that has been sent and is not
// answered yet, where there is one, so that two senders for each connection
// are better than one; else it waits, until ctx is done.
//
// ctx may end it up to the last octet before the final dot, as in [Conn.Send].
// A connection that turns out to be dead, or is ended with 421, before
// anything else was said to MAIL, is replaced without a trace; one that has
// waited for some seconds is asked with RSET first, which with PIPELINING
// costs no round trip.
func (p *Pool) Send(ctx context.Context, t Target, env *smtp.Envelope, body Body) []smtp.Result {
	if len(env.To) == 0 {
		return nil
	}
	c, err := p.take(ctx, t)
	if err != nil {
		return unsent(len(env.To), nil, err)
	}
	defer p.wg.Done()
	reused := c != nil
	for {
		if c == nil {
			var hop *smtp.Hop
			if c, hop, err = p.open(ctx, t); err != nil {
				return unsent(len(env.To), hop, err)
			}
		}
		sent := c
		results, begun := c.send(ctx, env, body, func() { p.ready(sent) })
		if reused && c.Err() != nil && !begun && ctx.Err() == nil {
			if p.drop(c) {
				c, reused = nil, false // its place is kept
				continue
			}
			// Somebody else still has it.
			p.put(c)
			if c, err = p.take(ctx, t); err != nil {
				return unsent(len(env.To), nil, err)
			}
			p.wg.Done() // take counted us again
			reused = c != nil
			continue
		}
		p.put(c)
		return results
	}
}

// Idle returns the targets of the connections of a group that can take a
// message now: the idle ones, the one used last first, and when the limits are
// reached those whose message is not answered yet. It is a hint: another Send
// may take them at once.
func (p *Pool) Idle(groupName string) []Target {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.groups[groupName]
	if g == nil {
		return nil
	}
	var list []Target
	for i := len(g.idle) - 1; i >= 0; i-- {
		list = append(list, g.idle[i].target)
	}
	if p.full(g) {
		for _, c := range g.ready {
			list = append(list, c.target)
		}
	}
	return list
}

// Shutdown refuses new messages, says goodbye on idle connections, and waits
// for the messages under way, an unanswered dot too. When ctx is done first it
// returns its error and leaves the rest running; Close cuts them.
func (p *Pool) Shutdown(ctx context.Context) error {
	p.stop(false)
	done := make(chan struct{})
	go func() { p.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close cuts every connection and returns when all calls of Send have. A
// message whose dot is not answered is Unsure then. It may be called more
// than once.
func (p *Pool) Close() error {
	p.stop(true)
	p.wg.Wait()
	return nil
}

func (p *Pool) stop(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, w := range p.waiters {
		w.ch <- grant{}
	}
	p.waiters = nil
	for _, g := range p.groups {
		for len(g.idle) > 0 {
			p.evict(g, 0, cut)
		}
	}
	if cut {
		for c := range p.active {
			c.cut()
		}
		for cancel := range p.dialing {
			(*cancel)()
		}
	}
}

// take returns an idle connection, or nil for the right to open one. Without
// an error, wg counts the caller.
func (p *Pool) take(ctx context.Context, t Target) (*pooled, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, lost(context.Background(), ErrClosed)
	}
	p.wg.Add(1)
	if c, ok := p.acquire(t); ok {
		p.mu.Unlock()
		return c, nil
	}
	w := &waiter{t: t, ch: make(chan grant, 1)}
	p.waiters = append(p.waiters, w)
	p.mu.Unlock()

	var g grant
	var err error
	select {
	case g = <-w.ch:
	case <-ctx.Done():
		p.mu.Lock()
		for i, other := range p.waiters {
			if other == w {
				p.waiters = append(p.waiters[:i], p.waiters[i+1:]...)
				break
			}
		}
		p.mu.Unlock()
		select {
		case g = <-w.ch: // granted meanwhile: Send will see to ctx
		default:
			e := lost(ctx, ctx.Err())
			e.Scope = smtp.ScopeRecipient // the host is not to blame for our limits
			err = e
		}
	}
	if err == nil && g.c == nil && !g.slot {
		err = lost(context.Background(), ErrClosed)
	}
	if err != nil {
		p.wg.Done()
		return nil, err
	}
	return g.c, nil
}

// acquire finds a connection or a place for t; p.mu is held.
func (p *Pool) acquire(t Target) (*pooled, bool) {
	name := t.group()
	g := p.groups[name]
	if g != nil {
		for i := len(g.idle) - 1; i >= 0; i-- {
			if c := g.idle[i]; c.serves(t) && c.timer.Stop() {
				g.idle = append(g.idle[:i], g.idle[i+1:]...)
				// Nobody else has it: what is of its reader is ours.
				c.dirty = c.dirty || time.Since(c.idle) >= askAfter
				p.activate(c)
				return c, true
			}
		}
		if p.full(g) {
			if c := p.behind(g, t); c != nil {
				return c, true
			}
		}
		// A host counts a connection until it is closed: who waits for one
		// that leaves is served then.
		if lim := limit(p.MaxGroup, 20); lim > 0 && g.n >= lim {
			if g.n-g.leaving >= lim {
				p.evict(g, 0, false)
			}
			return nil, false
		}
	}
	if lim := limit(p.MaxConns, 1000); lim > 0 && p.total >= lim {
		if p.wanted(t) > p.leaving {
			p.evictAny()
		}
		return nil, false
	}
	if g = p.groups[name]; g == nil {
		g = &group{}
		if p.groups == nil {
			p.groups = map[string]*group{}
		}
		p.groups[name] = g
	}
	g.n++
	p.total++
	return nil, true
}

func limit(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

func (p *Pool) activate(c *pooled) {
	if p.active == nil {
		p.active = map[*pooled]struct{}{}
	}
	p.active[c] = struct{}{}
	c.users++
	c.count++
}

// ready lets another Send go behind the message that was sent on c.
func (p *Pool) ready(c *pooled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed && p.fresh(c) {
		g := p.groups[c.name]
		g.ready = append(g.ready, c)
		p.serveWaiters()
	}
}

// fresh reports whether c may take one more message.
func (p *Pool) fresh(c *pooled) bool {
	maxAge := orDefault(p.MaxAge, 5*time.Minute)
	maxMessages := limit(p.MaxMessages, 100)
	if m := c.limits.MailMax; m > 0 && (maxMessages < 0 || m < maxMessages) {
		maxMessages = m // LIMITS
	}
	return (maxAge < 0 || time.Since(c.opened) < maxAge) && (maxMessages < 0 || c.count < maxMessages)
}

// full reports whether g can have no more connections; p.mu is held.
func (p *Pool) full(g *group) bool {
	perGroup, all := limit(p.MaxGroup, 20), limit(p.MaxConns, 1000)
	return perGroup > 0 && g.n >= perGroup || all > 0 && p.total >= all
}

// behind takes a connection whose message is not answered yet; p.mu is held.
func (p *Pool) behind(g *group, t Target) *pooled {
	for i, c := range g.ready {
		if c.serves(t) && c.Err() == nil {
			g.ready = slices.Delete(g.ready, i, i+1)
			p.activate(c)
			return c
		}
	}
	return nil
}

// evict says goodbye on g's i-th idle connection; p.mu is held.
func (p *Pool) evict(g *group, i int, cut bool) {
	if i >= len(g.idle) {
		return
	}
	c := g.idle[i]
	g.idle = append(g.idle[:i], g.idle[i+1:]...)
	c.timer.Stop()
	if cut {
		p.free(c.name)
		c.cut()
		return
	}
	p.leaving++
	g.leaving++
	p.wg.Go(func() {
		c.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.leaving--
		g.leaving--
		p.free(c.name)
		p.serveWaiters()
	})
}

// wanted counts the places that those who wait could use, t's sender among
// them, as far as there is a need to know: up to one more than leaving.
func (p *Pool) wanted(t Target) int {
	lim := limit(p.MaxGroup, 20)
	room := map[string]int{}
	n := 0
	use := func(name string) {
		if lim > 0 {
			r, ok := room[name]
			if !ok {
				if r = lim; p.groups[name] != nil {
					r -= p.groups[name].n
				}
			}
			if room[name] = r - 1; r <= 0 {
				return
			}
		}
		n++
	}
	waits := false
	for _, w := range p.waiters {
		if n > p.leaving {
			return n
		}
		waits = waits || w.t == t
		use(w.t.group())
	}
	if !waits {
		use(t.group())
	}
	return n
}

func (p *Pool) evictAny() {
	for _, g := range p.groups {
		if len(g.idle) > 0 {
			p.evict(g, 0, false)
			return
		}
	}
}

// free gives a place back; p.mu is held.
func (p *Pool) free(name string) {
	g := p.groups[name]
	p.total--
	if g.n--; g.n == 0 {
		delete(p.groups, name)
	}
}

// serveWaiters grants what can be granted; p.mu is held.
func (p *Pool) serveWaiters() {
	kept := p.waiters[:0]
	for _, w := range p.waiters {
		if c, ok := p.acquire(w.t); ok {
			w.ch <- grant{c, true}
		} else {
			kept = append(kept, w)
		}
	}
	clear(p.waiters[len(kept):])
	p.waiters = kept
}

// open dials for a place that acquire gave, and gives it back on failure.
func (p *Pool) open(ctx context.Context, t Target) (*pooled, *smtp.Hop, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	if p.dialing == nil {
		p.dialing = map[*context.CancelFunc]struct{}{}
	}
	p.dialing[&cancel] = struct{}{}
	if p.closed {
		cancel()
	}
	p.mu.Unlock()
	conn, hop, err := p.Dialer.dial(ctx, t)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.dialing, &cancel)
	if err != nil {
		p.free(t.group())
		p.serveWaiters()
		return nil, hop, err
	}
	c := &pooled{Conn: conn, key: reuseKey(t), name: t.group(), opened: time.Now()}
	p.activate(c)
	return c, hop, nil
}

// drop ends a dead connection that nobody else uses and keeps its place for
// another.
func (p *Pool) drop(c *pooled) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || c.users > 1 {
		return false
	}
	c.cut()
	delete(p.active, c)
	return true
}

// put takes a connection back after a message.
func (p *Pool) put(c *pooled) {
	maxIdle := orDefault(p.MaxIdle, 30*time.Second)
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.users--; c.users > 0 {
		return
	}
	g := p.groups[c.name]
	if i := slices.Index(g.ready, c); i >= 0 {
		g.ready = slices.Delete(g.ready, i, i+1)
	}
	if c.Err() == nil && !p.closed && maxIdle > 0 && p.fresh(c) {
		g.idle, c.idle = append(g.idle, c), time.Now()
		c.timer = time.AfterFunc(maxIdle, func() { p.expire(c) })
	} else {
		// The host counts it until it is closed: so long nobody has its place.
		p.mu.Unlock()
		c.Close()
		p.mu.Lock()
		p.free(c.name)
	}
	delete(p.active, c)
	p.serveWaiters()
}

// expire says goodbye on a connection that was idle for too long.
func (p *Pool) expire(c *pooled) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	g := p.groups[c.name]
	if g == nil {
		p.mu.Unlock()
		return
	}
	for i := range g.idle {
		if g.idle[i] == c {
			p.evict(g, i, false)
			break
		}
	}
	p.mu.Unlock()
}
