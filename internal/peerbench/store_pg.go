package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/pgstore"
)

// pgStoreBench compares pgstore with what no mail store could go below: bare
// statements by pgx into plain tables of the same server, with neither UIDs nor
// counters, quotas or threads. The server runs beside, and is durable.
type pgStoreBench struct {
	quick  bool
	large  int // messages of the large mailbox
	server *pgtest.Server
	pool   *pgxpool.Pool
	idle   *pgxpool.Pool // whose queries are counted
	asked  atomic.Int64
	s      *pgstore.Store
	accs   []store.Account
	big    store.Account
	nth    atomic.Int64
	cpu    float64 // of the latest rate, s per 1,000
	flag   bool    // how the large mailbox's flag is to be next
	got    map[string][]float64
}

func pgStoreRows(r *run) ([]row, error) {
	b := &pgStoreBench{quick: r.quick, large: 100_000, got: make(map[string][]float64)}
	if r.quick {
		b.large = 2_000
	}
	const peer = "bare pgx"
	var rows []row
	// What a loaded machine changes least: the CPU of server and program.
	cpu := func(what string, theirs, ours func() (float64, error)) {
		used := func(f func() (float64, error)) func() (float64, error) {
			return b.begun(func() (float64, error) {
				_, err := f()
				return b.cpu, err
			})
		}
		rows = append(rows, row{what: what, peer: peer, unit: "s", theirs: used(theirs), ours: used(ours)})
	}
	both := func(what, unit string, theirs, ours func() (float64, error), g goal) {
		keep := func() (float64, error) {
			v, err := ours()
			b.got[what] = append(b.got[what], v)
			return v, err
		}
		again := func() (float64, error) { return median(b.got[what]), nil } // for the goal, which is no ratio
		rows = append(rows, row{what: what, peer: peer, unit: unit, theirs: b.begun(theirs), ours: b.begun(keep)},
			row{what: what + ", ours alone", unit: unit, ours: b.begun(again), goal: g})
	}
	both("Append 4 KB, 50 sessions, 16 accounts", "msg/s", b.bareAppend, func() (float64, error) { return b.append(16) }, goal{atLeast: 5000})
	both("Append 4 KB, 50 sessions, one account", "msg/s", b.bareAppend, func() (float64, error) { return b.append(1) }, goal{atLeast: 5000})
	both("one message to 50 accounts, 4 at once", "deliveries/s", b.bareDeliver, b.deliver, goal{atLeast: 40_000})
	cpu("CPU per 1,000 Appends, 16 accounts", b.bareAppend, func() (float64, error) { return b.append(16) })
	cpu("CPU per 1,000 Appends, one account", b.bareAppend, func() (float64, error) { return b.append(1) })
	cpu("CPU per 1,000 messages to 50 accounts each", b.bareDeliver, b.deliver)
	both(fmt.Sprintf("flags of %d messages", b.large), "ms", b.bareFlags, b.flags, goal{atMost: 500})
	both(fmt.Sprintf("list %d messages", b.large), "ms", b.bareList, b.list, goal{atMost: 120})
	rows = append(rows, row{what: "an idle node that watches 1,000 accounts", unit: "queries/s", ours: b.begun(b.idleNode), goal: goal{atMost: 5}})
	// The last row ends the server.
	last := &rows[len(rows)-1]
	measure, rounds := last.ours, 0
	last.ours = func() (float64, error) {
		v, err := measure()
		if rounds++; rounds == r.rounds || err != nil {
			b.close()
		}
		return v, err
	}
	return rows, nil
}

// begun is f with the server started.
func (b *pgStoreBench) begun(f func() (float64, error)) func() (float64, error) {
	return func() (float64, error) {
		if b.server == nil {
			if err := b.start(); err != nil {
				b.close()
				return 0, err
			}
		}
		return f()
	}
}

