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
	if by := e.Envelope.DeliverBy; !by.IsZero() && (t.IsZero() || by.Before(t)) {
		t = by
	}
	return t
}

// alarm is when e must be looked at next if nothing else happens: for its
// delay notice unless that is past, then for its expiry.
func (q *Queue) alarm(e *Entry, noticed bool) time.Time {
	end := q.expiry(e)
	if late := or(q.DelayNotice, defaultDelayNotice); late > 0 && !noticed {
		if t := e.Since.Add(late); end.IsZero() || t.Before(end) {
			return t
		}
	}
	return end
}

// noticed reports whether e's delay notice is past: its alarm is the expiry
// already.
func (q *Queue) noticed(e *Entry) bool {
	late := or(q.DelayNotice, defaultDelayNotice)
	return late <= 0 || e.Alarm.IsZero() || e.Alarm.After(e.Since.Add(late))
}
