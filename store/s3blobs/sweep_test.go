package s3blobs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/pgqueue"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/pgstore"
)

// age makes all that waits for its grace a good deal older.
func age(tb testing.TB, pool *pgxpool.Pool, schema string) {
	tb.Helper()
	for _, sql := range []string{
		`UPDATE %s.blobs SET pending = pending - interval '3 days' WHERE pending IS NOT NULL`,
		`UPDATE %s.contents SET expunged = expunged - interval '3 days' WHERE expunged IS NOT NULL`,
		`UPDATE %s.dying SET since = since - interval '3 days'`,
		`UPDATE %s.meta SET listed = '-infinity'`,
		`UPDATE %s.queue_bodies SET staged = staged - interval '3 days' WHERE staged IS NOT NULL`,
		`UPDATE %s.queue_messages SET done = done - interval '3 days' WHERE done IS NOT NULL`,
		`UPDATE %s.queue_dying SET since = since - interval '3 days'`,
		`UPDATE %s.queue_meta SET listed = '-infinity'`,
	} {
		if _, err := pool.Exec(tb.Context(), fmt.Sprintf(sql, schema)); err != nil {
			tb.Fatal(err)
		}
	}
}

// old makes all objects old ones, but those called young.
func old(tb testing.TB, dir string) {
	tb.Helper()
	at := time.Now().Add(-72 * time.Hour)
	for _, path := range files(tb, dir) {
		if filepath.Base(path) == "young" {
			continue
		}
		if err := os.Chtimes(path, at, at); err != nil {
			tb.Fatal(err)
		}
	}
}

// settle sweeps all that nothing uses.
func settle(tb testing.TB, pool *pgxpool.Pool, schema string, s *pgstore.Store, q *pgqueue.Storage) {
	tb.Helper()
	for range 4 { // expunged, pending, dying, gone
		age(tb, pool, schema)
		if err := errors.Join(s.Sweep(tb.Context()), q.Sweep(tb.Context())); err != nil {
			tb.Fatal(err)
		}
	}
}

