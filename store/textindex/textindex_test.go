package textindex_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
	"github.com/postrider/postrider/store/storetest"
	"github.com/postrider/postrider/store/textindex"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// open opens an index that is closed after the test, over a store with alice.
func open(tb testing.TB, dir string, s store.Store, o textindex.Options) *textindex.Index {
	tb.Helper()
	if o.Log == nil {
		o.Log = discard()
	}
	ix, err := textindex.Open(dir, s, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { ix.Close() })
	return ix
}

func alice(tb testing.TB) *memstore.Store {
	tb.Helper()
	s := memstore.New()
	if err := s.CreateAccount(tb.Context(), "alice"); err != nil {
		tb.Fatal(err)
	}
	return s
}

func handle(tb testing.TB, s store.Store) store.Account {
	tb.Helper()
	acc, err := s.Account(tb.Context(), "alice")
	if err != nil {
		tb.Fatal(err)
	}
	return acc
}

func add(tb testing.TB, acc store.Account, messages ...string) {
	tb.Helper()
	var d []store.Draft
	for _, m := range messages {
		d = append(d, store.Draft{Body: strings.NewReader(strings.ReplaceAll(m, "\n", "\r\n"))})
	}
	if _, err := acc.Append(tb.Context(), store.Inbox, d, store.AppendOptions{}); err != nil {
		tb.Fatal(err)
	}
}

// search returns the candidates of the Inbox, and through.
func search(tb testing.TB, acc store.Account, text string) (string, store.UID) {
	tb.Helper()
	uids, through, err := acc.(store.Searcher).Candidates(tb.Context(), store.Inbox, []store.Term{{Text: text}})
	if err != nil {
		tb.Fatal(err)
	}
	return uids.String(), through
}

func syncNow(tb testing.TB, ix *textindex.Index) {
	tb.Helper()
	if err := ix.Sync(tb.Context(), "alice"); err != nil {
		tb.Fatal(err)
	}
}

// TestLaws runs those that an index could break; the rest is the store's.
func TestLaws(t *testing.T) {
	for _, l := range storetest.Laws() {
		switch l.Name {
		case "Read", "Write", "L17", "Search":
		default:
			continue
		}
		t.Run(l.Name, func(t *testing.T) {
			s := alice(t)
			one := open(t, t.TempDir(), s, textindex.Options{})
			two := open(t, t.TempDir(), storetest.StrictStore(s, storetest.StrictOptions{}), textindex.Options{Accounts: -1})
			err := l.Check(t.Context(), storetest.Config{
				Open:    func() (store.Store, store.Store, error) { return synced{one}, synced{two}, nil },
				Account: "alice",
				Rounds:  400,
				Timeout: 3 * time.Minute,
			})
			if err != nil && !errors.Is(err, storetest.ErrSkipped) {
				t.Error(err)
			}
		})
	}
}

// synced brings the index up to date before each search.
type synced struct{ *textindex.Index }

type syncedAccount struct {
	store.Account
	ix *textindex.Index
}

func (s synced) Account(ctx context.Context, id string) (store.Account, error) {
	acc, err := s.Index.Account(ctx, id)
	return syncedAccount{acc, s.Index}, err
}

func (a syncedAccount) Unwrap() store.Account { return a.Account }

func (a syncedAccount) Candidates(ctx context.Context, box store.MailboxID, terms []store.Term) (store.UIDSet, store.UID, error) {
	if err := a.ix.Sync(ctx, "alice"); err != nil {
		return nil, 0, err
	}
	return a.Account.(store.Searcher).Candidates(ctx, box, terms)
}

func TestCandidates(t *testing.T) {
	s := alice(t)
	ix := open(t, t.TempDir(), s, textindex.Options{})
	acc := handle(t, ix)
	add(t, acc,
		"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n\nThe needle\n",
		"Subject: b\nContent-Type: text/plain; charset=iso-8859-1\n\nSch\xf6ne NEED\n",
		"Subject: c\nContent-Transfer-Encoding: base64\n\nbmVlZGxl\n",
		"Subject: attached\nContent-Type: image/png\n\nneedle\n",
		"Subject: d\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: message/rfc822\n\nSubject: inner needle\n\n\n--x--\n",
	)
	syncNow(t, ix)
	for _, c := range []struct{ text, want string }{
		{"needle", "1,3,5"}, {"NEED", "1:3,5"}, {"grüße", "1"}, {"GRÜSSE", ""}, {"SCHÖNE", "2"}, {"nowhere", ""},
		{"subject: ", "1:5"}, {"image/png", "4"},
	} {
		if got, through := search(t, acc, c.text); got != c.want || through != 5 {
			t.Errorf("%q: %s through %d, want %s", c.text, got, through, c.want)
		}
	}
	// Too short for the index: everything may have it.
	if got, through := search(t, acc, "ne"); got != "" || through != 0 {
		t.Errorf("two octets: %s through %d", got, through)
	}
	if _, _, err := acc.(store.Searcher).Candidates(t.Context(), "none", []store.Term{{Text: "needle"}}); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("no mailbox: %v", err)
	}
	// What is new counts as found.
	add(t, handle(t, s), "\n\nother\n")
	if _, through := search(t, acc, "needle"); through > 6 {
		t.Errorf("through %d", through)
	}
	if _, err := acc.Expunge(t.Context(), store.Inbox, store.UIDs(1, 6), store.ExpungeOptions{}); err != nil {
		t.Fatal(err)
	}
	syncNow(t, ix)
	if got, through := search(t, acc, "needle"); got != "3,5" || through != 6 {
		t.Errorf("after an expunge: %s through %d", got, through)
	}
	if err := ix.Drop(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if got, through := search(t, acc, "needle"); through != 0 && got != "3,5" {
		t.Errorf("dropped: %s through %d", got, through)
	}
	syncNow(t, ix)
	if got, through := search(t, acc, "needle"); got != "3,5" || through != 6 {
		t.Errorf("made again: %s through %d", got, through)
	}
}

