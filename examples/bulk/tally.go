package main

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// tally counts what became of the messages. It keeps numbers, and no message.
type tally struct {
	mu         sync.Mutex
	begin      time.Time
	news       time.Time // when the last message came to its end, or was put off at first
	rows       int       // lines read
	unusable   []string  // the first lines that were no good
	bad        int
	again      int // queued in an earlier run
	waiting    int // not come to an end
	deferred   int // of them: tried, and put off
	delivered  int
	suppressed int
	bounced    map[report.Class]int
	returned   map[queue.ID]bool // whose bounce came back later
	merged     bool              // all lines are read
}

func newTally() *tally {
	now := time.Now()
	return &tally{begin: now, news: now, bounced: map[report.Class]int{}, returned: map[queue.ID]bool{}}
}

// event is the queue's OnEvent. It returns the class of a bounce.
func (t *tally) event(e queue.Event) report.Class {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.From.IsZero() {
		return "" // a notice, not ours
	}
	end := func() {
		t.news = time.Now()
		t.waiting--
		if e.Attempt > 1 {
			t.deferred--
		}
	}
	switch e.Kind {
	case queue.EventQueued:
		t.waiting++
	case queue.EventDeferred:
		if e.Attempt == 1 {
			t.news = time.Now()
			t.deferred++
		}
	case queue.EventDelivered:
		end()
		t.delivered++
	case queue.EventFailed, queue.EventExpired:
		end()
		class := classOf(e.Result)
		t.bounced[class]++
		return class
	case queue.EventSuppressed, queue.EventDropped:
		end()
		t.suppressed++
	}
	return ""
}

// found counts what an earlier run left in the queue.
func (t *tally) found(e *queue.Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Envelope.From.IsZero() {
		return // a notice
	}
	t.waiting += len(e.Envelope.To)
	if e.Attempt > 0 {
		t.deferred += len(e.Envelope.To)
	}
}

// cameBack counts a bounce of what had been delivered, once.
func (t *tally) cameBack(message queue.ID, class report.Class) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.returned[message] {
		return
	}
	t.returned[message] = true
	t.news = time.Now()
	t.delivered--
	t.bounced[class]++
}

// read counts a line.
func (t *tally) read() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows++
}

// refuse counts a line that is no good.
func (t *tally) refuse(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bad++; len(t.unusable) < 5 {
		t.unusable = append(t.unusable, why)
	}
}

// repeat counts a line that was queued before.
func (t *tally) repeat() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.again++
}

// settled reports whether there is nothing to wait for any more: all have come
// to their end, and linger for bounces is over, or nothing has happened for as
// long as there was patience. Those to a host that is down may not even have
// been tried by then: the queue asks such a host with one message at a time.
func (t *tally) settled(linger, patience time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting == 0 {
		patience = linger
	}
	return t.merged && time.Since(t.news) >= patience
}

// sums are numbers for the bar and the table.
type sums struct {
	rows, bad, again, waiting, deferred, delivered, suppressed, bounced int
	classes                                                             []report.Class // the most frequent first
	counts                                                              map[report.Class]int
	unusable                                                            []string
	merged                                                              bool
	took                                                                time.Duration // until the last news
}

func (t *tally) sums() sums {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := sums{rows: t.rows, bad: t.bad, again: t.again, waiting: t.waiting, deferred: t.deferred, delivered: t.delivered,
		suppressed: t.suppressed, counts: map[report.Class]int{}, unusable: slices.Clone(t.unusable), merged: t.merged, took: t.news.Sub(t.begin)}
	for c, n := range t.bounced {
		s.bounced += n
		s.counts[c] = n
		s.classes = append(s.classes, c)
	}
	slices.SortFunc(s.classes, func(a, b report.Class) int {
		if d := s.counts[b] - s.counts[a]; d != 0 {
			return d
		}
		return strings.Compare(string(a), string(b))
	})
	return s
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
