package pgqueue_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/pgqueue"
	submitting "github.com/postrider/postrider/queue/submission"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/smtp/smtptest"
)

func TestNoDatabase(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), "host="+t.TempDir()+" user=nobody dbname=none")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pgqueue.Open(t.Context(), pool, pgqueue.Options{}); !errors.Is(err, pgqueue.ErrUnavailable) {
		t.Errorf("Open without a database: %v", err)
	}
}

// A program that is older than the tables leaves them alone.
func TestNewerSchema(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	name := pgtest.Schema(t, pool)
	s := open(t, pool, pgqueue.Options{Schema: name})
	if err := s.Put(ctx, submission("to.test", "", 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(ctx, "UPDATE "+name+".queue_meta SET version = version + 1"); err != nil {
		t.Fatal(err)
	}
	_, err := pgqueue.Open(ctx, pool, pgqueue.Options{Schema: name})
	if !errors.Is(err, pgqueue.ErrVersion) || !strings.Contains(err.Error(), "pgqueue") {
		t.Errorf("Open with newer tables: %v", err)
	}
	if n := len(entries(t, s)); n != 1 {
		t.Errorf("%d entries are left", n)
	}
}

// variant returns connections that set something for their sessions.
func variant(t *testing.T, pool *pgxpool.Pool, setting, value string) *pgxpool.Pool {
	t.Helper()
	c := pool.Config()
	c.ConnConfig.RuntimeParams[setting] = value
	v, err := pgxpool.NewWithConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// users is a login.Authenticator that takes anybody.
type users struct{}

func (users) Mechanisms(*login.Conn) []string { return []string{"PLAIN"} }

func (users) Start(context.Context, string, *login.Conn) (login.Exchange, error) {
	return exchange{sasl.NewPlainServer(func(_, _, _ string) error { return nil })}, nil
}

type exchange struct{ sasl.Server }

func (exchange) Identity() login.Identity {
	return login.Identity{User: "app@from.test", Login: "app@from.test"}
}

// session submits a message to an SMTP server that queues in s, and returns
// what it was told.
func session(t *testing.T, s *pgqueue.Storage) error {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	cert, roots, err := smtptest.Certificate("localhost")
	if err != nil {
		t.Fatal(err)
	}
	srv := &smtpserver.Server{Backend: &submitting.Submitter{Queue: &queue.Queue{Storage: s, Log: log}}, Hostname: "mx.test", Log: log,
		Auth: users{}, TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	pool := smtpclient.Pool{Dialer: smtpclient.Dialer{TLS: &tls.Config{RootCAs: roots}}}
	results := pool.Send(t.Context(), smtpclient.Target{Addr: l.Addr().String(), Name: "localhost", Need: smtpclient.Verified, Auth: &smtpclient.Auth{User: "app@from.test", Password: "secret"}},
		&smtp.Envelope{From: smtp.Address{Local: "app", Domain: "from.test"}, To: []smtp.Recipient{{Address: smtp.Address{Local: "to", Domain: "to.test"}}}},
		strings.NewReader("From: app@from.test\r\nSubject: x\r\n\r\nHello\r\n"))
	pool.Close()
	srv.Close()
	<-served
	return results[0].Err
}

// temporary checks that a peer is told to try again later, and not why.
func temporary(t *testing.T, what string, err error) {
	t.Helper()
	var e *smtp.Error
	if !errors.As(err, &e) || e.Code/100 != 4 || strings.Contains(e.Text, "SQL") {
		t.Errorf("%s: the peer is told %v", what, err)
	}
}

// Whatever the database cannot do now is an error that says so, a temporary
// reply to an SMTP client, and nothing half done.
func TestUnavailable(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	name := pgtest.Schema(t, pool)
	s := open(t, pool, pgqueue.Options{Schema: name})
	refuses := func(what string, s *pgqueue.Storage) {
		t.Helper()
		if err := s.Put(ctx, submission("to.test", "", 10)); !errors.Is(err, pgqueue.ErrUnavailable) {
			t.Errorf("%s: Put: %v", what, err)
		}
		if err := s.Put(ctx, submission("to.test", "key", 10)); !errors.Is(err, pgqueue.ErrUnavailable) {
			t.Errorf("%s: Put with a key: %v", what, err)
		}
		if err := s.Put(ctx, submission("to.test", "", 600<<10)); !errors.Is(err, pgqueue.ErrUnavailable) {
			t.Errorf("%s: Put of much: %v", what, err)
		}
		temporary(t, what, session(t, s))
		if _, err := s.Renew(ctx, queue.NewOwner(), time.Minute); !errors.Is(err, pgqueue.ErrUnavailable) {
			t.Errorf("%s: Renew: %v", what, err)
		}
	}

	readOnly := open(t, variant(t, pool, "default_transaction_read_only", "on"), pgqueue.Options{Schema: name})
	refuses("read-only", readOnly)
	for _, err := range readOnly.Lanes(ctx, time.Now()) {
		if err != nil {
			t.Errorf("read-only: Lanes: %v", err)
		}
	}

	// Somebody holds the tables.
	impatient := open(t, variant(t, pool, "statement_timeout", "200ms"), pgqueue.Options{Schema: name})
	bounded := open(t, pool, pgqueue.Options{Schema: name, Timeout: 200 * time.Millisecond})
	tx, err := pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx, "LOCK TABLE "+name+".queue_messages, "+name+".queue_keys, "+name+".queue_owners"); err != nil {
		t.Fatal(err)
	}
	refuses("statement timeout", impatient)
	refuses("timeout", bounded)
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}

	// All connections are in use.
	c := pool.Config()
	c.MaxConns = 1
	narrow, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	defer narrow.Close()
	exhausted := open(t, narrow, pgqueue.Options{Schema: name})
	exhausted.Close() // it migrated with the default timeout
	exhausted = open(t, narrow, pgqueue.Options{Schema: name, Timeout: 5 * time.Second})
	conn, err := narrow.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := exhausted.Put(ctx, submission("to.test", "", 10)); !errors.Is(err, pgqueue.ErrUnavailable) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("exhausted: Put: %v", err)
	}
	temporary(t, "exhausted", session(t, exhausted))
	conn.Release()
	if err := exhausted.Put(ctx, submission("after.test", "", 10)); err != nil {
		t.Errorf("after the pool has room again: %v", err)
	}

	for _, e := range entries(t, s) {
		if e.Lane.Dest != "after.test" {
			t.Errorf("a failed Put left %v to %v", e.ID, e.Lane)
		}
	}
	for _, table := range []string{"queue_messages", "queue_keys", "queue_bodies"} {
		var n, want int
		if table == "queue_messages" {
			want = 1
		}
		if err := pool.QueryRow(ctx, "SELECT count(*) FROM "+name+"."+table).Scan(&n); err != nil || n != want {
			t.Errorf("%d rows are left in %s, want %d: %v", n, table, want, err)
		}
	}
}

// A full disk is queue.ErrFull and a 452. Who has leases keeps them, and what
// was delivered can be noted. With more room all goes on.
func TestDiskFull(t *testing.T) {
	ctx := t.Context()
	pool, grow := pgtest.Small(t, 80<<20)
	s := open(t, pool, pgqueue.Options{Schema: "mail"})
	lane := queue.Lane{Dest: "to.test"}
	kept := 0
	fill := func(size int) {
		t.Helper()
		for {
			err := s.Put(ctx, submission("to.test", "", size))
			if err == nil {
				kept++
				continue
			}
			if !errors.Is(err, queue.ErrFull) {
				t.Fatalf("after %d messages: %v", kept, err)
			}
			return
		}
	}
	o := queue.NewOwner()
	if _, err := s.Renew(ctx, o, time.Minute); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := s.Put(ctx, submission("to.test", "", 100)); err != nil {
			t.Fatal(err)
		}
	}
	first, err := s.Lease(ctx, o, []queue.Want{{Lane: lane, Max: 10}})
	if err != nil || len(first) != 10 {
		t.Fatal(len(first), err)
	}
	fill(200 << 10)
	fill(10) // until nothing fits any more
	if n := len(entries(t, s)); n != kept+10 {
		t.Errorf("%d entries of %d acknowledged Puts", n, kept+10)
	}
	if err := s.Put(ctx, submission("to.test", "key", 100<<10)); !errors.Is(err, queue.ErrFull) {
		t.Errorf("with a key: %v", err)
	}
	if err := s.Put(ctx, submission("to.test", "", 600<<10)); !errors.Is(err, queue.ErrFull) {
		t.Errorf("with a large body: %v", err)
	}
	var e *smtp.Error
	if err := session(t, s); !errors.As(err, &e) || e.Code != 452 || e.Enhanced != (smtp.EnhancedCode{4, 3, 1}) {
		t.Errorf("the peer is told %v", err)
	}
	if _, err := s.Renew(ctx, o, time.Minute); err != nil {
		t.Errorf("Renew on a full disk: %v", err)
	}
	for _, l := range first {
		if err := s.Finish(ctx, &queue.Outcome{Lease: l, Done: []int{0}}); err != nil {
			t.Errorf("Finish on a full disk: %v", err)
		}
	}

	grow(160 << 20)
	done := 0
	for {
		leases, err := s.Lease(ctx, o, []queue.Want{{Lane: lane, Max: 100}})
		if err != nil {
			t.Fatal(err)
		}
		if len(leases) == 0 {
			break
		}
		for _, l := range leases {
			if err := s.Finish(ctx, &queue.Outcome{Lease: l, Done: []int{0}}); err != nil {
				t.Fatal(err)
			}
		}
		done += len(leases)
	}
	if done != kept {
		t.Errorf("%d of %d were finished", done, kept)
	}
	if err := s.Put(ctx, submission("to.test", "key", 100<<10)); err != nil {
		t.Errorf("with more room: %v", err)
	}
}

