package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/smtp/smtptest"
)

func parsed(t *testing.T, args ...string) *config {
	t.Helper()
	c, err := parse(args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// number finds the number behind a word of the table, -1 without one.
func number(table, name string) int {
	m := regexp.MustCompile(`(?m)^ *` + name + ` +([0-9,]+) `).FindStringSubmatch(table)
	if m == nil {
		return -1
	}
	n, _ := strconv.Atoi(strings.ReplaceAll(m[1], ",", ""))
	return n
}

// runUntil runs s until its sums are as they should be, and returns the table.
func runUntil(t *testing.T, s *sender, rows rows, enough func(sums) bool) string {
	t.Helper()
	defer s.close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				// A recipient is counted as waiting before anything else.
				if u := s.tally.sums(); u.merged && enough(u) && s.far.owed.Load() == 0 {
					cancel()
				}
			}
		}
	})
	var out strings.Builder
	err := s.run(ctx, rows, newBar(&out, look{}))
	late := errors.Is(ctx.Err(), context.DeadlineExceeded)
	cancel()
	wg.Wait()
	if err != nil || late {
		t.Fatalf("%v, in time: %v\n%s", err, !late, out.String())
	}
	return out.String()
}

// made is a sender of the example's text.
func made(t *testing.T, c *config) *sender {
	t.Helper()
	m, err := newMerge(c, campaignText)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSender(c, m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFlags(t *testing.T) {
	for args, want := range map[string]string{
		"stray":                  "unexpected argument",
		"-from nobody":           "-from: ",
		"-bounces x":             "-bounces: ",
		"-relay a:25":            "-relay needs -csv",
		"-relay a:25 -csv x":     "BULK_SECRET",
		"-concurrency 0":         "-concurrency",
		"-csv /no/such":          "/no/such",
		"-template /no/such":     "/no/such",
		"-template main_test.go": "-template: want",
		"-n 1 -dkim s1":          "-dkim: want",
		"-n 1 -dkim s1:/no/such": "-dkim: open /no/such",
		"-n 1 -suppress main.go": "-suppress: ",
		"-n 1 -data /dev/null":   "/dev/null",
		"-csv main.go":           "no column is called email",
	} {
		c, err := parse(strings.Fields(args), io.Discard)
		if err == nil {
			err = run(t.Context(), c, io.Discard, look{})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

// TestBulk is a run with nothing said, of fewer people.
func TestBulk(t *testing.T) {
	c := parsed(t, "-n", "500", "-data", t.TempDir(), "-suppress", filepath.Join(t.TempDir(), "never"), "-patience", "2m")
	s := made(t, c)
	// Five are for a host that is down, and all others come to their end.
	table := runUntil(t, s, invented(c.n), func(u sums) bool { return u.waiting == 5 })
	delivered, bounced := number(table, "delivered"), number(table, "bounced")
	if delivered+bounced != 495 || number(table, "deferred") != 5 || number(table, "recipients") != 500 || bounced < 5 || number(table, "bad-mailbox") < 3 {
		t.Errorf("the table:\n%s", table)
	}
	returned := len(s.tally.returned)
	if s.far.received != delivered+returned || s.far.lacking != 0 || returned == 0 {
		t.Errorf("the far side has %d messages, %d of them not as bulk mail should be, and returned %d", s.far.received, s.far.lacking, returned)
	}
	if strings.Contains(table, "\x1b") || strings.Contains(table, "\r") {
		t.Errorf("a bar in a file: %q", table)
	}

	// Once more: nobody gets it twice, and those who are down are waited for.
	var out strings.Builder
	if err := run(t.Context(), parsed(t, "-n", "500", "-data", c.data, "-patience", "1s"), &out, look{}); err != nil {
		t.Fatal(err)
	}
	if table := out.String(); number(table, "sent before") != 500 || number(table, "deferred") != 5 || number(table, "delivered") != 0 {
		t.Errorf("the second time:\n%s", table)
	}
	// Another campaign leaves those alone whose address is no good.
	out.Reset()
	if err := run(t.Context(), parsed(t, "-n", "500", "-data", t.TempDir(), "-campaign", "summer", "-suppress", c.suppress, "-patience", "1s"), &out, look{}); err != nil {
		t.Fatal(err)
	}
	if table := out.String(); number(table, "suppressed") < 3 || number(table, "bad-mailbox") > 0 {
		t.Errorf("another campaign:\n%s", table)
	}
}

// TestCSV merges a file and sends it through a relay.
func TestCSV(t *testing.T) {
	t.Setenv("BULK_SECRET", "s")
	t.Setenv("RELAY_PASSWORD", "pw")
	dir := t.TempDir()
	relay := (&smtptest.Server{}).Run(t)
	relay.Inject(smtptest.Fault{At: smtptest.Rcpt, Match: "gone@", Reply: "550 5.1.1 No such user"})
	list, text := filepath.Join(dir, "list.csv"), filepath.Join(dir, "text.txt")
	for name, content := range map[string]string{
		list: "\ufeffemail, name ,city\nann@a.test,Ann,\"Köln, am Rhein\"\nnot an address,X,Y\nonly@two.test,fields\nann@A.test,Ann again,Rome\ngone@a.test,Gone,Rome\n",
		text: "Subject: {{.name}} in {{.city}}\r\n\r\nHello {{.name}}!\r\n",
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	c := parsed(t, "-csv", list, "-template", text, "-relay", relay.Addr, "-data", filepath.Join(dir, "data"), "-rate", "50")
	if err := run(t.Context(), c, &out, look{}); err != nil {
		t.Fatal(err)
	}
	table := out.String()
	if number(table, "delivered") != 1 || number(table, "bounced") != 1 || number(table, "sent before") != 1 || number(table, "unusable") != 2 ||
		!strings.Contains(table, "line 3: email \"not an address\"") || !strings.Contains(table, "line 4: ") {
		t.Errorf("the table:\n%s", table)
	}
	got := relay.Messages()
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	h := got[0].Header()
	// Which of Ann's two lines came first is chance.
	if s := got[0].Subject(); s != "Ann in Köln, am Rhein" && s != "Ann again in Rome" {
		t.Errorf("Subject: %s", s)
	}
	if !strings.HasPrefix(got[0].Envelope.From.String(), "b+") || !strings.HasSuffix(got[0].Envelope.From.String(), "+ann=a.test@shop.example") || !strings.HasPrefix(got[0].Text(), "Hello Ann") ||
		!strings.HasPrefix(h.Get("List-Unsubscribe"), "<https://shop.example/unsubscribe?mac=") || h.Get("List-Unsubscribe-Post") != "List-Unsubscribe=One-Click" {
		t.Errorf("from %s:\n%s", got[0].Envelope.From, got[0].Data)
	}
	never, err := os.ReadFile(filepath.Join(c.data, "suppressed"))
	if err != nil || string(never) != "gone@a.test\n" {
		t.Errorf("suppressed: %q, %v", never, err)
	}

	// A column that the file does not have.
	if err := os.WriteFile(text, []byte("Subject: x\n\nHello {{.nmae}}!\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := run(t.Context(), parsed(t, "-csv", list, "-template", text, "-campaign", "2"), &out, look{}); err != nil {
		t.Fatal(err)
	}
	if table := out.String(); number(table, "unusable") != 5 || !strings.Contains(table, "nmae") || number(table, "delivered") != 0 {
		t.Errorf("a column that is not there:\n%s", table)
	}
}

// TestInterrupt ends a run in the middle; the next one goes on.
func TestInterrupt(t *testing.T) {
	data := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	next, n := invented(300), 0
	s := made(t, parsed(t, "-n", "300", "-data", data))
	var out strings.Builder
	err := s.run(ctx, func() (row, int, error) {
		if n++; n == 150 {
			cancel()
		}
		return next()
	}, newBar(&out, look{}))
	s.close()
	if err != nil {
		t.Fatal(err)
	}
	first := number(out.String(), "delivered") + number(out.String(), "bounced")
	if first >= 297 {
		t.Errorf("it was not interrupted:\n%s", out.String())
	}
	s = made(t, parsed(t, "-n", "300", "-data", data, "-patience", "2m"))
	runUntil(t, s, invented(300), func(u sums) bool { return u.waiting == 3 })
	u := s.tally.sums()
	if second := u.delivered + u.bounced; first+second != 297 {
		t.Errorf("%d at first, and then %d", first, second)
	}
}

// TestMemory merges more than memory may hold.
func TestMemory(t *testing.T) {
	if raced {
		t.Skip("with the race detector the heap has more in it than messages")
	}
	const n, each = 600, 100 << 10
	c := parsed(t, "-n", strconv.Itoa(n), "-data", t.TempDir(), "-patience", "1ns", "-concurrency", "20")
	m, err := newMerge(c, "Subject: x\n\n"+strings.Repeat(strings.Repeat("x", 63)+"\n", each/64))
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSender(c, m)
	if err != nil {
		t.Fatal(err)
	}
	b := newBar(io.Discard, look{})
	err = s.run(t.Context(), invented(n), b)
	s.close()
	if err != nil {
		t.Fatal(err)
	}
	if b.peak > n*each/2 {
		t.Errorf("%d MB of heap for %d MB of messages", b.peak>>20, n*each>>20)
	}
}

func TestBar(t *testing.T) {
	s := sums{delivered: 6_000, bounced: 1_000, waiting: 3_000, deferred: 1_000}
	for _, l := range []look{{}, {live: true}, {live: true, colour: true}} {
		t.Run(fmt.Sprintf("%+v", l), func(t *testing.T) {
			var out strings.Builder
			b := newBar(&out, l)
			b.last = time.Now().Add(-time.Second)
			b.show(s)
			got := out.String()
			if strings.Contains(got, "\x1b[32m") != l.colour || (got != "") != l.live {
				t.Errorf("%q", got)
			}
			if l.live && (strings.Count(got, "█") != 21 || strings.Count(got, "▒") != 3 || strings.Count(got, "░") != 6 || !strings.Contains(got, "of 10,000…")) {
				t.Errorf("%q", got)
			}
		})
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := count(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}
