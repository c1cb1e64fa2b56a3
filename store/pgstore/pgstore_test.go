package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/pgstore"
	"github.com/postrider/postrider/store/storetest"
)

// server is PostgreSQL, started by the first test that needs it.
var server = sync.OnceValues(pgtest.Start)

var started atomic.Bool

func TestMain(m *testing.M) {
	code := m.Run()
	if started.Load() {
		if s, err := server(); err == nil {
			s.Stop()
		}
	}
	os.Exit(code)
}

// database returns a pool of connections, or skips the test.
func database(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	started.Store(true)
	s, err := server()
	if errors.Is(err, pgtest.ErrNone) && os.Getenv(conformance.Require) == "" {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	c, err := pgxpool.ParseConfig(s.DSN)
	if err != nil {
		tb.Fatal(err)
	}
	c.MaxConns = 16
	pool, err := pgxpool.NewWithConfig(context.Background(), c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	return pool
}

var schemas atomic.Int64

// schema names a schema of its own, dropped after the test.
func schema(tb testing.TB, pool *pgxpool.Pool) string {
	name := fmt.Sprintf("test_%d_%d", os.Getpid(), schemas.Add(1))
	tb.Cleanup(func() { pool.Exec(context.Background(), "DROP SCHEMA IF EXISTS "+name+" CASCADE") })
	return name
}

// open opens a store that is closed after the test.
func open(tb testing.TB, pool *pgxpool.Pool, o pgstore.Options) *pgstore.Store {
	tb.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s, err := pgstore.Open(tb.Context(), pool, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func TestLaws(t *testing.T) {
	for name, c := range map[string]struct {
		history int
		level   storetest.Level
	}{
		"full":       {},
		"no history": {-1, storetest.NoHistory},
	} {
		t.Run(name, func(t *testing.T) {
			pool := database(t)
			storetest.Run(t, storetest.Config{
				Open: func() (one, two store.Store, err error) {
					o := pgstore.Options{Schema: schema(t, pool), History: c.history}
					return open(t, pool, o), open(t, pool, o), nil
				},
				Level: c.level,
				SetQuota: func(s store.Store, account string, octets int64) error {
					return s.(*pgstore.Store).SetQuota(context.Background(), account, octets)
				},
				Rounds: 100,
				// A loaded machine with a database beside is slow.
				Watch: 20 * time.Second, Timeout: 3 * time.Minute,
			})
		})
	}
}
