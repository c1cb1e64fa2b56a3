package queuetest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// Crasher is a storage whose disk can be had as a crash would leave it. An
// Opener that is given Config.Step returns one if it can.
type Crasher interface {
	queue.Storage
	queue.Lister
	// Crash takes what would be left if the machine stopped at this moment.
	// Step calls it, so it waits for no method of the storage. open makes a
	// storage of it.
	Crash() (open Opener)
}

// crashes stops the machine before each step of the storage's disk, and holds
// what is left against the state before and after the method that ran: it must
// be the one or the other, and the latter once the method has returned.
func (s *suite) crashes() {
	type image struct {
		during int // operation
		open   Opener
	}
	var mu sync.Mutex
	var images []image
	running := -1
	var crasher Crasher
	s.storage = s.opened(Config{Step: func() {
		mu.Lock()
		defer mu.Unlock()
		if running >= 0 {
			images = append(images, image{running, crasher.Crash()})
		}
	}})
	crasher = optional[Crasher](s)
	log, _ := s.storage.(queue.EventLog)

	o := s.owner()
	now := s.clockNow()
	event := func() []queue.Event { return []queue.Event{{ID: queue.NewID(), Kind: queue.EventQueued}} }
	big := strings.Repeat("A line of a body that is no small one.\r\n", 6000)
	var small, large, keyed *queue.Submission
	lease := make(map[string]*queue.Lease)
	take := func(name string) func() {
		return func() { lease[name] = s.one(o, lane(name)) }
	}
	operations := []struct {
		name string
		run  func()
		told int // events in the log after it
	}{
		{"Put", func() {
			small = s.submission(lane("a.test"), lane("b.test"), lane("c.test"))
			small.Events = event()
			s.put(small)
		}, 1},
		{"Put of a large body", func() {
			large = s.submissionOf(s.stage(s.storage, big), lane("large.test"))
			s.put(large)
		}, 1},
		{"Put of two, one with a key", func() {
			keyed = s.submission(lane("keyed.test"))
			keyed.Message.Key = "once"
			s.put(keyed, s.submission(lane("beside.test")))
		}, 1},
		{"Lease", take("a.test"), 1},
		{"Finish that defers one recipient", func() {
			s.must(s.storage.Finish(ctx, &queue.Outcome{Lease: lease["a.test"], Done: []int{0}, Due: now, Alarm: now.Add(time.Hour), Attempt: 1,
				Last: []smtp.Result{{Err: &smtp.Error{Code: 451, Text: "Later"}}}, Events: event()}))
		}, 2},
		{"Lease again", take("a.test"), 2},
		{"Finish with notices", func() {
			out := done(lease["a.test"])
			out.Put = []*queue.Submission{s.submissionOf(foreign(content), lane("notice.test")), s.submissionOf(foreign(big), lane("notices.test"))}
			out.Events = event()
			s.must(s.storage.Finish(ctx, out))
		}, 3},
		{"Lease of the next", take("b.test"), 3},
		{"Finish", func() { s.must(s.storage.Finish(ctx, done(lease["b.test"]))) }, 3},
		{"Lease of the last", take("c.test"), 3},
		{"Finish of the last", func() { s.must(s.storage.Finish(ctx, done(lease["c.test"]))) }, 3},
		{"Lease of the large one", take("large.test"), 3},
		{"Finish of the large one", func() { s.must(s.storage.Finish(ctx, done(lease["large.test"]))) }, 3},
		{"Hold", func() {
			if ed, ok := s.storage.(queue.Editor); ok {
				s.edited(ed, queue.Filter{Dest: "beside.test"}, queue.Edit{Hold: true}, 1)
			}
		}, 4},
		{"Drop", func() {
			if ed, ok := s.storage.(queue.Editor); ok {
				s.edited(ed, queue.Filter{Dest: "notices.test"}, queue.Edit{Drop: true}, 1)
			}
		}, 5},
		{"NextEvents and AckEvents of one", func() {
			if log == nil {
				return
			}
			got, err := log.NextEvents(ctx, o, 1)
			s.must(err)
			for _, e := range got {
				s.must(log.AckEvents(ctx, e.ID))
			}
		}, 4},
		{"nothing, after all that", func() {}, 4},
	}
	const keyedAt = 2
	states := []string{s.state(crasher)}
	settled := []Opener{crasher.Crash()}
	set := func(n int) {
		mu.Lock()
		running = n
		mu.Unlock()
	}
	for i, op := range operations {
		set(i)
		op.run()
		set(-1)
		states = append(states, s.state(crasher))
		settled = append(settled, crasher.Crash())
	}
	// What the last one left is durable without another step.
	images = append(images, image{len(operations) - 1, crasher.Crash()})

	s.pass(time.Hour) // whoever read events is gone
	_, keeps := s.storage.(queue.Editor)
	told := make([]string, len(settled))
	for i, open := range settled {
		var n int
		told[i], n = s.logged(open(s.T, Config{Now: s.clockNow}))
		if i == 1 {
			keeps = keeps && n > 0 // a log may be off
		}
		if i > 0 && keeps && n != operations[i-1].told {
			s.Errorf("%d events after %s, want %d:\n%s", n, operations[i-1].name, operations[i-1].told, told[i])
		}
	}

	for n, im := range images {
		st := im.open(s.T, Config{Now: s.clockNow})
		got := s.state(st.(queue.Lister))
		op := operations[im.during].name
		before, after := states[im.during], states[im.during+1]
		if got != before && got != after {
			s.Fatalf("crash %d, during %s, leaves\n%s\nwhich is neither the state before:\n%s\nnor the one after:\n%s", n, op, got, before, after)
		}
		events, _ := s.logged(st)
		switch early, late := told[im.during], told[im.during+1]; {
		case events != early && events != late:
			s.Errorf("crash %d, during %s, leaves the events\n%s\nneither those before:\n%s\nnor those after:\n%s", n, op, events, early, late)
		case before != after && early != late && (got == after) != (events == late):
			s.Errorf("crash %d, during %s, parts the entries from their events", n, op)
		}
		if before == after {
			continue
		}
		again := s.submissionOf(foreign(content), lane("keyed.test"))
		again.Message.Key = "once"
		s.must(st.Put(ctx, again))
		if known := im.during > keyedAt || im.during == keyedAt && got == after; again.Duplicate != known {
			s.Errorf("crash %d, during %s: the key is known: %v, want %v", n, op, again.Duplicate, known)
		}
	}
	s.Logf("%d crashes in %d operations", len(images), len(operations))
	if len(images) < 20 {
		s.Errorf("only %d crashes: is Step called?", len(images))
	}
}

