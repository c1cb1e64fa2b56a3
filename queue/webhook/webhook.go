package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/postrider/postrider/queue"
)

// Deliverer sends the events of a log. Storage and URL must be set. Its fields
// must not change while it runs. Several may share a log, in any number of
// processes; each event goes through one of them, and the order is that of each.
type Deliverer struct {
	// Storage must be a queue.EventLog that keeps events.
	Storage queue.Storage
	URL     string
	// Secret signs each request; empty = nothing is signed.
	Secret []byte
	// Client sends; nil = one that gives up after 30 s and follows no
	// redirect.
	Client *http.Client
	// Header is added to each request.
	Header http.Header

	// Only chooses the events that are told, nil = all. The others are
	// forgotten.
	Only func(*queue.Event) bool
	// Batch is the most events of one request; 0 = 100.
	Batch int
	// Poll is how often the log is looked at; 0 = 1 s.
	Poll time.Duration
	// Retry and RetryMax are how long to wait after a failure, doubled each
	// time up to the latter; 0 = 1 s and 5 min.
	Retry, RetryMax time.Duration
	// MaxAge is when an event that nobody takes is forgotten, so that a
	// receiver which is gone does not fill the storage; 0 = 3 days, negative =
	// never.
	MaxAge time.Duration

	// Log is where failures go; nil = slog.Default().
	Log *slog.Logger
}

const leaseTime = 30 * time.Second

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func (d *Deliverer) log() *slog.Logger { return or(d.Log, slog.Default()) }

// run is one Run.
type run struct {
	*Deliverer
	client *http.Client
	events queue.EventLog
}

// Run sends until ctx is done, and returns its error. A batch under way is then
// cut, and sent again by the next Run.
func (d *Deliverer) Run(ctx context.Context) error {
	events, ok := d.Storage.(queue.EventLog)
	if !ok {
		return fmt.Errorf("webhook: the storage is no EventLog: %w", errors.ErrUnsupported)
	}
	r := &run{d, d.Client, events}
	if r.client == nil {
		r.client = &http.Client{Timeout: 30 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		defer r.client.CloseIdleConnections()
	}
	for ctx.Err() == nil {
		r.reign(ctx)
	}
	return ctx.Err()
}

// reign reads as one owner, until ctx is done or that owner is found dead.
func (d *run) reign(parent context.Context) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	owner := queue.NewReader()
	renew := func() error {
		call, end := context.WithTimeout(ctx, leaseTime/3)
		defer end()
		_, err := d.Storage.Renew(call, owner, leaseTime)
		return err
	}
	for n := 0; ; n++ {
		err := renew()
		if err == nil {
			break
		}
		d.log().Error("webhook: registering with the storage", "err", err)
		if !d.pause(ctx, n) {
			return
		}
	}
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		last := time.Now()
		t := time.NewTicker(leaseTime / 3)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			begun := time.Now()
			err := renew()
			if err == nil {
				last = begun
			} else if errors.Is(err, queue.ErrLeaseLost) || time.Since(last) > leaseTime {
				cancel()
			}
		}
	}()
	d.read(ctx, owner)
	cancel()
	<-renewed
	// What it held is for the next at once.
	call, end := context.WithTimeout(context.WithoutCancel(parent), leaseTime/6)
	defer end()
	d.Storage.Renew(call, owner, 0)
}

// read sends batch after batch.
func (d *run) read(ctx context.Context, owner queue.Owner) {
	most := or(d.Batch, 100)
	for n := 0; ; {
		events, err := d.events.NextEvents(ctx, owner, most)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, queue.ErrLeaseLost) {
				return
			}
			d.log().Error("webhook: reading the log", "err", err)
			if !d.pause(ctx, n) {
				return
			}
			n++
			continue
		}
		n = 0
		if len(events) > 0 && !d.deliver(ctx, events) {
			return
		}
		if len(events) < most && !sleep(ctx, or(d.Poll, time.Second)) {
			return
		}
	}
}

// deliver sends one batch until it was taken or became too old, and has it
// forgotten. It reports false when ctx is done first.
func (d *run) deliver(ctx context.Context, events []queue.Event) bool {
	ids := make([]queue.ID, len(events))
	for i := range events {
		ids[i] = events[i].ID
	}
	for n := 0; ; n++ {
		told := d.choose(events, n > 0)
		var err error
		if len(told) > 0 {
			err = d.post(ctx, told)
		}
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return false
		}
		d.log().Warn("webhook: not taken", "events", len(told), "failures", n+1, "err", err)
		if !d.pause(ctx, n) {
			return false
		}
	}
	for n := 0; ; n++ {
		err := d.events.AckEvents(ctx, ids...)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		d.log().Error("webhook: forgetting events that were taken", "err", err)
		if !d.pause(ctx, n) {
			return false
		}
	}
}

// choose returns what is to be told of events, and after a failure not what is
// too old by now.
func (d *run) choose(events []queue.Event, failed bool) []Event {
	maxAge := or(d.MaxAge, 72*time.Hour)
	var told []Event
	old := 0
	for i := range events {
		e := &events[i]
		switch {
		case d.Only != nil && !d.Only(e):
		case failed && maxAge > 0 && time.Since(e.Time) > maxAge:
			old++
		default:
			told = append(told, eventOf(e))
		}
	}
	if old > 0 {
		d.log().Error("webhook: forgetting events that nobody took", "count", old)
	}
	return told
}

// post sends one request.
func (d *run) post(ctx context.Context, events []Event) error {
	body, err := json.Marshal(events)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for name, values := range d.Header {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/json")
	if len(d.Secret) > 0 {
		req.Header.Set(SignatureHeader, Sign(d.Secret, time.Now(), body))
	}
	res, err := d.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	// A connection is used again when its answer was read.
	io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("webhook: the receiver answered %s", res.Status)
	}
	return nil
}

// pause waits after the nth failure in a row.
func (d *Deliverer) pause(ctx context.Context, n int) bool {
	wait := or(d.Retry, time.Second) << min(n, 20)
	if most := or(d.RetryMax, 5*time.Minute); wait > most || wait <= 0 {
		wait = most
	}
	return sleep(ctx, wait-wait/5+rand.N(2*wait/5+1))
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
