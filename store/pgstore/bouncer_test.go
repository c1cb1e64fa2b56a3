package pgstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/pgstore"
	"github.com/postrider/postrider/store/storetest"
)

// Behind PgBouncer in transaction mode, with few connections of the server,
// all laws hold.
func TestBouncer(t *testing.T) {
	pool, direct := pgtest.Bouncer(t, 4)
	storetest.Run(t, storetest.Config{
		Open: func() (one, two store.Store, err error) {
			o := pgstore.Options{Schema: pgtest.Schema(t, pool), Listen: direct}
			return open(t, pool, o), open(t, pool, o), nil
		},
		SetQuota: func(s store.Store, account string, octets int64) error {
			return s.(*pgstore.Store).SetQuota(context.Background(), account, octets)
		},
		Rounds: 50,
		Watch:  20 * time.Second, Timeout: 3 * time.Minute,
	})
}
