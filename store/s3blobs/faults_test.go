package s3blobs_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/postrider/postrider/internal/objects"
	"github.com/postrider/postrider/internal/pgtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/pgqueue"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/pgstore"
	"github.com/postrider/postrider/store/s3blobs"
)

// faults is a transport that does what its function says, nil = as usual.
type faults struct {
	mu    sync.Mutex
	f     func(r *http.Request) (*http.Response, error)
	calls int
}

func (f *faults) set(fn func(r *http.Request) (*http.Response, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.f, f.calls = fn, 0
}

func (f *faults) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *faults) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	fn := f.f
	f.calls++
	f.mu.Unlock()
	if fn != nil {
		if resp, err := fn(r); resp != nil || err != nil {
			return resp, err
		}
	}
	return http.DefaultTransport.RoundTrip(r)
}

// answer is a server's error.
func answer(r *http.Request, status int, code string) (*http.Response, error) {
	if r.Body != nil {
		r.Body.Close()
	}
	text := "<Error><Code>" + code + "</Code><Message>no</Message></Error>"
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/xml"}}, ContentLength: int64(len(text)),
		Body: io.NopCloser(strings.NewReader(text)), Request: r,
	}, nil
}

func always(status int, code string) func(r *http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) { return answer(r, status, code) }
}

// late is what a transport says when its own time is over.
func late(*http.Request) (*http.Response, error) { return nil, context.DeadlineExceeded }

// hang answers nothing.
func hang(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// cut ends every answer to a GET after n octets.
func cut(n int64) func(r *http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err == nil && r.Method == http.MethodGet {
			resp.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(io.LimitReader(resp.Body, n), broken{}), resp.Body}
		}
		return resp, err
	}
}

type broken struct{}

var errReset = errors.New("connection reset by peer")

func (broken) Read([]byte) (int, error) { return 0, errReset }

// faulty returns Blobs behind faults, which do not wait long between tries.
func faulty(tb testing.TB) (*s3blobs.Blobs, *faults, string) {
	tb.Helper()
	f := new(faults)
	b, dir := bucket(tb, f)
	o := b.Client.Options()
	o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = time.Millisecond })
	b.Client = s3.New(o)
	return b, f, dir
}

func TestReadsGoOn(t *testing.T) {
	b, f, _ := faulty(t)
	body := octets(300_000)
	put(t, b, "x", body)
	got := make([]byte, len(body))
	f.set(cut(100_000))
	if n, err := b.ReadAt(t.Context(), "x", got, 0); n != len(body) || err != nil || !bytes.Equal(got, body) {
		t.Errorf("each answer cut after 100,000 octets: %d octets, %v", n, err)
	}
	f.set(cut(0))
	if n, err := b.ReadAt(t.Context(), "x", got, 0); n != 0 || !errors.Is(err, errReset) || f.count() != 3 {
		t.Errorf("each answer cut at once: %d octets, %v, %d requests", n, err, f.count())
	}
	// A server that knows no ranges, or one that changes them.
	f.set(func(r *http.Request) (*http.Response, error) {
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err == nil {
			resp.Header.Del("Content-Range")
			resp.StatusCode = http.StatusOK
		}
		return resp, err
	})
	if _, err := b.ReadAt(t.Context(), "x", got[:10], 5); err == nil {
		t.Error("a range that is not the one that was asked for was taken")
	}
}

// What was done, with the answer lost, is done.
func TestAnswerLost(t *testing.T) {
	for _, c := range []struct {
		name string
		size int
		lose func(r *http.Request) bool
	}{
		{"put", 1000, func(r *http.Request) bool { return r.Method == http.MethodPut }},
		{"part", 11 << 20, func(r *http.Request) bool { return r.URL.Query().Has("partNumber") }},
		{"complete", 11 << 20, func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Query().Has("uploadId") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, f, dir := faulty(t)
			lost := false
			f.set(func(r *http.Request) (*http.Response, error) {
				if !c.lose(r) {
					return nil, nil
				}
				if lost && c.name == "complete" {
					// Some servers say so, some say it is done.
					return answer(r, http.StatusNotFound, "NoSuchUpload")
				}
				if lost {
					return nil, nil
				}
				lost = true
				resp, err := http.DefaultTransport.RoundTrip(r)
				if err != nil {
					return nil, err
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				return nil, errReset
			})
			body := octets(c.size)
			put(t, b, "x", body)
			if !lost {
				t.Fatal("nothing was lost")
			}
			got := make([]byte, len(body))
			if _, err := b.ReadAt(t.Context(), "x", got, 0); err != nil || !bytes.Equal(got, body) {
				t.Errorf("%v", err)
			}
			if n := len(files(t, dir)); n != 1 {
				t.Errorf("%d objects", n)
			}
		})
	}
}

