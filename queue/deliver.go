package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postrider/postrider/smtp"
)

// job is one lease being worked on, by one goroutine.
type job struct {
	lease   *Lease
	lane    *lane // nil = an alarm
	cost    int   // of it with the Limiter
	started time.Time
	// For the scheduler, once the delivery has ended: what it says of the
	// site, and when the entry is to be tried again.
	verdict verdict
	tried   bool
	retry   time.Time
	// And once the outcome is written: when the entry is due again.
	next, alarm time.Time
}

// do works on a lease until its outcome is written.
func (r *run) do(leased context.Context, j *job) {
	e := j.lease.Entry
	ctx, cancel := context.WithCancel(leased)
	defer cancel()
	r.mu.Lock()
	r.active[e.ID] = cancel
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.active, e.ID)
		r.mu.Unlock()
	}()

	o := &Outcome{Lease: j.lease, Last: e.Last, Due: e.Due, Alarm: e.Alarm, Attempt: e.Attempt}
	now := time.Now()
	end := r.q.expiry(e)
	switch {
	case !end.IsZero() && !now.Before(end):
		r.q.settle(o, make([]fate, len(e.Envelope.To)), now)
	case e.ended():
		r.q.settle(o, make([]fate, len(e.Envelope.To)), now)
	case j.lane == nil:
		r.q.alarmed(o, now)
	case r.pausedEntry(e):
		o.Held, o.Suspended = true, true
		r.q.event(o, EventHeld, now, smtp.Recipient{}, smtp.Result{})
	default:
		r.try(ctx, j, o)
	}
	if j.lane != nil {
		if len(o.Done) < len(e.Envelope.To) && !o.Held {
			j.retry = o.Due
		}
		r.delivered(j)
	}
	if !r.finish(o) {
		return
	}
	if len(o.Done) < len(e.Envelope.To) && !o.Held {
		j.next, j.alarm = o.Due, o.Alarm
	}
	if o.Suspended && !r.pausedEntry(e) { // the rule ended meanwhile
		r.resume(r.base, []Filter{{IDs: []ID{e.ID}}})
	}
}

// delivered tells the scheduler that a job's delivery has ended.
func (r *run) delivered(j *job) {
	r.mu.Lock()
	r.attempts = append(r.attempts, j)
	r.mu.Unlock()
	r.kick()
}

// try attempts a delivery to those who may be written to.
func (r *run) try(ctx context.Context, j *job, o *Outcome) {
	e := j.lease.Entry
	fates := make([]fate, len(e.Envelope.To))
	no, err := r.q.suppressed(ctx, e.Lane.Tenant, e.Envelope.To)
	if err != nil {
		if ctx.Err() == nil {
			r.q.log().Error("queue: asking whom not to write to", "entry", e.ID, "err", err)
			o.Due = time.Now().Add(jitter(time.Minute))
		}
		return
	}
	for i, err := range no {
		if err != nil {
			fates[i] = fate{EventSuppressed, smtp.Result{Err: err}}
		}
	}
	var key string
	if r.q.Limiter != nil && !e.Envelope.From.IsZero() {
		key = "sender " + e.Envelope.From.String()
		granted, again, err := r.q.Limiter.Take(ctx, key, 1)
		if err != nil {
			if ctx.Err() == nil {
				r.q.log().Error("queue: asking the limiter", "entry", e.ID, "err", err)
				o.Due = time.Now().Add(jitter(time.Minute))
			}
			return
		}
		if granted < 1 {
			o.Due = r.turns.after(key, again, time.Now())
			return
		}
		r.owe(key, j.cost-1)
	}
	r.attempt(ctx, j, o, fates)
	if key != "" && !j.tried {
		r.q.Limiter.Give(key, j.cost)
	}
}

// fate is what an attempt means for one recipient.
type fate struct {
	kind   EventKind // 0 = it was not tried, or its time is over
	result smtp.Result
}

