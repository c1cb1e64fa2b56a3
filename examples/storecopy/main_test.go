package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/diskstore"
)

// run runs the program with a command line.
func run(t *testing.T, args ...string) string {
	t.Helper()
	j, err := parse(args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := j.run(t.Context(), &screen{w: &out}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// with opens a store for a moment: the program wants it for itself.
func with(t *testing.T, dir string, f func(acc store.Account)) {
	t.Helper()
	s, err := diskstore.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	acc, err := account(t.Context(), s, "ann")
	if err != nil {
		t.Fatal(err)
	}
	f(acc)
}

func boxes(t *testing.T, acc store.Account) map[string]store.Mailbox {
	t.Helper()
	list, _, err := acc.Mailboxes(t.Context(), store.MailboxQuery{Counts: true})
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]store.Mailbox)
	for _, b := range list {
		out[b.Name] = b
	}
	return out
}

func add(t *testing.T, acc store.Account, box store.MailboxID, n int) {
	t.Helper()
	for i := range n {
		d := store.Draft{Body: strings.NewReader(fmt.Sprintf("Subject: %d\r\n\r\nHello\r\n", i)), Flags: store.NewFlags(store.Seen, "work")}
		if _, err := acc.Append(t.Context(), box, []store.Draft{d}, store.AppendOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStores(t *testing.T) {
	dir := t.TempDir()
	old, moved := filepath.Join(dir, "old"), filepath.Join(dir, "new")
	var validity uint32
	with(t, old, func(acc store.Account) {
		add(t, acc, store.Inbox, 5)
		work, err := acc.CreateMailbox(t.Context(), store.NewMailbox{Name: "Work/Résumés"})
		if err != nil {
			t.Fatal(err)
		}
		add(t, acc, work.ID, 3)
		if _, err := acc.Expunge(t.Context(), work.ID, store.UIDs(2), store.ExpungeOptions{}); err != nil {
			t.Fatal(err)
		}
		validity = work.UIDValidity
	})
	if out := run(t, "disk:"+old, "disk:"+moved); !strings.HasPrefix(out, "ann: 7 messages") {
		t.Errorf("the first copy says %q", out)
	}
	with(t, old, func(acc store.Account) {
		if _, err := acc.SetFlags(t.Context(), store.Inbox, store.UIDs(1, 2), store.FlagOp{Flags: store.NewFlags(store.Flagged)}); err != nil {
			t.Fatal(err)
		}
	})
	if out := run(t, "disk:"+old, "disk:"+moved); !strings.Contains(out, "ann: 0 messages") || !strings.Contains(out, "2 with other flags, 0 expunged") {
		t.Errorf("the second copy says %q", out)
	}
	with(t, moved, func(acc store.Account) {
		got := boxes(t, acc)
		if w := got["Work/Résumés"]; got["INBOX"].Counts.Messages != 5 || w.Counts.Messages != 2 || w.UIDValidity != validity || w.UIDNext != 4 {
			t.Errorf("mailboxes are %+v", got)
		}
	})
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in.mbox")
	if err := os.WriteFile(in, []byte("From a Thu Jan  1 00:00:00 1970\nStatus: RO\nSubject: x\n\nHello\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	data, tree := filepath.Join(dir, "data"), filepath.Join(dir, "Maildir")
	run(t, "-account", "ann", "-mailbox", "Lists/Über", "mbox:"+in, "disk:"+data)
	run(t, "-account", "ann", "disk:"+data, "maildir:"+tree)
	again := filepath.Join(dir, "again")
	run(t, "-account", "ann", "maildir:"+tree, "disk:"+again)
	with(t, again, func(acc store.Account) {
		if got := boxes(t, acc); got["Lists/Über"].Counts.Messages != 1 || got["Lists/Über"].Counts.Unseen != 0 {
			t.Errorf("mailboxes are %+v", got)
		}
	})
	out := filepath.Join(dir, "out.mbox")
	run(t, "-account", "ann", "-mailbox", "Lists/Über", "disk:"+again, "mbox:"+out)
	text, err := os.ReadFile(out)
	if err != nil || !strings.Contains(string(text), "Subject: x\n") {
		t.Errorf("the mbox has %q, %v", text, err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"disk:a"}, {"disk:a", "nfs:b"}, {"mbox:a", "mbox:b"}, {"mbox:a", "disk:b"}, {"disk:", "disk:b"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}
