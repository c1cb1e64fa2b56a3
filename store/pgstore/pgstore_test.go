package pgstore_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/pgstore"
	"github.com/postrider/postrider/store/storetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

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
			pool := pgtest.Pool(t)
			storetest.Run(t, storetest.Config{
				Open: func() (one, two store.Store, err error) {
					o := pgstore.Options{Schema: pgtest.Schema(t, pool), History: c.history}
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