// An object goes when its last message has gone and the grace is over, and can
// be read until then.
func TestDies(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	b, dir := bucket(t, nil)
	schema := pgtest.Schema(t, pool)
	s := openStore(t, pool, pgstore.Options{Schema: schema, Blobs: b})
	q := openQueue(t, pool, pgqueue.Options{Schema: schema, Blobs: b})
	ann, bob := account(t, s, "ann"), account(t, s, "bob")
	body := octets(200_000)
	for _, err := range store.Deliver(ctx, s, store.Draft{Body: bytes.NewReader(body)}, []store.Target{{Account: "ann"}, {Account: "bob"}}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	objects := func(what string, want int) {
		t.Helper()
		if n := len(files(t, dir)); n != want {
			t.Errorf("%s: %d objects, want %d", what, n, want)
		}
	}
	objects("one body for two", 1)
	first := func(acc store.Account) store.Message {
		t.Helper()
		for m, err := range acc.Messages(ctx, store.Inbox, store.Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		t.Fatal("no message")
		return store.Message{}
	}
	expunge := func(acc store.Account) {
		t.Helper()
		if _, err := acc.Expunge(ctx, store.Inbox, store.AllUIDs(), store.ExpungeOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	expunge(ann)
	settle(t, pool, schema, s, q)
	objects("one of two expunged", 1)
	same(t, bob, first(bob), body)
	open, err := bob.Open(ctx, first(bob))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	expunge(bob)
	age(t, pool, schema)
	if err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	objects("the row is gone, the grace begins", 1)
	got := make([]byte, len(body))
	if _, err := open.ReadAt(got, 0); err != nil || !bytes.Equal(got, body) {
		t.Errorf("who has it open: %v", err)
	}
	settle(t, pool, schema, s, q)
	objects("after the grace", 0)

	// The queue's.
	owner := queue.NewOwner()
	if _, err := q.Renew(ctx, owner, time.Hour); err != nil {
		t.Fatal(err)
	}
	sub := submission(&memory{body})
	if err := q.Put(ctx, sub); err != nil {
		t.Fatal(err)
	}
	settle(t, pool, schema, s, q)
	objects("queued", 1)
	leases, err := q.Lease(ctx, owner, []queue.Want{{Lane: queue.Lane{Dest: "example.org"}, Max: 1}})
	if err != nil || len(leases) != 1 {
		t.Fatalf("%d leases, %v", len(leases), err)
	}
	blob, err := q.Open(ctx, sub.Message)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if err := q.Finish(ctx, &queue.Outcome{Lease: leases[0], Done: []int{0}}); err != nil {
		t.Fatal(err)
	}
	if err := q.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := blob.ReadAt(got, 0); err != nil || !bytes.Equal(got, body) {
		t.Errorf("who has it open: %v", err)
	}
	settle(t, pool, schema, s, q)
	objects("finished an hour ago", 0)
}

// What a node left behind that died at any step is found, and nothing else is
// taken.
func TestOrphans(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	b, dir := bucket(t, nil)
	schema := pgtest.Schema(t, pool)
	s := openStore(t, pool, pgstore.Options{Schema: schema, Blobs: b, Grace: time.Nanosecond})
	q := openQueue(t, pool, pgqueue.Options{Schema: schema, Blobs: b})
	acc := account(t, s, "ann")
	body := octets(200_000)
	r, err := acc.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader(body)}}, store.AppendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Put(ctx, submission(&memory{body})); err != nil {
		t.Fatal(err)
	}
	// Dead while the body came, before it was complete, and before it was
	// appended.
	for _, size := range []int{200_000, 6 << 20} {
		for _, read := range []bool{false, true} {
			for _, stage := range []func() (queue.Staged, error){
				func() (queue.Staged, error) { return s.Stage(ctx, -1) },
				func() (queue.Staged, error) { return q.Stage(ctx, -1) },
			} {
				st, err := stage()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := st.Write(octets(size)); err != nil {
					t.Fatal(err)
				}
				if !read {
					continue
				}
				if _, err := st.ReadAt(make([]byte, 10), 0); err != nil { // completes it
					t.Fatal(err)
				}
			}
		}
	}
	// Objects that the database has never heard of, as after a restore of an
	// old one, of both and of somebody else.
	var data, queueData string
	if err := pool.QueryRow(ctx, fmt.Sprintf("SELECT m.data, q.data FROM %[1]s.meta m, %[1]s.queue_meta q", schema)).Scan(&data, &queueData); err != nil {
		t.Fatal(err)
	}
	put(t, b, data+"/unknown", body)
	put(t, b, queueData+"/unknown", body)
	w, err := b.Create(ctx, data+"/unfinished")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(octets(6 << 20)); err != nil {
		t.Fatal(err)
	}
	put(t, b, "others/1", body)
	put(t, b, queueData+"/young", body)
	old(t, dir)
	if n := len(files(t, dir)); n < 8 {
		t.Fatalf("%d objects before", n)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := 0; len(names(t, b, "", time.Now().Add(time.Hour))) > 4 && i < 100; i++ {
		settle(t, pool, schema, s, q)
		<-tick.C // times of objects are in whole seconds
	}
	if got := names(t, b, "", time.Now().Add(time.Hour)); len(got) != 4 {
		t.Errorf("left: %q, want a message's, one of the queue, one that may be in a transaction and somebody else's", got)
	}
	same(t, acc, r.Messages[0], body)
}

// Two nodes sweep without end while others append, link and expunge: what has a
// row has its object, and in the end nothing else has one.
func TestSweepTogether(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	b, dir := bucket(t, transport(t))
	o := pgstore.Options{Schema: pgtest.Schema(t, pool), Blobs: b, BlobsAbove: every, Grace: time.Nanosecond}
	s, two := openStore(t, pool, o), openStore(t, pool, o)
	q := openQueue(t, pool, pgqueue.Options{Schema: o.Schema, Blobs: b, BlobsAbove: every})
	ann, bob := account(t, s, "ann"), account(t, s, "bob")
	ctx2, stop := context.WithCancel(ctx)
	var sweepers sync.WaitGroup
	for _, node := range []*pgstore.Store{s, two} {
		sweepers.Go(func() {
			for ctx2.Err() == nil {
				if _, err := pool.Exec(ctx, fmt.Sprintf(`UPDATE %s.meta SET listed = '-infinity'`, o.Schema)); err != nil {
					t.Error(err)
				}
				if err := node.Sweep(ctx); err != nil {
					t.Errorf("Sweep: %v", err)
				}
			}
		})
	}
	appended, refused := 0, 0
	for i := range 60 {
		body := fmt.Appendf(nil, "Subject: %d\r\n\r\n", i)
		r, err := ann.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader(body)}}, store.AppendOptions{})
		if errors.Is(err, store.ErrUnavailable) {
			refused++ // its grace was over before it was there
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		open, err := ann.Open(ctx, r.Messages[0])
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if _, err := ann.Expunge(ctx, store.Inbox, store.UIDs(r.Messages[0].UID), store.ExpungeOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err = bob.Append(ctx, store.Inbox, []store.Draft{{Body: open}}, store.AppendOptions{}); err == nil {
			appended++
		} else if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("linking: %v", err)
		}
		open.Close()
	}
	stop()
	sweepers.Wait()
	settle(t, pool, o.Schema, s, q)
	n := 0
	for _, acc := range []store.Account{ann, bob} {
		for m, err := range acc.Messages(ctx, store.Inbox, store.Query{Fields: store.WithIDs}) {
			if err != nil {
				t.Fatal(err)
			}
			blob, err := acc.Open(ctx, m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := blob.ReadAt(make([]byte, m.Size), 0); err != nil {
				t.Errorf("UID %d: %v", m.UID, err)
			}
			blob.Close()
			n++
		}
	}
	var rows int
	if err := pool.QueryRow(ctx, fmt.Sprintf(`SELECT count(*) FROM %s.blobs WHERE object IS NOT NULL`, o.Schema)).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir); len(got) != rows {
		t.Errorf("%d objects for %d bodies", len(got), rows)
	}
	t.Logf("%d messages, %d linked, %d refused", n, appended, refused)
}