// Servers without DeleteObjects, or that want another checksum of it.
func TestDeleteAlone(t *testing.T) {
	for _, code := range []string{"NotImplemented", "InvalidDigest"} {
		b, f, dir := faulty(t)
		put(t, b, "x", []byte("x"))
		put(t, b, "y", []byte("y"))
		f.set(func(r *http.Request) (*http.Response, error) {
			switch {
			case r.Method == http.MethodPost:
				return answer(r, http.StatusBadRequest, code)
			case r.URL.Query().Has("uploads"):
				return answer(r, http.StatusNotImplemented, "NotImplemented")
			}
			return nil, nil
		})
		if err := b.Delete(t.Context(), "x", "y"); err != nil {
			t.Error(err)
		}
		if got := files(t, dir); len(got) != 0 {
			t.Errorf("left: %q", got)
		}
	}
}

// A server that answers nothing costs the Timeout, and not more.
func TestTimeout(t *testing.T) {
	b, f, _ := faulty(t)
	put(t, b, "x", octets(1000))
	b.Timeout = 20 * time.Millisecond
	w, err := b.Create(t.Context(), "y")
	if err != nil {
		t.Fatal(err)
	}
	f.set(hang)
	if n, err := w.Write(octets(11 << 20)); !errors.Is(err, context.DeadlineExceeded) || n > 5<<20 {
		t.Errorf("Write: %d octets, %v", n, err)
	}
	if err := w.Commit(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Commit after that: %v", err)
	}
	if err := w.Close(); err != nil { // nothing was begun
		t.Errorf("Close: %v", err)
	}
	if _, err := b.ReadAt(t.Context(), "x", make([]byte, 10), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ReadAt: %v", err)
	}
	if err := b.Delete(t.Context(), "x", "y"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Delete: %v", err)
	}
	for _, err := range b.List(t.Context(), "", time.Now()) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("List: %v", err)
		}
	}
}

// Many servers know no checksums of S3's: they come with what S3 requires them
// of only.
func TestNoChecksums(t *testing.T) {
	b, f, _ := faulty(t)
	seen := make(map[string]bool)
	f.set(func(r *http.Request) (*http.Response, error) {
		what := r.Method
		switch q := r.URL.Query(); {
		case q.Has("uploads"):
			what += " uploads"
		case q.Has("partNumber"):
			what += " part"
		case q.Has("uploadId"):
			what += " upload"
		case q.Has("delete"):
			what += " delete"
		}
		seen[what] = true
		for name, v := range r.Header {
			name = strings.ToLower(name)
			if what != "POST delete" && (strings.Contains(name, "checksum") || strings.Contains(name, "trailer")) {
				t.Errorf("%s: %s: %s", what, name, v)
			}
		}
		if v := r.Header.Get("Content-Encoding"); v != "" {
			t.Errorf("%s: Content-Encoding: %s", what, v)
		}
		return nil, nil
	})
	put(t, b, "x", octets(1000))
	put(t, b, "y", octets(6<<20))
	if _, err := b.ReadAt(t.Context(), "x", make([]byte, 10), 0); err != nil {
		t.Error(err)
	}
	if err := b.Delete(t.Context(), "x", "y"); err != nil {
		t.Error(err)
	}
	if len(seen) < 7 {
		t.Errorf("requests: %v", seen)
	}
}

