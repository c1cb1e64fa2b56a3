package main

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/store/pgstore"
)

// pair is a primary and its streaming replica. What newCluster makes from then
// on is over whichever of them takes writes.
type pair struct{ primary, replica *pgtest.Server }

func newPair(t *testing.T) pair {
	t.Helper()
	primary, err := pgtest.Start()
	if errors.Is(err, pgtest.ErrNone) && os.Getenv(conformance.Require) == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !primary.Own() {
		t.Skip("the server is not this test's to kill")
	}
	t.Cleanup(func() { primary.Stop() })
	replica, err := primary.Replica()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { replica.Stop() })
	t.Setenv(envDSN, pgtest.Either(primary, replica))
	return pair{primary, replica}
}

// set changes a setting of a server that runs.
func set(t *testing.T, s *pgtest.Server, name, value string) {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), s.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, sql := range []string{`ALTER SYSTEM SET ` + name + ` = '` + value + `'`, `SELECT pg_reload_conf()`} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
}

// The primary dies under load and its synchronous replica is promoted: nothing
// that was acknowledged is lost, and the nodes find the new primary by
// themselves.
func TestFailoverSynchronous(t *testing.T) {
	p := newPair(t)
	set(t, p.primary, "synchronous_standby_names", "*")
	r := newTrial(t, 2)
	r.more(200)
	began := time.Now()
	if err := p.primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.replica.Promote(); err != nil {
		t.Fatal(err)
	}
	promoted := time.Now()
	r.l.disturbed(began, promoted)
	r.more(40)
	t.Logf("promoted %v after the kill, 40 messages acknowledged %v later", promoted.Sub(began).Round(time.Millisecond), time.Since(promoted).Round(time.Millisecond))
	r.finish()
}

// The primary dies under load and a replica is promoted that had fallen
// behind: what was acknowledged meanwhile is lost, some mail goes out twice,
// and that is what an asynchronous replica costs. All else holds.
func TestFailoverAsynchronous(t *testing.T) {
	p := newPair(t)
	r := newTrial(t, 2)
	r.more(100)
	set(t, p.replica, "primary_conninfo", "") // it hears nothing more
	r.more(100)
	began := time.Now()
	if err := p.primary.Kill(); err != nil {
		t.Fatal(err)
	}
	// The operator ends the nodes, promotes, and sees that nothing is given
	// out again that has been.
	r.stopLoad()
	for i := range r.running {
		r.running[i].Load().kill()
	}
	if err := p.replica.Promote(); err != nil {
		t.Fatal(err)
	}
	mail, err := pgstore.Open(t.Context(), r.c.db, pgstore.Options{Schema: r.c.schema, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(mail.Reissue(t.Context()), mail.Close()); err != nil {
		t.Fatal(err)
	}
	in, out, again := r.forgive()
	if in+out == 0 {
		t.Error("nothing is lost: the replica was not behind")
	}
	t.Logf("behind by 100 messages, the replica has lost %d messages that were acknowledged to the world, %d to users, and the outcomes of %d deliveries", in, out, again)
	for i := range r.running {
		r.restart(i)
	}
	r.l.disturbed(began, time.Now())
	r.load()
	r.more(100)
	r.finish()
	if r.l.twice > 0 {
		t.Errorf("%d UIDs came to mean another message", r.l.twice)
	}
}

// forgive takes what the database has lost from what was promised.
func (r *trial) forgive() (in, out, again int) {
	r.Helper()
	there, _ := r.c.inbox(r.T)
	rows, err := r.c.db.Query(r.Context(), `SELECT split_part(unnest(recipients), '@', 1) FROM `+r.c.table("queue_entries"))
	if err != nil {
		r.Fatal(err)
	}
	queued, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		r.Fatal(err)
	}
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, ok := range l.in {
		if ok && there[id] == 0 {
			delete(l.in, id)
			in++
		}
	}
	for id, ok := range l.out {
		if ok && len(l.took[id]) == 0 && !slices.Contains(queued, id) {
			delete(l.out, id)
			out++
		}
	}
	for _, id := range queued {
		if len(l.took[id]) > 0 {
			l.redo[l.queue[id]] = true
			delete(l.took, id) // it will come again
			again++
		}
	}
	return in, out, again
}
