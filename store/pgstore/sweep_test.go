package pgstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/pgstore"
)

// count runs a query that gives one number.
func count(t *testing.T, pool *pgxpool.Pool, schema, sql string) (n int) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), fmt.Sprintf(sql, schema)).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSweep(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	o := pgstore.Options{Schema: pgtest.Schema(t, pool), Grace: time.Nanosecond}
	s := open(t, pool, o)
	acc := accounts(t, s, 3)
	big := bytes.Repeat([]byte("0123456789abcdef"), 40_000) // in chunks
	small := store.Draft{Body: bytes.NewReader([]byte("small"))}
	for _, err := range store.Deliver(ctx, s, store.Draft{Body: bytes.NewReader(big)}, []store.Target{{Account: "user0"}, {Account: "user1"}}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := acc[0].Append(ctx, store.Inbox, []store.Draft{small}, store.AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	// One upload that nobody finished, and one whose store died.
	forgotten, err := s.Stage(ctx, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := forgotten.Write(append(big, 'x')); err != nil {
		t.Fatal(err)
	}
	blobs := func() int { return count(t, pool, o.Schema, "SELECT count(*) FROM %s.blobs") }
	if n := blobs(); n != 3 {
		t.Fatalf("%d bodies, want one for both recipients, one small, one under way", n)
	}
	sweep := func() {
		t.Helper()
		for range 2 { // what one pass frees the next one removes
			if err := s.Sweep(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	sweep()
	if n := blobs(); n != 2 {
		t.Errorf("after a sweep there are %d bodies, want the two that are used", n)
	}
	if _, err := acc[0].Expunge(ctx, store.Inbox, store.AllUIDs(), store.ExpungeOptions{}); err != nil {
		t.Fatal(err)
	}
	sweep()
	if n, c := blobs(), count(t, pool, o.Schema, "SELECT count(*) FROM %s.contents"); n != 1 || c != 1 {
		t.Errorf("after an expunge and a sweep there are %d bodies and %d contents, want the other recipient's", n, c)
	}
	for m, err := range acc[1].Messages(ctx, store.Inbox, store.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		b, err := acc[1].Open(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
		if err != nil || !bytes.Equal(got, big) {
			t.Errorf("the other recipient's message: %d octets, %v", len(got), err)
		}
	}
	if err := s.DeleteAccount(ctx, "user1"); err != nil {
		t.Fatal(err)
	}
	sweep()
	if n, c := blobs(), count(t, pool, o.Schema, "SELECT count(*) FROM %s.chunks"); n != 0 || c != 0 {
		t.Errorf("after the last account was deleted there are %d bodies and %d chunks", n, c)
	}
}

// Linking a body races with its removal: a message never loses its body.
func TestSweepAgainstLink(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	o := pgstore.Options{Schema: pgtest.Schema(t, pool), Grace: time.Nanosecond}
	s := open(t, pool, o)
	acc := accounts(t, s, 2)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := s.Sweep(ctx); err != nil {
				t.Error(err)
				return
			}
		}
	})
	linked := 0
	for i := range 60 {
		text := fmt.Sprintf("Subject: %d\r\n\r\n", i)
		r, err := acc[0].Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader([]byte(text))}}, store.AppendOptions{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := acc[0].Open(ctx, r.Messages[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := acc[0].Expunge(ctx, store.Inbox, store.UIDs(r.Messages[0].UID), store.ExpungeOptions{}); err != nil {
			t.Fatal(err)
		}
		switch _, err := acc[1].Append(ctx, store.Inbox, []store.Draft{{Body: b}}, store.AppendOptions{}); {
		case err == nil:
			linked++
		case !errors.Is(err, store.ErrUnavailable):
			t.Errorf("linking a body that is being swept: %v", err)
		}
		b.Close()
	}
	close(stop)
	wg.Wait()
	n := 0
	for m, err := range acc[1].Messages(ctx, store.Inbox, store.Query{Fields: store.WithBody}) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Body == nil {
			t.Errorf("UID %d has no body", m.UID)
		}
		n++
	}
	if n != linked {
		t.Errorf("%d messages were linked, %d are there", linked, n)
	}
}

func TestHistory(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	s := open(t, pool, pgstore.Options{Schema: pgtest.Schema(t, pool), History: 5})
	acc := accounts(t, s, 1)[0]
	var commits []store.Commit
	for i := range 12 {
		if _, err := acc.Append(ctx, store.Inbox, []store.Draft{{}, {}}, store.AppendOptions{}); err != nil {
			t.Fatal(err)
		}
		r, err := acc.Expunge(ctx, store.Inbox, store.UIDs(store.UID(2*i+1)), store.ExpungeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		commits = append(commits, r.Commit)
	}
	if err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	boxes, _, err := acc.Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{store.Inbox}})
	if err != nil {
		t.Fatal(err)
	}
	if h := boxes[0].Horizon; h != commits[6].ModSeq {
		t.Errorf("Horizon is %d, want %d: the last five are remembered", h, commits[6].ModSeq)
	}
	if _, err := acc.Changes(ctx, store.Inbox, commits[6].Prev); !errors.Is(err, store.ErrForgotten) {
		t.Errorf("Changes below the Horizon: %v", err)
	}
	c, err := acc.Changes(ctx, store.Inbox, commits[6].ModSeq)
	if err != nil || c.Expunged.Count() != 5 {
		t.Errorf("Changes from the Horizon: %v, %v", c.Expunged, err)
	}
}

func TestKeywordsAreForgotten(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	s := open(t, pool, pgstore.Options{Schema: pgtest.Schema(t, pool), Keywords: 3})
	acc := accounts(t, s, 1)[0]
	if _, err := acc.Append(ctx, store.Inbox, []store.Draft{{Flags: store.NewFlags(0, "kept", "Old")}}, store.AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	set := func(words ...string) error {
		_, err := acc.SetFlags(ctx, store.Inbox, store.UIDs(1), store.FlagOp{Mode: store.ReplaceFlags, Flags: store.NewFlags(0, words...)})
		return err
	}
	for i := range 20 { // each time the one before is not in use any more
		if err := set("kept", fmt.Sprint("k", i)); err != nil {
			t.Fatalf("keyword %d: %v", i, err)
		}
	}
	if err := set("kept", "a", "b", "c"); !errors.Is(err, store.ErrLimit) {
		t.Errorf("a fourth keyword: %v", err)
	}
	for m, err := range acc.Messages(ctx, store.Inbox, store.Query{}) {
		if err != nil || !m.Flags.Equal(store.NewFlags(0, "kept", "k19")) {
			t.Errorf("flags are %v, %v", m.Flags, err)
		}
	}
}

func TestOpenTogether(t *testing.T) {
	pool := pgtest.Pool(t)
	o := pgstore.Options{Schema: pgtest.Schema(t, pool)}
	var wg sync.WaitGroup
	for range 6 { // nodes of a new installation
		wg.Go(func() {
			s, err := pgstore.Open(context.Background(), pool, o)
			if err != nil {
				t.Error(err)
				return
			}
			s.Close()
		})
	}
	wg.Wait()
	if n := count(t, pool, o.Schema, "SELECT count(*) FROM %s.meta"); n != 1 {
		t.Errorf("%d rows in meta", n)
	}
	if _, err := pool.Exec(t.Context(), fmt.Sprintf("UPDATE %s.meta SET version = 99", o.Schema)); err != nil {
		t.Fatal(err)
	}
	if _, err := pgstore.Open(t.Context(), pool, o); !errors.Is(err, pgstore.ErrVersion) {
		t.Errorf("a schema from the future: %v", err)
	}
}
