package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/conformance"
)

// Shared is the server that the tests of a package share, started by the
// first that needs it.
var Shared = sync.OnceValues(func() (*Server, error) {
	started.Store(true)
	return Start()
})

var started atomic.Bool

// Main is a TestMain that stops Shared, and whatever else.
func Main(m *testing.M, stop ...func()) {
	code := m.Run()
	for _, f := range stop {
		f()
	}
	if started.Load() {
		if s, err := Shared(); err == nil {
			s.Stop()
		}
	}
	os.Exit(code)
}

// Pool returns connections to Shared, or skips the test.
func Pool(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	s, err := Shared()
	if errors.Is(err, ErrNone) && os.Getenv(conformance.Require) == "" {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return PoolTo(tb, s.DSN)
}

// PoolTo returns connections to a server.
func PoolTo(tb testing.TB, dsn string) *pgxpool.Pool {
	tb.Helper()
	c, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	c.MaxConns = 16
	pool, err := pgxpool.NewWithConfig(context.Background(), c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	return pool
}

// Small returns connections to a server of the test's own that has so many
// octets of disk, or skips the test; grow gives it more.
func Small(tb testing.TB, octets int64) (pool *pgxpool.Pool, grow func(octets int64)) {
	tb.Helper()
	s, err := StartSmall(octets)
	if errors.Is(err, ErrRoom) || errors.Is(err, ErrNone) && os.Getenv(conformance.Require) == "" {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return PoolTo(tb, s.DSN), func(octets int64) {
		if out, err := exec.Command("mount", "-o", fmt.Sprintf("remount,size=%d", octets), s.disk).CombinedOutput(); err != nil {
			tb.Fatalf("%v: %s", err, out)
		}
	}
}

var schemas atomic.Int64

// Schema names a schema of the test's own, dropped after it.
func Schema(tb testing.TB, pool *pgxpool.Pool) string {
	name := fmt.Sprintf("test_%d_%d", os.Getpid(), schemas.Add(1))
	tb.Cleanup(func() { pool.Exec(context.Background(), "DROP SCHEMA IF EXISTS "+name+" CASCADE") })
	return name
}