// transport is a queue.Transport.
type transport func(ctx context.Context, env *smtp.Envelope) smtp.Result

func (f transport) Deliver(ctx context.Context, env *smtp.Envelope, _ queue.Body) []smtp.Result {
	out := make([]smtp.Result, len(env.To))
	for i := range out {
		out[i] = f(ctx, env)
	}
	return out
}

// A node that the network cuts off ends its deliveries before another takes
// them over, its calls end in time, and it goes on when the network does.
func TestCut(t *testing.T) {
	pgtest.Pool(t) // or skip before the subtests do
	for name, cut := range map[string]func(*pgtest.Proxy){"stall": (*pgtest.Proxy).Stall, "drop": (*pgtest.Proxy).Drop} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testCut(t, cut)
		})
	}
}

func testCut(t *testing.T, cut func(*pgtest.Proxy)) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	name := pgtest.Schema(t, pool)
	direct := open(t, pool, pgqueue.Options{Schema: name})
	proxy := pgtest.NewProxy(t)
	far := open(t, proxy.Pool(t), pgqueue.Options{Schema: name, Timeout: 2 * time.Second})

	const mails = 5
	var mu sync.Mutex
	working := map[string]bool{}  // in delivery by the one that is cut off
	delivered := map[string]int{} // by either
	var both []string
	changed := make(chan struct{}, 100)
	note := func(f func()) {
		mu.Lock()
		f()
		mu.Unlock()
		changed <- struct{}{}
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		limit := time.After(2 * time.Minute)
		for {
			mu.Lock()
			yes := ok()
			mu.Unlock()
			if yes {
				return
			}
			select {
			case <-changed:
			case <-limit:
				t.Fatalf("not within two minutes: %s", what)
			}
		}
	}
	slow := true
	one := &queue.Queue{Storage: far, LeaseTime: 10 * time.Second, Log: slog.New(slog.DiscardHandler), Transport: transport(func(ctx context.Context, env *smtp.Envelope) smtp.Result {
		to := env.To[0].Address.String()
		mu.Lock()
		waits := slow
		mu.Unlock()
		if !waits {
			note(func() { delivered[to]++ })
			return smtp.Result{}
		}
		note(func() { working[to] = true })
		<-ctx.Done()
		note(func() { delete(working, to) })
		return smtp.Result{Err: ctx.Err()}
	})}
	two := &queue.Queue{Storage: direct, LeaseTime: 10 * time.Second, Log: slog.New(slog.DiscardHandler), Transport: transport(func(_ context.Context, env *smtp.Envelope) smtp.Result {
		to := env.To[0].Address.String()
		note(func() {
			if working[to] {
				both = append(both, to)
			}
			delivered[to]++
		})
		return smtp.Result{}
	})}
	run := func(q *queue.Queue) (stop func()) {
		ended := make(chan error, 1)
		go func() { ended <- q.Run(context.WithoutCancel(ctx)) }()
		return func() {
			if err := q.Shutdown(context.WithoutCancel(ctx)); err != nil {
				t.Error(err)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	mail := func(i int) string { return fmt.Sprintf("to@d%d.test", i) }
	for i := range mails {
		if err := direct.Put(ctx, submission(fmt.Sprintf("d%d.test", i), "", 100)); err != nil {
			t.Fatal(err)
		}
	}
	stopOne := run(one)
	until("the first node delivers", func() bool { return len(working) == mails })
	cut(proxy)
	stopTwo := run(two)
	begin := time.Now()
	if err := far.Put(ctx, submission("never.test", "", 100)); !errors.Is(err, pgqueue.ErrUnavailable) {
		t.Errorf("a Put through the cut: %v", err)
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("it took %v", took)
	}
	temporary(t, "cut off", session(t, far))
	until("the second node takes over", func() bool { return len(delivered) == mails })
	stopTwo()
	mu.Lock()
	if len(both) > 0 {
		t.Errorf("%v were delivered while the node that was cut off did so, too", both)
	}
	slow = false
	mu.Unlock()
	proxy.Heal()
	for i := mails; i < 2*mails; i++ {
		if err := direct.Put(ctx, submission(fmt.Sprintf("d%d.test", i), "", 100)); err != nil {
			t.Fatal(err)
		}
	}
	done := func() bool {
		for i := range 2 * mails {
			if delivered[mail(i)] == 0 {
				return false
			}
		}
		return true
	}
	until("the first node is back", done)
	stopOne()
	for to, n := range delivered {
		if to != "to@never.test" && n != 1 {
			t.Errorf("%s was delivered %d times", to, n)
		}
	}
}
