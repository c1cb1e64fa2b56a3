package queue

import (
	"math/rand/v2"
	"time"
)

// Backoff returns a schedule for Queue.Retry: first, then twice as long each
// time up to longest, each up to a fifth shorter or longer at random so that
// what failed together is not tried together again.
func Backoff(first, longest time.Duration) func(*Entry) time.Duration {
	return func(e *Entry) time.Duration {
		d := first
		for i := 1; i < e.Attempt && d < longest; i++ {
			d *= 2
		}
		return jitter(min(d, longest))
	}
}

// defaultRetry is what a nil Queue.Retry does.
func defaultRetry(e *Entry) time.Duration { return Backoff(5*time.Minute, 4*time.Hour)(e) }

func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return d
	}
	return d - d/5 + rand.N(2*d/5+1)
}

// expiry is when e becomes too old; zero = never.
func (q *Queue) expiry(e *Entry) time.Time {
	var t time.Time
	if age := or(q.MaxAge, defaultMaxAge); age > 0 {
		t = e.Since.Add(age)
	}
	if by := e.Envelope.DeliverBy; !by.IsZero() && e.Envelope.ByReturn && (t.IsZero() || by.Before(t)) {
		t = by
	}
	return t
}

// notices are when the sender of e is to hear that it is late: after
// DelayNotice, and when the time of DELIVERBY is over (RFC 2852 §4.1.3).
func (q *Queue) notices(e *Entry) (late, by time.Time) {
	if d := or(q.DelayNotice, defaultDelayNotice); d > 0 {
		late = e.Since.Add(d)
	}
	if !e.Envelope.ByReturn {
		by = e.Envelope.DeliverBy
	}
	return late, by
}

// alarm is when e must be looked at next after t if nothing else happens: for
// a notice, or for its expiry.
func (q *Queue) alarm(e *Entry, t time.Time) time.Time {
	next := q.expiry(e)
	late, by := q.notices(e)
	for _, n := range [...]time.Time{late, by} {
		if n.After(t) && (next.IsZero() || n.Before(next)) {
			next = n
		}
	}
	return next
}
