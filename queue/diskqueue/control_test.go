package diskqueue_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/diskqueue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/queue/webhook"
	"github.com/postrider/postrider/smtp"
)

// restarted is a queue on one directory, through any number of processes.
type restarted struct {
	*testing.T
	dir string
	st  *diskqueue.Storage
	q   *queue.Queue
	tr  *queuetest.Transport
}

func (r *restarted) open() {
	r.Helper()
	st, err := diskqueue.Open(r.dir, &diskqueue.Options{KeepEvents: true})
	if err != nil {
		r.Fatal(err)
	}
	r.st, r.tr = st, new(queuetest.Transport)
	r.q = &queue.Queue{Storage: st, Transport: r.tr, Log: slog.New(slog.DiscardHandler)}
}

func (r *restarted) close() {
	r.Helper()
	if err := r.st.Close(); err != nil {
		r.Error(err)
	}
}

func (r *restarted) send(to string) {
	r.Helper()
	a, err := smtp.ParseAddress(to)
	if err != nil {
		r.Fatal(err)
	}
	from := smtp.Address{Local: "a", Domain: "from.test"}
	_, err = r.q.Enqueue(r.Context(), queue.Mail{Envelope: smtp.Envelope{From: from, To: []smtp.Recipient{{Address: a}}},
		Body: strings.NewReader("Subject: x\r\n\r\nx\r\n")})
	if err != nil {
		r.Fatal(err)
	}
}

// drain runs the queue until n entries are left.
func (r *restarted) drain(n int) {
	r.Helper()
	ended := make(chan error, 1)
	go func() { ended <- r.q.Run(context.Background()) }()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		left := 0
		for _, err := range r.q.List(r.Context(), queue.Filter{}) {
			if err != nil {
				r.Fatal(err)
			}
			left++
		}
		if left == n {
			break
		}
		if time.Now().After(end) {
			r.Fatalf("%d entries are left, want %d", left, n)
		}
	}
	if err := r.q.Shutdown(context.Background()); err != nil {
		r.Error(err)
	}
	if err := <-ended; err != nil {
		r.Error(err)
	}
}

// What an operator asked for is done by the process after.
func TestControlSurvivesRestart(t *testing.T) {
	r := &restarted{T: t, dir: t.TempDir()}
	r.open()
	for _, to := range []string{"a@held.test", "a@ended.test", "a@paused.test", "a@moved.test", "a@free.test"} {
		r.send(to)
	}
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	must(r.q.Hold(ctx, queue.Filter{Dest: "held.test"}))
	must(r.q.Bounce(ctx, queue.Filter{Dest: "ended.test"}, nil))
	must(nil, r.q.Suspend(ctx, queue.Filter{Dest: "paused.test"}))
	must(r.q.Redirect(ctx, queue.Filter{}, smtp.Address{Local: "a", Domain: "moved.test"}, smtp.Address{Local: "b", Domain: "other.test"}))
	r.close()

	r.open()
	if rules, err := r.q.Suspended(ctx); err != nil || len(rules) != 1 || rules[0].Dest != "paused.test" {
		t.Errorf("rules %v, %v", rules, err)
	}
	r.drain(2)
	got := make(map[string]int)
	for _, d := range r.tr.Deliveries() {
		got[d.Envelope.To[0].String()]++
	}
	if len(got) != 3 || got["a@from.test"] != 1 || got["b@other.test"] != 1 || got["a@free.test"] != 1 {
		t.Errorf("delivered %v, want the notice, what was redirected, and what is free", got)
	}
	r.close()

	r.open()
	must(nil, r.q.Resume(ctx, queue.Filter{Dest: "paused.test"}))
	must(r.q.Release(ctx, queue.Filter{}))
	r.drain(0)
	if n := len(r.tr.Deliveries()); n != 2 {
		t.Errorf("%d deliveries in the end", n)
	}
	r.close()
}

// An edit of what was being delivered when the process ended is made, and told,
// by the one after.
func TestEditSurvivesCrash(t *testing.T) {
	r := &restarted{T: t, dir: t.TempDir()}
	r.open()
	r.send("a@one.test")
	o := queue.NewOwner()
	if _, err := r.st.Renew(t.Context(), o, time.Minute); err != nil {
		t.Fatal(err)
	}
	if leases, err := r.st.Lease(t.Context(), o, []queue.Want{{Lane: queue.Lane{Dest: "one.test"}, Max: 1}}); err != nil || len(leases) != 1 {
		t.Fatal(leases, err)
	}
	if n, err := r.q.Hold(t.Context(), queue.Filter{}); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	r.close()
	r.open()
	defer r.close()
	for e, err := range r.q.List(t.Context(), queue.Filter{}) {
		if err != nil || !e.Held || e.Owner != "" {
			t.Errorf("%+v, %v", e, err)
		}
	}
	reader := queue.NewReader()
	if _, err := r.st.Renew(t.Context(), reader, time.Minute); err != nil {
		t.Fatal(err)
	}
	events, err := r.st.NextEvents(t.Context(), reader, 10)
	if err != nil || len(events) != 2 || events[0].Kind != queue.EventQueued || events[1].Kind != queue.EventHeld {
		t.Errorf("events %+v, %v", events, err)
	}
}

// The events that nobody took are told by the process after, in their order.
func TestWebhookSurvivesRestart(t *testing.T) {
	var mu sync.Mutex
	var kinds []string
	down := true
	secret := []byte("secret")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		events, err := webhook.Read(req, 0, secret)
		mu.Lock()
		defer mu.Unlock()
		if err != nil || down {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		for _, e := range events {
			kinds = append(kinds, e.Kind+" "+e.Lane)
		}
	}))
	defer srv.Close()
	r := &restarted{T: t, dir: t.TempDir()}
	run := func(until func() bool) {
		t.Helper()
		ctx, cancel := context.WithCancel(context.Background())
		d := &webhook.Deliverer{Storage: r.st, URL: srv.URL, Secret: secret, Log: slog.New(slog.DiscardHandler), Retry: 10 * time.Millisecond}
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		for end := time.Now().Add(time.Minute); !until(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("events %v", kinds)
				break
			}
		}
		cancel()
		<-ended
	}
	r.open()
	r.send("a@one.test")
	r.drain(0)
	tries := 0
	run(func() bool { tries++; return tries > 10 })
	r.close()
	mu.Lock()
	down = false
	mu.Unlock()
	r.open()
	r.send("a@two.test")
	run(func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(kinds) >= 3
	})
	r.close()
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(kinds, ", "); got != "queued one.test, delivered one.test, queued two.test" {
		t.Errorf("events %s", got)
	}
}
