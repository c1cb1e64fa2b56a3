package login

import (
	"container/list"
	"crypto/sha256"
	"errors"
	"sync"
	"time"
)

// maxTracked bounds how many users, addresses and trusted pairs are
// remembered, each; the one unused for the longest is forgotten first.
const maxTracked = 20_000

// counter counts failures by user or by address. They are forgotten one by
// one, each after the decay time.
type counter struct {
	limit int // negative = none
	decay time.Duration

	mu    sync.Mutex
	count recent[failures]
	pairs recent[struct{}] // user and address of logins that succeeded
}

type failures struct {
	n     int
	since time.Time // since when the oldest of the n is fading
}

func newCounter(limit int, decay time.Duration) *counter {
	return &counter{limit: limit, decay: decay}
}

// take counts one attempt as failed; false when there are too many already.
func (c *counter) take(name string) bool {
	if c.limit < 0 {
		return true
	}
	k := keyOf(name)
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.faded(k, now)
	if f.n >= c.limit {
		c.count.put(k, f)
		return false
	}
	if f.n == 0 {
		f.since = now
	}
	f.n++
	c.count.put(k, f)
	return true
}

// giveBack undoes one take.
func (c *counter) giveBack(name string) {
	if c.limit < 0 {
		return
	}
	k := keyOf(name)
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.faded(k, time.Now())
	if f.n--; f.n > 0 {
		c.count.put(k, f)
	} else {
		c.count.remove(k)
	}
}

func (c *counter) faded(k key, now time.Time) failures {
	f, _ := c.count.get(k)
	if f.n == 0 {
		return f
	}
	gone := int64(now.Sub(f.since) / c.decay)
	if gone >= int64(f.n) {
		return failures{}
	}
	if gone > 0 {
		f.n -= int(gone)
		f.since = f.since.Add(time.Duration(gone) * c.decay)
	}
	return f
}

// trusted reports whether trust was called for the pair; "" never is.
func (c *counter) trusted(pair string) bool {
	if pair == "" {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.pairs.get(keyOf(pair))
	return ok
}

func (c *counter) trust(pair string) {
	if pair == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pairs.put(keyOf(pair), struct{}{})
}

// limits counts the attempts of one Authenticator.
type limits struct{ users, addrs *counter }

func (l *limits) init(perUser, perAddr int, decay time.Duration) {
	if decay <= 0 {
		decay = defaultDecay
	}
	l.users = newCounter(orDefault(perUser, defaultUserFailures), decay)
	l.addrs = newCounter(orDefault(perAddr, defaultAddrFailures), decay)
}

// attempt is one that has begun.
type attempt struct {
	l          *limits
	user, addr string
	pair       string
	known      bool
}

// enter begins an attempt: ErrTooMany. Failures are counted before the check
// and taken back after a success, so that attempts made at the same time
// cannot slip through together; one that is never left was a failure. user
// may be "".
func (l *limits) enter(c *Conn, user string) (attempt, error) {
	a := attempt{l: l, user: user, addr: addrKey(c)}
	if a.addr != "" && user != "" {
		a.pair = user + "\x00" + a.addr
	}
	if a.addr != "" && !l.addrs.take(a.addr) {
		return a, ErrTooMany
	}
	a.known = user == "" || l.users.trusted(a.pair)
	if !a.known && !l.users.take(user) {
		if a.addr != "" {
			l.addrs.giveBack(a.addr)
		}
		return a, ErrTooMany
	}
	return a, nil
}

// leave ends it. Only ErrCredentials is a failure.
func (a attempt) leave(err error) {
	if err == nil {
		a.l.users.trust(a.pair)
	}
	if errors.Is(err, ErrCredentials) {
		return
	}
	if a.addr != "" {
		a.l.addrs.giveBack(a.addr)
	}
	if !a.known {
		a.l.users.giveBack(a.user)
	}
}

// key is a digest, so that long names cost no more memory than short ones.
type key [sha256.Size]byte

func keyOf(s string) key { return sha256.Sum256([]byte(s)) }

// recent is a map that forgets what was put in or got from it the longest
// ago. The zero value is ready.
type recent[V any] struct {
	m     map[key]*list.Element
	order list.List // of item[V], newest first
}

type item[V any] struct {
	k key
	v V
}

func (r *recent[V]) get(k key) (v V, ok bool) {
	e := r.m[k]
	if e == nil {
		return v, false
	}
	r.order.MoveToFront(e)
	return e.Value.(*item[V]).v, true
}

func (r *recent[V]) put(k key, v V) {
	if e := r.m[k]; e != nil {
		e.Value.(*item[V]).v = v
		r.order.MoveToFront(e)
		return
	}
	if r.m == nil {
		r.m = map[key]*list.Element{}
	}
	r.m[k] = r.order.PushFront(&item[V]{k, v})
	if len(r.m) > maxTracked {
		r.remove(r.order.Back().Value.(*item[V]).k)
	}
}

func (r *recent[V]) remove(k key) {
	if e := r.m[k]; e != nil {
		r.order.Remove(e)
		delete(r.m, k)
	}
}
