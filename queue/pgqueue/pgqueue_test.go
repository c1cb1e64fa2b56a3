package pgqueue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/pgqueue"
	"github.com/postrider/postrider/queue/queuetest"
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

// open opens a storage that is closed after the test.
func open(tb testing.TB, pool *pgxpool.Pool, o pgqueue.Options) *pgqueue.Storage {
	tb.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s, err := pgqueue.Open(tb.Context(), pool, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func TestStorage(t *testing.T) {
	queuetest.Run(t, func(t *testing.T, c queuetest.Config) queue.Storage {
		if c.MaxBytes != 0 {
			t.Skip("a database has no bound of the queue's own; a full disk is queue.ErrFull")
		}
		pool := database(t)
		return open(t, pool, pgqueue.Options{Schema: schema(t, pool), Now: c.Now, KeepEvents: true})
	})
}
