package pgstore_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/pgstore"
	"github.com/postrider/postrider/store/storetest"
)

// checkSearch runs the law about Candidates, and returns how it ended.
func checkSearch(t *testing.T, pool *pgxpool.Pool, one, two pgstore.Options) error {
	for _, l := range storetest.Laws() {
		if l.Name != "Search" {
			continue
		}
		return l.Check(t.Context(), storetest.Config{
			Open: func() (store.Store, store.Store, error) {
				return open(t, pool, one), open(t, pool, two), nil
			},
			Rounds: 200, Timeout: 3 * time.Minute,
		})
	}
	t.Fatal("no such law")
	return nil
}

func TestSearch(t *testing.T) {
	pool := pgtest.Pool(t)
	o := pgstore.Options{Schema: pgtest.Schema(t, pool), Search: true}
	if err := checkSearch(t, pool, o, o); err != nil {
		t.Error(err)
	}
	// Of two nodes one may not know of it, and the other one does it all.
	o.Schema = pgtest.Schema(t, pool)
	if err := checkSearch(t, pool, pgstore.Options{Schema: o.Schema}, o); err != nil {
		t.Error(err)
	}
}

// indexed waits until the Candidates for a text are these.
func indexed(t *testing.T, acc store.Account, text, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		uids, _, err := acc.(store.Searcher).Candidates(ctx, store.Inbox, []store.Term{{Text: text}})
		if err != nil {
			t.Fatalf("%q: %v; the last were %s, want %s", text, err, uids, want)
		}
		if uids.String() == want {
			return
		}
	}
}

// TestSearchFill: messages get their text, those too that were there before,
// and lose it.
func TestSearchFill(t *testing.T) {
	pool := pgtest.Pool(t)
	o := pgstore.Options{Schema: pgtest.Schema(t, pool), Grace: time.Nanosecond}
	old := open(t, pool, o)
	acc := accounts(t, old, 1)[0]
	add := func(texts ...string) {
		t.Helper()
		for _, x := range texts {
			d := store.Draft{Body: strings.NewReader("Subject: x\r\n\r\n" + x)}
			if _, err := acc.Append(t.Context(), store.Inbox, []store.Draft{d}, store.AppendOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	add("the needle", "100% sure_of\\it", "Schöne GRÜSSE\x00", strings.Repeat("long text\r\n", 30_000))
	uids, through, err := acc.(store.Searcher).Candidates(t.Context(), store.Inbox, []store.Term{{Text: "x"}})
	if err != nil || through != 0 {
		t.Errorf("without Search: %s through %d, %v", uids, through, err)
	}
	o.Search = true
	s := open(t, pool, o)
	if acc, err = s.Account(t.Context(), "user0"); err != nil {
		t.Fatal(err)
	}
	// The fourth is too long, and is always one.
	for _, c := range []struct{ text, want string }{
		{"needle", "1,4"}, {"NEEDLE", "1,4"}, {"0% sure_of\\", "2,4"}, {"0_ sure", "4"}, {"schöne grüsse", "3:4"}, {"se\x00", "3:4"}, {"nowhere", "4"}, {"x", "1:4"}, {"%", "2,4"},
	} {
		indexed(t, acc, c.text, c.want)
	}
	add("another needle")
	indexed(t, acc, "needle", "1,4:5")
	indexed(t, acc, "sure", "2,4")
	if _, err := acc.Expunge(t.Context(), store.Inbox, store.UIDs(1, 4), store.ExpungeOptions{}); err != nil {
		t.Fatal(err)
	}
	indexed(t, acc, "needle", "5")
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := pool.QueryRow(t.Context(), fmt.Sprintf("SELECT count(*) FROM %q.texts", o.Schema)).Scan(&n); err != nil || n != 3 {
		t.Errorf("%d texts, %v", n, err)
	}
	if err := s.DeleteAccount(t.Context(), "user0"); err != nil {
		t.Fatal(err)
	}
}

// TestSearchWithout: where pg_trgm is not, and may not be made, the store is
// as without Search.
func TestSearchWithout(t *testing.T) {
	pool := pgtest.Pool(t)
	schema, db := pgtest.Schema(t, pool), "without_trgm"
	role := schema + "_user"
	for _, sql := range []string{
		`DROP DATABASE IF EXISTS ` + db, `CREATE DATABASE ` + db, `CREATE ROLE "` + role + `" LOGIN`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Skipf("this server's user may not make databases and roles: %v", err)
		}
	}
	t.Cleanup(func() {
		for _, sql := range []string{`DROP DATABASE ` + db + ` WITH (FORCE)`, `DROP ROLE "` + role + `"`} {
			if _, err := pool.Exec(context.Background(), sql); err != nil {
				t.Error(err)
			}
		}
	})
	c := pool.Config().Copy()
	c.ConnConfig.Database = db
	other, err := pgxpool.NewWithConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	open(t, other, pgstore.Options{Schema: schema}).Close()
	for _, sql := range []string{
		`GRANT ALL ON SCHEMA %q TO %q`, `GRANT ALL ON ALL TABLES IN SCHEMA %q TO %q`,
	} {
		if _, err := other.Exec(t.Context(), fmt.Sprintf(sql, schema, role)); err != nil {
			t.Fatal(err)
		}
	}
	c = other.Config().Copy()
	c.ConnConfig.RuntimeParams["role"] = role
	poor, err := pgxpool.NewWithConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer poor.Close()
	var log bytes.Buffer
	o := pgstore.Options{Schema: schema, Search: true, Log: slog.New(slog.NewTextHandler(&log, nil))}
	s := open(t, poor, o)
	acc := accounts(t, s, 1)[0]
	uids, through, err := acc.(store.Searcher).Candidates(t.Context(), store.Inbox, []store.Term{{Text: "x"}})
	if err != nil || through != 0 {
		t.Errorf("%s through %d, %v", uids, through, err)
	}
	if err := s.Close(); err != nil || !strings.Contains(log.String(), "pg_trgm") {
		t.Errorf("%v; the log says %q", err, log.String())
	}
}

// BenchmarkCandidates asks for a text that one of 10,000 messages of 2.6 KB has.
func BenchmarkCandidates(b *testing.B) {
	const n = 10_000
	pool := pgtest.Pool(b)
	s := open(b, pool, pgstore.Options{Schema: pgtest.Schema(b, pool), Search: true})
	acc := accounts(b, s, 1)[0]
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < n; {
		var d []store.Draft
		for range 500 {
			text := fmt.Sprintf("Subject: number %d!\r\n\r\n", i)
			for len(text) < 2600 {
				text += fmt.Sprintf("word%d and%x ", rnd.IntN(3000), rnd.IntN(500))
			}
			d = append(d, store.Draft{Body: strings.NewReader(text)})
			i++
		}
		if _, err := acc.Append(b.Context(), store.Inbox, d, store.AppendOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	for _, text := range []string{"number 7777!", "nowhere"} {
		for {
			uids, _, err := acc.(store.Searcher).Candidates(b.Context(), store.Inbox, []store.Term{{Text: text}})
			if err != nil {
				b.Fatal(err)
			}
			if uids.Count() <= 1 {
				break
			}
		}
		if _, err := pool.Exec(b.Context(), "ANALYZE"); err != nil {
			b.Fatal(err)
		}
		b.Run(strings.ReplaceAll(text, " ", "-"), func(b *testing.B) {
			for b.Loop() {
				if _, _, err := acc.(store.Searcher).Candidates(b.Context(), store.Inbox, []store.Term{{Text: text}}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
