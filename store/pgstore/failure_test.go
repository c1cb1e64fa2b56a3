package pgstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/pgstore"
)

func TestNoDatabase(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), "host="+t.TempDir()+" user=nobody dbname=none")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pgstore.Open(t.Context(), pool, pgstore.Options{}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Open without a database: %v", err)
	}
}

func TestReadOnlyAndTimeout(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	name := pgtest.Schema(t, pool)
	s := open(t, pool, pgstore.Options{Schema: name})
	acc := accounts(t, s, 1)[0]

	c := pool.Config()
	c.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	standby, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	defer standby.Close()
	r := open(t, standby, pgstore.Options{Schema: name})
	ro, err := r.Account(ctx, "user0")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ro.Mailboxes(ctx, store.MailboxQuery{}); err != nil {
		t.Errorf("reading from a standby: %v", err)
	}
	if _, err := ro.Append(ctx, store.Inbox, []store.Draft{{}}, store.AppendOptions{}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("writing to a standby: %v", err)
	}

	// Somebody holds the account: a write gives up after its time.
	tx, err := pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx, "SELECT FROM "+name+".accounts FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	slow := open(t, pool, pgstore.Options{Schema: name, Timeout: 2 * time.Second})
	late, err := slow.Account(ctx, "user0")
	if err == nil {
		_, err = late.Append(ctx, store.Inbox, []store.Draft{{}}, store.AppendOptions{})
	}
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a write that waits for a lock: %v", err)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := acc.Append(ctx, store.Inbox, []store.Draft{{}}, store.AppendOptions{}); err != nil {
		t.Errorf("after the lock was given back: %v", err)
	}
}

// PostgreSQL crashes under load: what was acknowledged is there afterwards,
// once, and the store goes on by itself.
func TestCrash(t *testing.T) {
	pool := pgtest.Pool(t)
	pg, err := pgtest.Shared()
	if err != nil {
		t.Fatal(err)
	}
	if !pg.Own() {
		t.Skip("the server is not this test's to kill")
	}
	name := pgtest.Schema(t, pool)
	s := open(t, pool, pgstore.Options{Schema: name, Timeout: 10 * time.Second, Log: slog.New(slog.DiscardHandler)})
	accs := accounts(t, s, 4)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	type key struct {
		account int
		text    string
	}
	var mu sync.Mutex
	acknowledged, unsure := map[key]bool{}, map[key]bool{}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				k := key{w % len(accs), fmt.Sprintf("Subject: %d of %d\r\n\r\n", i, w)}
				_, err := accs[k.account].Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader([]byte(k.text))}}, store.AppendOptions{})
				mu.Lock()
				if err == nil {
					acknowledged[k] = true
				} else {
					unsure[k] = true
				}
				mu.Unlock()
				if err != nil {
					select {
					case <-ctx.Done():
					case <-time.After(20 * time.Millisecond):
					}
				}
			}
		})
	}
	done := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acknowledged)
	}
	waitFor := func(more int) {
		t.Helper()
		for want, until := done()+more, time.Now().Add(time.Minute); done() < want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(until) {
				t.Fatal("no write came through for a minute")
			}
		}
	}
	for range 3 {
		waitFor(40)
		if err := pg.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := pg.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(40)
	cancel()
	wg.Wait()

	for i, acc := range accs {
		seen := map[string]int{}
		last := store.UID(0)
		for m, err := range acc.Messages(t.Context(), store.Inbox, store.Query{Fields: store.WithBody}) {
			if err != nil {
				t.Fatal(err)
			}
			if m.UID <= last || m.Body == nil {
				t.Fatalf("UID %d after %d, body %v", m.UID, last, m.Body)
			}
			last = m.UID
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
			if k := (key{i, text}); !acknowledged[k] && (!unsure[k] || n != 1) {
				t.Errorf("%q is there %d times, and nobody wrote it", text, n)
			}
		}
	}
	t.Logf("%d writes acknowledged over 3 crashes, %d failed", len(acknowledged), len(unsure))
}
