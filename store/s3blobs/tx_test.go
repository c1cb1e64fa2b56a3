package s3blobs_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/pgqueue"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/pgstore"
)

// A large body within the adopter's transaction is queued if that commits, and
// gone if it does not.
func TestPutTx(t *testing.T) {
	ctx := t.Context()
	pool := pgtest.Pool(t)
	b, dir := bucket(t, nil)
	schema := pgtest.Schema(t, pool)
	s := openStore(t, pool, pgstore.Options{Schema: schema, Blobs: b})
	q := openQueue(t, pool, pgqueue.Options{Schema: schema, Blobs: b})
	body := octets(200_000)
	abandon := errors.New("abandon")
	for _, fate := range []error{nil, abandon} {
		for _, ours := range []bool{false, true} {
			var st queue.Staged = &memory{}
			if ours {
				var err error
				if st, err = q.Stage(ctx, -1); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := st.Write(body); err != nil {
				t.Fatal(err)
			}
			sub := submission(st)
			err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				if err := q.PutTx(ctx, tx, sub); err != nil {
					return err
				}
				// Nothing is taken from a transaction that is under way.
				if err := q.Sweep(ctx); err != nil {
					return err
				}
				return fate
			})
			if !errors.Is(err, fate) {
				t.Fatal(err)
			}
			st.Close()
			blob, err := q.Open(ctx, sub.Message)
			if fate != nil {
				if !errors.Is(err, queue.ErrNotFound) {
					t.Errorf("after a rollback: %v", err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(io.NewSectionReader(blob, 0, blob.Size()))
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d octets, %v", len(got), err)
			}
			blob.Close()
		}
	}
	if n := len(files(t, dir)); n != 4 {
		t.Errorf("%d objects before the sweep", n)
	}
	old(t, dir)
	settle(t, pool, schema, s, q)
	if n := len(files(t, dir)); n != 2 {
		t.Errorf("%d objects are left, want those that were committed", n)
	}
}

// One connection to the database is enough, and no prepared statements are
// needed.
func TestOneConnection(t *testing.T) {
	ctx := t.Context()
	many := pgtest.Pool(t)
	c := many.Config()
	c.MaxConns = 1
	c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // as behind PgBouncer
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	b, _ := bucket(t, nil)
	schema := pgtest.Schema(t, many)
	s := openStore(t, pool, pgstore.Options{Schema: schema, Blobs: b, BlobsAbove: every})
	q := openQueue(t, pool, pgqueue.Options{Schema: schema, Blobs: b, BlobsAbove: every})
	acc := account(t, s, "ann")
	body := octets(200_000)
	st, err := s.Stage(ctx, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := st.Write(body); err != nil {
		t.Fatal(err)
	}
	r, err := acc.Append(ctx, store.Inbox, []store.Draft{{Body: st}, {Body: bytes.NewReader(body)}}, store.AppendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range r.Messages {
		same(t, acc, m, body)
	}
	qs, err := q.Stage(ctx, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := qs.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := q.Put(ctx, submission(qs), submission(&memory{body})); err != nil {
		t.Fatal(err)
	}
	settle(t, pool, schema, s, q)
	for _, m := range r.Messages {
		same(t, acc, m, body)
	}
}
