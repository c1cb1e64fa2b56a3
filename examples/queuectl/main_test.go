package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/examples/internal/control"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/diskqueue"
	"github.com/postrider/postrider/smtp"
)

// refused is a far side that answers by recipient.
type refused struct{}

func (refused) Deliver(_ context.Context, env *smtp.Envelope, _ queue.Body) []smtp.Result {
	results := make([]smtp.Result, len(env.To))
	for i := range results {
		results[i].Err = smtp.Errorf(451, smtp.EnhancedCode{4, 3, 0}, "Not now, <b>%s</b>\x1b[31m", env.To[i].Local)
	}
	return results
}

// fill queues a message to each address.
func fill(t *testing.T, q *queue.Queue, addrs ...string) {
	t.Helper()
	for _, s := range addrs {
		to, err := smtp.ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		_, err = q.Enqueue(t.Context(), queue.Mail{Envelope: smtp.Envelope{From: smtp.Address{Local: "shop", Domain: "a.test"}, To: []smtp.Recipient{{Address: to}}},
			Tenant: "shop", Campaign: "spring", Body: strings.NewReader("Subject: x\r\n\r\nx\r\n")})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// ctl runs a command.
func ctl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var b strings.Builder
	err := run(t.Context(), args, &b, io.Discard, false)
	return b.String(), err
}

func must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := ctl(t, args...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return out
}

// world is a data directory whose queue is served, as by a server.
func world(t *testing.T) (data string, q *queue.Queue, end func()) {
	t.Helper()
	data = t.TempDir()
	disk, err := diskqueue.Open(filepath.Join(data, "queue"), nil)
	if err != nil {
		t.Fatal(err)
	}
	tried := make(chan struct{}, 100)
	q = &queue.Queue{Storage: disk, Transport: refused{}, Hostname: "a.test", OnEvent: func(e queue.Event) {
		if e.Kind == queue.EventDeferred {
			tried <- struct{}{}
		}
	}}
	fill(t, q, "one@b.test", "two@b.test", "three@c.test")
	srv, err := control.Serve(data, q)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- q.Run(context.Background()) }()
	for range 3 {
		select {
		case <-tried:
		case <-time.After(time.Minute):
			t.Fatal("not all were tried")
		}
	}
	return data, q, func() {
		srv.Close()
		q.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := disk.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCommands(t *testing.T) {
	data, _, end := world(t)
	out := must(t, "-data", data)
	for _, want := range []string{"3 queued: 0 being sent, 0 new, 3 tried before\n", "shop@a.test → one@b.test\n", "451 4.3.0 Not now, <b>three</b>?[31m\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("what a stranger said reached the terminal: %q", out)
	}
	// The ID of the one to c.test, from the list.
	id := strings.Fields(strings.Split(must(t, "-data", data, "list", "-dest", "c.test"), "\n")[2])[0]

	for _, step := range []struct{ args, want, then string }{
		{"hold -dest b.test", "2 held\n", ", 2 held\n"},
		{"release -to one@b.test", "1 released\n", ", 1 held\n"},
		{"list -held", "1 queued: 0 being sent, 0 new, 0 tried before, 1 held\n", ""},
		{"release -all", "1 released\n", "3 tried before\n"},
		{"suspend -dest c.test", "suspended: to domain c.test\n", "suspended: to domain c.test\n"},
		{"resume -dest c.test", "resumed: to domain c.test\n", "3 queued"},
		{"drop " + id, "1 dropped\n", "2 queued"},
		{"retry -from shop@a.test -campaign spring", "2 due now\n", "2 queued"},
	} {
		if out := must(t, append([]string{"-data", data}, strings.Fields(step.args)...)...); !strings.Contains(out, step.want) {
			t.Errorf("%s: %q, want %q", step.args, out, step.want)
		}
		if out := must(t, "-data", data); !strings.Contains(out, step.then) {
			t.Errorf("after %s:\n%s, want %q", step.args, out, step.then)
		}
	}
	if out := must(t, "-data", data, "-limit", "1"); !strings.Contains(out, "and 1 more") {
		t.Errorf("-limit 1:\n%s", out)
	}
	if out, err := ctl(t, "-data", data, "drop", id); err == nil {
		t.Errorf("dropped twice: %s", out)
	}

	// Nobody serves any more: the directory itself.
	end()
	if out := must(t, "-data", data, "hold", "-dest", "b.test"); out != "2 held\n" {
		t.Errorf("offline: %s", out)
	}
	if out := must(t, "-data", data, "-limit", "0"); !strings.Contains(out, "2 held") || strings.Count(out, "held  ") != 2 {
		t.Errorf("offline:\n%s", out)
	}
}

func TestUsage(t *testing.T) {
	empty := t.TempDir()
	for args, want := range map[string]string{
		"list":                           "-data: which directory?",
		"-data x sing":                   `unknown command "sing"`,
		"-data x drop":                   "drop what?",
		"-data x hold -held=false":       "hold what?",
		"-data x list 17":                `"17" is no ID`,
		"-data x list -from ann":         "-from",
		"-data " + empty + " list":       "-data: stat ",
		"-data " + empty + " drop -all":  "-data: stat ",
		"-data x web -listen 127.0.0.1:": "-data: stat ",
	} {
		if out, err := ctl(t, strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v %q, want %q", args, err, out, want)
		}
	}
}

func TestPage(t *testing.T) {
	data, q, end := world(t)
	defer end()
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"-data", data, "web", "-listen", "127.0.0.1:0"}, pw, io.Discard, false)
		pw.Close()
	}()
	sc := bufio.NewScanner(pr)
	if !sc.Scan() {
		t.Fatal(<-done)
	}
	url := sc.Text()
	get := func(path, host string) (int, string, http.Header) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			req.Host = host
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b), resp.Header
	}
	if err := q.Suspend(t.Context(), queue.Filter{Tenant: "<script>"}); err != nil {
		t.Fatal(err)
	}
	code, page, h := get("", "")
	for _, want := range []string{"<h1>3 queued</h1>", `content="5"`, `<a href="/?dest=b.test">b.test</a><td class="n">2`, "Not now, &lt;b&gt;three&lt;/b&gt;", "of tenant &lt;script&gt;"} {
		if code != 200 || !strings.Contains(page, want) {
			t.Errorf("%d: %q is not in\n%s", code, want, page)
		}
	}
	if strings.Contains(page, "<script") || !strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("scripts may run: %v", h)
	}
	if _, page, _ := get("?dest=c.test", ""); !strings.Contains(page, "<h1>1 queued for c.test</h1>") {
		t.Errorf("of one destination:\n%s", page)
	}
	if code, _, _ := get("?dest=a..b", ""); code != http.StatusBadRequest {
		t.Errorf("a bad domain: %d", code)
	}
	if code, _, _ := get("", "queue.evil.test"); code != http.StatusMisdirectedRequest {
		t.Errorf("by a name that leads here: %d", code)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
