package pgqueue_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/pgqueue"
	"github.com/postrider/postrider/smtp"
)

// body is a Staged that no storage made.
type body struct{ *bytes.Reader }

func (body) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }
func (body) Close() error              { return nil }

// submission is one message to somebody at dest.
func submission(dest, key string, size int) *queue.Submission {
	now := time.Now()
	m := &queue.Message{ID: queue.NewID(), Key: key, Received: now}
	return &queue.Submission{Message: m, Head: []byte("Received: x\r\n"), Body: body{bytes.NewReader(bytes.Repeat([]byte("x"), size))},
		Entries: []*queue.Entry{{ID: queue.NewID(), Message: m, Lane: queue.Lane{Dest: dest}, Since: now, Due: now,
			Envelope: smtp.Envelope{From: smtp.Address{Local: "app", Domain: "from.test"}, To: []smtp.Recipient{{Address: smtp.Address{Local: "to", Domain: dest}}}}}}}
}

func entries(t testing.TB, s *pgqueue.Storage) []*queue.Entry {
	t.Helper()
	var out []*queue.Entry
	for e, err := range s.List(t.Context(), queue.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// What is put within a transaction is queued if, and only if, it commits; a
// retried request is one mail.
func TestPutTx(t *testing.T) {
	testPutTx(t, pgtest.Pool(t))
}

func testPutTx(t *testing.T, pool *pgxpool.Pool) {
	ctx := t.Context()
	name := pgtest.Schema(t, pool)
	s := open(t, pool, pgqueue.Options{Schema: name})
	if _, err := pool.Exec(ctx, "CREATE TABLE "+name+".orders (n int PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgx", pool.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()

	// begin returns a transaction that makes an order and queues its mail.
	ways := map[string]func(n, size int) (sub *queue.Submission, commit, rollback func() error){
		"pgx": func(n, size int) (*queue.Submission, func() error, func() error) {
			tx, err := pool.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(ctx, "INSERT INTO "+name+".orders VALUES ($1)", n); err != nil {
				t.Fatal(err)
			}
			sub := submission("to.test", fmt.Sprint("order ", n), size)
			if err := s.PutTx(ctx, tx, sub); err != nil {
				t.Fatal(err)
			}
			return sub, func() error { return tx.Commit(ctx) }, func() error { return tx.Rollback(ctx) }
		},
		"database/sql": func(n, size int) (*queue.Submission, func() error, func() error) {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec("INSERT INTO "+name+".orders VALUES ($1)", n); err != nil {
				t.Fatal(err)
			}
			sub := submission("to.test", fmt.Sprint("order ", n), size)
			if err := s.PutSQL(ctx, tx, sub); err != nil {
				t.Fatal(err)
			}
			return sub, tx.Commit, tx.Rollback
		},
	}
	n := 0
	for way, begin := range ways {
		for _, size := range []int{100, 600 << 10} {
			before := len(entries(t, s))
			n++
			_, _, rollback := begin(n, size)
			if got := len(entries(t, s)); got != before {
				t.Errorf("%s: an open transaction's mail is seen", way)
			}
			if err := rollback(); err != nil {
				t.Fatal(err)
			}
			if got := len(entries(t, s)); got != before {
				t.Errorf("%s: a rolled back transaction left %d entries", way, got-before)
			}
			first, commit, _ := begin(n, size)
			if err := commit(); err != nil {
				t.Fatal(err)
			}
			got := entries(t, s)
			if len(got) != before+1 {
				t.Fatalf("%s: a committed transaction left %d entries, want 1", way, len(got)-before)
			}
			b, err := s.Open(ctx, first.Message)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
			if err != nil || len(text) != size+len(first.Head) || first.Message.Size != int64(len(text)) {
				t.Errorf("%s: %d octets came out of %d, %v", way, len(text), size, err)
			}
			b.Close()
			again := submission("other.test", fmt.Sprint("order ", n), 10)
			if err := s.Put(ctx, again); err != nil || !again.Duplicate || again.Message.ID != first.Message.ID {
				t.Errorf("%s: the same key again: %+v, %v", way, again.Message, err)
			}
		}
	}
}

// Two transactions that queue different mail do not wait for one another.
func TestPutTxDoesNotWait(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	s := open(t, pool, pgqueue.Options{Schema: pgtest.Schema(t, pool), Timeout: 20 * time.Second})
	a, err := pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Rollback(ctx)
	if err := s.PutTx(ctx, a, submission("same.test", "a", 10)); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(ctx, submission("same.test", "b", 10)); err != nil {
		t.Fatalf("a Put beside an open transaction: %v", err)
	}
	o := queue.NewOwner()
	if _, err := s.Renew(ctx, o, time.Minute); err != nil {
		t.Fatal(err)
	}
	got, err := s.Lease(ctx, o, []queue.Want{{Lane: queue.Lane{Dest: "same.test"}, Max: 5}})
	if err != nil || len(got) != 1 {
		t.Fatalf("a lease beside an open transaction: %d, %v", len(got), err)
	}
}

func ExampleStorage_PutTx() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://app@db.example.org/app")
	if err != nil {
		log.Fatal(err)
	}
	s, err := pgqueue.Open(ctx, pool, pgqueue.Options{Schema: "mail"})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	q := &queue.Queue{Storage: s} // another node, with a Transport, may run it
	order := func(n int, text io.Reader) error {
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO orders VALUES ($1)", n); err != nil {
				return err
			}
			sub, err := q.Prepare(ctx, queue.Mail{
				Envelope: smtp.Envelope{From: smtp.Address{Local: "shop", Domain: "example.org"}, To: []smtp.Recipient{{Address: smtp.Address{Local: "ann", Domain: "example.net"}}}},
				Key:      fmt.Sprint("order ", n), Body: text,
			})
			if err != nil {
				return err
			}
			return s.PutTx(ctx, tx, sub)
		})
		if err == nil {
			s.Notify()
		}
		return err
	}
	_ = order
}
