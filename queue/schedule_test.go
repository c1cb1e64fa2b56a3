package queue_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/smtp"
)

// fill queues n messages to the domain with a null reverse-path, so that no
// notice disturbs the count.
func (w *world) fill(n int, tenant, domain string, priority int8) {
	w.Helper()
	for range n {
		m := mail("r@" + domain)
		m.Envelope.From = smtp.Address{}
		m.Tenant, m.Priority = tenant, priority
		w.enqueue(m)
	}
}

// A site earns concurrency while it answers.
func TestSiteGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tr.Took = time.Second
		w.fill(400, "", "one.test", 0)
		w.run()
		time.Sleep(500 * time.Millisecond)
		if n := w.tr.Most("one.test"); n != 5 {
			t.Errorf("started with %d deliveries, want 5", n)
		}
		time.Sleep(30 * time.Second)
		if n := w.tr.Most("one.test"); n < 18 || n > 20 {
			t.Errorf("grew to %d deliveries, want nearly 20", n)
		}
		time.Sleep(time.Minute)
		w.stop()
		if len(w.left()) != 0 {
			t.Errorf("%d left", len(w.left()))
		}
	})
}

// Greylisting says nothing of the host, a failure of the host halves its
// concurrency, and a host that fails again is left alone but for a probe.
func TestScope(t *testing.T) {
	for _, c := range []struct {
		scope      smtp.Scope
		least, max int // deliveries at one time after the first round
		tried      int // at least, in the first 50 s
	}{
		{smtp.ScopeRecipient, 8, 8, 400},
		{smtp.ScopeMessage, 8, 8, 400},
		{smtp.ScopeHost, 4, 4, 0},
	} {
		t.Run(c.scope.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.q.PerSite = 32 // starts with 8
				w.tr.Took = time.Second
				w.tr.Answer = func(_ context.Context, d *queuetest.Delivery) []smtp.Result { return d.Refuse(451, c.scope) }
				w.fill(500, "", "one.test", 0)
				w.run()
				time.Sleep(500 * time.Millisecond)
				if n := w.tr.Most("one.test"); n != 8 {
					t.Errorf("started with %d, want 8", n)
				}
				time.Sleep(time.Second)
				w.tr.Most("one.test") // the first round is over
				time.Sleep(time.Second)
				if n := w.tr.Most("one.test"); n < c.least || n > c.max {
					t.Errorf("%d deliveries at one time after the first round, want %d to %d", n, c.least, c.max)
				}
				time.Sleep(50 * time.Second)
				n := len(w.tr.Deliveries())
				if n < c.tried {
					t.Errorf("%d deliveries", n)
				}
				if c.scope == smtp.ScopeHost && n > 16 {
					t.Errorf("%d deliveries to a host that is down", n)
				}
				w.q.Close()
			})
		})
	}
}

// One dead route costs one delivery at a time, at growing intervals; it comes
// back with the first success.
func TestDownAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.q.PerSite = 4 // starts with 1
		var down atomic.Bool
		down.Store(true)
		w.tr.Answer = func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
			if down.Load() {
				return d.Refuse(451, smtp.ScopeRoute)
			}
			return d.All(smtp.Result{})
		}
		w.fill(1000, "", "dead.test", 0)
		w.run()
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		// After 1, 2 and 4 minutes, then when an entry's retry is due: 5 minutes
		// less a fifth, at least.
		if n := len(w.tr.Deliveries()); n < 4 || n > 9 {
			t.Errorf("%d deliveries to a dead route in half an hour", n)
		}
		down.Store(false)
		time.Sleep(31 * time.Minute)
		synctest.Wait()
		if n := len(w.left()); n > 20 {
			t.Errorf("%d left half an hour after it came back", n)
		}
		w.stop()
	})
}

// slowDisk takes its time for an outcome.
type slowDisk struct {
	queue.Storage
	takes time.Duration
}

func (s slowDisk) Finish(ctx context.Context, o *queue.Outcome) error {
	time.Sleep(s.takes)
	return s.Storage.Finish(ctx, o)
}

