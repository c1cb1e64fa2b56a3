package main

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/store"
)

// users is who may log in and receive mail: a table here, beside Postrider's
// own, where yours stands.
type users struct {
	db    *pgxpool.Pool
	table string
}

// lookup is the database behind login.Passwords.
func (u users) lookup(ctx context.Context, name string) (r login.Record, err error) {
	err = u.db.QueryRow(ctx, `SELECT hash FROM `+u.table+` WHERE name = $1`, name).Scan(&r.Hash)
	if errors.Is(err, pgx.ErrNoRows) {
		err = login.ErrNoUser
	}
	return r, err
}

// add makes a user with an account, or gives the one there is a password.
func (u users) add(ctx context.Context, mail store.Admin, name, password string) error {
	hash, err := login.Hash(password)
	if err != nil {
		return err
	}
	if err := mail.CreateAccount(ctx, name); err != nil && !errors.Is(err, store.ErrExist) {
		return err
	}
	_, err = u.db.Exec(ctx, `INSERT INTO `+u.table+` (name, hash) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET hash = EXCLUDED.hash`, name, hash)
	return err
}

// create makes the table.
func (u users) create(ctx context.Context) error {
	_, err := u.db.Exec(ctx, `CREATE TABLE IF NOT EXISTS `+u.table+` (name text PRIMARY KEY, hash text NOT NULL)`)
	return err
}
