package queue

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/postrider/postrider/smtp"
)

// Queue is the engine. It needs a Storage and a Transport; of all else the
// zero value is the default. Its fields must not change once it is used. All
// methods may be called from many goroutines.
type Queue struct {
	Storage   Storage
	Transport Transport

	// For chooses the Transport of an entry, by its Lane or whatever else it
	// says; nil, or a nil result = Transport. Sites are named by Transport all
	// the same.
	For func(e *Entry) Transport

	// Hostname names this host in notices; "" = os.Hostname.
	Hostname string

	// Concurrency bounds the deliveries at one time; 0 = 200.
	Concurrency int
	// PerTenant bounds those of one tenant; 0 or negative = Concurrency.
	PerTenant int
	// PerSite bounds those to one site, which starts at a quarter of it and
	// earns the rest; 0 = 20, negative = Concurrency.
	PerSite int
	// TenantConcurrency and SiteConcurrency, if not nil, say it for one of
	// them; 0 = PerTenant, PerSite.
	TenantConcurrency, SiteConcurrency func(name string) int
	// PerLane bounds those of one lane; 0 = PerSite, negative = Concurrency.
	PerLane int
	// Limiter bounds rates; nil = none does. Queues that share a Storage share
	// the limits of tenants and sites above: each takes its part. Rates they
	// share only with a Limiter that they share.
	Limiter Limiter
	// Cost says how much of each rate a delivery takes, for those who count
	// recipients or kilobytes; nil, or less than 1 = 1. An entry begins when
	// there is room for one: what it takes beyond that is debt, for which
	// those after it wait.
	Cost func(e *Entry) int

	// Retry says how long to wait after e.Attempt attempts before the next
	// one; 0 or less = give up. It may look at e.Lane, for a schedule for each
	// destination, and at e.Last. nil = Backoff(5*time.Minute, 4*time.Hour).
	Retry func(e *Entry) time.Duration
	// MaxAge is when an entry expires; 0 = 5 days, negative = never.
	// An earlier DELIVERBY time wins.
	MaxAge time.Duration
	// MaxAttempts is how often an entry is tried; 0 = as often as its age
	// allows.
	MaxAttempts int
	// DelayNotice is when senders hear that their mail is late, as far as
	// NOTIFY lets them; 0 = 4 hours, negative = never.
	DelayNotice time.Duration

	// Suppressor knows who must not be written to; nil = anybody may. It is
	// asked when mail is queued and before each attempt. Those it names are
	// an event, and a notice only where NOTIFY asks for one.
	Suppressor Suppressor

	// ReturnPath makes the reverse-path of each recipient, so that what comes
	// back says whom it is about; nil = that of the mail. Recipients with one
	// of their own are entries of their own. The null reverse-path stays as it
	// is. Package queue/feedback has one to use, and reads what comes back.
	ReturnPath func(m *Message, from, to smtp.Address) smtp.Address

	// LeaseTime is after what time without a sign of life another queue may
	// take this one's entries; 0 = 30 s. Renewed at a third of it.
	LeaseTime time.Duration

	// OnEvent hears of each event after the step it speaks of was stored, at
	// most once. It is called on the goroutine that made the step, so it
	// must be quick.
	OnEvent func(Event)
	// Log is where failures go; nil = slog.Default().
	Log *slog.Logger

	mu    sync.Mutex
	state state
	run   *run
	fixed bool // for a test: sites have all of their limit, whatever they say
}

type state uint8

const (
	idle state = iota
	running
	over
)

// ErrClosed is returned by Run after Shutdown or Close came first.
var ErrClosed = errors.New("queue: closed")

var errRunning = errors.New("queue: Run was called before")

// Defaults of Queue.
const (
	defaultConcurrency = 200
	defaultPerSite     = 20
	defaultMaxAge      = 5 * 24 * time.Hour
	defaultDelayNotice = 4 * time.Hour
	defaultLeaseTime   = 30 * time.Second
)

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func (q *Queue) hostname() string {
	if q.Hostname != "" {
		return q.Hostname
	}
	if h, err := os.Hostname(); err == nil && h != "" {
		return h
	}
	return "localhost"
}

func (q *Queue) log() *slog.Logger {
	if q.Log != nil {
		return q.Log
	}
	return slog.Default()
}

// Run leases and delivers until Shutdown or Close, and then returns nil, or
// until ctx is done, which is as Close. It returns when its last goroutine
// has. A Queue runs once.
func (q *Queue) Run(ctx context.Context) error {
	r := newRun(q)
	q.mu.Lock()
	switch q.state {
	case running:
		q.mu.Unlock()
		return errRunning
	case over:
		q.mu.Unlock()
		return ErrClosed
	}
	q.state, q.run = running, r
	q.mu.Unlock()
	stop := context.AfterFunc(ctx, r.cut)
	r.main()
	stop()
	q.mu.Lock()
	q.state = over
	q.mu.Unlock()
	close(r.done)
	return ctx.Err()
}

// Shutdown leases nothing more and waits for the deliveries under way and
// their outcomes. When ctx is done first, it returns its error, and what is
// under way goes on: call Close then.
func (q *Queue) Shutdown(ctx context.Context) error {
	r := q.end()
	if r == nil {
		return nil
	}
	r.drain()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the deliveries that can still be ended; they are put back as if
// they had not been tried. It waits for those whose final dot is sent: close
// the Transport to cut even these, which makes their outcome Unsure.
func (q *Queue) Close() error {
	r := q.end()
	if r == nil {
		return nil
	}
	r.cut()
	<-r.done
	return nil
}

// end makes sure that Run does not start any more and returns the run there is.
func (q *Queue) end() *run {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state == idle {
		q.state = over
	}
	return q.run
}