// A site is not left alone for longer than its entries are, when their time
// has come before their outcome was written neither.
func TestDownAndLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.q.PerSite = 4 // starts with 1
		w.q.Storage = slowDisk{w.st, time.Second}
		w.q.Retry = func(*queue.Entry) time.Duration { return 200 * time.Millisecond }
		w.tr.Answer = func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
			if len(w.tr.Deliveries()) <= 3 {
				return d.Refuse(451, smtp.ScopeRoute)
			}
			return d.All(smtp.Result{})
		}
		w.fill(5, "", "late.test", 0)
		w.run()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := len(w.left()); n > 0 {
			t.Errorf("%d of 5 left, %d deliveries", n, len(w.tr.Deliveries()))
		}
		w.stop()
	})
}

// A dead destination with many entries does not delay another's first.
func TestDeadBesideLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tr.Answer = func(ctx context.Context, d *queuetest.Delivery) []smtp.Result {
			if d.Domain == "dead.test" {
				select { // a connection that nobody answers
				case <-time.After(time.Minute):
				case <-ctx.Done():
				}
				return d.Refuse(451, smtp.ScopeRoute)
			}
			return d.All(smtp.Result{})
		}
		w.fill(5000, "", "dead.test", 0)
		w.run()
		synctest.Wait()
		begun := time.Now()
		for i := range 300 {
			w.fill(1, "", fmt.Sprintf("live%d.test", i), 0)
		}
		synctest.Wait()
		if n := w.count(queue.EventDelivered); n != 300 || !time.Now().Equal(begun) {
			t.Errorf("%d delivered after %v", n, time.Since(begun))
		}
		w.q.Close()
	})
}

// A tenant with 1,000 lanes and one with a single lane have equal shares.
func TestTenantsAreFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.q.Concurrency, w.q.PerSite = 10, 1000
		w.tr.Took = time.Second
		for i := range 1000 {
			w.fill(1, "big", fmt.Sprintf("d%d.test", i), 0)
		}
		w.fill(100, "small", "one.test", 0)
		w.run()
		time.Sleep(10*time.Second + time.Millisecond)
		small := 0
		all := w.tr.Deliveries()
		for _, d := range all {
			if d.Domain == "one.test" {
				small++
			}
		}
		if small < len(all)*4/10 || small > len(all)*6/10 {
			t.Errorf("the small tenant had %d of %d deliveries", small, len(all))
		}
		w.q.Close()
	})
}

func TestPerTenantAndPerLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.q.PerTenant, w.q.PerLane = 6, 4
		w.tr.Took = time.Second
		w.tr.Site = func(string) string { return "site" }
		w.q.PerSite = 400
		w.fill(50, "t", "one.test", 0)
		w.fill(50, "t", "two.test", 0)
		w.fill(50, "u", "three.test", 0)
		w.run()
		time.Sleep(100 * time.Millisecond)
		count := map[string]int{}
		for _, d := range w.tr.Deliveries() {
			count[d.Domain]++
		}
		if count["one.test"]+count["two.test"] != 6 || count["one.test"] > 4 || count["two.test"] > 4 || count["three.test"] != 4 {
			t.Errorf("running %v", count)
		}
		time.Sleep(time.Minute)
		w.stop()
		if len(w.left()) != 0 {
			t.Errorf("%d left", len(w.left()))
		}
	})
}

// Negative limits are none: all that Concurrency allows may go to one site.
func TestNoLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.q.Concurrency, w.q.PerTenant, w.q.PerSite, w.q.PerLane = 40, -1, -1, -1
		w.tr.Took = time.Second
		w.fill(2000, "t", "one.test", 0)
		w.run()
		time.Sleep(36 * time.Second)
		if n := w.tr.Most("one.test"); n != 40 {
			t.Errorf("grew to %d deliveries, want 40", n)
		}
		time.Sleep(time.Minute)
		w.stop()
		if len(w.left()) != 0 {
			t.Errorf("%d left", len(w.left()))
		}
	})
}

