package textindex_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/diskstore"
	"github.com/postrider/postrider/store/textindex"
)

const childEnv = "POSTRIDER_TEXTINDEX_CHILD"

// TestKill kills a process that indexes at random, again and again, and holds
// what the index says after that against the truth.
func TestKill(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(t, dir)
		return
	}
	dir := t.TempDir()
	rnd := rand.New(rand.NewPCG(1, 1))
	rounds := 4
	if s := os.Getenv("POSTRIDER_KILLS"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 1 + rnd.IntN(40); n > 0 && lines.Scan(); n-- {
		}
		cmd.Process.Kill()
		cmd.Wait()
		afterKill(t, dir, round)
	}
}

// child appends, expunges and indexes until it is killed.
func child(t *testing.T, dir string) {
	s, err := diskstore.Open(filepath.Join(dir, "mail"), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.CreateAccount(t.Context(), "alice")
	ix := open(t, filepath.Join(dir, "index"), s, textindex.Options{})
	acc := handle(t, ix)
	for i := 0; ; i++ {
		var d []store.Draft
		for range 1 + rand.IntN(30) {
			d = append(d, store.Draft{Body: strings.NewReader(fmt.Sprintf("Subject: x\r\n\r\nword%d and word%d", rand.IntN(20), rand.IntN(20)))})
		}
		r, err := acc.Append(context.Background(), store.Inbox, d, store.AppendOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if i%4 == 0 {
			first := 1 + rand.N(r.Messages[0].UID)
			if _, err := acc.Expunge(context.Background(), store.Inbox, store.UIDSet{{First: first, Last: first + 20}}, store.ExpungeOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if i%3 == 0 {
			syncNow(t, ix)
		}
		fmt.Println("step")
	}
}

func afterKill(t *testing.T, dir string, round int) {
	s, err := diskstore.Open(filepath.Join(dir, "mail"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ix, err := textindex.Open(filepath.Join(dir, "index"), s, textindex.Options{Accounts: -1, Log: discard()})
	if err != nil {
		t.Fatal(err)
	}
	defer ix.Close()
	acc, err := s.Account(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	indexed := handle(t, ix)
	texts := map[store.UID]string{}
	for m, err := range acc.Messages(t.Context(), store.Inbox, store.Query{Fields: store.WithBody}) {
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, m.Size)
		if _, err := m.Body.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		texts[m.UID] = string(b)
	}
	for _, synced := range []bool{false, true} {
		if synced {
			syncNow(t, ix)
		}
		for i := range 20 {
			word := fmt.Sprintf("word%d", i)
			uids, through, err := indexed.(store.Searcher).Candidates(t.Context(), store.Inbox, []store.Term{{Text: word}})
			if err != nil {
				t.Fatal(err)
			}
			for u, text := range texts {
				if strings.Contains(text, word) && u <= through && !uids.Contains(u) {
					t.Fatalf("round %d, %q: %s through %d leaves out %d", round, word, uids, through, u)
				}
				if synced && (through < u || uids.Contains(u) && !strings.Contains(text, word)) {
					t.Fatalf("round %d, %q: after a Sync %s through %d is too much: %d", round, word, uids, through, u)
				}
			}
		}
	}
}