func (b *pgStoreBench) start() (err error) {
	ctx := context.Background()
	b.server, err = pgtest.Start()
	if errors.Is(err, pgtest.ErrNone) {
		return fmt.Errorf("%w: %w", errSkip, err)
	}
	if err != nil {
		return err
	}
	c, err := pgxpool.ParseConfig(b.server.DSN)
	if err != nil {
		return err
	}
	c.MaxConns = 16
	if b.pool, err = pgxpool.NewWithConfig(ctx, c); err != nil {
		return err
	}
	counted := c.Copy()
	counted.ConnConfig.Tracer = queries{&b.asked}
	if b.idle, err = pgxpool.NewWithConfig(ctx, counted); err != nil {
		return err
	}
	if b.s, err = pgstore.Open(ctx, b.pool, pgstore.Options{Schema: "bench_pgstore", Log: slog.New(slog.DiscardHandler)}); err != nil {
		return err
	}
	for i := range 1000 {
		if err := b.s.CreateAccount(ctx, fmt.Sprint("user", i)); err != nil {
			return err
		}
		a, err := b.s.Account(ctx, fmt.Sprint("user", i))
		if err != nil {
			return err
		}
		b.accs = append(b.accs, a)
	}
	b.big = b.accs[len(b.accs)-1]
	d := make([]store.Draft, 500)
	for i := range d {
		d[i] = store.Draft{Body: strings.NewReader("Subject: x\r\n\r\n"), Flags: store.NewFlags(store.SystemFlags(i % 2))}
	}
	for range max(b.large/len(d), 1) {
		if _, err := b.big.Append(ctx, store.Inbox, d, store.AppendOptions{}); err != nil {
			return err
		}
	}
	for _, sql := range []string{
		`CREATE SCHEMA bench_bare`,
		`CREATE TABLE bench_bare.messages (mailbox bigint, uid bigint, modseq bigint NOT NULL, id text NOT NULL, size bigint NOT NULL, date timestamptz NOT NULL,
			flags smallint NOT NULL, body bigint, PRIMARY KEY (mailbox, uid)) WITH (fillfactor = 90)`,
		`CREATE INDEX ON bench_bare.messages (mailbox, modseq)`,
		`CREATE TABLE bench_bare.bodies (num bigint PRIMARY KEY, head bytea, summary bytea, data bytea)`,
		`ALTER TABLE bench_bare.bodies ALTER data SET STORAGE EXTERNAL`,
		fmt.Sprintf(`INSERT INTO bench_bare.messages SELECT 0, n, n, 'maaaaaaaaaaaaaaaaaaaaaaaa', 16, now(), n & 1, n FROM generate_series(1, %d) n`, b.large),
		`VACUUM ANALYZE`,
	} {
		if _, err := b.pool.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
	}
	return nil
}

func (b *pgStoreBench) close() {
	if b.s != nil {
		b.s.Close()
		b.s = nil
	}
	for _, p := range []*pgxpool.Pool{b.pool, b.idle} {
		if p != nil {
			p.Close()
		}
	}
	if b.server != nil {
		b.server.Stop()
	}
	b.pool, b.idle = nil, nil
}

// queries counts those of a pool.
type queries struct{ n *atomic.Int64 }

func (q queries) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	q.n.Add(1)
	return ctx
}

func (q queries) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (q queries) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (q queries) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) { q.n.Add(1) }
func (q queries) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

var pgStoreText = bytes.Repeat([]byte("Subject: a line of text that is no header\r\n"), 96)

