package pgqueue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/queue"
)

//go:embed schema.sql
var schema string

// version is that of schema.sql. Whoever changes that adds a step to steps.
const version = 1

// steps lead from each version to the next one: steps[0] makes version 1 of
// nothing.
var steps = [version]string{schema}

// ErrVersion says that the tables were made by a newer version of this
// package.
var ErrVersion = errors.New("pgqueue: the schema is newer than this program knows")

// migrate brings the tables up to date. Of several nodes one does it.
func (s *Storage) migrate(ctx context.Context) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		have, err := s.version(ctx, tx)
		if err != nil || have == version {
			return err // most of the time there is nothing to do, and perhaps no right to
		}
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, "postrider pgqueue "+s.schema); err != nil {
			return err
		}
		if have, err = s.version(ctx, tx); err != nil || have == version {
			return err // another node was first
		}
		if have > version {
			return fmt.Errorf("%w: it has version %d, this program %d", ErrVersion, have, version)
		}
		if have == 0 {
			if _, err := tx.Exec(ctx, s.sql(`CREATE SCHEMA IF NOT EXISTS {s}`)); err != nil {
				return err
			}
		}
		for _, step := range steps[have:] {
			// Several statements: the simple protocol takes them.
			if _, err := tx.Exec(ctx, s.sql(step), pgx.QueryExecModeSimpleProtocol); err != nil {
				return err
			}
		}
		if have > 0 {
			_, err := tx.Exec(ctx, s.sql(`UPDATE {s}.queue_meta SET version = $1`), version)
			return err
		}
		s.data = queue.NewID().String()
		_, err = tx.Exec(ctx, s.sql(`INSERT INTO {s}.queue_meta (version, storage) VALUES ($1, $2)`), version, s.data)
		return err
	})
}

// version returns that of the tables, 0 when there are none. They are not
// looked for by to_regclass, whose caches may be older than the lock.
func (s *Storage) version(ctx context.Context, tx pgx.Tx) (n int, err error) {
	var exists bool
	err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = 'queue_meta')`, s.o.Schema).Scan(&exists)
	if err != nil || !exists {
		return 0, err
	}
	err = tx.QueryRow(ctx, s.sql(`SELECT version, storage FROM {s}.queue_meta`)).Scan(&n, &s.data)
	return n, err
}
