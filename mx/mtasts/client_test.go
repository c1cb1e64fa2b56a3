package mtasts_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/mx/mtasts"
	"github.com/postrider/postrider/mx/mxtest"
)

// web answers requests in memory.
type web struct {
	mu    sync.Mutex
	asked []string
	f     func(*http.Request) (*http.Response, error)
}

func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.asked = append(w.asked, r.URL.String())
	f := w.f
	w.mu.Unlock()
	return f(r)
}

func (w *web) set(f func(*http.Request) (*http.Response, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.f = f
}

func (w *web) requests() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.asked)
}

func answer(status int, contentType, body string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		return &http.Response{Status: http.StatusText(status), StatusCode: status,
			Header: http.Header{"Content-Type": {contentType}, "Location": {"https://elsewhere.test/"}}, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

const file = "version: STSv1\nmode: enforce\nmx: mx.a.test\nmax_age: 604800\n"

type world struct {
	web *web
	dns *mxtest.DNS
	c   *mtasts.Client
	log *bytes.Buffer
}

func newWorld() *world {
	w := &world{web: &web{f: answer(200, "text/plain", file)}, log: &bytes.Buffer{},
		dns: mxtest.NewDNS(mxtest.Zone{"_mta-sts.a.test": {"TXT v=STSv1; id=1;", "TXT something else"}})}
	w.c = &mtasts.Client{Resolver: w.dns, HTTP: &http.Client{Transport: w.web}, Logger: slog.New(slog.NewTextHandler(w.log, nil))}
	return w
}

// lookup says in one word what Lookup returned.
func (w *world) lookup(t *testing.T, domain string) string {
	t.Helper()
	p, err := w.c.Lookup(t.Context(), domain)
	var e *mtasts.Error
	switch {
	case err != nil && !errors.As(err, &e):
		t.Errorf("error is a %T", err)
		return ""
	case err != nil && p != nil:
		return string(e.Reason) + ", kept " + string(p.Mode)
	case err != nil:
		return string(e.Reason)
	case p == nil:
		return "none"
	}
	return string(p.Mode)
}

func TestLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		check := func(what, want string, requests int) {
			t.Helper()
			if got := w.lookup(t, "a.test"); got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
			if n := w.web.requests(); n != requests {
				t.Errorf("%s: %d requests, want %d", what, n, requests)
			}
		}
		check("first", "enforce", 1)
		if u := w.web.asked[0]; u != "https://mta-sts.a.test/.well-known/mta-sts.txt" {
			t.Error(u)
		}
		check("kept", "enforce", 1)
		w.web.set(answer(200, "text/plain; charset=utf-8", strings.Replace(file, "enforce", "testing", 1)))
		check("same id", "enforce", 1)
		w.dns.Set("_mta-sts.a.test", "TXT v=STSv1; id=2;")
		check("new id", "testing", 2)
		for _, records := range [][]string{nil, {"SERVFAIL"}, {"TXT x"}, {"TXT v=STSv1; id=5", "TXT v=STSv1; id=6"}, {"TXT v=STSv1; id="}} {
			w.dns.Set("_mta-sts.a.test", records...)
			check("no record, kept", "testing", 2)
		}
		w.dns.Set("_mta-sts.a.test", "TXT v=STSv1; id=3;")
		w.web.set(answer(404, "text/plain", "no"))
		check("fails, kept", "sts-policy-fetch-error, kept testing", 3)
		check("not again at once", "sts-policy-fetch-error, kept testing", 3)
		time.Sleep(6 * time.Minute)
		check("again", "sts-policy-fetch-error, kept testing", 4)
		time.Sleep(7 * 24 * time.Hour)
		check("too old", "sts-policy-fetch-error", 5)
		w.dns.Set("_mta-sts.a.test", "TXT v=STSv1; id=4;")
		w.web.set(answer(200, "text/plain", file))
		check("another id is tried at once", "enforce", 6)
		w.web.set(answer(200, "text/plain", "version: STSv1\nmode: none\nmax_age: 86400\n"))
		w.dns.Set("_mta-sts.a.test", "TXT v=STSv1; id=5;")
		check("none", "none", 7)
		w.dns.Set("_mta-sts.a.test")
		time.Sleep(25 * time.Hour)
		check("nothing", "none", 7)
		for _, d := range []string{"", "[192.0.2.1]", "b.test", "a..b", "sub.a.test"} {
			if got := w.lookup(t, d); got != "none" {
				t.Errorf("%q: %s", d, got)
			}
		}
	})
}

