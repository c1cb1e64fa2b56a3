package pgstore_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/pgstore"
)

// history keeps the tables of a schema as they are, to go back to.
type history struct {
	pool      *pgxpool.Pool
	schema    string
	tables    []string
	sequences map[string]int64
}

func (h *history) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := h.pool.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
}

func (h *history) names(t *testing.T, sql string) []string {
	t.Helper()
	rows, err := h.pool.Query(t.Context(), sql, h.schema)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func (h *history) keep(t *testing.T) {
	h.tables = h.names(t, "SELECT tablename FROM pg_tables WHERE schemaname = $1")
	for _, n := range h.tables {
		h.exec(t, fmt.Sprintf("CREATE TABLE %s.kept_%s AS TABLE %[1]s.%[2]s", h.schema, n))
	}
	h.sequences = make(map[string]int64)
	for _, n := range h.names(t, "SELECT sequencename FROM pg_sequences WHERE schemaname = $1") {
		var v int64
		if err := h.pool.QueryRow(t.Context(), fmt.Sprintf("SELECT last_value FROM %s.%s", h.schema, n)).Scan(&v); err != nil {
			t.Fatal(err)
		}
		h.sequences[n] = v
	}
}

// lose goes back to what was kept.
func (h *history) lose(t *testing.T) {
	var sql strings.Builder
	sql.WriteString("BEGIN; SET LOCAL session_replication_role = replica;")
	for _, n := range h.tables {
		fmt.Fprintf(&sql, "DELETE FROM %s.%s; INSERT INTO %[1]s.%[2]s OVERRIDING SYSTEM VALUE TABLE %[1]s.kept_%[2]s;", h.schema, n)
	}
	for n, v := range h.sequences {
		fmt.Fprintf(&sql, "SELECT setval('%s.%s', %d);", h.schema, n, v)
	}
	sql.WriteString("COMMIT")
	h.exec(t, sql.String())
}

// A replica that lagged was promoted: what clients and nodes know of the lost
// history must not be taken for what happens now.
func TestReissue(t *testing.T) {
	for name, reissue := range map[string]bool{"reissued": true, "not reissued": false} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			pool := pgtest.Pool(t)
			o := pgstore.Options{Schema: pgtest.Schema(t, pool)}
			s := open(t, pool, o)
			acc := accounts(t, s, 3)[0]
			h := &history{pool: pool, schema: o.Schema}
			if _, err := pool.Exec(ctx, "SET session_replication_role = DEFAULT"); err != nil {
				t.Skip("the test needs a superuser: ", err)
			}
			draft := func(text string) []store.Draft {
				return []store.Draft{{Body: bytes.NewReader([]byte("Subject: " + text + "\r\n\r\n"))}}
			}
			add := func(text string) store.Message {
				t.Helper()
				r, err := acc.Append(ctx, store.Inbox, draft(text), store.AppendOptions{})
				if err != nil {
					t.Fatal(err)
				}
				return r.Messages[0]
			}
			for i := range 5 {
				add(fmt.Sprint("kept ", i))
			}
			h.keep(t)

			// What will be lost: new messages, flags, expunges.
			var lost []store.Message
			for i := range 3 {
				lost = append(lost, add(fmt.Sprint("lost ", i)))
			}
			if _, err := acc.SetFlags(ctx, store.Inbox, store.UIDs(1, 2, 6), store.FlagOp{Flags: store.NewFlags(store.Seen, "word")}); err != nil {
				t.Fatal(err)
			}
			if _, err := acc.Expunge(ctx, store.Inbox, store.UIDs(3, 7), store.ExpungeOptions{}); err != nil {
				t.Fatal(err)
			}
			view, err := store.OpenView(ctx, acc, store.Inbox)
			if err != nil {
				t.Fatal(err)
			}
			h.lose(t)
			if reissue {
				for range 2 { // once more does no harm
					if err := s.Reissue(ctx); err != nil {
						t.Fatal(err)
					}
				}
			}

			fresh := add("after")
			reused := slices.ContainsFunc(lost, func(m store.Message) bool { return m.UID == fresh.UID })
			if _, err := acc.SetFlags(ctx, store.Inbox, store.UIDs(4), store.FlagOp{Flags: store.NewFlags(store.Answered)}); err != nil {
				t.Fatal(err)
			}
			if _, err := view.Sync(ctx); err != nil && reissue {
				t.Fatal(err)
			}
			truth, err := store.OpenView(ctx, acc, store.Inbox)
			if err != nil {
				t.Fatal(err)
			}
			got, want := rowsOf(view), rowsOf(truth)
			switch {
			case reissue && reused:
				t.Errorf("UID %d was given out again", fresh.UID)
			case reissue && got != want:
				t.Errorf("a view from before has %s, want %s", got, want)
			case !reissue && !reused && got == want:
				t.Error("without Reissue all is well too: the test proves nothing")
			}
			all := 0
			for m, err := range acc.Messages(ctx, store.Inbox, store.Query{Fields: store.WithBody}) {
				if err != nil || m.Body == nil {
					t.Errorf("message %d: %v", m.UID, err)
				}
				all++
			}
			if boxes, _, err := acc.Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{store.Inbox}, Counts: true}); err != nil || boxes[0].Counts.Messages != all || all != 6 {
				t.Errorf("%d messages, the mailbox says %+v, %v", all, boxes, err)
			}
		})
	}
}

// rowsOf is what a view shows of its messages.
func rowsOf(v *store.View) string {
	var out []string
	for _, r := range v.Snapshot().Rows(nil) {
		out = append(out, fmt.Sprintf("%d at %d %v", r.UID, r.ModSeq, r.Flags))
	}
	return strings.Join(out, ", ")
}
