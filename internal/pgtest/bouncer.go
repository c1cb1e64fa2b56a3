package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/conformance"
)

// bouncerConf gives few connections of the server to many clients, each for
// one transaction.
const bouncerConf = `
[databases]
* = host=%[1]s user=postrider
[pgbouncer]
unix_socket_dir = %[1]s
listen_port = %[2]d
listen_addr =
auth_type = any
pool_mode = transaction
default_pool_size = %[3]d
max_client_conn = 500
logfile = %[1]s/pgbouncer.log
`

var bouncers atomic.Int64

// Bouncer returns connections to Shared through a PgBouncer of the test's own,
// in transaction mode and with so many connections to the server, and how to
// connect past it. Without PgBouncer the test is skipped.
func Bouncer(tb testing.TB, conns int) (*pgxpool.Pool, *pgx.ConnConfig) {
	tb.Helper()
	direct := Pool(tb).Config().ConnConfig
	s, err := Shared()
	if err != nil {
		tb.Fatal(err)
	}
	if !s.Own() {
		tb.Skip("the server is not this test's to put a PgBouncer before")
	}
	bin, err := exec.LookPath("pgbouncer")
	if err != nil {
		bin = "/usr/sbin/pgbouncer"
		_, err = os.Stat(bin)
	}
	if err != nil {
		if os.Getenv(conformance.Require) != "" {
			tb.Fatal("pgbouncer is required and not installed")
		}
		tb.Skip("pgbouncer is not installed")
	}
	port := 6432 + int(bouncers.Add(1))
	conf := filepath.Join(s.dir, fmt.Sprintf("pgbouncer%d.ini", port))
	if err := os.WriteFile(conf, fmt.Appendf(nil, bouncerConf, s.dir, port, conns), 0o644); err != nil {
		tb.Fatal(err)
	}
	args := []string{"-q", conf}
	if s.owner != nil {
		args = append([]string{"-u", s.owner.Username}, args...) // it refuses to run as root, too
	}
	cmd := exec.Command(bin, args...)
	cmd.Dir = s.dir
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	c, err := pgxpool.ParseConfig(fmt.Sprintf("host=%s port=%d user=postrider dbname=postgres sslmode=disable default_query_exec_mode=exec", s.dir, port))
	if err != nil {
		tb.Fatal(err)
	}
	c.MaxConns = 60
	pool, err := pgxpool.NewWithConfig(context.Background(), c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err = pool.Ping(tb.Context()); err == nil {
			return pool, direct
		}
		if time.Now().After(until) {
			log, _ := os.ReadFile(filepath.Join(s.dir, "pgbouncer.log"))
			tb.Fatal(errors.Join(err, fmt.Errorf("pgbouncer says:\n%s", log)))
		}
	}
}
