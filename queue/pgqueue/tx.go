package pgqueue

import (
	"context"
	"database/sql"
	"errors"

	"github.com/jackc/pgx/v5"
)

// tx is what Put needs of a transaction: pgx's or that of database/sql. Its
// statements take plain values, so that any driver will do.
type tx interface {
	// exec runs a statement and returns how many rows it wrote.
	exec(ctx context.Context, sql string, args ...any) (int64, error)
	// row runs one that gives a row at most, and reports whether it did.
	row(ctx context.Context, sql string, args []any, into ...any) (bool, error)
	// later runs a statement at the next flush or other call, in order.
	later(ctx context.Context, sql string, args ...any) error
	flush(ctx context.Context) error
}

type pgxTx struct {
	tx    pgx.Tx
	batch *pgx.Batch
}

func (t *pgxTx) exec(ctx context.Context, sql string, args ...any) (int64, error) {
	if err := t.flush(ctx); err != nil {
		return 0, err
	}
	tag, err := t.tx.Exec(ctx, sql, args...)
	return tag.RowsAffected(), err
}

func (t *pgxTx) row(ctx context.Context, sql string, args []any, into ...any) (bool, error) {
	if err := t.flush(ctx); err != nil {
		return false, err
	}
	err := t.tx.QueryRow(ctx, sql, args...).Scan(into...)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

func (t *pgxTx) later(_ context.Context, sql string, args ...any) error {
	if t.batch == nil {
		t.batch = new(pgx.Batch)
	}
	t.batch.Queue(sql, args...)
	return nil
}

func (t *pgxTx) flush(ctx context.Context) error {
	if t.batch == nil {
		return nil
	}
	b := t.batch
	t.batch = nil
	return t.tx.SendBatch(ctx, b).Close()
}

type sqlTx struct{ tx *sql.Tx }

func (t sqlTx) exec(ctx context.Context, query string, args ...any) (int64, error) {
	r, err := t.tx.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (t sqlTx) row(ctx context.Context, query string, args []any, into ...any) (bool, error) {
	err := t.tx.QueryRowContext(ctx, query, args...).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

func (t sqlTx) later(ctx context.Context, query string, args ...any) error {
	_, err := t.exec(ctx, query, args...)
	return err
}

func (sqlTx) flush(context.Context) error { return nil }