// TestMany grows and shrinks a mailbox by random steps, over many segments and
// their merging, and holds the candidates against the truth.
func TestMany(t *testing.T) {
	for name, history := range map[string]int{"history": 0, "short history": 3, "no history": -1} {
		t.Run(name, func(t *testing.T) {
			s := &memstore.Store{History: history}
			if err := s.CreateAccount(t.Context(), "alice"); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			ix := open(t, dir, s, textindex.Options{Accounts: -1})
			rnd := rand.New(rand.NewPCG(3, uint64(len(name))))
			words := make([]string, 60)
			for i := range words {
				words[i] = fmt.Sprintf("word%02dx%d", i, i*i)
			}
			have := map[store.UID]string{}
			next := store.UID(1)
			for round := range 30 {
				acc := handle(t, ix)
				for range []int{1, 3, 40, 300}[rnd.IntN(4)] {
					text := ""
					for range rnd.IntN(6) {
						text += words[rnd.IntN(len(words))] + " "
					}
					add(t, acc, "Subject: x\n\n"+text)
					have[next] = text
					next++
				}
				if rnd.IntN(2) == 0 {
					first := 1 + store.UID(rnd.IntN(int(next)))
					gone := store.UIDSet{{First: first, Last: first + store.UID(rnd.IntN(200))}}
					if _, err := acc.Expunge(t.Context(), store.Inbox, gone, store.ExpungeOptions{}); err != nil {
						t.Fatal(err)
					}
					for u := range have {
						if gone.Contains(u) {
							delete(have, u)
						}
					}
				}
				syncNow(t, ix)
				for range 3 {
					w := words[rnd.IntN(len(words))]
					want := store.UIDSet{}
					for u, text := range have {
						if strings.Contains(text, w) {
							want.Add(u)
						}
					}
					if got, through := search(t, acc, w); got != want.String() || through != next-1 {
						t.Fatalf("round %d, %q:\ngot  %s through %d\nwant %s through %d", round, w, got, through, want, next-1)
					}
				}
				if rnd.IntN(10) == 0 {
					ix.Close()
					ix = open(t, dir, s, textindex.Options{Accounts: -1})
				}
			}
		})
	}
}

