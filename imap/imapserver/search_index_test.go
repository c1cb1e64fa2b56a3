package imapserver_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/postrider/postrider/imap/imapserver"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
	"github.com/postrider/postrider/store/storetest"
	"github.com/postrider/postrider/store/textindex"
)

// TestSearchIndex compares SEARCH with an index and without, on random
// mailboxes and queries. The index is up to date, lags behind, gives too much,
// or fails, by turns.
func TestSearchIndex(t *testing.T) {
	st := memstore.New()
	if err := st.CreateAccount(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	ix, err := textindex.Open(t.TempDir(), st, textindex.Options{Accounts: -1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer ix.Close()
	var failing atomic.Bool
	sloppy := storetest.StrictStore(ix, storetest.StrictOptions{Fail: func(method string) error {
		if method == "Candidates" && failing.Load() {
			return errors.New("no index today")
		}
		return nil
	}})
	counted := &counting{Store: ix}
	var clients []*client
	for _, s := range []store.Store{st, counted, sloppy} {
		clients = append(clients, start(t, serve(t, &imapserver.Server{Store: s, Auth: testAuth{}, InsecureAuth: true, Log: slog.New(slog.DiscardHandler)})))
	}
	rnd := rand.New(rand.NewPCG(1, 7))
	for _, c := range clients {
		c.ok("SELECT INBOX")
	}
	for round := range 40 {
		for range 1 + rnd.IntN(15) {
			add(t, st, "INBOX", store.SystemFlags(rnd.IntN(4)), randomMessage(rnd))
		}
		if rnd.IntN(3) > 0 {
			if err := ix.Sync(t.Context(), "alice"); err != nil {
				t.Fatal(err)
			}
		}
		if rnd.IntN(4) == 0 {
			clients[0].cmd(fmt.Sprintf("STORE %d:%d +FLAGS.SILENT (\\Deleted)", 1+rnd.IntN(3), 1+rnd.IntN(5)))
			clients[0].ok("EXPUNGE")
			for _, c := range clients {
				c.ok("NOOP")
			}
		}
		failing.Store(rnd.IntN(4) == 0)
		for range 8 {
			keys := "UID SEARCH RETURN (ALL COUNT) CHARSET UTF-8 " + randomKeys(rnd, 3)
			var got [3][]string
			for i, c := range clients {
				un, tagged := c.cmd(keys)
				if !strings.HasPrefix(tagged, "OK") {
					t.Fatalf("%s: %s", keys, tagged)
				}
				un = slices.DeleteFunc(un, func(l string) bool { return !strings.HasPrefix(l, "* ESEARCH") })
				for j := range un {
					_, un[j], _ = strings.Cut(un[j], ")")
				}
				got[i] = un
			}
			if !slices.Equal(got[0], got[1]) || !slices.Equal(got[0], got[2]) {
				t.Fatalf("round %d, %s:\nwithout an index %q\nwith one         %q\nwith a poor one  %q", round, keys, got[0], got[1], got[2])
			}
		}
	}
	if counted.n.Load() == 0 {
		t.Error("nobody asked the index")
	}
}

// counting counts how often an index is asked.
type counting struct {
	store.Store
	n atomic.Int64
}

type countingAccount struct {
	store.Account
	of *counting
}

func (c *counting) Account(ctx context.Context, id string) (store.Account, error) {
	acc, err := c.Store.Account(ctx, id)
	return countingAccount{acc, c}, err
}

func (c *counting) Unwrap() store.Store { return c.Store }

func (a countingAccount) Unwrap() store.Account { return a.Account }

func (a countingAccount) Candidates(ctx context.Context, box store.MailboxID, terms []store.Term) (store.UIDSet, store.UID, error) {
	a.of.n.Add(1)
	return a.Account.(store.Searcher).Candidates(ctx, box, terms)
}

var searchWords = strings.Fields("Schöne GRÜSSE Köln ΣΊΣΥΦΟΣ привет 日本語 invoice Rechnung re: list quick brown fox example")

func randomLine(rnd *rand.Rand) string {
	var out []string
	for range 1 + rnd.IntN(5) {
		out = append(out, searchWords[rnd.IntN(len(searchWords))])
	}
	return strings.Join(out, " ")
}

func randomMessage(rnd *rand.Rand) string {
	head := fmt.Sprintf("From: %d@example.org\nTo: %s <x@example.net>\nSubject: %s\n", rnd.IntN(30), searchWords[12], "=?utf-8?b?"+base64.StdEncoding.EncodeToString([]byte(randomLine(rnd)))+"?=")
	body := randomLine(rnd)
	switch rnd.IntN(3) {
	case 0:
		return head + "Content-Type: text/plain; charset=utf-8\n\n" + body
	case 1:
		return head + "Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: base64\n\n" + base64.StdEncoding.EncodeToString([]byte(body))
	}
	return head + "Content-Type: multipart/mixed; boundary=b\n\n--b\n\n" + body + "\n--b\nContent-Type: message/rfc822\n\nSubject: inner " +
		randomLine(rnd) + "\n\n" + randomLine(rnd) + "\n--b\nContent-Type: application/pdf; name=quick.pdf\n\nxxxx\n--b--\n"
}

// randomKeys returns a search key, with others in it.
func randomKeys(rnd *rand.Rand, depth int) string {
	t := []rune(randomLine(rnd))
	from := rnd.IntN(len(t))
	t = t[from : from+1+rnd.IntN(min(len(t)-from, 9))]
	text := literal(string(t))
	if rnd.IntN(3) == 0 {
		text = literal(strings.ToLower(string(t)))
	}
	n := 13
	if depth == 0 {
		n = 9
	}
	switch rnd.IntN(n) {
	case 0, 1, 2:
		return "TEXT " + text
	case 3, 4:
		return "BODY " + text
	case 5:
		return "SUBJECT " + text
	case 6:
		return "TO " + text
	case 7:
		return "SEEN"
	case 8:
		return "HEADER FROM " + fmt.Sprint(rnd.IntN(30))
	case 9:
		return "NOT " + randomKeys(rnd, depth-1)
	case 10:
		return "OR " + randomKeys(rnd, depth-1) + " " + randomKeys(rnd, depth-1)
	}
	return "(" + randomKeys(rnd, depth-1) + " " + randomKeys(rnd, depth-1) + ")"
}

// TestSearchOften: an index that is asked a lot is not asked without end.
func TestSearchOften(t *testing.T) {
	st := memstore.New()
	if err := st.CreateAccount(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	counted := &counting{Store: storetest.StrictStore(st, storetest.StrictOptions{})}
	for range 20 {
		add(t, st, "INBOX", 0, simple)
	}
	c := start(t, serve(t, &imapserver.Server{Store: counted, Auth: testAuth{}, InsecureAuth: true, Log: slog.New(slog.DiscardHandler)}))
	c.ok("SELECT INBOX")
	for _, q := range []struct {
		keys  string
		asked int64
	}{
		{"SEEN", 0}, {"TEXT there", 1}, {"1:3 TEXT there", 0}, {`SUBJECT ""`, 0}, {"TEXT a BODY b SUBJECT c", 1},
		{"OR TEXT a NOT BODY b", 2}, {strings.Repeat("NOT (TEXT x) ", 100) + "ALL", 32},
	} {
		counted.n.Store(0)
		c.ok("SEARCH " + q.keys)
		if n := counted.n.Load(); n != q.asked {
			t.Errorf("%.30s: the index was asked %d times, want %d", q.keys, n, q.asked)
		}
	}
}
