// Package pgschema makes the tables of a package in PostgreSQL, and brings
// them up to date.
package pgschema

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrVersion says that the tables were made by a newer program.
var ErrVersion = errors.New("the schema in the database is newer than this program knows")

// Tables are those of one package in one schema. Their version is in the
// columns version and data of the table Meta; data names what is in them,
// whoever opens it.
type Tables struct {
	Package string
	Schema  string
	Meta    string
	// Steps lead from each version to the next one, the first from nothing to
	// version 1. "{s}" stands for the schema's name.
	Steps []string
}

// Quoted is the schema's name as SQL has it.
func (t *Tables) Quoted() string { return pgx.Identifier{t.Schema}.Sanitize() }

// SQL puts the schema's name into a statement.
func (t *Tables) SQL(text string) string { return strings.ReplaceAll(text, "{s}", t.Quoted()) }

// Migrate brings the tables up to date, and returns what names their data. Of
// several nodes one does it.
func (t *Tables) Migrate(ctx context.Context, pool *pgxpool.Pool) (data string, err error) {
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		var have int
		if have, data, err = t.version(ctx, tx); err != nil || have == len(t.Steps) {
			return err // most of the time there is nothing to do, and perhaps no right to
		}
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, "postrider "+t.Package+" "+t.Schema); err != nil {
			return err
		}
		if have, data, err = t.version(ctx, tx); err != nil || have == len(t.Steps) {
			return err // another node was first
		}
		if have > len(t.Steps) {
			return fmt.Errorf("%s: %w: it has version %d, this program %d", t.Package, ErrVersion, have, len(t.Steps))
		}
		if have == 0 {
			data = rand.Text()
			if _, err := tx.Exec(ctx, t.SQL(`CREATE SCHEMA IF NOT EXISTS {s}`)); err != nil {
				return err
			}
		}
		for _, step := range t.Steps[have:] {
			// Several statements: the simple protocol takes them.
			if _, err := tx.Exec(ctx, t.SQL(step), pgx.QueryExecModeSimpleProtocol); err != nil {
				return err
			}
		}
		write := `UPDATE {s}.` + t.Meta + ` SET version = $1, data = $2`
		if have == 0 {
			write = `INSERT INTO {s}.` + t.Meta + ` (version, data) VALUES ($1, $2)`
		}
		_, err := tx.Exec(ctx, t.SQL(write), len(t.Steps), data)
		return err
	})
	return data, err
}

// version returns that of the tables, 0 when there are none. They are not
// looked for by to_regclass, whose caches may be older than the lock.
func (t *Tables) version(ctx context.Context, tx pgx.Tx) (n int, data string, err error) {
	var exists bool
	err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = $2)`, t.Schema, t.Meta).Scan(&exists)
	if err != nil || !exists {
		return 0, "", err
	}
	err = tx.QueryRow(ctx, t.SQL(`SELECT version, data FROM {s}.`+t.Meta)).Scan(&n, &data)
	return n, data, err
}