// TestAgain: an account that was deleted and made again does not meet the
// index of the old one.
func TestAgain(t *testing.T) {
	s := alice(t)
	ix := open(t, t.TempDir(), s, textindex.Options{Accounts: -1})
	add(t, handle(t, ix), "\n\nold text\n", "\n\nmore old text\n")
	syncNow(t, ix)
	if err := errors.Join(s.DeleteAccount(t.Context(), "alice"), s.CreateAccount(t.Context(), "alice")); err != nil {
		t.Fatal(err)
	}
	add(t, handle(t, s), "\n\nnew\n", "\n\nthe new text\n", "\n\nnew text\n")
	acc := handle(t, ix)
	if got, through := search(t, acc, "new text"); through != 0 && got != "2:3" {
		t.Errorf("%s through %d", got, through)
	}
	syncNow(t, ix)
	if got, through := search(t, acc, "new text"); got != "2:3" || through != 3 {
		t.Errorf("%s through %d", got, through)
	}
	if err := s.DeleteAccount(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if err := ix.Sync(t.Context(), "alice"); !errors.Is(err, store.ErrNotExist) {
		t.Error(err)
	}
}

// TestHostile: what is large or cannot be read is always found, and costs
// little.
func TestHostile(t *testing.T) {
	s := alice(t)
	failing := storetest.StrictStore(s, storetest.StrictOptions{Fail: func(method string) error {
		if method == "Open" {
			return errors.New("damaged")
		}
		return nil
	}})
	ix := open(t, t.TempDir(), failing, textindex.Options{MessageText: 3000, Accounts: -1})
	acc := handle(t, ix)
	random := make([]byte, 800)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	add(t, acc, "\n\n"+strings.Repeat("text ", 1000), "\n\nsmall text", "", "\n\n"+string(random), strings.Repeat("X: y\n", 1000))
	syncNow(t, ix)
	if got, through := search(t, acc, "nowhere"); got != "1,5" || through != 5 {
		t.Errorf("%s through %d, want what is larger than the bound", got, through)
	}
}

// TestDamage flips and cuts what lies on the disk. A search then is right, or
// fails; and after a Sync, or being opened again, it is right.
func TestDamage(t *testing.T) {
	s := alice(t)
	acc := handle(t, s)
	for i := range 300 {
		add(t, acc, fmt.Sprintf("Subject: %d\n\ntext number%d of\n%s", i, i, strings.Repeat(fmt.Sprint(i*i), 50)))
	}
	for round := range 6 {
		dir := t.TempDir()
		ix, err := textindex.Open(dir, s, textindex.Options{Accounts: -1, Log: discard()})
		if err != nil {
			t.Fatal(err)
		}
		syncNow(t, ix)
		ix.Close()
		rnd := rand.New(rand.NewPCG(9, uint64(round)))
		err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() == "FORMAT" {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil || len(b) == 0 {
				return err
			}
			if rnd.IntN(3) == 0 {
				b = b[:rnd.IntN(len(b))]
			} else {
				for range 1 + len(b)/200 {
					b[rnd.IntN(len(b))] ^= byte(1 << rnd.IntN(8))
				}
			}
			return os.WriteFile(path, b, 0o600)
		})
		if err != nil {
			t.Fatal(err)
		}
		ix = open(t, dir, s, textindex.Options{Accounts: -1})
		for try := range 3 {
			a := handle(t, ix)
			uids, through, err := a.(store.Searcher).Candidates(t.Context(), store.Inbox, []store.Term{{Text: "number77 "}})
			if err == nil && through >= 78 && !uids.Contains(78) {
				t.Fatalf("round %d: %s through %d is wrong", round, uids, through)
			}
			if try == 2 && (err != nil || uids.String() != "78" || through != 300) {
				t.Errorf("round %d, after a Sync: %s through %d, %v", round, uids, through, err)
			}
			if err := ix.Sync(t.Context(), "alice"); err != nil {
				t.Logf("Sync: %v", err)
			}
		}
	}
}

// TestForeign: a directory that is no index is left alone.
func TestForeign(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "letters")
	if err := os.WriteFile(name, []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := textindex.Open(dir, alice(t), textindex.Options{Log: discard()}); err == nil {
		t.Error("opened")
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != "dear" {
		t.Errorf("%q, %v", b, err)
	}
	mine := t.TempDir()
	ix := open(t, mine, alice(t), textindex.Options{})
	if _, err := textindex.Open(mine, alice(t), textindex.Options{Log: discard()}); !errors.Is(err, textindex.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	ix.Close()
	if err := os.WriteFile(filepath.Join(mine, "FORMAT"), []byte("postrider textindex 99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, mine, alice(t), textindex.Options{})
}

// TestWatch: what comes by way of the store alone is indexed soon, and what an
// account is besides is not lost.
func TestWatch(t *testing.T) {
	s := alice(t)
	ix := open(t, t.TempDir(), s, textindex.Options{})
	acc := handle(t, ix)
	told := make(chan struct{}, 1)
	stop := store.Watch(acc, 0, func() {
		select {
		case told <- struct{}{}:
		default:
		}
	})
	defer stop()
	add(t, handle(t, s), "\n\nnews\n")
	<-told
	for through := store.UID(0); through < 1; {
		_, through = search(t, acc, "news")
	}
	if _, ok := store.As[store.Quoter](acc); !ok {
		t.Error("the quota is lost")
	}
	if _, ok := store.As[store.Admin](ix); !ok {
		t.Error("Admin is lost")
	}
	st, err := store.Stage(t.Context(), ix, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := st.Write([]byte("\r\n\r\nstaged")); err != nil {
		t.Fatal(err)
	}
	errs := store.Deliver(context.Background(), ix, store.Draft{Body: st}, []store.Target{{Account: "alice"}})
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	syncNow(t, ix)
	if got, _ := search(t, acc, "staged"); got != "2" {
		t.Errorf("delivered: %s", got)
	}
	// Few may be watched.
	few := open(t, t.TempDir(), s, textindex.Options{Accounts: 1})
	if err := s.CreateAccount(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for _, id := range []string{"alice", "bob"} {
			if _, err := few.Account(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
	}
}
