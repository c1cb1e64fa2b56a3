package diskstore

import (
	"log/slog"
	"testing"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/storetest"
)

func open(t testing.TB, o Options) (*Store, error) {
	o.Log = slog.New(slog.DiscardHandler)
	if o.MinFree == 0 {
		o.MinFree = -1
	}
	return Open(t.TempDir(), &o)
}

func TestLaws(t *testing.T) {
	setQuota := func(s store.Store, account string, octets int64) error {
		return s.(*Store).SetQuota(t.Context(), account, octets)
	}
	for name, c := range map[string]struct {
		o     Options
		level storetest.Level
	}{
		"full":          {},
		"short history": {o: Options{History: 20}},
		"no history":    {Options{History: -1}, storetest.NoHistory},
		"short chunks":  {o: Options{BodyMemory: 20, lengths: lengths{5, 6, 3}}},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, storetest.Config{
				Open: func() (one, two store.Store, err error) {
					s, err := open(t, c.o)
					if err == nil {
						t.Cleanup(func() {
							if err := s.Close(); err != nil {
								t.Error(err)
							}
						})
					}
					return s, s, err
				},
				Level:    c.level,
				SetQuota: setQuota,
			})
		})
	}
}
