package pgqueue_test

import (
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/pgqueue"
	"github.com/postrider/postrider/queue/queuetest"
)

// Behind PgBouncer in transaction mode everything holds, too.
func TestBouncer(t *testing.T) {
	pool, direct := pgtest.Bouncer(t, 4)
	queuetest.Run(t, func(t *testing.T, c queuetest.Config) queue.Storage {
		if c.MaxBytes != 0 || t.Name() == "TestBouncer/BlockedLanes" || t.Name() == "TestBouncer/Starvation" {
			t.Skip("it has nothing to do with PgBouncer")
		}
		return open(t, pool, pgqueue.Options{Schema: pgtest.Schema(t, pool), Now: c.Now, KeepEvents: true, Listen: direct})
	})
}

func TestBouncerPutTx(t *testing.T) {
	pool, _ := pgtest.Bouncer(t, 4)
	testPutTx(t, pool)
}

// Nothing is kept in a session: 40 clients of two nodes share two connections
// of the server, which hands each to whoever is next.
func TestBouncerSharing(t *testing.T) {
	ctx := t.Context()
	pool, direct := pgtest.Bouncer(t, 2)
	name := pgtest.Schema(t, pool)
	nodes := []*pgqueue.Storage{
		open(t, pool, pgqueue.Options{Schema: name, Listen: direct}),
		open(t, pool, pgqueue.Options{Schema: name, Listen: direct}),
	}
	const clients, each = 40, 10
	var mu sync.Mutex
	finished := make(map[queue.ID]int)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			s := nodes[i%len(nodes)]
			for range each {
				if err := s.Put(ctx, submission("to.test", "", 100)); err != nil {
					t.Error(err)
					return
				}
			}
			o := queue.NewOwner()
			if _, err := s.Renew(ctx, o, time.Hour); err != nil {
				t.Error(err)
				return
			}
			for {
				leases, err := s.Lease(ctx, o, []queue.Want{{Lane: queue.Lane{Dest: "to.test"}, Max: 7}})
				if err != nil {
					t.Error(err)
				}
				if err != nil || len(leases) == 0 {
					return
				}
				for _, l := range leases {
					if err := s.Finish(ctx, &queue.Outcome{Lease: l, Done: []int{0}}); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					finished[l.Entry.ID]++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	for id, n := range finished {
		if n != 1 {
			t.Errorf("%v was finished %d times", id, n)
		}
	}
	if len(finished) != clients*each {
		t.Errorf("%d of %d entries were finished", len(finished), clients*each)
	}
}

// A node is told at once of what another did: its LISTEN goes past PgBouncer.
// Without that it does not listen, and so leaves nothing in a session that
// belongs to all.
func TestBouncerListen(t *testing.T) {
	ctx := t.Context()
	pool, direct := pgtest.Bouncer(t, 2)
	name := pgtest.Schema(t, pool)
	one := open(t, pool, pgqueue.Options{Schema: name, Listen: direct})
	two := open(t, pool, pgqueue.Options{Schema: name, Listen: direct})
	three := open(t, pool, pgqueue.Options{Schema: name})
	three.Wake()
	for told := false; !told; {
		wake := one.Wake()
		if err := two.Put(ctx, submission("to.test", "", 10)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-wake:
			told = true
		case <-time.After(time.Second): // it may not have listened yet
		case <-ctx.Done():
			t.Fatal("never told")
		}
	}
	var n int
	for range 10 {
		if err := pool.QueryRow(ctx, `SELECT count(*) FROM pg_listening_channels()`).Scan(&n); err != nil || n != 0 {
			t.Fatalf("a session of PgBouncer's listens to %d channels, %v", n, err)
		}
	}
}