// What the object store refuses, or does not answer in time, is a clear
// temporary error, nothing is half-done, and the same body can be tried again.
func TestUnavailable(t *testing.T) {
	for _, c := range []struct {
		name, says string
		f          func(r *http.Request) (*http.Response, error)
	}{
		{"503", "SlowDown", always(http.StatusServiceUnavailable, "SlowDown")},
		{"403", "AccessDenied", always(http.StatusForbidden, "AccessDenied")},
		{"late", "deadline", late},
		{"reset", "reset", func(*http.Request) (*http.Response, error) { return nil, errReset }},
	} {
		for _, size := range []int{100_000, 11 << 20} {
			t.Run(c.name, func(t *testing.T) {
				ctx := t.Context()
				pool := pgtest.Pool(t)
				b, f, dir := faulty(t)
				schema := pgtest.Schema(t, pool)
				s := openStore(t, pool, pgstore.Options{Schema: schema, Blobs: b, BlobsAbove: every})
				q := openQueue(t, pool, pgqueue.Options{Schema: schema, Blobs: b, BlobsAbove: every})
				acc := account(t, s, "ann")
				body := octets(size)
				check := func(what string, err error, want error) {
					t.Helper()
					if !errors.Is(err, want) || !strings.Contains(err.Error(), c.says) {
						t.Errorf("%s: %v", what, err)
					}
				}
				// One that is small enough is complete at the end only.
				st, err := s.Stage(ctx, int64(size))
				if err != nil {
					t.Fatal(err)
				}
				qs, err := q.Stage(ctx, int64(size))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := st.Write(body); err != nil {
					t.Fatal(err)
				}
				if _, err := qs.Write(body); err != nil {
					t.Fatal(err)
				}
				f.set(c.f)
				_, err = acc.Append(ctx, store.Inbox, []store.Draft{{Body: st}}, store.AppendOptions{})
				check("Append", err, store.ErrUnavailable)
				_, err = acc.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader(body)}}, store.AppendOptions{})
				check("Append of a body that is not staged", err, store.ErrUnavailable)
				for _, err := range store.Deliver(ctx, s, store.Draft{Body: st}, []store.Target{{Account: "ann"}}) {
					check("Deliver", err, store.ErrUnavailable)
				}
				sub := submission(qs)
				check("Put", q.Put(ctx, sub), pgqueue.ErrUnavailable)
				other := submission(&memory{body})
				check("Put of a body that is not staged", q.Put(ctx, other), pgqueue.ErrUnavailable)

				f.set(nil)
				r, err := acc.Append(ctx, store.Inbox, []store.Draft{{Body: st}}, store.AppendOptions{})
				if err != nil || r.Messages[0].UID != 1 {
					t.Fatalf("Append again: %v, %v", r.Messages, err)
				}
				st.Close()
				if err := q.Put(ctx, sub); err != nil {
					t.Fatalf("Put again: %v", err)
				}
				same(t, acc, r.Messages[0], body)
				blob, err := q.Open(ctx, sub.Message)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(io.NewSectionReader(blob, 0, blob.Size()))
				if err != nil || !bytes.Equal(got, body) {
					t.Errorf("from the queue: %d octets, %v", len(got), err)
				}
				// Reads.
				f.set(c.f)
				open, err := acc.Open(ctx, r.Messages[0])
				if err != nil {
					t.Fatal(err)
				}
				n, err := open.ReadAt(make([]byte, 100), 0)
				check("a read", err, store.ErrUnavailable)
				if n != 0 {
					t.Errorf("%d octets", n)
				}
				// The sweep tries again when the object store is back.
				if err := s.Sweep(ctx); !errors.Is(err, store.ErrUnavailable) {
					t.Errorf("Sweep: %v", err)
				}
				if err := q.Sweep(ctx); !errors.Is(err, pgqueue.ErrUnavailable) {
					t.Errorf("Sweep of the queue: %v", err)
				}
				f.set(nil)
				settle(t, pool, schema, s, q)
				if n := len(files(t, dir)); n != 2 {
					t.Errorf("%d objects, want that of the message and that of the queue", n)
				}
				if got := names(t, b, "", time.Now().Add(time.Hour)); len(got) != 2 {
					t.Errorf("objects and uploads: %q", got)
				}
			})
		}
	}
}

// memory is a queue.Staged that no storage made.
type memory struct{ b []byte }

func (m *memory) Write(p []byte) (int, error) { m.b = append(m.b, p...); return len(p), nil }
func (m *memory) Size() int64                 { return int64(len(m.b)) }
func (m *memory) Close() error                { return nil }
func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.b).ReadAt(p, off)
}

