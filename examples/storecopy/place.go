package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/diskstore"
	"github.com/postrider/postrider/store/pgstore"
)

// place is a store or files, as disk:DIR, pg:DSN, maildir:DIR or mbox:FILE.
type place struct{ kind, path string }

func parsePlace(s string) (place, error) {
	kind, path, _ := strings.Cut(s, ":")
	switch kind {
	case "disk", "pg", "maildir", "mbox":
		if path != "" {
			return place{kind, path}, nil
		}
	}
	return place{}, fmt.Errorf("%q: want disk:DIR, pg:DSN, maildir:DIR or mbox:FILE", s)
}

// store reports whether it is one.
func (p place) store() bool { return p.kind == "disk" || p.kind == "pg" }

// mailStore is what both stores are.
type mailStore interface {
	store.Store
	store.Admin
	Accounts(ctx context.Context) ([]string, error)
}

// open opens a store. The second result closes it.
func (p place) open(ctx context.Context) (mailStore, func() error, error) {
	if p.kind == "disk" {
		s, err := diskstore.Open(p.path, nil)
		if err != nil {
			return nil, nil, err
		}
		return s, s.Close, nil
	}
	pool, err := pgxpool.New(ctx, p.path)
	if err != nil {
		return nil, nil, err
	}
	s, err := pgstore.Open(ctx, pool, pgstore.Options{})
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	return s, func() error {
		defer pool.Close()
		return s.Close()
	}, nil
}

// account returns an account, which is made if it is not there.
func account(ctx context.Context, s mailStore, id string) (store.Account, error) {
	if err := s.CreateAccount(ctx, id); err != nil && !errors.Is(err, store.ErrExist) {
		return nil, err
	}
	return s.Account(ctx, id)
}