// logged describes the events that a storage keeps, and says how many.
func (s *suite) logged(st queue.Storage) (string, int) {
	s.Helper()
	log, ok := st.(queue.EventLog)
	if !ok {
		return "", 0
	}
	o := queue.NewReader()
	_, err := st.Renew(ctx, o, time.Minute)
	s.must(err)
	events, err := log.NextEvents(ctx, o, 1000)
	s.must(err)
	var lines []string
	for _, e := range events {
		lines = append(lines, fmt.Sprint(e.ID, e.Kind, e.Lane))
	}
	return strings.Join(lines, "\n"), len(lines)
}

// state describes the entries that a storage keeps, with what can be read of
// them. Leases are left out: whether they outlive a crash is its own affair.
func (s *suite) state(l queue.Lister) string {
	s.Helper()
	st := l.(queue.Storage)
	lines := make(map[string]bool)
	for e, err := range l.List(ctx, queue.Filter{}) {
		s.must(err)
		b, err := st.Open(ctx, e.Message)
		s.must(err)
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(b, 0, b.Size())); err != nil {
			s.Fatal(err)
		}
		s.must(b.Close())
		var to, last []string
		for _, r := range e.Envelope.To {
			to = append(to, r.Address.String())
		}
		for _, r := range e.Last {
			var reply *smtp.Error
			errors.As(r.Err, &reply)
			last = append(last, fmt.Sprint(reply))
		}
		lines[fmt.Sprint(e.ID, e.Message.ID, e.Lane, to, last, e.Due.UTC(), e.Alarm.UTC(), e.Held, e.Attempt, h.Sum(nil)[:4])] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(lines)), "\n")
}