// attempt delivers once, to those who have no fate yet, and notes the outcome.
func (r *run) attempt(ctx context.Context, j *job, o *Outcome, fates []fate) {
	e := j.lease.Entry
	env := e.Envelope
	env.HoldUntil, env.HoldRequest = time.Time{}, "" // it was held here (RFC 4865 §4)
	if slices.ContainsFunc(fates, func(f fate) bool { return f.kind != 0 }) {
		env.To = nil
		for i := range fates {
			if fates[i].kind == 0 {
				env.To = append(env.To, e.Envelope.To[i])
			}
		}
	}
	sent := len(env.To)
	if sent == 0 {
		r.q.settle(o, fates, time.Now())
		return
	}
	body := &lazyBody{ctx: ctx, storage: r.q.Storage, m: e.Message}
	results := r.deliver(ctx, e, &env, body)
	unread := body.close()
	now := time.Now()

	tried := sent < len(fates)
	delivered := false
	k := -1 // of the recipients it was sent to
	for i := range fates {
		f := &fates[i]
		if f.kind != 0 {
			continue
		}
		k++
		switch {
		case k < len(results):
			f.result = results[k]
		default:
			f.result.Err = fmt.Errorf("queue: the transport returned %d results for %d recipients", len(results), sent)
		}
		if f.result.Err != nil && unread != nil {
			f.result.Err = &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 3, 0},
				Text: "Cannot read the message", Scope: smtp.ScopeMessage, Err: unread}
		}
		f.kind = kindOf(f.result.Err, ctx)
		delivered = delivered || f.kind == EventDelivered
		if f.kind != 0 {
			tried, j.tried = true, true
		}
		j.verdict = max(j.verdict, verdictOf(f.result.Err))
	}
	if unread != nil && !errors.Is(unread, context.Canceled) {
		j.verdict = vNone
		r.q.log().Error("queue: reading a message", "message", e.Message.ID, "err", unread)
	}
	if delivered {
		j.verdict = vWell
	}
	if !tried { // cut short: put back as it was
		return
	}
	if j.tried {
		o.Attempt++
	}
	r.q.settle(o, fates, now)
}

// deliver calls the transport; it panics for nobody.
func (r *run) deliver(ctx context.Context, e *Entry, env *smtp.Envelope, body *lazyBody) (results []smtp.Result) {
	defer func() {
		if p := recover(); p != nil {
			r.q.log().Error("queue: the transport panicked", "panic", p)
			err := fmt.Errorf("queue: the transport panicked: %v", p)
			results = make([]smtp.Result, len(env.To))
			for i := range results {
				results[i].Err = err
			}
		}
	}()
	if r.q.For != nil {
		if t := r.q.For(e); t != nil {
			return t.Deliver(ctx, env, body)
		}
	}
	return r.q.Transport.Deliver(ctx, env, body)
}

// kindOf says what an error means; ctx is the delivery's.
func kindOf(err error, ctx context.Context) EventKind {
	if err == nil {
		return EventDelivered
	}
	var e *smtp.Error
	known := errors.As(err, &e)
	if (!known || !e.Unsure) && ctx.Err() != nil &&
		(errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return 0
	}
	if known && !e.Temporary() && !e.Unsure {
		return EventFailed
	}
	return EventDeferred
}

func verdictOf(err error) verdict {
	if err == nil {
		return vNone
	}
	var e *smtp.Error
	switch {
	case !errors.As(err, &e):
		return vNone
	case errors.Is(err, context.Canceled):
		return vNone
	case e.Scope == smtp.ScopeRoute:
		return vRoute
	case e.Scope == smtp.ScopeHost:
		return vHost
	}
	return vAnswer
}

