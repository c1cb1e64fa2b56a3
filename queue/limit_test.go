package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/smtp"
)

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &queue.Rates{Rate: func(key string) queue.Rate {
			switch key {
			case "burst":
				return queue.Rate{N: 10, Per: time.Second}
			case "smooth":
				return queue.Rate{N: 10, Per: time.Second, Burst: 1}
			}
			return queue.Rate{}
		}}
		take := func(key string, n int) (int, time.Duration) {
			granted, again, err := l.Take(t.Context(), key, n)
			if err != nil {
				t.Fatal(err)
			}
			if again.IsZero() {
				return granted, 0
			}
			return granted, time.Until(again)
		}
		if n, wait := take("free", 1000); n != 1000 || wait != 0 {
			t.Errorf("no limit gives %d, %v", n, wait)
		}
		if n, wait := take("burst", 25); n != 10 || wait != 100*time.Millisecond {
			t.Errorf("a burst gives %d, again in %v", n, wait)
		}
		l.Give("burst", 3)
		if n, _ := take("burst", 25); n != 3 {
			t.Errorf("of 3 given back %d come again", n)
		}
		for range 5 {
			if n, wait := take("burst", 1); n != 0 || wait != 100*time.Millisecond {
				t.Errorf("beyond the burst: %d, again in %v", n, wait)
			}
		}
		time.Sleep(500 * time.Millisecond)
		if n, _ := take("burst", 25); n != 5 {
			t.Errorf("half a second earned %d", n)
		}
		granted := 0
		for range 1000 {
			n, wait := take("smooth", 3)
			if granted += n; n < 1 {
				t.Fatalf("granted %d", n)
			}
			time.Sleep(wait)
		}
		if granted != 1000 {
			t.Errorf("%d granted one by one", granted)
		}
	})
}

// Keys that are not used any more are forgotten.
func TestRatesForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &queue.Rates{Rate: func(string) queue.Rate { return queue.Rate{N: 60} }}
		for i := range 100_000 {
			l.Take(t.Context(), fmt.Sprint("sender ", i), 1)
			time.Sleep(10 * time.Millisecond) // a hundred are in use at one time
		}
		if n := l.Keys(); n > 2000 {
			t.Errorf("%d keys are remembered", n)
		}
	})
}

// Each key bounds what it names, and nothing else waits for it.
func TestLimiter(t *testing.T) {
	for _, c := range []struct {
		name, key string
		fast      bool // whether the other mail is beyond the limit
	}{
		{"total", "total", false},
		{"tenant", "tenant slow", true},
		{"site", "site big", true},
		{"destination", "dest a.big.test", true},
		{"sender", "sender slow@from.test", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.q.Limiter = &queue.Rates{Rate: func(key string) queue.Rate {
					if key == c.key {
						return queue.Rate{N: 30, Burst: 5} // one each two seconds
					}
					return queue.Rate{}
				}}
				w.tr.Site = func(d string) string {
					if strings.HasSuffix(d, ".big.test") {
						return "big"
					}
					return d
				}
				send := func(to, tenant, from string) {
					m := mail(to)
					m.Tenant, m.Envelope.From = tenant, addr(from)
					w.enqueue(m)
				}
				const n = 60
				for range n {
					send("r@a.big.test", "slow", "slow@from.test")
					send("r@other.test", "fast", "fast@from.test")
				}
				w.run()
				time.Sleep(time.Second)
				synctest.Wait()
				fast := 0
				for _, to := range w.delivered() {
					if to == "r@other.test" {
						fast++
					}
				}
				if c.fast && fast != n || !c.fast && fast > 6 {
					t.Errorf("%d others were delivered in a second", fast)
				}
				time.Sleep(59 * time.Second)
				synctest.Wait()
				slow := len(w.delivered()) - fast
				if !c.fast {
					slow = len(w.delivered())
				}
				if slow < 33 || slow > 36 {
					t.Errorf("%d deliveries in a minute, want 30 and a burst of 5", slow)
				}
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				if w.count(queue.EventDelivered) != 2*n || w.count(queue.EventDeferred) != 0 {
					t.Errorf("%d delivered, %d deferred", w.count(queue.EventDelivered), w.count(queue.EventDeferred))
				}
				for _, e := range w.events {
					if e.Kind == queue.EventDelivered && e.Attempt != 1 {
						t.Errorf("waiting for its turn counts as an attempt: %+v", e)
					}
				}
				w.stop()
			})
		})
	}
}

// countingLimiter counts how often it is asked.
// What an entry costs beyond one is debt: the rate holds for recipients, and
// what was not tried costs nothing.
func TestCost(t *testing.T) {
	for _, key := range []string{"total", "tenant ", "site one.test", "dest one.test", "sender a@from.test"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			rates := &queue.Rates{Rate: func(k string) queue.Rate {
				if k == key {
					return queue.Rate{N: 60, Burst: 1} // one recipient a second
				}
				return queue.Rate{}
			}}
			w.q.Limiter = rates
			w.q.Cost = func(e *queue.Entry) int { return len(e.Envelope.To) }
			for range 10 {
				w.enqueue(mail("a@one.test", "b@one.test", "c@one.test", "d@one.test", "e@one.test", "f@one.test"))
			}
			w.run()
			time.Sleep(29 * time.Second)
			synctest.Wait()
			if n := len(w.tr.Deliveries()); n < 4 || n > 6 {
				t.Errorf("%s: %d deliveries of six recipients in 29 s, want 5", key, n)
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if n := len(w.tr.Deliveries()); n != 10 || len(w.left()) != 0 {
				t.Errorf("%s: %d deliveries, %d left", key, n, len(w.left()))
			}
			w.stop()
		})
	}
	r := &queue.Rates{Rate: func(string) queue.Rate { return queue.Rate{N: 60, Burst: 1} }}
	take := func() int {
		n, _, _ := r.Take(t.Context(), "k", 1)
		return n
	}
	if take() != 1 {
		t.Fatal("nothing granted")
	}
	r.Give("k", -9)
	r.Give("k", 10)
	if take() != 1 {
		t.Error("a debt that was given back is still owed")
	}
}

