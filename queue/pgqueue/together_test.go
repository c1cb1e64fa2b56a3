package pgqueue_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/pgqueue"
)

// What goes together with something impossible is stored all the same, and
// nothing of what is impossible.
func TestCompanions(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	name := pgtest.Schema(t, pool)
	s := open(t, pool, pgqueue.Options{Schema: name})
	first := submission("to.test", "", 10)
	if err := s.Put(ctx, first); err != nil {
		t.Fatal(err)
	}
	const each = 20
	var wg sync.WaitGroup
	// One transaction at a time holds what all of them need, so that those
	// that come meanwhile go together.
	tx, err := pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx, "LOCK TABLE "+name+".queue_messages IN SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	good, bad, same := make([]error, each), make([]error, each), make([]error, each)
	gone := make([]error, each)
	for i := range each {
		wg.Go(func() { good[i] = s.Put(ctx, submission("good.test", "", 100)) })
		wg.Go(func() {
			sub := submission("bad.test", "", 100)
			sub.Entries[0].ID = first.Entries[0].ID // there is such an entry
			bad[i] = s.Put(ctx, sub)
		})
		wg.Go(func() {
			sub := submission("again.test", "", 100)
			sub.Message.ID, sub.Entries[0].ID = first.Message.ID, first.Entries[0].ID
			same[i] = s.Put(ctx, sub) // a Put that is done again
		})
		wg.Go(func() {
			// Its caller leaves: it may be stored or not.
			c, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			gone[i] = s.Put(c, submission("gone.test", "", 100))
		})
	}
	for waiting := 0; waiting == 0; {
		if err := pool.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%'||$1||'%'`, name).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if err := errors.Join(good...); err != nil {
		t.Errorf("good ones: %v", err)
	}
	if err := errors.Join(same...); err != nil {
		t.Errorf("one that is there already: %v", err)
	}
	for _, err := range bad {
		if !errors.Is(err, pgqueue.ErrUnavailable) {
			t.Errorf("an impossible one: %v", err)
		}
	}
	left := make(map[string]int)
	for _, e := range entries(t, s) {
		left[e.Lane.Dest]++
	}
	if left["good.test"] != each || left["bad.test"] != 0 || left["again.test"] != 0 || left["to.test"] != 1 {
		t.Errorf("entries by lane: %v", left)
	}
	for _, err := range gone {
		if err != nil && !errors.Is(err, pgqueue.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one whose caller left: %v", err)
		}
	}
	var orphans int
	if err := pool.QueryRow(ctx, `SELECT count(*) FROM `+name+`.queue_messages m WHERE entries <> (SELECT count(*) FROM `+name+`.queue_entries e WHERE e.message = m.id)`).Scan(&orphans); err != nil || orphans != 0 {
		t.Errorf("%d messages do not have the entries that they count, %v", orphans, err)
	}
}

