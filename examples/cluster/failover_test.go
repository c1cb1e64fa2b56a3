package main

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/internal/pgtest"
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
	r.goesOn()
	began := time.Now()
	if err := p.primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.replica.Promote(); err != nil {
		t.Fatal(err)
	}
	promoted := time.Now()
	r.l.disturbed(began, promoted)
	r.goesOn()
	t.Logf("promoted %v after the kill, 40 messages acknowledged %v later", promoted.Sub(began).Round(time.Millisecond), time.Since(promoted).Round(time.Millisecond))
	r.finish()
}
