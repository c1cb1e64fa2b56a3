package queuetest

import (
	"context"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// Transport is a queue.Transport without a network. The zero value takes all
// mail at once.
type Transport struct {
	// Answer decides a delivery; nil = every recipient is taken. It may wait
	// for ctx.
	Answer func(ctx context.Context, d *Delivery) []smtp.Result
	// Took is how long a delivery lasts before it is answered.
	Took time.Duration
	// Site groups domains; nil = each is its own site.
	Site func(domain string) string

	mu         sync.Mutex
	deliveries []*Delivery
	running    map[string]int
	most       map[string]int
}

// Delivery is one call of Deliver.
type Delivery struct {
	Domain   string // of the recipients
	Envelope smtp.Envelope
	Body     string
	Begun    time.Time
	// Nth counts the deliveries from 1.
	Nth     int
	Results []smtp.Result // set when it was answered
}

// All returns the same result for each recipient of d.
func (d *Delivery) All(r smtp.Result) []smtp.Result {
	all := make([]smtp.Result, len(d.Envelope.To))
	for i := range all {
		all[i] = r
	}
	return all
}

// Refuse returns a negative result for each recipient of d.
func (d *Delivery) Refuse(code int, scope smtp.Scope) []smtp.Result {
	err := &smtp.Error{Code: code, Enhanced: smtp.EnhancedCode{uint16(code / 100), 0, 0}, Text: "refused by the script", Scope: scope}
	return d.All(smtp.Result{Err: err, Reply: err.Reply()})
}

// Deliver implements queue.Transport.
func (t *Transport) Deliver(ctx context.Context, env *smtp.Envelope, body queue.Body) []smtp.Result {
	d := &Delivery{Envelope: *env, Begun: time.Now()}
	d.Envelope.To = append([]smtp.Recipient(nil), env.To...)
	if len(env.To) > 0 {
		d.Domain = env.To[0].Domain
	}
	site := t.site(d.Domain)
	t.mu.Lock()
	t.deliveries = append(t.deliveries, d)
	d.Nth = len(t.deliveries)
	if t.running == nil {
		t.running, t.most = make(map[string]int), make(map[string]int)
	}
	t.running[site]++
	t.most[site] = max(t.most[site], t.running[site])
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		t.running[site]--
		t.mu.Unlock()
	}()

	var text strings.Builder
	if _, err := io.Copy(&text, io.NewSectionReader(body, 0, body.Size())); err != nil {
		return d.All(smtp.Result{Err: err})
	}
	t.mu.Lock()
	d.Body = text.String()
	t.mu.Unlock()
	if t.Took > 0 {
		timer := time.NewTimer(t.Took)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return d.All(smtp.Result{Err: ctx.Err()})
		}
	}
	var results []smtp.Result
	if t.Answer != nil {
		results = t.Answer(ctx, d)
	} else {
		results = d.All(smtp.Result{Reply: smtp.Reply{Code: 250, Text: "OK"}, Hop: &smtp.Hop{Name: d.Domain, DSN: true}})
	}
	t.mu.Lock()
	d.Results = results
	t.mu.Unlock()
	return results
}

func (t *Transport) site(domain string) string {
	if t.Site == nil {
		return domain
	}
	return t.Site(domain)
}

// Group implements queue.Grouper.
func (t *Transport) Group(ctx context.Context, domain string) (string, error) {
	return t.site(domain), ctx.Err()
}

// Deliveries returns the calls so far, in order. The last ones may not have
// been answered.
func (t *Transport) Deliveries() []Delivery {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Delivery, len(t.deliveries))
	for i, d := range t.deliveries {
		all[i] = *d
	}
	return all
}

// Most returns how many deliveries to a site ran at one time at most since
// the last call for it.
func (t *Transport) Most(site string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.most[site]
	if n > 0 {
		t.most[site] = t.running[site]
	}
	return n
}
