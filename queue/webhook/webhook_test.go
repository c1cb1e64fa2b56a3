package webhook_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/queue/webhook"
	"github.com/postrider/postrider/smtp"
)

var secret = []byte("a secret of 32 octets or more ..")

// receiver is a web server without a network.
type receiver struct {
	t      *testing.T
	answer func(nth int) (status int, err error)

	mu      sync.Mutex
	calls   int
	batches [][]webhook.Event // taken
	header  http.Header
}

func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	status, err := 204, error(nil)
	if r.answer != nil {
		status, err = r.answer(r.calls)
	}
	if err != nil {
		return nil, err
	}
	r.header = req.Header
	events, err := webhook.Read(req, 0, secret)
	if err != nil {
		r.t.Errorf("reading a request: %v", err)
	}
	if status/100 == 2 {
		r.batches = append(r.batches, events)
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(strings.NewReader(""))}, nil
}

func (r *receiver) called() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls
}

func (r *receiver) kinds() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var kinds []string
	for _, b := range r.batches {
		for _, e := range b {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}

// log fills a storage's event log with n events.
func log(t *testing.T, st *memqueue.Storage, n int) {
	t.Helper()
	q := &queue.Queue{Storage: st}
	for i := range n {
		_, err := q.Enqueue(t.Context(), queue.Mail{Tenant: "t", Meta: map[string]string{"n": fmt.Sprint(i)},
			Envelope: smtp.Envelope{To: []smtp.Recipient{{Address: smtp.Address{Local: "r", Domain: "one.test"}}}},
			Body:     strings.NewReader("Subject: x\r\n\r\n")})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// start runs d and returns what ends it.
func start(t *testing.T, d *webhook.Deliverer) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- d.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	}
}

func deliverer(st queue.Storage, r *receiver) *webhook.Deliverer {
	return &webhook.Deliverer{Storage: st, URL: "https://app.test/events", Secret: secret, Client: &http.Client{Transport: r},
		Log: slog.New(slog.DiscardHandler)}
}

// inOrder checks that n events were taken once each, in their order.
func (r *receiver) inOrder(n int) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	i := 0
	for _, b := range r.batches {
		for _, e := range b {
			if e.Meta["n"] != fmt.Sprint(i) {
				r.t.Fatalf("event %s is number %d", e.Meta["n"], i)
			}
			i++
		}
	}
	if i != n {
		r.t.Errorf("%d events came, want %d", i, n)
	}
}

func TestBatchesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &memqueue.Storage{KeepEvents: true}
		r := &receiver{t: t}
		log(t, st, 250)
		stop := start(t, deliverer(st, r))
		synctest.Wait()
		r.inOrder(250)
		if len(r.batches) != 3 {
			t.Errorf("%d batches", len(r.batches))
		}
		if r.header.Get("Content-Type") != "application/json" {
			t.Errorf("header %v", r.header)
		}
		time.Sleep(time.Hour) // it lives longer than a lease
		stop()
	})
}

// A receiver that fails gets the same again, later and later, and nothing
// comes before it.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &memqueue.Storage{KeepEvents: true}
		r := &receiver{t: t, answer: func(nth int) (int, error) {
			switch {
			case nth < 4:
				return 500, nil
			case nth < 8:
				return 0, errors.New("no route to host")
			case nth < 12:
				return 302, nil
			}
			return 200, nil
		}}
		log(t, st, 150)
		stop := start(t, deliverer(st, r))
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := r.called(); n < 4 || n > 8 {
			t.Errorf("%d calls in the first minute", n)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		r.inOrder(150)
		stop()
	})
}

// What was under way when the process ended comes again, and only that.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &memqueue.Storage{KeepEvents: true}
		r := &receiver{t: t, answer: func(nth int) (int, error) {
			if nth == 2 {
				return 503, nil
			}
			return 200, nil
		}}
		log(t, st, 250)
		d := deliverer(st, r)
		d.Retry, d.RetryMax = time.Hour, time.Hour
		stop := start(t, d)
		synctest.Wait() // the second batch waits
		stop()
		stop = start(t, d)
		synctest.Wait() // nobody waits for the lease of the one before
		r.inOrder(250)
		stop()
	})
}

// cutLog loses the acknowledgement of the first batch, as a crash does.
type cutLog struct {
	*memqueue.Storage
	acks int
}

func (c *cutLog) AckEvents(ctx context.Context, ids ...queue.ID) error {
	if c.acks++; c.acks == 1 {
		<-ctx.Done()
		return ctx.Err()
	}
	return c.Storage.AckEvents(ctx, ids...)
}

func TestAtLeastOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &memqueue.Storage{KeepEvents: true}
		r := &receiver{t: t}
		log(t, st, 10)
		d := deliverer(&cutLog{Storage: st}, r)
		stop := start(t, d)
		synctest.Wait()
		stop()
		stop = start(t, d)
		synctest.Wait()
		stop()
		if len(r.batches) != 2 || len(r.batches[0]) != 10 || len(r.batches[1]) != 10 || r.batches[0][3].ID != r.batches[1][3].ID {
			t.Errorf("batches %v", r.batches)
		}
	})
}

func TestMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &memqueue.Storage{KeepEvents: true}
		var back atomic.Bool
		r := &receiver{t: t, answer: func(int) (int, error) {
			if !back.Load() {
				return 410, nil
			}
			return 200, nil
		}}
		log(t, st, 150)
		d := deliverer(st, r)
		d.MaxAge = 2 * time.Hour
		stop := start(t, d)
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		back.Store(true)
		log(t, st, 1)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got := r.kinds(); len(got) != 1 && len(got) != 51 { // the second batch was not tried before
			t.Errorf("%d events came", len(got))
		}
		stop()
	})
}

func TestOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &memqueue.Storage{KeepEvents: true}
		q := &queue.Queue{Storage: st, Log: slog.New(slog.DiscardHandler), Retry: queue.Backoff(time.Minute, time.Minute),
			Transport: &queuetest.Transport{Answer: func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
				if d.Nth == 1 {
					return d.Refuse(451, smtp.ScopeRecipient)
				}
				return d.Refuse(550, smtp.ScopeRecipient)
			}}}
		log(t, st, 1)
		go q.Run(context.Background())
		r := &receiver{t: t}
		d := deliverer(st, r)
		d.Only = func(e *queue.Event) bool { return e.Kind != queue.EventQueued }
		stop := start(t, d)
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := fmt.Sprint(r.kinds()); got != "[deferred failed]" {
			t.Errorf("events %s", got)
		}
		e := r.batches[len(r.batches)-1][0]
		if e.To != "r@one.test" || e.From != "<>" || e.Code != 550 || e.Attempt != 2 || e.Tenant != "t" || e.Class == "" || e.Message.IsZero() {
			t.Errorf("event %+v", e)
		}
		stop()
		q.Close()
		if n := st.Used(); n != 0 {
			t.Errorf("%d octets in use: events were not forgotten", n)
		}
	})
}

func TestNoEventLog(t *testing.T) {
	d := &webhook.Deliverer{Storage: struct{ queue.Storage }{new(memqueue.Storage)}}
	if err := d.Run(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Run: %v", err)
	}
}

func TestVerify(t *testing.T) {
	now := time.Unix(1764000000, 0)
	body := []byte(`[{"kind":"delivered"}]`)
	good := webhook.Sign(secret, now, body)
	for _, c := range []struct {
		name, value, body string
		at                time.Duration
		secrets           [][]byte
		want              error
	}{
		{"good", good, string(body), 0, [][]byte{secret}, nil},
		{"late, within", good, string(body), 4 * time.Minute, [][]byte{secret}, nil},
		{"late", good, string(body), 6 * time.Minute, [][]byte{secret}, webhook.ErrTime},
		{"early", good, string(body), -6 * time.Minute, [][]byte{secret}, webhook.ErrTime},
		{"old and new secret", good, string(body), 0, [][]byte{[]byte("new"), secret}, nil},
		{"another secret", good, string(body), 0, [][]byte{[]byte("new")}, webhook.ErrSignature},
		{"no secret", webhook.Sign(nil, now, body), string(body), 0, [][]byte{nil}, webhook.ErrSignature},
		{"none given", good, string(body), 0, nil, webhook.ErrSignature},
		{"another body", good, string(body) + " ", 0, [][]byte{secret}, webhook.ErrSignature},
		{"another time", strings.Replace(good, "t=1764000000", "t=1764000001", 1), string(body), 0, [][]byte{secret}, webhook.ErrSignature},
		{"two times", "t=1," + good, string(body), 0, [][]byte{secret}, webhook.ErrSignature},
		{"two signatures", good + ",v1=00", string(body), 0, [][]byte{secret}, nil},
		{"cut", good[:len(good)-2], string(body), 0, [][]byte{secret}, webhook.ErrSignature},
		{"empty", "", string(body), 0, [][]byte{secret}, webhook.ErrSignature},
		{"no time", good[strings.Index(good, "v1"):], string(body), 0, [][]byte{secret}, webhook.ErrSignature},
	} {
		if err := webhook.Verify(c.value, []byte(c.body), now.Add(c.at), 0, c.secrets...); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if err := webhook.Verify(good, body, now.Add(time.Hour), -1, secret); err != nil {
		t.Errorf("without a tolerance: %v", err)
	}
}

func TestRead(t *testing.T) {
	request := func(body string) *http.Request {
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Header.Set(webhook.SignatureHeader, webhook.Sign(secret, time.Now(), []byte(body)))
		return r
	}
	if events, err := webhook.Read(request(`[{"id":"`+queue.NewID().String()+`","kind":"failed"}]`), 0, secret); err != nil || len(events) != 1 || events[0].Kind != "failed" {
		t.Errorf("%+v, %v", events, err)
	}
	for _, bad := range []string{"", "{", `[{"id":"x"}]`} {
		if _, err := webhook.Read(request(bad), 0, secret); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	if _, err := webhook.Read(httptest.NewRequest("POST", "/", strings.NewReader("[]")), 0, secret); !errors.Is(err, webhook.ErrSignature) {
		t.Errorf("unsigned: %v", err)
	}
	large := httptest.NewRequest("POST", "/", io.LimitReader(zeros{}, 100<<20))
	if _, err := webhook.Read(large, 0, secret); err == nil {
		t.Error("a body without an end was read")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func FuzzVerify(f *testing.F) {
	now := time.Unix(1764000000, 0)
	f.Add(webhook.Sign(secret, now, []byte("x")), []byte("x"))
	f.Add("t=,v1=", []byte(nil))
	f.Fuzz(func(t *testing.T, value string, body []byte) {
		err := webhook.Verify(value, body, now, -1, secret)
		if err == nil && !bytes.Equal(body, []byte("x")) {
			t.Errorf("%q signs %q", value, body)
		}
		if err := webhook.Verify(webhook.Sign(secret, now, body), body, now, 0, secret); err != nil {
			t.Errorf("what was signed is refused: %v", err)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 40<<10) // a batch of 100
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		webhook.Sign(secret, time.Now(), body)
	}
}
