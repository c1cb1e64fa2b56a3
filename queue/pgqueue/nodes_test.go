package pgqueue_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/pgqueue"
)

// Four nodes share the work of one queue while PostgreSQL crashes: what was
// acknowledged is leased and finished, and nothing that was finished is seen
// again.
func TestNodesAndCrash(t *testing.T) {
	pool := pgtest.Pool(t)
	pg, err := pgtest.Shared()
	if err != nil {
		t.Fatal(err)
	}
	if !pg.Own() {
		t.Skip("the server is not this test's to kill")
	}
	name := pgtest.Schema(t, pool)
	var nodes []*pgqueue.Storage
	for range 4 {
		nodes = append(nodes, open(t, pgtest.Pool(t), pgqueue.Options{Schema: name, Timeout: 10 * time.Second}))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lane := queue.Lane{Dest: "to.test"}

	var mu sync.Mutex
	acknowledged, unsure := map[queue.ID]bool{}, map[queue.ID]bool{}
	finished, maybe := map[queue.ID]int{}, map[queue.ID]bool{}
	var wg sync.WaitGroup
	pause := func() {
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	stopPuts := make(chan struct{})
	for _, s := range nodes {
		wg.Go(func() {
			for {
				select {
				case <-stopPuts:
					return
				default:
				}
				sub := submission("to.test", "", 100)
				err := s.Put(ctx, sub)
				mu.Lock()
				if err == nil {
					acknowledged[sub.Message.ID] = true
				} else {
					unsure[sub.Message.ID] = true
				}
				mu.Unlock()
				if err != nil {
					pause()
				}
			}
		})
		wg.Go(func() { // a queue's work, by hand
			o := queue.NewOwner()
			renewed := time.Time{}
			for ctx.Err() == nil {
				if time.Since(renewed) > time.Second {
					switch _, err := s.Renew(ctx, o, 5*time.Second); err {
					case nil:
						renewed = time.Now()
					case queue.ErrLeaseLost:
						o = queue.NewOwner()
						continue
					default:
						pause()
						continue
					}
				}
				leases, err := s.Lease(ctx, o, []queue.Want{{Lane: lane, Max: 5}})
				if err != nil || len(leases) == 0 {
					if err == queue.ErrLeaseLost {
						o, renewed = queue.NewOwner(), time.Time{}
					}
					pause()
					continue
				}
				for _, l := range leases {
					id := l.Entry.Message.ID
					err := s.Finish(ctx, &queue.Outcome{Lease: l, Done: []int{0}, Attempt: 1})
					mu.Lock()
					if err == nil {
						finished[id]++
					} else {
						maybe[id] = true // it may have been written
					}
					mu.Unlock()
				}
			}
		})
	}
	count := func() (int, int) {
		mu.Lock()
		defer mu.Unlock()
		return len(acknowledged), len(finished)
	}
	waitFor := func(what string, ok func() bool) {
		t.Helper()
		for until := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(until) {
				a, f := count()
				t.Fatalf("%s: not within two minutes (%d acknowledged, %d finished)", what, a, f)
			}
		}
	}
	for range 3 {
		a, f := count()
		waitFor("work goes on", func() bool { x, y := count(); return x >= a+40 && y >= f+20 })
		if err := pg.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := pg.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	close(stopPuts)
	waitFor("all of it is finished", func() bool {
		mu.Lock()
		defer mu.Unlock()
		for id := range acknowledged {
			if finished[id] == 0 && !maybe[id] {
				return false
			}
		}
		return true
	})
	cancel()
	wg.Wait()
	for id, n := range finished {
		if n != 1 {
			t.Errorf("%v was finished %d times", id, n)
		}
		if !acknowledged[id] && !unsure[id] {
			t.Errorf("%v was finished, and nobody put it", id)
		}
	}
	t.Logf("%d acknowledged by 4 nodes over 3 crashes, %d failed Puts, %d failed outcomes", len(acknowledged), len(unsure), len(maybe))
}

// A dead destination with very many entries does not stand in the way of
// the others, in how long anything takes neither.
func TestStarvation(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	name := pgtest.Schema(t, pool)
	s := open(t, pool, pgqueue.Options{Schema: name})
	sub := submission("dead.test", "", 100)
	if err := s.Put(ctx, sub); err != nil {
		t.Fatal(err)
	}
	const dead, live = 100_000, 500
	for _, sql := range []string{
		`INSERT INTO %[1]s.queue_entries SELECT gen_random_uuid(), message, dest, tenant, priority, sender, recipients, due, alarm, held, suspended, attempt, owner, token, call, entry
			FROM %[1]s.queue_entries, generate_series(2, %[2]d)`,
		`INSERT INTO %[1]s.queue_entries SELECT gen_random_uuid(), message, 'live' || n, tenant, priority, sender, recipients, due, alarm, held, suspended, attempt, owner, token, call, entry
			FROM (SELECT * FROM %[1]s.queue_entries LIMIT 1) e, generate_series(1, %[3]d) n`,
		`ANALYZE %[1]s.queue_entries`,
	} {
		if _, err := pool.Exec(ctx, fmt.Sprintf(sql+" -- %[2]d %[3]d", name, dead, live)); err != nil {
			t.Fatal(err)
		}
	}
	o := queue.NewOwner()
	if _, err := s.Renew(ctx, o, time.Minute); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	var want []queue.Want
	for l, err := range s.Lanes(ctx, time.Now().Add(time.Hour)) {
		if err != nil {
			t.Fatal(err)
		}
		if l.Lane.Dest != "dead.test" {
			want = append(want, queue.Want{Lane: l.Lane, Max: 1})
		}
	}
	listed := time.Since(begin)
	if len(want) != live {
		t.Fatalf("%d live lanes, want %d", len(want), live)
	}
	leases, err := s.Lease(ctx, o, want)
	if err != nil || len(leases) != live {
		t.Fatalf("%d leases, %v", len(leases), err)
	}
	t.Logf("%d dead and %d live: lanes in %v, leases in %v", dead, live, listed, time.Since(begin)-listed)
}

// When an owner's leases end, the others are woken: nobody has to ask.
func TestDeathWakes(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	name := pgtest.Schema(t, pool)
	dying := open(t, pool, pgqueue.Options{Schema: name})
	heir := open(t, pool, pgqueue.Options{Schema: name})
	if err := dying.Put(ctx, submission("to.test", "", 100)); err != nil {
		t.Fatal(err)
	}
	owner, other := queue.NewOwner(), queue.NewOwner()
	lane := []queue.Want{{Lane: queue.Lane{Dest: "to.test"}, Max: 1}}
	if _, err := dying.Renew(ctx, owner, 2*time.Second); err != nil {
		t.Fatal(err)
	}
	if got, err := dying.Lease(ctx, owner, lane); err != nil || len(got) != 1 {
		t.Fatalf("%d leases, %v", len(got), err)
	}
	if err := dying.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := heir.Renew(ctx, other, time.Hour); err != nil {
		t.Fatal(err)
	}
	// It may be woken for other reasons, too.
	for until := time.After(time.Minute); ; {
		wake := heir.Wake()
		if got, err := pool.Exec(ctx, `SELECT FROM `+name+`.queue_owners WHERE owner = $1 AND dead`, string(owner)); err != nil {
			t.Fatal(err)
		} else if got.RowsAffected() == 1 {
			break
		}
		select {
		case <-wake:
		case <-until:
			t.Fatal("the leases have ended, and nobody was woken")
		}
	}
	if got, err := heir.Lease(ctx, other, lane); err != nil || len(got) != 1 {
		t.Fatalf("%d leases for the heir, %v", len(got), err)
	}
}