// rate runs f in some sessions for a while, and returns how often in a second
// it came to an end. f is given a number of its own.
func (b *pgStoreBench) rate(sessions int, f func(session int, n int64) error) (float64, error) {
	during := 3 * time.Second
	if b.quick {
		during = 200 * time.Millisecond
	}
	var wg sync.WaitGroup
	var done atomic.Int64
	errs := make([]error, sessions)
	before, err := b.used()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	for i := range sessions {
		wg.Go(func() {
			for time.Since(began) < during {
				if errs[i] = f(i, b.nth.Add(1)); errs[i] != nil {
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	after, err := b.used()
	b.cpu = (after - before).Seconds() / float64(done.Load()) * 1000
	return float64(done.Load()) / took.Seconds(), errors.Join(append(errs, err)...)
}

// used is what the server and this program have used of the CPU.
func (b *pgStoreBench) used() (time.Duration, error) {
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return 0, err
	}
	sum := time.Duration(own.Utime.Nano() + own.Stime.Nano())
	_, dir, _ := strings.Cut(b.server.DSN, "host=")
	dir, _, _ = strings.Cut(dir, " ")
	text, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		return 0, fmt.Errorf("%w: the server is not ours to measure: %w", errSkip, err)
	}
	server, _, _ := strings.Cut(string(text), "\n")
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		pid, _, _ := strings.Cut(string(text), " ")
		f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(f) < 15 || pid != server && f[1] != server {
			continue
		}
		for i, v := range f[11:15] {
			if n, err := strconv.Atoi(v); err == nil && (i < 2 || pid == server) { // its children that have ended
				sum += time.Duration(n) * 10 * time.Millisecond
			}
		}
	}
	return sum, nil
}

func (b *pgStoreBench) append(accounts int) (float64, error) {
	return b.rate(50, func(session int, n int64) error {
		d := store.Draft{Body: bytes.NewReader(pgStoreText), MessageID: fmt.Sprint(n), Summary: pgStoreText[:300]}
		_, err := b.accs[session%accounts].Append(context.Background(), store.Inbox, []store.Draft{d}, store.AppendOptions{})
		return err
	})
}

func (b *pgStoreBench) bareAppend() (float64, error) {
	return b.rate(50, func(session int, n int64) error {
		_, err := b.pool.Exec(context.Background(), `WITH b AS (INSERT INTO bench_bare.bodies VALUES ($1, NULL, $2, $3))
			INSERT INTO bench_bare.messages VALUES ($4, $1, $1, $5, $6, now(), 0, $1)`,
			n, pgStoreText[:300], pgStoreText, session+1, "maaaaaaaaaaaaaaaaaaaaaaaa", len(pgStoreText))
		return err
	})
}

var pgStoreHead = []byte("Delivered-To: someone@example.org\r\n")

func (b *pgStoreBench) deliver() (float64, error) {
	rate, err := b.rate(4, func(session int, n int64) error {
		targets := make([]store.Target, 50)
		for i := range targets {
			targets[i] = store.Target{Account: fmt.Sprint("user", 100+50*session+i), Head: pgStoreHead, Summary: pgStoreText[:300], Once: fmt.Sprint(n)}
		}
		return errors.Join(store.Deliver(context.Background(), b.s, store.Draft{Body: bytes.NewReader(pgStoreText), MessageID: fmt.Sprint(n)}, targets)...)
	})
	return 50 * rate, err
}

func (b *pgStoreBench) bareDeliver() (float64, error) {
	rate, err := b.rate(4, func(session int, n int64) error {
		boxes, nums := make([]int64, 50), make([]int64, 50)
		for i := range boxes {
			boxes[i], nums[i] = int64(100+50*session+i), b.nth.Add(1)
		}
		_, err := b.pool.Exec(context.Background(), `WITH b AS (INSERT INTO bench_bare.bodies VALUES ($1, NULL, NULL, $2)),
			h AS (INSERT INTO bench_bare.bodies SELECT num, $3, $4, NULL FROM unnest($6::bigint[]) num)
			INSERT INTO bench_bare.messages SELECT box, num, num, 'maaaaaaaaaaaaaaaaaaaaaaaa', $7, now(), 0, num FROM unnest($5::bigint[], $6::bigint[]) AS u(box, num)`,
			n, pgStoreText, pgStoreHead, pgStoreText[:300], boxes, nums, len(pgStoreText))
		return err
	})
	return 50 * rate, err
}

func timed(f func() error) (float64, error) {
	began := time.Now()
	err := f()
	return time.Since(began).Seconds() * 1000, err
}

func (b *pgStoreBench) flags() (float64, error) {
	return timed(func() error {
		op := store.FlagOp{Flags: store.NewFlags(store.Flagged)}
		if b.flag {
			op.Mode = store.RemoveFlags
		}
		b.flag = !b.flag
		r, err := b.big.SetFlags(context.Background(), store.Inbox, store.AllUIDs(), op)
		if n := r.Changed.Count(); err == nil && n != int64(b.large) {
			err = fmt.Errorf("%d messages changed", n)
		}
		return err
	})
}

func (b *pgStoreBench) bareFlags() (float64, error) {
	return timed(func() error {
		_, err := b.pool.Exec(context.Background(), `UPDATE bench_bare.messages SET flags = flags # 4, modseq = $1 WHERE mailbox = 0`, b.nth.Add(1))
		return err
	})
}

func (b *pgStoreBench) list() (float64, error) {
	return timed(func() error {
		n := 0
		for _, err := range b.big.Messages(context.Background(), store.Inbox, store.Query{}) {
			if err != nil {
				return err
			}
			n++
		}
		if n != b.large {
			return fmt.Errorf("%d messages", n)
		}
		return nil
	})
}

func (b *pgStoreBench) bareList() (float64, error) {
	return timed(func() error {
		rows, err := b.pool.Query(context.Background(), `SELECT uid, modseq, flags, size, id FROM bench_bare.messages WHERE mailbox = 0 ORDER BY uid`)
		if err != nil {
			return err
		}
		defer rows.Close()
		var uid, modSeq, size int64
		var flags int16
		var id string
		for rows.Next() {
			if err := rows.Scan(&uid, &modSeq, &flags, &size, &id); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

// idleNode is a second node, over a pool of its own.
func (b *pgStoreBench) idleNode() (float64, error) {
	ctx := context.Background()
	s, err := pgstore.Open(ctx, b.idle, pgstore.Options{Schema: "bench_pgstore", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	for i := range b.accs {
		a, err := s.Account(ctx, fmt.Sprint("user", i))
		if err != nil {
			return 0, err
		}
		defer store.Watch(a, 0, func() {})()
	}
	during := 61 * time.Second // one sweep
	if b.quick {
		during = time.Second
	}
	was := b.asked.Load()
	time.Sleep(during)
	return float64(b.asked.Load()-was) / during.Seconds(), nil
}
