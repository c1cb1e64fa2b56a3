package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/pgqueue"
	"github.com/postrider/postrider/smtp"
)

// pgBench measures pgqueue beside the same rows written with bare pgx: what
// somebody who has a mail table of his own does. Database and load share the
// machine.
type pgBench struct {
	quick    bool
	server   *pgtest.Server
	pool     *pgxpool.Pool
	nth      int
	leaseCPU float64 // of the latest leases, s per 1,000
}

func pgqueueRows(r *run) ([]row, error) {
	b := &pgBench{quick: r.quick}
	const peer = "bare pgx, the same rows"
	var rows []row
	for _, c := range []struct {
		sessions int
		goal     float64
	}{{1, 0}, {50, 8000}, {128, 15000}} {
		rows = append(rows, row{what: fmt.Sprintf("enqueue durably 4 KB, %d sessions", c.sessions), peer: peer, unit: "msg/s", theirs: b.put("bare", c.sessions), ours: b.put("ours", c.sessions)})
		if c.goal > 0 {
			rows = append(rows, row{what: fmt.Sprintf("enqueue durably 4 KB, %d sessions, ours alone", c.sessions), unit: "msg/s", ours: b.put("ours", c.sessions), goal: goal{atLeast: c.goal}})
		}
	}
	cpu := func(kind string) func() (float64, error) {
		return func() (float64, error) {
			if err := b.begin(); err != nil {
				return 0, err
			}
			before := b.cpu()
			_, n, err := b.enqueue(kind, 128)
			return 1000 * (b.cpu() - before) / float64(n), err
		}
	}
	rows = append(rows,
		row{what: "CPU of database and load per 1,000 enqueued, 128 sessions", peer: peer, unit: "s", theirs: cpu("bare"), ours: cpu("ours")},
		row{what: "lease and finish in batches of 200", unit: "entries/s", ours: b.leases, goal: goal{atLeast: 10000}},
		row{what: "CPU of database and load per 1,000 leased and finished", unit: "s", ours: func() (float64, error) {
			_, err := b.leases()
			return b.leaseCPU, err
		}},
		row{what: "queries of an idle node", unit: "/s", ours: b.idle, goal: goal{atMost: 5}})
	// The last row ends the server.
	last := &rows[len(rows)-1]
	measure, rounds := last.ours, 0
	last.ours = func() (float64, error) {
		v, err := measure()
		if rounds++; rounds == r.rounds || err != nil {
			b.end()
		}
		return v, err
	}
	return rows, nil
}

func (b *pgBench) begin() error {
	if b.server != nil {
		return nil
	}
	s, err := pgtest.Start()
	if errors.Is(err, pgtest.ErrNone) {
		return fmt.Errorf("%w: %w", errSkip, err)
	}
	if err != nil {
		return err
	}
	c, err := pgxpool.ParseConfig(s.DSN)
	if err != nil {
		return errors.Join(err, s.Stop())
	}
	c.MaxConns = 64
	pool, err := pgxpool.NewWithConfig(context.Background(), c)
	if err != nil {
		return errors.Join(err, s.Stop())
	}
	b.server, b.pool = s, pool
	return nil
}

func (b *pgBench) end() {
	if b.server != nil {
		b.pool.Close()
		b.server.Stop()
		b.server = nil
	}
}

// cpu is what this process and the server's have used, in seconds.
func (b *pgBench) cpu() float64 {
	var own syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &own)
	total := time.Duration(own.Utime.Nano() + own.Stime.Nano()).Seconds()
	var pid int
	if b.pool.QueryRow(context.Background(), `SELECT pg_backend_pid()`).Scan(&pid) != nil {
		return total
	}
	_, postmaster, _ := procStat(strconv.Itoa(pid))
	all, _ := os.ReadDir("/proc")
	for _, d := range all {
		if used, parent, err := procStat(d.Name()); err == nil && (parent == postmaster || d.Name() == strconv.Itoa(postmaster)) {
			total += used
		}
	}
	return total
}

