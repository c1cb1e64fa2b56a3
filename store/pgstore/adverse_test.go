package pgstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/delivery"
	"github.com/postrider/postrider/store/pgstore"
)

// A program that is older than the tables leaves them alone.
func TestNewerSchema(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	name := pgtest.Schema(t, pool)
	open(t, pool, pgstore.Options{Schema: name})
	if _, err := pool.Exec(ctx, "UPDATE "+name+".meta SET version = version + 1"); err != nil {
		t.Fatal(err)
	}
	_, err := pgstore.Open(ctx, pool, pgstore.Options{Schema: name})
	if !errors.Is(err, pgstore.ErrVersion) || !strings.Contains(err.Error(), "pgstore") {
		t.Errorf("Open with newer tables: %v", err)
	}
}

// session sends a message for user0 to an SMTP server that delivers to s, and
// returns what it was told.
func session(t *testing.T, s store.Store, text string) error {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	srv := &smtpserver.Server{Hostname: "mx.test", Log: log, Backend: &delivery.Backend{
		Recipients: func(context.Context, smtp.Address) ([]store.Target, error) {
			return []store.Target{{Account: "user0"}}, nil
		},
		Target: delivery.To(s), Log: log}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	var pool smtpclient.Pool
	results := pool.Send(t.Context(), smtpclient.Target{Addr: l.Addr().String()},
		&smtp.Envelope{From: smtp.Address{Local: "a", Domain: "from.test"}, To: []smtp.Recipient{{Address: smtp.Address{Local: "user0", Domain: "to.test"}}}},
		strings.NewReader(text))
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

const letter = "From: a@from.test\r\nSubject: x\r\n\r\nHello\r\n"

func stored(t *testing.T, acc store.Account) int {
	t.Helper()
	n := 0
	for _, err := range acc.Messages(t.Context(), store.Inbox, store.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// Whatever the database cannot do now is an error that says so, a temporary
// reply to an SMTP client, and nothing half done.
func TestUnavailable(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	name := pgtest.Schema(t, pool)
	s := open(t, pool, pgstore.Options{Schema: name})
	acc := accounts(t, s, 1)[0]
	variant := func(change func(c *pgxpool.Config), timeout time.Duration) (*pgstore.Store, *pgxpool.Pool) {
		t.Helper()
		c := pool.Config()
		change(c)
		v, err := pgxpool.NewWithConfig(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(v.Close)
		return open(t, v, pgstore.Options{Schema: name, Timeout: timeout}), v
	}
	refuses := func(what string, s *pgstore.Store) {
		t.Helper()
		temporary(t, what, session(t, s, letter))
		if err := s.CreateAccount(ctx, "another"); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: CreateAccount: %v", what, err)
		}
	}

	readOnly, _ := variant(func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on" }, 0)
	refuses("read-only", readOnly)

	// Somebody holds the accounts.
	impatient, _ := variant(func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["statement_timeout"] = "200ms" }, 0)
	tx, err := pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx, "LOCK TABLE "+name+".accounts"); err != nil {
		t.Fatal(err)
	}
	refuses("statement timeout", impatient)
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}

	// All connections are in use.
	exhausted, narrow := variant(func(c *pgxpool.Config) { c.MaxConns = 1 }, 5*time.Second)
	conn, err := narrow.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	temporary(t, "exhausted", session(t, exhausted, letter))
	conn.Release()

	if n := stored(t, acc); n != 0 {
		t.Errorf("failed deliveries left %d messages", n)
	}
	if err := session(t, exhausted, letter); err != nil {
		t.Errorf("after the pool has room again: %v", err)
	}
	if ids, err := s.Accounts(ctx); err != nil || len(ids) != 1 {
		t.Errorf("accounts are %v, %v", ids, err)
	}
}

// A full disk is a temporary reply; what was acknowledged can be read, and
// with more room all goes on.
func TestDiskFull(t *testing.T) {
	ctx := t.Context()
	pool, grow := pgtest.Small(t, 80<<20)
	s := open(t, pool, pgstore.Options{Schema: "mail"})
	acc := accounts(t, s, 1)[0]
	text := letter + strings.Repeat(strings.Repeat("x", 78)+"\r\n", 2500)
	kept := 0
	fill := func(text string) {
		t.Helper()
		for {
			_, err := acc.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader([]byte(text))}}, store.AppendOptions{})
			if err == nil {
				kept++
				continue
			}
			if !errors.Is(err, store.ErrUnavailable) {
				t.Fatalf("after %d messages: %v", kept, err)
			}
			return
		}
	}
	fill(text)
	fill(letter) // until nothing fits any more
	temporary(t, "disk full", session(t, s, text))
	if n := stored(t, acc); n != kept {
		t.Errorf("%d messages of %d acknowledged ones", n, kept)
	}
	grow(160 << 20)
	if err := session(t, s, text); err != nil {
		t.Errorf("with more room: %v", err)
	}
	if n := stored(t, acc); n != kept+1 {
		t.Errorf("%d messages, want %d", n, kept+1)
	}
}

