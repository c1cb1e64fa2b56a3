package memstore_test

import (
	"testing"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
	"github.com/postrider/postrider/store/storetest"
)

func TestLaws(t *testing.T) {
	setQuota := func(s store.Store, account string, octets int64) error {
		return s.(*memstore.Store).SetQuota(account, octets)
	}
	for name, c := range map[string]struct {
		history int
		level   storetest.Level
	}{
		"full":          {},
		"short history": {history: 20},
		"no history":    {-1, storetest.NoHistory},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, storetest.Config{
				Open: func() (one, two store.Store, err error) {
					s := &memstore.Store{History: c.history}
					return s, s, nil
				},
				Level:    c.level,
				SetQuota: setQuota,
				Sweep:    memstore.Sweep,
			})
		})
	}
}

func TestStrict(t *testing.T) {
	storetest.Run(t, storetest.Config{
		Open: func() (one, two store.Store, err error) {
			s := memstore.New()
			if err := s.CreateAccount(t.Context(), "alice"); err != nil {
				return nil, nil, err
			}
			strict := storetest.StrictStore(s, storetest.StrictOptions{})
			return strict, strict, nil
		},
		Account: "alice",
		Rounds:  16,
	})
}
