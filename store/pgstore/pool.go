package pgstore

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// maxWait is how long a call waits for a connection at most.
const maxWait = 10 * time.Second

// acquire waits for a connection of the pool, but not as long as ctx allows:
// a caller had better hear that the database is busy.
func (s *Store) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	wait, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	conn, err := s.pool.Acquire(wait)
	if err != nil && errors.Is(wait.Err(), context.DeadlineExceeded) && s.pool.Stat().AcquiredConns() >= s.pool.Stat().MaxConns() {
		err = errors.Join(errBusy, err)
	}
	return conn, err
}

// query runs a statement on a connection of its own, until its rows are
// closed.
func (s *Store) query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	conn, err := s.acquire(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		rows.Close()
		conn.Release()
		return nil, err
	}
	return &pooled{rows, conn}, nil
}

// pooled are rows that give their connection back, as soon as there is no more.
type pooled struct {
	pgx.Rows
	conn *pgxpool.Conn
}

func (p *pooled) Next() bool {
	if p.Rows.Next() {
		return true
	}
	p.Close()
	return false
}

func (p *pooled) Close() {
	p.Rows.Close()
	if p.conn != nil {
		p.conn.Release()
		p.conn = nil
	}
}

// row runs a statement that gives one row.
func (s *Store) row(ctx context.Context, sql string, args []any, into ...any) error {
	conn, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	return conn.QueryRow(ctx, sql, args...).Scan(into...)
}