func submission(body queue.Staged) *queue.Submission {
	m := &queue.Message{ID: queue.NewID(), Received: time.Now()}
	to := smtp.Recipient{Address: smtp.Address{Local: "bob", Domain: "example.org"}}
	return &queue.Submission{Message: m, Body: body, Entries: []*queue.Entry{{
		ID: queue.NewID(), Message: m, Lane: queue.Lane{Dest: "example.org"}, Due: time.Now(),
		Envelope: smtp.Envelope{From: smtp.Address{Local: "ann", Domain: "example.net"}, To: []smtp.Recipient{to}},
	}}}
}

// A body that was changed, cut or lost is an error, and not other octets.
func TestDamage(t *testing.T) {
	for _, c := range []struct {
		name string
		harm func(path string) error
		ok   int64 // what can still be read
	}{
		{"flipped", func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			p := make([]byte, 1)
			if _, err := f.ReadAt(p, 150_000); err != nil {
				return err
			}
			p[0] ^= 4
			_, err = f.WriteAt(p, 150_000)
			return err
		}, 2 * objects.Block},
		{"cut", func(path string) error { return os.Truncate(path, 290_000) }, 4 * objects.Block},
		{"empty", func(path string) error { return os.Truncate(path, 0) }, 0},
		{"lost", os.Remove, 0},
		{"another", func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("x"), 300_000), 0o600) }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			pool := pgtest.Pool(t)
			b, dir := bucket(t, nil)
			schema := pgtest.Schema(t, pool)
			s := openStore(t, pool, pgstore.Options{Schema: schema, Blobs: b})
			q := openQueue(t, pool, pgqueue.Options{Schema: schema, Blobs: b})
			acc := account(t, s, "ann")
			body := octets(300_000)
			r, err := acc.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader(body)}}, store.AppendOptions{})
			if err != nil {
				t.Fatal(err)
			}
			sub := submission(&memory{body})
			if err := q.Put(ctx, sub); err != nil {
				t.Fatal(err)
			}
			for _, path := range files(t, dir) {
				if err := c.harm(path); err != nil {
					t.Fatal(err)
				}
			}
			of := func(what string, blob store.Blob, err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
				defer blob.Close()
				got, err := io.ReadAll(io.NewSectionReader(blob, 0, blob.Size()))
				if !errors.Is(err, objects.ErrDamaged) || errors.Is(err, store.ErrUnavailable) || errors.Is(err, pgqueue.ErrUnavailable) {
					t.Errorf("%s: %v", what, err)
				}
				if !bytes.HasPrefix(body, got) || int64(len(got)) > c.ok {
					t.Errorf("%s: %d octets were read, of which %d could be", what, len(got), c.ok)
				}
				if c.ok > 0 {
					p := make([]byte, 100)
					if _, err := blob.ReadAt(p, 50); err != nil || !bytes.Equal(p, body[50:150]) {
						t.Errorf("%s: what is whole: %v", what, err)
					}
				}
			}
			blob, err := acc.Open(ctx, r.Messages[0])
			of("store", blob, err)
			blob2, err := q.Open(ctx, sub.Message)
			of("queue", blob2, err)
		})
	}
}

// A call that is cancelled leaves nothing.
func TestCancelledAppend(t *testing.T) {
	pool := pgtest.Pool(t)
	b, f, dir := faulty(t)
	schema := pgtest.Schema(t, pool)
	s := openStore(t, pool, pgstore.Options{Schema: schema, Blobs: b})
	q := openQueue(t, pool, pgqueue.Options{Schema: schema, Blobs: b})
	acc := account(t, s, "ann")
	ctx, cancel := context.WithCancel(t.Context())
	f.set(func(r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodPut && r.URL.Query().Get("partNumber") == "2" {
			cancel()
		}
		return nil, nil
	})
	_, err := acc.Append(ctx, store.Inbox, []store.Draft{{Body: bytes.NewReader(octets(11 << 20))}}, store.AppendOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Append: %v", err)
	}
	f.set(nil)
	settle(t, pool, schema, s, q)
	if got := append(names(t, b, "", time.Now().Add(time.Hour)), files(t, dir)...); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}
