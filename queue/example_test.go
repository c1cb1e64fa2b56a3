package queue_test

import (
	"context"
	"fmt"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
)

// A backend sends through its provider, and hears what became of it.
func Example() {
	q := &queue.Queue{
		Storage: new(memqueue.Storage),
		Transport: &smtpclient.Relay{Addr: "smtp.provider.example:587",
			Auth: &smtpclient.Auth{User: "shop", Password: "secret"}, Pool: new(smtpclient.Pool)},
		Retry:  queue.Backoff(time.Minute, time.Hour),
		MaxAge: 24 * time.Hour,
		OnEvent: func(e queue.Event) {
			log.Print(e.Message.Meta["order"], " to ", e.To, ": ", e.Kind)
		},
	}
	go q.Run(context.Background())
	defer q.Shutdown(context.Background())

	ann, _ := smtp.ParseAddress("ann@example.org")
	shop, _ := smtp.ParseAddress("bounces@shop.example")
	_, err := q.Enqueue(context.Background(), queue.Mail{
		Envelope: smtp.Envelope{From: shop, To: []smtp.Recipient{{Address: ann}}},
		Key:      "order-17-shipped", // asked twice, sent once
		Meta:     map[string]string{"order": "17"},
		Body:     strings.NewReader("From: shop@shop.example\r\nSubject: Your order\r\n\r\nIt is on its way.\r\n"),
	})
	if err != nil {
		log.Print(err)
	}
}

// metrics counts events for Prometheus, in its text format.
type metrics struct {
	mu     sync.Mutex
	counts map[[2]string]int // by kind and tenant
}

func (m *metrics) add(e queue.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.counts == nil {
		m.counts = make(map[[2]string]int)
	}
	m.counts[[2]string{e.Kind.String(), e.Message.Tenant}]++
}

func (m *metrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprint(w, "# HELP mail_events_total Steps of queued mail.\n# TYPE mail_events_total counter\n")
	m.mu.Lock()
	defer m.mu.Unlock()
	label := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	for _, k := range slices.SortedFunc(maps.Keys(m.counts), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		fmt.Fprintf(w, "mail_events_total{kind=\"%s\",tenant=\"%s\"} %d\n", k[0], label.Replace(k[1]), m.counts[k])
	}
}

// Counters ready for Prometheus: an OnEvent and a handler.
func ExampleEvent_prometheus() {
	m := new(metrics)
	q := &queue.Queue{Storage: new(memqueue.Storage), OnEvent: m.add} // and a Transport
	for range 2 {
		q.Enqueue(context.Background(), queue.Mail{
			Tenant:   "shop",
			Envelope: smtp.Envelope{To: []smtp.Recipient{{Address: smtp.Address{Local: "ann", Domain: "example.org"}}}},
			Body:     strings.NewReader("Subject: Hello\r\n\r\n"),
		})
	}
	r := httptest.NewRecorder()
	m.ServeHTTP(r, nil) // http.Handle("/metrics", m)
	fmt.Print(r.Body)
	// Output:
	// # HELP mail_events_total Steps of queued mail.
	// # TYPE mail_events_total counter
	// mail_events_total{kind="queued",tenant="shop"} 2
}

// An operator holds a tenant's mail for a domain, looks at it, and sends one
// message another way.
func ExampleQueue_Hold() {
	ctx := context.Background()
	q := &queue.Queue{Storage: new(memqueue.Storage)} // and a Transport
	id, _ := q.Enqueue(ctx, queue.Mail{
		Tenant:   "shop",
		Envelope: smtp.Envelope{To: []smtp.Recipient{{Address: smtp.Address{Local: "ann", Domain: "example.org"}}}},
		Body:     strings.NewReader("Subject: Hello\r\n\r\n"),
	})
	n, err := q.Hold(ctx, queue.Filter{Tenant: "shop", Dest: "example.org"})
	fmt.Println("held", n, err)
	for e, err := range q.List(ctx, queue.Filter{Held: true}) {
		fmt.Println(e.Envelope.To[0].Address, e.Held, err)
	}
	one := queue.Filter{IDs: []queue.ID{id}}
	n, err = q.Reroute(ctx, one, "relay")
	fmt.Println("moved", n, err)
	n, err = q.Release(ctx, one)
	fmt.Println("released", n, err)
	// Output:
	// held 1 <nil>
	// ann@example.org true <nil>
	// moved 1 <nil>
	// released 1 <nil>
}
