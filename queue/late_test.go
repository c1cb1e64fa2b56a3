package queue_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/smtp"
)

// gauge counts what runs now, by site and by tenant.
type gauge struct {
	mu    sync.Mutex
	now   map[string]int
	total int
}

func (g *gauge) add(n int, keys ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now == nil {
		g.now = make(map[string]int)
	}
	g.total += n
	for _, k := range keys {
		g.now[k] += n
	}
}

func (g *gauge) at(key string) (n, total int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now[key], g.total
}

// moody is a storage that fails now and then.
type moody struct {
	*memqueue.Storage
	mu  sync.Mutex
	rng *rand.Rand
}

var errMood = errors.New("not now")

func (m *moody) fails(oneIn int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rng.IntN(oneIn) == 0
}

func (m *moody) Lease(ctx context.Context, o queue.Owner, want []queue.Want) ([]*queue.Lease, error) {
	if m.fails(20) {
		return nil, errMood
	}
	return m.Storage.Lease(ctx, o, want)
}

func (m *moody) Lanes(ctx context.Context, before time.Time) iter.Seq2[queue.LaneDue, error] {
	if m.fails(20) {
		return func(yield func(queue.LaneDue, error) bool) { yield(queue.LaneDue{}, errMood) }
	}
	return m.Storage.Lanes(ctx, before)
}

func (m *moody) Finish(ctx context.Context, o *queue.Outcome) error {
	if m.fails(50) {
		return errMood
	}
	return m.Storage.Finish(ctx, o)
}

// TestNeverLate plays at random with a queue: mail for now and for later,
// recipients that are deferred, lanes that are held, released, moved and made
// due at once while they are leased, tenants and sites with little room, sites
// that go down. Ten times a second it looks for an entry that is free and was
// due for longer than the bound, although its site is up and nothing runs
// there, and there is room for its tenant: nobody is going to deliver that
// one.
func TestNeverLate(t *testing.T) {
	for _, c := range []struct {
		name    string
		queues  int
		storage func(*memqueue.Storage, *rand.Rand) queue.Storage
		bound   time.Duration
	}{
		{"waker", 1, func(s *memqueue.Storage, _ *rand.Rand) queue.Storage { return s }, 150 * time.Millisecond},
		{"two queues", 2, func(s *memqueue.Storage, _ *rand.Rand) queue.Storage { return s }, 1150 * time.Millisecond},
		{"no waker", 1, func(s *memqueue.Storage, _ *rand.Rand) queue.Storage { return blind{s} }, 1150 * time.Millisecond},
		{"failing storage", 1, func(s *memqueue.Storage, r *rand.Rand) queue.Storage {
			return &moody{Storage: s, rng: rand.New(rand.NewPCG(r.Uint64(), 1))}
		}, 12 * time.Second},
	} {
		for range 4 {
			seed := rand.Uint64()
			t.Run(c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					neverLate(t, seed, c.queues, c.storage, c.bound)
				})
			})
		}
	}
}