// Lanes of one site share its room, the higher priority first; the lower does
// not starve.
func TestPriority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.q.PerSite = 1
		w.tr.Took = time.Second
		w.tr.Site = func(string) string { return "site" }
		w.fill(100, "", "low.test", 0)
		w.run()
		time.Sleep(5*time.Second + time.Millisecond)
		before := len(w.tr.Deliveries())
		w.fill(40, "", "high.test", 5)
		time.Sleep(30 * time.Second)
		var got []string
		for _, d := range w.tr.Deliveries()[before:] {
			got = append(got, d.Domain)
		}
		high := 0
		for _, d := range got {
			if d == "high.test" {
				high++
			}
		}
		if got[0] != "high.test" && got[1] != "high.test" {
			t.Errorf("the first deliveries are %v", got[:3])
		}
		if high < len(got)*7/10 || !slices.Contains(got, "low.test") {
			t.Errorf("%d of %d deliveries had the higher priority", high, len(got))
		}
		time.Sleep(10 * time.Minute)
		w.stop()
		if len(w.left()) != 0 {
			t.Errorf("%d left", len(w.left()))
		}
	})
}

// Two queues over one storage share the work; when one dies the other takes
// over what it held.
func TestTwoQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := new(memqueue.Storage)
		a, b := newWorld(t), newWorld(t)
		a.st, a.q.Storage = st, st
		b.st, b.q.Storage = st, st
		a.tr.Took, b.tr.Took = time.Second, time.Second
		for i := range 100 {
			a.fill(3, "", fmt.Sprintf("d%d.test", i), 0)
		}
		a.run()
		b.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n, m := a.count(queue.EventDelivered), b.count(queue.EventDelivered); n+m != 300 || n == 0 || m == 0 {
			t.Errorf("%d and %d delivered", n, m)
		}
		a.stop()
		b.stop()
	})
}

// lonely is a queue whose renewals stop: its deliveries end before another
// queue repeats them.
type lonely struct{ *memqueue.Storage }

func (l lonely) Renew(ctx context.Context, o queue.Owner, d time.Duration) (queue.Renewal, error) {
	if time.Since(bubbleStart) > 5*time.Second {
		<-ctx.Done()
		return queue.Renewal{}, ctx.Err()
	}
	return l.Storage.Renew(ctx, o, d)
}

// bubbleStart is the time at which every synctest bubble begins.
var bubbleStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func TestLeasesLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := new(memqueue.Storage)
		a, b := newWorld(t), newWorld(t)
		a.st, b.st = st, st
		a.q.Storage, b.q.Storage = lonely{st}, st
		var cancelled time.Time
		a.tr.Answer = func(ctx context.Context, d *queuetest.Delivery) []smtp.Result {
			<-ctx.Done()
			cancelled = time.Now()
			return d.All(smtp.Result{Err: ctx.Err()})
		}
		a.fill(1, "", "one.test", 0)
		a.run()
		time.Sleep(6 * time.Second)
		b.run()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		d := b.tr.Deliveries()
		if len(d) != 1 || b.count(queue.EventDelivered) != 1 {
			t.Fatalf("the other queue made %d deliveries", len(d))
		}
		if cancelled.IsZero() || cancelled.After(d[0].Begun) {
			t.Errorf("the first delivery ended at %v, the second began at %v", cancelled, d[0].Begun)
		}
		b.stop()
		a.q.Close()
	})
}

// A site's place is free when its delivery has ended, however long the disk
// takes; how many outcomes may wait for it is bounded.
func TestOutcomesWaitForNoSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.q.Storage = slowDisk{w.st, 20 * time.Second}
		w.q.Concurrency = 7
		queue.Fix(w.q, 2)
		w.tr.Took = 100 * time.Millisecond
		w.fill(20, "", "one.test", 0)
		w.run()
		time.Sleep(250 * time.Millisecond)
		if n := len(w.tr.Deliveries()); n != 6 {
			t.Errorf("%d deliveries in 250 ms, want 6", n)
		}
		time.Sleep(15 * time.Second)
		if n := len(w.tr.Deliveries()); n != 7 {
			t.Errorf("%d deliveries while no outcome is written, want 7", n)
		}
		if n := w.tr.Most("one.test"); n != 2 {
			t.Errorf("%d deliveries at one time, want 2", n)
		}
		time.Sleep(5 * time.Minute)
		w.stop()
		if n := len(w.tr.Deliveries()); n != 20 || len(w.left()) != 0 {
			t.Errorf("%d deliveries, %d left", n, len(w.left()))
		}
	})
}