// Outcomes of one message's entries that come at the same time, on two nodes,
// count right: with the last one the message is gone.
func TestEndsTogether(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	name := pgtest.Schema(t, pool)
	nodes := []*pgqueue.Storage{open(t, pool, pgqueue.Options{Schema: name}), open(t, pool, pgqueue.Options{Schema: name})}
	const messages, lanes = 10, 20
	for range messages {
		sub := submission("d0.test", "", 100)
		for i := 1; i < lanes; i++ {
			more := submission(fmt.Sprintf("d%d.test", i), "", 1).Entries[0]
			more.Message = sub.Message
			sub.Entries = append(sub.Entries, more)
		}
		if err := nodes[0].Put(ctx, sub); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for n, s := range nodes {
		o := queue.NewOwner()
		if _, err := s.Renew(ctx, o, time.Hour); err != nil {
			t.Fatal(err)
		}
		var want []queue.Want
		for i := n; i < lanes; i += len(nodes) {
			want = append(want, queue.Want{Lane: queue.Lane{Dest: fmt.Sprintf("d%d.test", i)}, Max: messages})
		}
		leases, err := s.Lease(ctx, o, want)
		if err != nil || len(leases) != messages*lanes/len(nodes) {
			t.Fatal(len(leases), err)
		}
		for _, l := range leases {
			wg.Go(func() {
				if err := s.Finish(ctx, &queue.Outcome{Lease: l, Done: []int{0}}); err != nil {
					t.Error(err)
				}
				if err := s.Finish(ctx, &queue.Outcome{Lease: l, Done: []int{0}}); !errors.Is(err, queue.ErrLeaseLost) {
					t.Errorf("a second Finish: %v", err)
				}
			})
		}
	}
	wg.Wait()
	var n int
	if err := pool.QueryRow(ctx, `SELECT (SELECT count(*) FROM `+name+`.queue_entries) + (SELECT count(*) FROM `+name+`.queue_messages WHERE done IS NULL)`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows are left, %v", n, err)
	}
}

// Mail that comes and goes leaves tables of the size that they had: their
// settings make PostgreSQL clean up in time. POSTRIDER_SCALE=200000 is the long
// form.
func TestBloat(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	pg, err := pgtest.Shared()
	if err != nil {
		t.Fatal(err)
	}
	if !pg.Own() {
		t.Skip("autovacuum of a server that is not this test's is not its to hurry")
	}
	total := 8000
	if v := os.Getenv("POSTRIDER_SCALE"); v != "" {
		if total, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range []string{"ALTER SYSTEM SET autovacuum_naptime = 1", "SELECT pg_reload_conf()"} {
		if _, err := pool.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	name := pgtest.Schema(t, pool)
	s := open(t, pool, pgqueue.Options{Schema: name})
	o := queue.NewOwner()
	if _, err := s.Renew(ctx, o, time.Hour); err != nil {
		t.Fatal(err)
	}
	size := func() (n int64) {
		t.Helper()
		if err := pool.QueryRow(ctx, `SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname = $1 AND c.relkind = 'r'`, name).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	// clean waits until PostgreSQL has cleaned up after begun, by its clock.
	clean := func(begun time.Time) {
		t.Helper()
		for limit := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
			var dirty []string
			if err := pool.QueryRow(ctx, `SELECT coalesce(array_agg(relname::text || ' ' || n_dead_tup), '{}') FROM pg_stat_all_tables
				WHERE schemaname = $1 AND (n_dead_tup > 200 OR relname = 'queue_messages' AND coalesce(last_autovacuum, '-infinity') < $2)`,
				name, begun).Scan(&dirty); err != nil {
				t.Fatal(err)
			}
			if len(dirty) == 0 {
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("dead rows stay: %s", strings.Join(dirty, ", "))
			}
		}
	}
	const batch = 500
	const round = 2 * batch
	var largest int64
	for range total / round {
		var begun time.Time
		if err := pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&begun); err != nil {
			t.Fatal(err)
		}
		for range round / batch {
			subs := make([]*queue.Submission, batch)
			for i := range subs {
				subs[i] = submission(fmt.Sprintf("d%d.test", i%10), "", 4000)
			}
			if err := s.Put(ctx, subs...); err != nil {
				t.Fatal(err)
			}
			for done := 0; done < batch; {
				var want []queue.Want
				for i := range 10 {
					want = append(want, queue.Want{Lane: queue.Lane{Dest: fmt.Sprintf("d%d.test", i)}, Max: 50})
				}
				leases, err := s.Lease(ctx, o, want)
				if err != nil || len(leases) == 0 {
					t.Fatal(len(leases), err)
				}
				var wg sync.WaitGroup
				for _, l := range leases {
					wg.Go(func() {
						if err := s.Finish(ctx, &queue.Outcome{Lease: l, Done: []int{0}}); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				done += len(leases)
			}
		}
		if err := s.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		clean(begun)
		largest = max(largest, size())
	}
	t.Logf("%d messages of 4 KB in and out, %d at a time: tables of at most %d KB", total, batch, largest>>10)
	if bound := int64(5 * round * 6000); largest > bound {
		t.Errorf("the tables have %d octets, want at most %d", largest, bound)
	}
}
