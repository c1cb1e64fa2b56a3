package pgqueue_test

import (
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/pgqueue"
	"github.com/postrider/postrider/queue/queuetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

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
		pool := pgtest.Pool(t)
		return open(t, pool, pgqueue.Options{Schema: pgtest.Schema(t, pool), Now: c.Now, KeepEvents: true})
	})
}