func TestFetch(t *testing.T) {
	for name, tt := range map[string]struct {
		f    func(*http.Request) (*http.Response, error)
		want string
	}{
		"redirect":   {answer(301, "text/plain", file), "sts-policy-fetch-error"},
		"no content": {answer(204, "text/plain", ""), "sts-policy-fetch-error"},
		"HTML":       {answer(200, "text/html", file), "sts-policy-fetch-error"},
		"no type":    {answer(200, "", file), "sts-policy-fetch-error"},
		"garbage":    {answer(200, "text/plain", "hello"), "sts-policy-invalid"},
		"10 MB":      {answer(200, "text/plain", file+strings.Repeat("x: y\n", 2<<20)), "sts-policy-invalid"},
		"refused":    {func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }, "sts-policy-fetch-error"},
		"endless": {func(r *http.Request) (*http.Response, error) {
			pr, pw := io.Pipe()
			go func() {
				for r.Context().Err() == nil {
					time.Sleep(time.Second)
					pw.Write([]byte("x"))
				}
				pw.CloseWithError(r.Context().Err())
			}()
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/plain"}}, Body: pr}, nil
		}, "sts-policy-fetch-error"},
		"silent": {func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, "sts-policy-fetch-error"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.web.set(tt.f)
				begun := time.Now()
				if got := w.lookup(t, "a.test"); got != tt.want {
					t.Errorf("%s, want %s", got, tt.want)
				}
				if took := time.Since(begun); took > time.Minute+time.Second {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// TestOnce: many who ask share one fetch, and one who gives up does not end it.
func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.web.set(func(r *http.Request) (*http.Response, error) {
			time.Sleep(10 * time.Second)
			return answer(200, "text/plain", file)(r)
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if p, err := w.c.Lookup(ctx, "a.test"); p != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v %v", p, err)
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if got := w.lookup(t, "a.test"); got != "enforce" {
					t.Error(got)
				}
			})
		}
		wg.Wait()
		if n := w.web.requests(); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// TestRun: what is kept is renewed before its time, and an owner hears when
// that fails.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.lookup(t, "a.test")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.c.Run(ctx) }()
		time.Sleep(36 * time.Hour)
		if n := w.web.requests(); n != 2 {
			t.Errorf("%d requests after a day and a half", n)
		}
		w.dns.Set("_mta-sts.a.test", "SERVFAIL") // and renewed all the same
		time.Sleep(24 * time.Hour)
		if n := w.web.requests(); n != 3 {
			t.Errorf("%d requests after another day", n)
		}
		w.web.set(answer(503, "text/plain", ""))
		time.Sleep(24 * time.Hour)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if !strings.Contains(w.log.String(), "cannot be renewed") {
			t.Errorf("log: %s", w.log)
		}
		if got := w.lookup(t, "a.test"); got != "enforce" {
			t.Error(got)
		}
	})
}

func TestCaches(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]mtasts.Cache{"memory": &mtasts.Memory{Max: 100}, "dir": mtasts.Dir(dir)} {
		p, err := mtasts.ParsePolicy(file)
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		if e, err := c.Get(ctx, "a.test"); e != nil || err != nil {
			t.Errorf("%s: %v %v", name, e, err)
		}
		now := time.Now()
		for _, id := range []string{"1", "2"} {
			if err := c.Put(ctx, "a.test", &mtasts.Entry{ID: id, Policy: p, Fetched: now}); err != nil {
				t.Error(err)
			}
		}
		e, err := c.Get(ctx, "a.test")
		if err != nil || e.ID != "2" || !e.Fetched.Equal(now) || e.Policy.String() != p.String() {
			t.Errorf("%s: %+v %v", name, e, err)
		}
		n := 0
		for domain, e := range c.All(ctx) {
			if n++; domain != "a.test" || e.ID != "2" {
				t.Error(domain, e)
			}
		}
		if n != 1 {
			t.Errorf("%s: %d kept", name, n)
		}
	}
	d := mtasts.Dir(dir)
	for _, domain := range []string{"", ".", "..", "../a", "a/b", `a\b`, "a\x00", "A.test", ".hidden", strings.Repeat("a", 300)} {
		if e, err := d.Get(t.Context(), domain); err == nil {
			t.Errorf("%q: %v", domain, e)
		}
		if err := d.Put(t.Context(), domain, &mtasts.Entry{Policy: &mtasts.Policy{}}); err == nil {
			t.Errorf("%q was written", domain)
		}
	}
	// A broken file is an error for its domain, and nothing for the others.
	if err := os.WriteFile(filepath.Join(dir, "b.test.sts"), []byte(`{"id":"1","policy":"x"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Get(t.Context(), "b.test"); err == nil {
		t.Error("a broken file is read")
	}
	n := 0
	for range d.All(t.Context()) {
		n++
	}
	if files, _ := filepath.Glob(filepath.Join(dir, ".*")); n != 1 || len(files) > 0 {
		t.Errorf("%d kept, %v left behind", n, files)
	}
	var m mtasts.Memory
	m.Max = 50
	for i := range 1000 {
		m.Put(t.Context(), strings.Repeat("a", i%200+1)+".test", &mtasts.Entry{Policy: &mtasts.Policy{}})
	}
	n = 0
	for range m.All(t.Context()) {
		n++
	}
	if n != 50 {
		t.Errorf("%d kept in memory", n)
	}
}
