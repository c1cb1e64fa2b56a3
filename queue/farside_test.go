package queue_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/smtp"
)

// farSide is a host as there are many.
type farSide struct {
	mu      sync.Mutex
	running int
	tokens  float64
	filled  time.Time
	seen    map[string]time.Time
	begun   time.Time
	refused int

	answer func(f *farSide, d *queuetest.Delivery, running int) []smtp.Result
}

func (f *farSide) deliver(_ context.Context, d *queuetest.Delivery) []smtp.Result {
	f.mu.Lock()
	f.running++
	n := f.running
	f.mu.Unlock()
	results := f.answer(f, d, n)
	f.mu.Lock()
	f.running--
	if results[0].Err != nil {
		f.refused++
	}
	f.mu.Unlock()
	return results
}

func (f *farSide) now() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running
}

// token takes one of rate a second.
func (f *farSide) token(rate float64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if !f.filled.IsZero() {
		f.tokens += now.Sub(f.filled).Seconds() * rate
	}
	f.tokens, f.filled = min(f.tokens, rate), now
	if f.tokens < 1 {
		return false
	}
	f.tokens--
	return true
}

func ok(d *queuetest.Delivery) []smtp.Result { return d.All(smtp.Result{}) }

var farSides = []struct {
	name   string
	answer func(f *farSide, d *queuetest.Delivery, running int) []smtp.Result
}{
	{"fast", func(f *farSide, d *queuetest.Delivery, n int) []smtp.Result {
		time.Sleep(100 * time.Millisecond)
		return ok(d)
	}},
	{"10 connections", func(f *farSide, d *queuetest.Delivery, n int) []smtp.Result {
		if n > 10 {
			time.Sleep(50 * time.Millisecond)
			return d.Refuse(421, smtp.ScopeHost)
		}
		time.Sleep(300 * time.Millisecond)
		return ok(d)
	}},
	{"rate-limited, 10/s", func(f *farSide, d *queuetest.Delivery, n int) []smtp.Result {
		time.Sleep(200 * time.Millisecond)
		if !f.token(10) {
			return d.Refuse(421, smtp.ScopeHost)
		}
		return ok(d)
	}},
	{"greylisting, 5 min", func(f *farSide, d *queuetest.Delivery, n int) []smtp.Result {
		time.Sleep(300 * time.Millisecond)
		f.mu.Lock()
		defer f.mu.Unlock()
		key := d.Envelope.To[0].String()
		if first, known := f.seen[key]; known && time.Since(first) >= 5*time.Minute {
			return ok(d)
		} else if !known {
			f.seen[key] = time.Now()
		}
		return d.Refuse(451, smtp.ScopeRecipient)
	}},
	{"dead for an hour", func(f *farSide, d *queuetest.Delivery, n int) []smtp.Result {
		if time.Since(f.begun) < time.Hour {
			time.Sleep(30 * time.Second)
			return d.Refuse(451, smtp.ScopeRoute)
		}
		time.Sleep(200 * time.Millisecond)
		return ok(d)
	}},
	{"slow beyond 8", func(f *farSide, d *queuetest.Delivery, n int) []smtp.Result {
		time.Sleep(2 * time.Second)
		for i := 0; f.now() > 8; i++ { // overloaded, it does not get on
			if i == 10 {
				return d.Refuse(451, smtp.ScopeHost)
			}
			time.Sleep(time.Second)
		}
		return ok(d)
	}},
}

// outcome is how one setting did at one far side.
type outcome struct {
	took               time.Duration // until the last was delivered
	delivered, refused int
}

func tryFarSide(t *testing.T, answer func(*farSide, *queuetest.Delivery, int) []smtp.Result, fixed int) (o outcome) {
	synctest.Test(t, func(t *testing.T) {
		const n = 300
		w := newWorld(t)
		w.q.Retry = queue.Backoff(time.Minute, 15*time.Minute)
		f := &farSide{answer: answer, seen: make(map[string]time.Time), begun: time.Now()}
		w.tr.Answer = f.deliver
		if fixed > 0 {
			queue.Fix(w.q, fixed)
		}
		for i := range n {
			m := mail(fmt.Sprintf("r%d@far.test", i))
			m.Envelope.From = smtp.Address{}
			w.enqueue(m)
		}
		w.run()
		for len(w.left()) > 0 && time.Since(f.begun) < 48*time.Hour {
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		o.delivered, o.refused = w.count(queue.EventDelivered), f.refused
		got := 0
		for _, e := range w.events {
			if e.Kind == queue.EventDelivered {
				if got++; got == n*95/100 { // the last ones wait for their retry
					o.took = e.Time.Sub(f.begun)
				}
			}
		}
		w.q.Close()
		if o.delivered != n {
			t.Errorf("%d of %d delivered", o.delivered, n)
		}
	})
	return o
}

// Adaptive concurrency beside the fixed settings that one could choose if one
// knew each far side: -v prints the table.
func TestFarSides(t *testing.T) {
	fixed := []int{1, 2, 5, 10, 20, 50}
	var table strings.Builder
	fmt.Fprintf(&table, "%-20s %-18s", "far side", "adaptive")
	for _, n := range fixed {
		fmt.Fprintf(&table, " %-18s", fmt.Sprint("fixed ", n))
	}
	table.WriteString("\n")
	// By how much a setting is slower than the best fixed one, where that
	// matters most; 0 is the adaptive one.
	worst := make(map[int]float64)
	for _, side := range farSides {
		took := make(map[int]time.Duration)
		cell := func(o outcome) string { return fmt.Sprintf("%v, %d no", o.took.Round(time.Second), o.refused) }
		adaptive := tryFarSide(t, side.answer, 0)
		took[0] = adaptive.took
		fmt.Fprintf(&table, "%-20s %-18s", side.name, cell(adaptive))
		best := time.Duration(1 << 62)
		for _, n := range fixed {
			o := tryFarSide(t, side.answer, n)
			took[n], best = o.took, min(best, o.took)
			fmt.Fprintf(&table, " %-18s", cell(o))
			if n >= 5 && strings.Contains("dead for an hour slow beyond 8 10 connections", side.name) && adaptive.refused > max(o.refused, 50) {
				t.Errorf("%s: the far side refused %d times, and %d with fixed %d", side.name, adaptive.refused, o.refused, n)
			}
		}
		for n, d := range took {
			worst[n] = max(worst[n], d.Seconds()/best.Seconds())
		}
		table.WriteString("\n")
	}
	fmt.Fprintf(&table, "%-20s %-18.1f", "worst ÷ best fixed", worst[0])
	for _, n := range fixed {
		fmt.Fprintf(&table, " %-18.1f", worst[n])
		if worst[n] < worst[0] {
			t.Errorf("fixed %d is at most %.1f times as slow as the best, adaptive %.1f", n, worst[n], worst[0])
		}
	}
	t.Logf("300 messages: until 95 %% were delivered, and how often the far side refused\n%s", &table)
}
