package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// metrics counts what the queue tells, for Prometheus: its text format needs no
// library.
type metrics struct {
	mu     sync.Mutex
	steps  map[string]int64       // by kind of event
	bounce map[report.Class]int64 // failed and expired
	ages   []int64                // delivered, by ageBounds; the last = older
	age    float64                // the sum of all of them, in seconds
}

// ageBounds are the buckets of how old messages are when they are delivered,
// in seconds.
func ageBounds() []float64 { return []float64{0.1, 1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600} }

// maxCounted bounds how many entries one scrape counts.
const maxCounted = 100_000

func newMetrics() *metrics {
	m := &metrics{steps: map[string]int64{}, bounce: map[report.Class]int64{}, ages: make([]int64, len(ageBounds())+1)}
	// A counter that comes into being with its first event looks flat.
	for _, k := range []queue.EventKind{queue.EventQueued, queue.EventDelivered, queue.EventDeferred, queue.EventFailed, queue.EventExpired} {
		m.steps[k.String()] = 0
	}
	return m
}

// event is for the queue's OnEvent.
func (m *metrics) event(e queue.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.steps[e.Kind.String()]++
	switch e.Kind {
	case queue.EventDelivered:
		age := e.Time.Sub(e.Message.Received).Seconds()
		i, _ := slices.BinarySearch(ageBounds(), age)
		m.ages[i]++
		m.age += age
	case queue.EventFailed, queue.EventExpired:
		m.bounce[classOf(e.Result)]++
	}
}

// classOf is why a message was not delivered.
func classOf(r smtp.Result) report.Class {
	code, text := r.Reply.Enhanced, r.Reply.String()
	var e *smtp.Error
	if r.Reply.Code == 0 && errors.As(r.Err, &e) {
		code, text = e.Enhanced, e.Reply().String()
	}
	return report.ClassOf(code, text)
}

// write writes all of it, with what q holds now.
func (m *metrics) write(ctx context.Context, b *bytes.Buffer, q *queue.Queue) error {
	held, waiting, sending, n := 0, 0, 0, 0
	for e, err := range q.List(ctx, queue.Filter{}) {
		switch {
		case err != nil:
			return err
		case e.Held:
			held++
		case e.Owner != "":
			sending++
		default:
			waiting++
		}
		if n++; n == maxCounted {
			break
		}
	}
	fmt.Fprintf(b, "# HELP postrider_queue_entries Entries in the queue, of the first %d.\n# TYPE postrider_queue_entries gauge\n", maxCounted)
	fmt.Fprintf(b, "postrider_queue_entries{state=\"held\"} %d\npostrider_queue_entries{state=\"sending\"} %d\npostrider_queue_entries{state=\"waiting\"} %d\n", held, sending, waiting)
	m.mu.Lock()
	defer m.mu.Unlock()
	fmt.Fprint(b, "# HELP postrider_queue_events_total Steps of recipients, of entries for queued and held.\n# TYPE postrider_queue_events_total counter\n")
	for _, k := range slices.Sorted(maps.Keys(m.steps)) {
		fmt.Fprintf(b, "postrider_queue_events_total{kind=%q} %d\n", k, m.steps[k])
	}
	fmt.Fprint(b, "# HELP postrider_queue_bounces_total Recipients given up, by reason.\n# TYPE postrider_queue_bounces_total counter\n")
	for _, c := range slices.Sorted(maps.Keys(m.bounce)) {
		fmt.Fprintf(b, "postrider_queue_bounces_total{class=%q} %d\n", string(c), m.bounce[c])
	}
	fmt.Fprint(b, "# HELP postrider_queue_delivery_age_seconds How old messages were when they were delivered.\n# TYPE postrider_queue_delivery_age_seconds histogram\n")
	sum := int64(0)
	for i, n := range m.ages {
		le := "+Inf"
		if i < len(m.ages)-1 {
			le = strconv.FormatFloat(ageBounds()[i], 'g', -1, 64)
		}
		sum += n
		fmt.Fprintf(b, "postrider_queue_delivery_age_seconds_bucket{le=%q} %d\n", le, sum)
	}
	fmt.Fprintf(b, "postrider_queue_delivery_age_seconds_sum %g\npostrider_queue_delivery_age_seconds_count %d\n", m.age, sum)
	return nil
}

// serveMetrics answers GET /metrics until the server it returns is closed.
func (r *relay) serveMetrics(l net.Listener) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, req *http.Request) {
		var b bytes.Buffer
		if err := r.metrics.write(req.Context(), &b, r.queue); err != nil {
			slog.Error("metrics", "err", err)
			http.Error(w, "the queue cannot be read", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		b.WriteTo(w)
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	r.wg.Go(func() { srv.Serve(l) })
	return srv
}