// settle writes the fates of an entry's recipients into o: who is done, what
// is tried again and when, the notices and the events. Recipients whose time
// is over, or that were tried often enough, are done too.
func (q *Queue) settle(o *Outcome, fates []fate, now time.Time) {
	e := o.Lease.Entry
	end := q.expiry(e)
	tooOld := !end.IsZero() && !now.Before(end)
	gaveUp := tooOld
	var delay time.Duration
	if !tooOld && slices.ContainsFunc(fates, func(f fate) bool { return f.kind == EventDeferred }) {
		tried := *e
		tried.Attempt = o.Attempt
		tried.Last = make([]smtp.Result, len(fates))
		for i := range fates {
			tried.Last[i] = fates[i].result
		}
		delay = q.retry(&tried)
		gaveUp = delay <= 0 || q.MaxAttempts > 0 && o.Attempt >= q.MaxAttempts
	}
	o.Done, o.Last = nil, nil
	if delay > 0 && !gaveUp {
		o.Due = now.Add(delay)
	}
	n := q.notice(e, now)
	for i, f := range fates {
		to := e.Envelope.To[i]
		if f.kind == 0 { // not tried now: what was said last stands
			f.result = smtp.Result{}
			if i < len(e.Last) {
				f.result = e.Last[i]
			}
		}
		if e := final(&f.result); f.kind == 0 && e != nil {
			if f.kind = EventFailed; expired(e) {
				f.kind = EventExpired
			}
		}
		if tooOld && f.kind == 0 || gaveUp && f.kind == EventDeferred {
			f.kind = EventExpired
		}
		if f.kind == 0 || f.kind == EventDeferred {
			o.Last = append(o.Last, f.result)
		} else {
			o.Done = append(o.Done, i)
			n.add(f.kind, to, f.result)
		}
		if f.kind != 0 {
			q.event(o, f.kind, now, to, f.result)
		}
	}
	q.notify(o, &n, now)
}

// retry asks the schedule.
func (q *Queue) retry(e *Entry) time.Duration {
	if q.Retry != nil {
		return q.Retry(e)
	}
	return defaultRetry(e)
}

// alarmed looks at an entry whose alarm is due but which is not too old:
// notices that became due since its alarm was set are owed.
func (q *Queue) alarmed(o *Outcome, now time.Time) {
	e := o.Lease.Entry
	o.Alarm = q.alarm(e, now)
	due := func(t time.Time) bool { return !t.IsZero() && !t.After(now) && !t.Before(e.Alarm) }
	late, by := q.notices(e)
	if !due(late) && !due(by) {
		return // the alarm was for something else, or the settings changed
	}
	n := q.notice(e, now)
	n.late = due(by)
	for i, to := range e.Envelope.To {
		var last smtp.Result
		if i < len(e.Last) {
			last = e.Last[i]
		}
		n.add(EventDelayed, to, last)
		q.event(o, EventDelayed, now, to, last)
	}
	q.notify(o, &n, now)
}

// notice begins one about e.
func (q *Queue) notice(e *Entry, now time.Time) notice {
	return notice{env: &e.Envelope, now: now,
		late: e.Envelope.ByReturn && !e.Envelope.DeliverBy.IsZero() && !now.Before(e.Envelope.DeliverBy)}
}

// event adds an event to o.
func (q *Queue) event(o *Outcome, kind EventKind, now time.Time, to smtp.Recipient, res smtp.Result) {
	e := o.Lease.Entry
	ev := Event{ID: NewID(), Kind: kind, Time: now, Message: e.Message, Entry: e.ID, Lane: e.Lane,
		From: e.Envelope.From, To: to.Address, Attempt: o.Attempt, Result: res}
	if kind == EventDeferred {
		ev.Next = o.Due
	}
	o.Events = append(o.Events, ev)
}

// lazyBody opens a message when it is read first: a host that cannot be
// reached costs no read.
type lazyBody struct {
	ctx     context.Context
	storage Storage
	m       *Message

	once   sync.Once
	blob   Blob
	closed atomic.Bool
	mu     sync.Mutex
	err    error
}

func (b *lazyBody) Size() int64 { return b.m.Size }

func (b *lazyBody) ReadAt(p []byte, off int64) (int, error) {
	b.once.Do(func() {
		blob, err := b.storage.Open(b.ctx, b.m)
		b.blob = blob
		b.fail(err)
	})
	if b.blob == nil || b.closed.Load() {
		return 0, cmp.Or(b.failure(), errBodyClosed)
	}
	n, err := b.blob.ReadAt(p, off)
	if err != io.EOF {
		b.fail(err)
	}
	return n, err
}

func (b *lazyBody) fail(err error) {
	if err != nil {
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
	}
}

func (b *lazyBody) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

var errBodyClosed = errors.New("queue: body read after its delivery")

// close ends the reading, whoever still tries to, and returns what went wrong
// with it.
func (b *lazyBody) close() error {
	b.once.Do(func() {}) // it is not opened any more
	b.closed.Store(true)
	if b.blob != nil {
		b.blob.Close()
	}
	return b.failure()
}