type countingLimiter struct {
	queue.Limiter
	mu    sync.Mutex
	calls int
}

func (l *countingLimiter) Take(ctx context.Context, key string, n int) (int, time.Time, error) {
	l.mu.Lock()
	l.calls++
	l.mu.Unlock()
	return l.Limiter.Take(ctx, key, n)
}

// A tenant with many lanes that is over its rate does not cost a call for each.
func TestLimiterIsNotAskedInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		l := &countingLimiter{Limiter: &queue.Rates{Rate: func(key string) queue.Rate {
			if key == "tenant big" {
				return queue.Rate{N: 60, Burst: 1}
			}
			return queue.Rate{}
		}}}
		w.q.Limiter = l
		for i := range 2000 {
			w.fill(1, "big", fmt.Sprintf("d%d.test", i), 0)
		}
		w.run()
		time.Sleep(100*time.Second + time.Millisecond)
		synctest.Wait()
		if n := w.count(queue.EventDelivered); n < 99 || n > 102 {
			t.Errorf("%d delivered in 100 s, want one a second", n)
		}
		if l.calls > 100*15 {
			t.Errorf("%d calls of Take for 100 deliveries", l.calls)
		}
		w.q.Close()
	})
}

// failingLimiter is away for a while.
type failingLimiter struct{ until time.Time }

func (l failingLimiter) Take(_ context.Context, _ string, n int) (int, time.Time, error) {
	if time.Now().Before(l.until) {
		return 0, time.Time{}, errors.New("away")
	}
	return n, time.Time{}, nil
}
func (failingLimiter) Give(string, int) {}

func TestLimiterFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.q.Limiter = failingLimiter{time.Now().Add(time.Minute)}
		for i := range 50 {
			w.fill(2, fmt.Sprint(i%3), fmt.Sprintf("d%d.test", i), 0)
		}
		w.run()
		time.Sleep(time.Minute - time.Millisecond)
		synctest.Wait()
		if n := len(w.tr.Deliveries()); n != 0 {
			t.Errorf("%d deliveries without having asked", n)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := w.count(queue.EventDelivered); n != 100 {
			t.Errorf("%d delivered", n)
		}
		w.stop()
	})
}

func TestShares(t *testing.T) {
	for limit := range 12 {
		for owners := 1; owners <= 4; owners++ {
			more := make(map[int]bool)
			for k := range 50 {
				key := fmt.Sprint("site ", k)
				sum := 0
				for rank := range owners {
					n := queue.Share(limit, key, rank, owners)
					if n < limit/owners || n > limit/owners+1 {
						t.Errorf("limit %d: %d of %d owners has %d", limit, rank, owners, n)
					}
					if n > limit/owners {
						more[rank] = true
					}
					sum += n
				}
				if sum != limit {
					t.Errorf("limit %d, %d owners, %s: the shares sum to %d", limit, owners, key, sum)
				}
			}
			if limit%owners != 0 && len(more) != owners {
				t.Errorf("limit %d, %d owners: only %v ever get one more", limit, owners, more)
			}
		}
	}
}

// Queues that share a storage keep to the limits of a site together, and the
// one that is left has all of them.
func TestQueuesShareLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := new(memqueue.Storage)
		var g gauge
		var worlds []*world
		for range 3 {
			w := newWorld(t)
			w.st, w.q.Storage = st, st
			w.q.PerSite, w.q.SiteConcurrency = 50, func(name string) int {
				if name == "few.test" {
					return 4
				}
				return 0
			}
			w.q.TenantConcurrency = func(name string) int { return 5 }
			w.tr.Answer = func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
				g.add(1, d.Domain, "tenant")
				time.Sleep(time.Second)
				g.add(-1, d.Domain, "tenant")
				return d.All(smtp.Result{})
			}
			worlds = append(worlds, w)
		}
		worlds[0].fill(2000, "", "few.test", 0)
		worlds[0].fill(2000, "", "many.test", 0)
		for _, w := range worlds {
			w.run()
			time.Sleep(11 * time.Second) // each learns of the others
		}
		most := 0
		for range 200 {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			n, _ := g.at("few.test")
			all, _ := g.at("tenant")
			if most = max(most, n); n > 4 || all > 5 {
				t.Fatalf("%d deliveries to the site, %d of the tenant", n, all)
			}
		}
		if most < 2 {
			t.Errorf("at most %d at one time", most)
		}
		for _, w := range worlds[1:] {
			w.stop()
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if n, _ := g.at("tenant"); n != 5 {
			t.Errorf("the last queue runs %d, want 5", n)
		}
		worlds[0].q.Close()
	})
}
