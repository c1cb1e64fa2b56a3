package transfer_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postrider/postrider/mime/maildir"
	"github.com/postrider/postrider/mime/mbox"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/transfer"
)

// noSummary drops what files do not keep from lines of content: the Summary of
// what comes in is computed.
func noSummary(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		head, rest, _ := strings.Cut(l, " \"")
		out[i] = head[:strings.LastIndex(head, "}")+12] + rest
	}
	slices.Sort(out)
	return out
}

func TestMbox(t *testing.T) {
	for _, format := range []mbox.Format{mbox.RD, mbox.CL2} {
		from, to := account(t), account(t)
		fill(t, from, store.Inbox, 150)
		quoted := store.Draft{Body: bytes.NewReader([]byte("Return-Path: <ann@example.org>\r\nSubject: x\r\n\r\nFrom me\r\n>From you\r\n"))}
		if _, err := from.Append(t.Context(), store.Inbox, []store.Draft{quoted}, store.AppendOptions{}); err != nil {
			t.Fatal(err)
		}
		var file bytes.Buffer
		w := mbox.NewWriter(&file)
		w.Format = format
		r, err := transfer.ToMbox(t.Context(), w, from, store.Inbox, transfer.Options{})
		if err != nil || r.Messages != 151 {
			t.Fatalf("ToMbox: %+v, %v", r, err)
		}
		if !strings.Contains(file.String(), "From ann@example.org ") {
			t.Error("the From_ line does not have the Return-Path")
		}
		r, err = transfer.FromMbox(t.Context(), to, store.Inbox, mbox.NewReader(bytes.NewReader(file.Bytes())), transfer.Options{})
		if err != nil || r.Messages != 151 {
			t.Fatalf("FromMbox: %+v, %v", r, err)
		}
		equal(t, to, from)
	}
}

func equal(t *testing.T, to, from store.Account) {
	t.Helper()
	x, y := noSummary(content(t, to, store.Inbox, false)), noSummary(content(t, from, store.Inbox, false))
	if len(x) != len(y) {
		t.Fatalf("%d messages, want %d", len(x), len(y))
	}
	for i := range x {
		if x[i] != y[i] {
			t.Fatalf("got\n%s\nwant\n%s", x[i], y[i])
		}
	}
}

func TestMaildir(t *testing.T) {
	from, to := account(t), account(t)
	fill(t, from, store.Inbox, 70)
	dir := maildir.Dir(filepath.Join(t.TempDir(), "Maildir"))
	r, err := transfer.ToMaildir(t.Context(), dir, from, store.Inbox, transfer.Options{})
	if err != nil || r.Messages != 70 {
		t.Fatalf("ToMaildir: %+v, %v", r, err)
	}
	var last transfer.Progress
	r, err = transfer.FromMaildir(t.Context(), to, store.Inbox, dir, transfer.Options{Progress: func(p transfer.Progress) { last = p }})
	if err != nil || r.Messages != 70 || last.Messages != 70 {
		t.Fatalf("FromMaildir: %+v, %+v, %v", r, last, err)
	}
	equal(t, to, from)
}

func TestBadFiles(t *testing.T) {
	a := account(t)
	_, err := transfer.FromMbox(t.Context(), a, store.Inbox, mbox.NewReader(strings.NewReader("no mbox\n")), transfer.Options{})
	if !errors.Is(err, mbox.ErrFormat) {
		t.Errorf("no mbox: %v", err)
	}
	whole := "From a Thu Jan  1 00:00:00 1970\nSubject: x\nContent-Length: 5\n\nbody\n\n"
	cut := whole + "From a Thu Jan  1 00:00:00 1970\nSubject: y\nContent-Length: 5000\n\nbody\n"
	rd := mbox.NewReader(io.MultiReader(strings.NewReader(cut)))
	rd.Format = mbox.CL2
	r, err := transfer.FromMbox(t.Context(), a, store.Inbox, rd, transfer.Options{})
	if !errors.Is(err, io.ErrUnexpectedEOF) || r.Messages != 1 {
		t.Errorf("a cut mbox: %+v, %v", r, err)
	}
	if n := boxes(t, a)["INBOX"].Counts.Messages; n != 1 {
		t.Errorf("a cut mbox left %d messages, want the whole one", n)
	}
	if _, err := transfer.FromMaildir(t.Context(), a, store.Inbox, maildir.Dir(filepath.Join(t.TempDir(), "none")), transfer.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no Maildir: %v", err)
	}
	if _, err := transfer.ToMbox(t.Context(), mbox.NewWriter(io.Discard), a, "none", transfer.Options{}); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("no mailbox: %v", err)
	}
}
