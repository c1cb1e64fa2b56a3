package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/examples/internal/page"
)

// TestJourney makes the journey and looks at what it leaves.
func TestJourney(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := os.Create(filepath.Join(t.TempDir(), "out.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	dir := filepath.Join(t.TempDir(), "kept")
	p := page.New(out, true, dir)
	err = travel(ctx, p)
	text, rerr := os.ReadFile(out.Name())
	if rerr != nil {
		t.Fatal(rerr)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if held, failed := p.Checks(); failed != 0 || held < 40 {
		t.Errorf("%d checks held, %d failed", held, failed)
	}
	if strings.Contains(string(text), "\x1b[") {
		t.Error("colour in a file")
	}
	for _, name := range []string{"1-composed.eml", "3-queued.eml", "4-bounce.eml", "7-read.eml", "2-smtp-submission.txt", "5-smtp-transfer.txt", "7-imap-idle.txt", "7-pop3.txt"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(b) == 0 {
			t.Errorf("%s: %v, %d octets", name, err, len(b))
		}
		if strings.Contains(string(b), password) {
			t.Errorf("%s shows the password", name)
		}
	}
	if strings.Contains(string(text), password) {
		t.Error("the output shows the password")
	}
}

// TestChecksBite shows that a check that fails ends the journey in an error.
func TestChecksBite(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p := page.New(out, false, "")
	p.Check(true, "this holds")
	p.Check(false, "this does not")
	if err := p.Finish("Arrived."); err == nil {
		t.Error("a failed check is no failure")
	}
}