// procStat reads the CPU seconds of a process, with its children that ended, and
// its parent.
func procStat(pid string) (cpu float64, parent int, err error) {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, 0, err
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	parent, _ = strconv.Atoi(f[1])
	for _, i := range []int{11, 12, 13, 14} {
		ticks, _ := strconv.Atoi(f[i])
		cpu += float64(ticks) / 100
	}
	return cpu, parent, nil
}

// open makes an empty queue.
func (b *pgBench) open() (*pgqueue.Storage, error) {
	if err := b.begin(); err != nil {
		return nil, err
	}
	b.nth++
	return pgqueue.Open(context.Background(), b.pool, pgqueue.Options{Schema: fmt.Sprintf("bench%d", b.nth), Log: slog.New(slog.DiscardHandler)})
}

func (b *pgBench) put(kind string, sessions int) func() (float64, error) {
	return func() (float64, error) {
		rate, _, err := b.enqueue(kind, sessions)
		return rate, err
	}
}

var body4K = []byte(strings.Repeat(strings.Repeat("x", 78)+"\r\n", 51))

// enqueue has sessions put mail for some seconds.
func (b *pgBench) enqueue(kind string, sessions int) (rate float64, n int64, err error) {
	ctx := context.Background()
	s, err := b.open()
	if err != nil {
		return 0, 0, err
	}
	defer s.Close()
	schema := fmt.Sprintf("bench%d", b.nth)
	defer b.pool.Exec(ctx, "DROP SCHEMA "+schema+" CASCADE")
	put := func() error { return putOurs(ctx, s) }
	if kind == "bare" {
		put = func() error { return b.putBare(ctx, schema) }
	}
	lasts := 4 * time.Second
	if b.quick {
		lasts = 200 * time.Millisecond
	}
	var wg sync.WaitGroup
	var done atomic.Int64
	errs := make([]error, sessions)
	begin := time.Now()
	for i := range sessions {
		wg.Go(func() {
			for errs[i] == nil && time.Since(begin) < lasts {
				if errs[i] = put(); errs[i] == nil {
					done.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(begin).Seconds(), done.Load(), errors.Join(errs...)
}

func putOurs(ctx context.Context, s *pgqueue.Storage) error {
	b, err := s.Stage(ctx, int64(len(body4K)))
	if err != nil {
		return err
	}
	if _, err := b.Write(body4K); err != nil {
		return err
	}
	return s.Put(ctx, pgSubmission(b))
}

func pgSubmission(b queue.Staged) *queue.Submission {
	now := time.Now()
	m := &queue.Message{ID: queue.NewID(), Received: now}
	dest := fmt.Sprintf("d%d.test", m.ID[15]%50)
	return &queue.Submission{Message: m, Head: []byte("Received: from client.test by mx.test; now\r\n"), Body: b, Entries: []*queue.Entry{{
		ID: queue.NewID(), Message: m, Lane: queue.Lane{Dest: dest}, Since: now, Due: now, Alarm: now.Add(time.Hour),
		Envelope: smtp.Envelope{From: smtp.Address{Local: "app", Domain: "from.test"}, To: []smtp.Recipient{{Address: smtp.Address{Local: "to", Domain: dest}}}}}}}
}

// putBare writes the two rows that a message is, in a transaction.
func (b *pgBench) putBare(ctx context.Context, schema string) error {
	var id, entry [16]byte
	rand.Read(id[6:])
	rand.Read(entry[6:])
	now := time.Now()
	for i := range 6 {
		id[i] = byte(now.UnixMilli() >> (40 - 8*i))
	}
	copy(entry[:6], id[:6])
	dest := fmt.Sprintf("d%d.test", id[15]%50)
	return pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		batch := new(pgx.Batch)
		batch.Queue(`INSERT INTO `+schema+`.queue_messages (id, tenant, campaign, size, entries, message, head, data) VALUES ($1, '', '', $2, 1, $3, $4, $5)`,
			id, len(body4K)+44, `{"id":"01234567890123456789012345","received":"2026-11-25T10:00:00Z","size":4124}`, []byte("Received: from client.test by mx.test; now\r\n"), body4K)
		batch.Queue(`INSERT INTO `+schema+`.queue_entries (id, message, dest, tenant, priority, sender, recipients, due, alarm, held, suspended, attempt, entry)
			VALUES ($1, $2, $3, '', 0, 'app@from.test', $4, $5, $6, false, false, 0, $7)`,
			entry, id, dest, []string{"to@" + dest}, now, now.Add(time.Hour), `{"since":"2026-11-25T10:00:00Z","from":{"local":"app","domain":"from.test"},"to":[{"local":"to","domain":"`+dest+`"}]}`)
		return tx.SendBatch(ctx, batch).Close()
	})
}

// leases takes a full queue down, in 50 lanes.
func (b *pgBench) leases() (float64, error) {
	ctx := context.Background()
	s, err := b.open()
	if err != nil {
		return 0, err
	}
	defer s.Close()
	n := 20000
	if b.quick {
		n = 1000
	}
	var subs []*queue.Submission
	for i := range n {
		st, err := s.Stage(ctx, int64(len(body4K)))
		if err == nil {
			_, err = st.Write(body4K)
		}
		if err != nil {
			return 0, err
		}
		if subs = append(subs, pgSubmission(st)); len(subs) == 500 || i == n-1 {
			if err := s.Put(ctx, subs...); err != nil {
				return 0, err
			}
			subs = nil
		}
	}
	o := queue.NewOwner()
	if _, err := s.Renew(ctx, o, time.Hour); err != nil {
		return 0, err
	}
	var want []queue.Want
	for i := range 50 {
		want = append(want, queue.Want{Lane: queue.Lane{Dest: fmt.Sprintf("d%d.test", i)}, Max: 4})
	}
	before, begin := b.cpu(), time.Now()
	for done := 0; done < n; {
		leases, err := s.Lease(ctx, o, want)
		if err != nil {
			return 0, err
		}
		if len(leases) == 0 {
			return 0, io.ErrUnexpectedEOF
		}
		if len(leases) < 100 {
			for i := range want {
				want[i].Max = 50
			}
		}
		errs := make([]error, len(leases))
		var wg sync.WaitGroup
		for i, l := range leases {
			wg.Go(func() { errs[i] = s.Finish(ctx, &queue.Outcome{Lease: l, Done: []int{0}}) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return 0, err
		}
		done += len(leases)
	}
	took := time.Since(begin)
	b.leaseCPU = 1000 * (b.cpu() - before) / float64(n)
	return float64(n) / took.Seconds(), nil
}

// idle counts what a queue with nothing to do asks: statements that the server
// has seen, as its log of activity counts transactions.
func (b *pgBench) idle() (float64, error) {
	s, err := b.open()
	if err != nil {
		return 0, err
	}
	defer s.Close()
	c := b.pool.Config()
	var asked tracer
	c.ConnConfig.Tracer = &asked
	pool, err := pgxpool.NewWithConfig(context.Background(), c)
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	traced, err := pgqueue.Open(context.Background(), pool, pgqueue.Options{Schema: fmt.Sprintf("bench%d", b.nth), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return 0, err
	}
	defer traced.Close()
	ctx, cancel := context.WithCancel(context.Background())
	q := &queue.Queue{Storage: traced, Transport: nowhere{}}
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	lasts := 10 * time.Second
	if b.quick {
		lasts = time.Second
	}
	time.Sleep(lasts / 5) // it has begun
	before := asked.n.Load()
	time.Sleep(lasts)
	n := asked.n.Load() - before
	cancel()
	<-ended
	return float64(n) / lasts.Seconds(), nil
}

// tracer counts statements.
type tracer struct{ n atomic.Int64 }

func (t *tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	t.n.Add(1)
	return ctx
}
func (t *tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (t *tracer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchStartData) context.Context {
	t.n.Add(int64(d.Batch.Len()))
	return ctx
}
func (t *tracer) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (t *tracer) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// nowhere is a Transport that is never used.
type nowhere struct{}

func (nowhere) Deliver(_ context.Context, env *smtp.Envelope, _ queue.Body) []smtp.Result {
	return make([]smtp.Result, len(env.To))
}
