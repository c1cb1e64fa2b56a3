package pgqueue

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A call that fails may have been committed all the same: the connection was
// cut before the answer came. What it leased is in the hands of an owner that
// lives and does not know. So leases carry a number of the call, and what a
// failed one may have leased is taken back.

// newCall returns the number of a call.
func newCall() int64 {
	var b [8]byte
	rand.Read(b[:])
	return int64(binary.LittleEndian.Uint64(b[:]) >> 1)
}

// recallFor is how long a failed call is looked for: its commit may still be
// on its way.
const recallFor = 2 * time.Minute

// failed notes a call whose outcome is unknown. It is known when PostgreSQL
// itself said no.
func (s *Storage) failed(call int64, err error) {
	var said *pgconn.PgError
	if errors.As(err, &said) && said.SeverityUnlocalized == "ERROR" {
		return
	}
	if !errors.Is(err, ErrUnavailable) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		s.calls = make(map[int64]time.Time)
	}
	s.calls[call] = time.Now().Add(recallFor)
}

// recall takes back what failed calls have leased.
func (s *Storage) recall(ctx context.Context) error {
	s.mu.Lock()
	maps.DeleteFunc(s.calls, func(_ int64, until time.Time) bool { return time.Now().After(until) })
	calls := slices.Collect(maps.Keys(s.calls))
	s.mu.Unlock()
	if len(calls) == 0 {
		return nil
	}
	return s.transact(ctx, func(ctx context.Context, t pgx.Tx) error {
		return s.free(ctx, t, `call = ANY(@calls) AND owner IS NOT NULL`, pgx.NamedArgs{"calls": calls})
	})
}