func neverLate(t *testing.T, seed uint64, queues int, storage func(*memqueue.Storage, *rand.Rand) queue.Storage, bound time.Duration) {
	const (
		domains, sites, tenants = 20, 6, 4
		perTenant, concurrency  = 6, 16
		// A site that failed is left alone until what failed there is tried
		// again, at most.
		retryAtMost = 20 * time.Second
		downAtMost  = retryAtMost + time.Second
	)
	rng := rand.New(rand.NewPCG(seed, 0))
	var rngMu sync.Mutex
	random := func(n int) int {
		rngMu.Lock()
		defer rngMu.Unlock()
		return rng.IntN(n)
	}
	begun := time.Now()
	st := new(memqueue.Storage)
	var g gauge
	site := func(domain string) string {
		var n int
		fmt.Sscanf(domain, "d%d.test", &n)
		return fmt.Sprint("site", n%sites)
	}
	var downMu sync.Mutex
	downAt := make(map[string]time.Time) // when a site failed last
	var worlds []*world
	shared := storage(st, rng)
	for range queues {
		w := newWorld(t)
		w.st, w.q.Storage = st, shared
		w.q.PerSite, w.q.PerTenant, w.q.Concurrency = 3, perTenant, concurrency
		w.q.Retry = func(*queue.Entry) time.Duration {
			return time.Duration(1+random(int(retryAtMost/time.Millisecond))) * time.Millisecond
		}
		w.tr.Site = site
		w.tr.Answer = func(ctx context.Context, d *queuetest.Delivery) []smtp.Result {
			// The tenant stands in the reverse-path.
			s, tenant := site(d.Domain), "tenant "+d.Envelope.From.Local
			g.add(1, s, tenant)
			defer g.add(-1, s, tenant)
			select {
			case <-time.After(time.Duration(random(3000)) * time.Millisecond):
			case <-ctx.Done():
				return d.All(smtp.Result{Err: ctx.Err()})
			}
			switch random(30) {
			case 0, 1, 2, 3, 4, 5, 6, 7:
				return d.Refuse(451, smtp.ScopeRecipient)
			case 8:
				downMu.Lock()
				downAt[s] = time.Now()
				downMu.Unlock()
				return d.Refuse(451, smtp.ScopeRoute)
			}
			return d.All(smtp.Result{})
		}
		w.run()
		worlds = append(worlds, w)
	}
	w := worlds[0]
	domain := func() string { return fmt.Sprintf("d%d.test", random(domains)) }
	send := func() {
		tenant := fmt.Sprint("t", random(tenants))
		m := mail("r@" + domain())
		m.Tenant, m.Envelope.From.Local, m.Priority = tenant, tenant, int8(random(3))
		if random(2) == 0 {
			m.Due = time.Now().Add(time.Duration(random(90_000)) * time.Millisecond)
		}
		w.enqueue(m)
	}
	edit := func() {
		f := queue.Filter{Dest: domain()}
		switch random(4) {
		case 0:
			f.Tenant = fmt.Sprint("t", random(tenants))
		case 1:
			f.Held = true
		}
		var e queue.Edit
		switch random(4) {
		case 0:
			e.Hold = true
		case 1, 2:
			e.Release = true
		case 3:
			e.Due = time.Now().Add(time.Duration(random(10_000)-5000) * time.Millisecond)
		}
		if _, err := st.Edit(context.Background(), f, e); err != nil {
			t.Error(err)
		}
	}
	freeSince := make(map[queue.ID]time.Time) // since when nothing hinders an entry but time
	for step := 0; time.Since(begun) < 5*time.Minute; step++ {
		if step < 1500 {
			if random(4) == 0 {
				send()
			}
			if random(10) == 0 {
				edit()
			}
		} else if step == 1500 {
			if _, err := st.Edit(context.Background(), queue.Filter{}, queue.Edit{Release: true}); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		now := time.Now()
		stuck := make(map[queue.ID]time.Time)
		for _, e := range w.left() {
			s := site(e.Lane.Dest)
			running, total := g.at(s)
			ofTenant, _ := g.at("tenant " + e.Envelope.From.Local)
			downMu.Lock()
			failed, known := downAt[s]
			downMu.Unlock()
			if e.Owner != "" || e.Held || e.Due.After(now) || running > 0 || ofTenant >= perTenant || total >= concurrency ||
				known && now.Sub(failed) < downAtMost {
				continue
			}
			since, was := freeSince[e.ID]
			if !was || since.Before(e.Due) {
				since = now
			}
			stuck[e.ID] = since
			if now.Sub(since) > bound {
				t.Fatalf("seed %d: after %v, %v in %v waits for %v, and its site is idle (attempt %d)",
					seed, now.Sub(begun), e.ID, e.Lane, now.Sub(since), e.Attempt)
			}
		}
		freeSince = stuck
	}
	for _, w := range worlds {
		w.q.Close()
		<-w.ended
	}
}
