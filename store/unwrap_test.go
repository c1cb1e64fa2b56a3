package store_test

import (
	"context"
	"testing"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
)

// quiet wraps an account, and adds nothing.
type quiet struct{ store.Account }

func (q quiet) Unwrap() store.Account { return q.Account }

// rich is a Quoter of its own.
type rich struct{ quiet }

func (rich) Quota(context.Context) (store.Quota, error) { return store.Quota{Limit: 7}, nil }

type opaque struct{ store.Account }

func TestAs(t *testing.T) {
	s := memstore.New()
	if err := s.CreateAccount(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	acc, err := s.Account(t.Context(), "ann")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		acc   store.Account
		limit int64
		ok    bool
	}{
		"itself": {acc, 0, true}, "wrapped twice": {quiet{quiet{acc}}, 0, true}, "the outer one": {rich{quiet{acc}}, 7, true},
		"behind": {quiet{rich{quiet{acc}}}, 7, true}, "hidden": {quiet{opaque{acc}}, 0, false}, "nil": {nil, 0, false},
	} {
		q, ok := store.As[store.Quoter](c.acc)
		if ok != c.ok {
			t.Errorf("%s: %v", name, ok)
		} else if ok {
			if got, err := q.Quota(t.Context()); err != nil || got.Limit != c.limit {
				t.Errorf("%s: %v, %v", name, got, err)
			}
		}
	}
	if _, ok := store.As[store.Admin](s); !ok {
		t.Error("a store that is one is none")
	}
}
