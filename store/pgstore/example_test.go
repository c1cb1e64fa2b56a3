package pgstore_test

import (
	"context"
	"log"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/store/pgstore"
)

func ExampleOpen() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://mail@db.example.org/app")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	s, err := pgstore.Open(ctx, pool, pgstore.Options{Schema: "mail"})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	if err := s.CreateAccount(ctx, "ann"); err != nil {
		log.Fatal(err)
	}
	// srv := &imapserver.Server{Store: s, …}
}