// The network between a node and the database is cut under load, again and
// again: calls end in time, what was acknowledged is there once.
func TestCut(t *testing.T) {
	pool := pgtest.Pool(t)
	name := pgtest.Schema(t, pool)
	direct := open(t, pool, pgstore.Options{Schema: name})
	accs := accounts(t, direct, 2)
	proxy := pgtest.NewProxy(t)
	far := open(t, proxy.Pool(t), pgstore.Options{Schema: name, Timeout: 2 * time.Second})

	type key struct {
		account int
		text    string
	}
	var mu sync.Mutex
	acknowledged, unsure := map[key]bool{}, map[key]bool{}
	moved := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			n := w % len(accs)
			var acc store.Account
			for i := 0; ctx.Err() == nil; i++ {
				k := key{n, fmt.Sprintf("Subject: %d of %d\r\n\r\n", i, w)}
				var err error
				if acc == nil {
					acc, err = far.Account(ctx, fmt.Sprint("user", n))
				}
				tried := err == nil
				begin := time.Now()
				if tried {
					_, err = acc.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader([]byte(k.text))}}, store.AppendOptions{})
				}
				if took := time.Since(begin); took > time.Minute {
					t.Errorf("a call took %v", took)
				}
				mu.Lock()
				if err == nil {
					acknowledged[k] = true
				} else if tried {
					unsure[k] = true
				}
				mu.Unlock()
				select {
				case moved <- struct{}{}:
				default:
				}
				if err != nil {
					select {
					case <-ctx.Done():
					case <-time.After(50 * time.Millisecond):
					}
				}
			}
		})
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
			case <-moved:
			case <-limit:
				t.Fatalf("not within two minutes: %s", what)
			}
		}
	}
	more := func(of map[key]bool, n int) func() bool {
		mu.Lock()
		defer mu.Unlock()
		want := len(of) + n
		return func() bool { return len(of) >= want }
	}
	for range 2 {
		for _, cut := range []func(){proxy.Stall, proxy.Drop} {
			until("writes come through", more(acknowledged, 20))
			ok := more(unsure, 6)
			cut()
			until("writes fail", ok)
			proxy.Heal()
		}
	}
	until("writes come through again", more(acknowledged, 20))
	cancel()
	wg.Wait()
	for i, acc := range accs {
		seen := map[string]int{}
		for m, err := range acc.Messages(t.Context(), store.Inbox, store.Query{Fields: store.WithBody}) {
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, m.Body.Size())
			m.Body.ReadAt(b, 0)
			seen[string(b)]++
		}
		for k := range acknowledged {
			if k.account == i && seen[k.text] != 1 {
				t.Errorf("%q was acknowledged and is there %d times", k.text, seen[k.text])
			}
		}
		for text, n := range seen {
			if n != 1 {
				t.Errorf("%q is there %d times", text, n)
			}
		}
	}
	t.Logf("%d writes acknowledged over 4 cuts, %d failed", len(acknowledged), len(unsure))
}
