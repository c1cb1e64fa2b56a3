package queue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/smtp"
)

const message = "From: a@from.test\r\nSubject: x\r\n\r\nHello\r\n"

// world is a running queue with a scripted far side, inside a bubble.
type world struct {
	*testing.T
	q  *queue.Queue
	st *memqueue.Storage
	tr *queuetest.Transport

	mu     sync.Mutex
	events []queue.Event
	ended  chan error
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, st: new(memqueue.Storage), tr: new(queuetest.Transport)}
	w.q = &queue.Queue{Storage: w.st, Transport: w.tr, Hostname: "mta.test", Log: slog.New(slog.DiscardHandler),
		OnEvent: func(e queue.Event) {
			w.mu.Lock()
			w.events = append(w.events, e)
			w.mu.Unlock()
		}}
	return w
}

func (w *world) run() {
	w.ended = make(chan error, 1)
	go func() { w.ended <- w.q.Run(context.Background()) }()
}

func (w *world) stop() {
	w.Helper()
	if err := w.q.Shutdown(context.Background()); err != nil {
		w.Error(err)
	}
	if err := <-w.ended; err != nil {
		w.Error(err)
	}
}

func addr(s string) smtp.Address {
	a, err := smtp.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

func mail(to ...string) queue.Mail {
	m := queue.Mail{Envelope: smtp.Envelope{From: addr("a@from.test")}, Body: strings.NewReader(message)}
	for _, s := range to {
		m.Envelope.To = append(m.Envelope.To, smtp.Recipient{Address: addr(s)})
	}
	return m
}

func (w *world) enqueue(m queue.Mail) queue.ID {
	w.Helper()
	id, err := w.q.Enqueue(context.Background(), m)
	if err != nil {
		w.Fatal(err)
	}
	return id
}

// count returns how many events of a kind there were.
func (w *world) count(k queue.EventKind) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, e := range w.events {
		if e.Kind == k {
			n++
		}
	}
	return n
}

func (w *world) left() []*queue.Entry {
	var left []*queue.Entry
	for e := range w.st.List(context.Background(), queue.Filter{}) {
		left = append(left, e)
	}
	return left
}

func TestDeliver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run()
		begun := time.Now()
		id := w.enqueue(mail("r@one.test", "s@one.test", "r@two.test", "r@one.test"))
		synctest.Wait()
		d := w.tr.Deliveries()
		if len(d) != 2 {
			t.Fatalf("%d deliveries, want one for each domain", len(d))
		}
		for _, d := range d {
			if d.Body != message || d.Envelope.From != addr("a@from.test") || len(d.Envelope.To) != map[string]int{"one.test": 2, "two.test": 1}[d.Domain] {
				t.Errorf("delivered %+v", d)
			}
		}
		if !time.Now().Equal(begun) {
			t.Errorf("delivery waited %v", time.Since(begun))
		}
		if w.count(queue.EventQueued) != 2 || w.count(queue.EventDelivered) != 3 || len(w.left()) != 0 || w.st.Used() != 0 {
			t.Errorf("events %+v, left %v, used %d", w.events, w.left(), w.st.Used())
		}
		if w.events[0].Message.ID != id {
			t.Error("the event names another message")
		}
		w.stop()
	})
}

func TestPrepare(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name, body, to string
		utf8           bool
		want           smtp.BodyType
	}{
		{"ascii", "Subject: x\r\n\r\nx\r\n", "r@one.test", false, ""},
		{"body", "Subject: x\r\n\r\nä\r\n", "r@one.test", false, smtp.Body8Bit},
		{"header", "Subject: ä\r\n\r\nx\r\n", "r@one.test", true, smtp.Body8Bit},
		{"address", "Subject: x\r\n\r\nx\r\n", "ä@one.test", true, ""},
		{"empty line first", "\r\nä", "r@one.test", false, smtp.Body8Bit},
		{"header only", "Subject: ä", "r@one.test", true, smtp.Body8Bit},
	} {
		for _, step := range []int{1, 3, 1000} {
			m := mail(c.to)
			m.Envelope.UTF8 = !c.utf8 // what the client said does not matter
			m.Body = &slow{strings.NewReader(c.body), step}
			s, err := w.q.Prepare(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			env := s.Entries[0].Envelope
			if env.UTF8 != c.utf8 || env.Body != c.want || s.Message.EightBit != (c.want != "") {
				t.Errorf("%s by %d: UTF8 %v, body %q", c.name, step, env.UTF8, env.Body)
			}
			s.Body.Close()
		}
	}
	urgent := mail("r@one.test") // MT-PRIORITY orders, unless the mail says otherwise
	urgent.Envelope.Priority = 3
	for _, own := range []int8{0, -2} {
		urgent.Priority, urgent.Body = own, strings.NewReader(message)
		s, err := w.q.Prepare(t.Context(), urgent)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Entries[0].Lane.Priority; own == 0 && got != 3 || own != 0 && got != own {
			t.Errorf("priority %d of %d and 3", got, own)
		}
		s.Body.Close()
	}
	many := mail()
	for i := range 250 {
		many.Envelope.To = append(many.Envelope.To, smtp.Recipient{Address: addr(fmt.Sprintf("r%d@one.test", i))})
	}
	s, err := w.q.Prepare(t.Context(), many)
	if err != nil || len(s.Entries) != 3 || len(s.Entries[2].Envelope.To) != 50 {
		t.Errorf("250 recipients became %d entries, %v", len(s.Entries), err)
	}
	s.Body.Close()
	if w.st.Used() != 0 {
		t.Errorf("%d octets in use", w.st.Used())
	}
}

// slow reads a few octets at a time.
type slow struct {
	r    *strings.Reader
	step int
}

func (s *slow) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), s.step)]) }

func TestRefused(t *testing.T) {
	w := newWorld(t)
	for _, m := range []queue.Mail{
		mail(),
		{Envelope: smtp.Envelope{To: []smtp.Recipient{{Address: smtp.Address{Local: "a\r\nDATA", Domain: "x.test"}}}}},
		{Envelope: smtp.Envelope{From: smtp.Address{Local: "a", Domain: "x\n"}, To: []smtp.Recipient{{Address: addr("r@one.test")}}}},
		{Envelope: smtp.Envelope{To: []smtp.Recipient{{Address: addr("r@one.test"), RcptOptions: smtp.RcptOptions{Original: "a\x00"}}}}},
		{Envelope: smtp.Envelope{To: []smtp.Recipient{{}}}},
	} {
		m.Body = strings.NewReader(message)
		if _, err := w.q.Enqueue(t.Context(), m); !errors.Is(err, queue.ErrMail) {
			t.Errorf("%+v: %v, want ErrMail", m.Envelope, err)
		}
	}
	m := mail("r@one.test")
	cut := errors.New("cut")
	m.Body = &broken{cut}
	if _, err := w.q.Enqueue(t.Context(), m); !errors.Is(err, cut) {
		t.Errorf("a body that breaks off: %v", err)
	}
	if w.st.Used() != 0 || len(w.left()) != 0 {
		t.Error("something was kept")
	}
}

type broken struct{ err error }

func (b *broken) Read(p []byte) (int, error) { return copy(p, "Subject: x\r\n"), b.err }

// A recipient that is greylisted for five days is tried until then.
func TestFiveDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tr.Answer = func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
			if d.Domain != "one.test" {
				return d.All(smtp.Result{})
			}
			return d.Refuse(451, smtp.ScopeRecipient)
		}
		w.run()
		begun := time.Now()
		w.enqueue(mail("r@one.test"))
		for len(w.left()) > 0 {
			time.Sleep(time.Hour)
			synctest.Wait()
		}
		if age := time.Since(begun); age < 5*24*time.Hour || age > 5*24*time.Hour+2*time.Hour {
			t.Errorf("gave up after %v", age)
		}
		all := w.tr.Deliveries()
		var first queuetest.Delivery
		n := 0
		for _, d := range all {
			if d.Domain == "one.test" {
				if n++; n == 1 {
					first = d
				}
			}
		}
		if n < 30 || n > 50 {
			t.Errorf("%d attempts in five days", n)
		}
		if !first.Begun.Equal(begun) {
			t.Error("the first attempt was late")
		}
		if w.count(queue.EventExpired) != 1 || w.count(queue.EventDelayed) != 1 {
			t.Errorf("%d expired, %d delayed", w.count(queue.EventExpired), w.count(queue.EventDelayed))
		}
		w.stop()
	})
}

func TestMaxAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.q.MaxAttempts = 3
		w.q.Retry = queue.Backoff(time.Second, time.Minute)
		w.tr.Answer = func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
			return d.All(smtp.Result{Err: errors.New("no")})
		}
		w.run()
		m := mail("r@one.test")
		m.Envelope.From = smtp.Address{}
		w.enqueue(m)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.tr.Deliveries()); n != 3 || w.count(queue.EventExpired) != 1 || len(w.left()) != 0 {
			t.Errorf("%d attempts, left %v", n, w.left())
		}
		w.stop()
	})
}

// A schedule for each destination, by what it says of an entry: how often, how
// long, and how long it goes on.
func TestRetryPerDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		hourly, usual := queue.Backoff(time.Hour, time.Hour), queue.Backoff(time.Minute, 16*time.Minute)
		w.q.Retry = func(e *queue.Entry) time.Duration {
			var refused *smtp.Error
			switch {
			case e.Lane.Dest == "never.test":
				return -1
			case e.Lane.Dest == "hourly.test":
				return hourly(e)
			case errors.As(e.Last[0].Err, &refused) && refused.Code == 452 && time.Since(e.Since) > time.Hour:
				return 0
			}
			return usual(e)
		}
		w.tr.Answer = func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
			code := 451
			if d.Domain == "full.test" {
				code = 452
			}
			return d.Refuse(code, smtp.ScopeRecipient)
		}
		w.run()
		for _, domain := range []string{"never.test", "hourly.test", "full.test", "usual.test"} {
			w.fill(1, "", domain, 0)
		}
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		tried := make(map[string]int)
		for _, d := range w.tr.Deliveries() {
			tried[d.Domain]++
		}
		if tried["never.test"] != 1 || tried["hourly.test"] < 5 || tried["hourly.test"] > 7 || tried["full.test"] < 7 || tried["full.test"] > 10 || tried["usual.test"] < 15 {
			t.Errorf("tried %v", tried)
		}
		if n := w.count(queue.EventExpired); n != 2 || len(w.left()) != 2 {
			t.Errorf("%d expired, left %v", n, w.left())
		}
		w.q.Close()
	})
}

// Each recipient has its own state.
func TestRecipients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.q.Retry = queue.Backoff(time.Minute, time.Minute)
		w.tr.Answer = func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
			results := make([]smtp.Result, len(d.Envelope.To))
			for i, to := range d.Envelope.To {
				switch to.Local {
				case "later":
					if d.Nth < 3 {
						results[i].Err = &smtp.Error{Code: 450, Text: "greylisted"}
					}
				case "never":
					results[i].Err = &smtp.Error{Code: 550, Text: "no such user"}
				case "unsure":
					if d.Nth < 2 {
						results[i].Err = &smtp.Error{Code: 554, Unsure: true}
					}
				}
			}
			return results
		}
		w.run()
		m := mail("ok@one.test", "later@one.test", "never@one.test", "unsure@one.test")
		m.Envelope.From = smtp.Address{}
		w.enqueue(m)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		var got []string
		for _, d := range w.tr.Deliveries() {
			var to []string
			for _, r := range d.Envelope.To {
				to = append(to, r.Local)
			}
			got = append(got, strings.Join(to, " "))
		}
		if want := "ok later never unsure|later unsure|later"; strings.Join(got, "|") != want {
			t.Errorf("tried %q, want %q", got, want)
		}
		if w.count(queue.EventDelivered) != 3 || w.count(queue.EventFailed) != 1 || w.count(queue.EventDeferred) != 3 {
			t.Errorf("events %+v", w.events)
		}
		for _, e := range w.events {
			if e.Kind == queue.EventDeferred && e.To.Local == "unsure" {
				var se *smtp.Error
				if !errors.As(e.Result.Err, &se) || !se.Unsure || e.Next.IsZero() {
					t.Errorf("the event does not say that it is unsure: %+v", e)
				}
			}
		}
		w.stop()
	})
}

func TestScheduled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run()
		synctest.Wait()
		m := mail("r@one.test")
		m.Due = time.Now().Add(36 * time.Hour)
		w.enqueue(m)
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		d := w.tr.Deliveries()
		if len(d) != 1 || d[0].Begun.Before(m.Due) || d[0].Begun.After(m.Due.Add(time.Second)) {
			t.Errorf("sent at %v, was due at %v", d, m.Due)
		}
		w.stop()
	})
}

// An entry in a paused lane gets its notices and expires all the same.
// TestScheduledBehindAnother: a listing tells of a lane's earliest entry only,
// and the next one must not wait for a poll.
func TestScheduledBehindAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		begun := time.Now()
		var due []time.Duration
		for i := range 5 {
			m := mail("b@there.test")
			due = append(due, 10*time.Second+time.Duration(i)*700*time.Millisecond)
			m.Due = begun.Add(due[i])
			w.enqueue(m)
		}
		w.run()
		time.Sleep(30 * time.Second)
		w.stop()
		i := 0
		for _, e := range w.events {
			if e.Kind != queue.EventDelivered {
				continue
			}
			if late := e.Time.Sub(begun) - due[i]; late < 0 || late > 200*time.Millisecond {
				t.Errorf("entry %d is %v late", i, late)
			}
			i++
		}
		if i != 5 {
			t.Errorf("%d delivered", i)
		}
	})
}

func TestAlarmInPausedLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.st.Pause(t.Context(), queue.Filter{Dest: "one.test"}, true)
		w.run()
		synctest.Wait()
		w.enqueue(mail("r@one.test"))
		time.Sleep(4*time.Hour + time.Minute)
		synctest.Wait()
		if w.count(queue.EventDelayed) != 1 || w.count(queue.EventExpired) != 0 {
			t.Errorf("events %+v", w.events)
		}
		time.Sleep(5 * 24 * time.Hour)
		synctest.Wait()
		if w.count(queue.EventDelayed) != 1 || w.count(queue.EventExpired) != 1 {
			t.Errorf("events %+v", w.events)
		}
		for _, d := range w.tr.Deliveries() {
			if d.Domain == "one.test" {
				t.Error("a paused lane was delivered")
			}
		}
		w.stop()
	})
}

func TestPauseAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run()
		synctest.Wait()
		bySender := queue.Filter{From: addr("a@from.test")}
		w.st.Pause(t.Context(), queue.Filter{Dest: "one.test"}, true)
		w.st.Pause(t.Context(), bySender, true)
		time.Sleep(time.Minute) // the rules are learned by renewing
		w.enqueue(mail("r@one.test"))
		w.enqueue(mail("r@two.test"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.tr.Deliveries()); n != 0 || w.count(queue.EventHeld) != 1 {
			t.Fatalf("%d deliveries, events %+v", n, w.events)
		}
		w.st.Pause(t.Context(), queue.Filter{Dest: "one.test"}, false)
		w.st.Pause(t.Context(), bySender, false)
		time.Sleep(time.Minute)
		w.st.Edit(t.Context(), queue.Filter{Held: true}, queue.Edit{Release: true})
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.tr.Deliveries()); n != 2 {
			t.Errorf("%d deliveries after the resume", n)
		}
		w.stop()
	})
}

// A delivery whose entry is dropped meanwhile is cancelled.
func TestRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tr.Took = time.Hour
		w.run()
		id := w.enqueue(mail("r@one.test"))
		synctest.Wait()
		w.st.Edit(t.Context(), queue.Filter{IDs: []queue.ID{id}}, queue.Edit{Drop: true})
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(w.left()) != 0 || w.count(queue.EventDelivered) != 0 || w.st.Used() != 0 {
			t.Errorf("left %v, events %+v", w.left(), w.events)
		}
		w.stop()
	})
}

func TestShutdownAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tr.Took = time.Minute
		w.run()
		for range 3 {
			w.enqueue(mail("r@one.test"))
		}
		synctest.Wait()
		w.stop() // drains
		if w.count(queue.EventDelivered) != 3 {
			t.Errorf("%d delivered", w.count(queue.EventDelivered))
		}
		if err := w.q.Run(t.Context()); !errors.Is(err, queue.ErrClosed) {
			t.Errorf("a second Run: %v", err)
		}

		// The same storage, cut: what was under way is put back, untried.
		next := newWorld(t)
		next.st, next.q.Storage = w.st, w.st
		next.tr.Took = time.Hour
		next.run()
		next.enqueue(mail("r@one.test"))
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := next.q.Shutdown(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		next.q.Close()
		next.q.Close()
		if err := <-next.ended; err != nil {
			t.Error(err)
		}
		left := next.left()
		if len(left) != 1 || left[0].Attempt != 0 || left[0].Owner != "" {
			t.Fatalf("left %+v", left)
		}

		// A third one loses nothing.
		third := newWorld(t)
		third.st, third.q.Storage = w.st, w.st
		third.run()
		synctest.Wait()
		if third.count(queue.EventDelivered) != 1 || len(third.left()) != 0 {
			t.Errorf("events %+v", third.events)
		}
		third.stop()
	})
}

func TestCloseWithoutRun(t *testing.T) {
	w := newWorld(t)
	w.q.Close()
	if err := w.q.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := w.q.Run(t.Context()); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
}

// failing is a storage whose Finish fails while it is set to.
type failing struct {
	*memqueue.Storage
	mu     sync.Mutex
	fail   bool
	leases int
}

func (f *failing) set(fail bool) (leases int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
	leases, f.leases = f.leases, 0
	return leases
}

func (f *failing) Finish(ctx context.Context, o *queue.Outcome) error {
	f.mu.Lock()
	fail := f.fail
	f.mu.Unlock()
	if fail {
		return errors.New("disk full")
	}
	return f.Storage.Finish(ctx, o)
}

func (f *failing) Lease(ctx context.Context, o queue.Owner, want []queue.Want) ([]*queue.Lease, error) {
	f.mu.Lock()
	f.leases++
	f.mu.Unlock()
	return f.Storage.Lease(ctx, o, want)
}

// While an outcome cannot be written nothing more is sent, and it is written
// in the end: nothing is sent twice.
func TestFinishFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		f := &failing{Storage: w.st}
		w.q.Storage = f
		w.run()
		f.set(true)
		w.enqueue(mail("r@one.test"))
		time.Sleep(time.Second)
		f.set(true)
		for range 10 {
			w.enqueue(mail("r@two.test"))
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := f.set(true); n != 0 || len(w.tr.Deliveries()) != 1 || w.count(queue.EventDelivered) != 0 {
			t.Errorf("%d calls of Lease, %d deliveries while outcomes fail", n, len(w.tr.Deliveries()))
		}
		f.set(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(w.tr.Deliveries()) != 11 || w.count(queue.EventDelivered) != 11 || len(w.left()) != 0 {
			t.Errorf("%d deliveries, events %+v", len(w.tr.Deliveries()), w.events)
		}
		w.stop()
	})
}

// panicking transports and those that return too little cost no message.
func TestBadTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tr.Answer = func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
			switch d.Nth {
			case 1:
				panic("oops")
			case 2:
				return nil
			}
			return d.All(smtp.Result{})
		}
		w.run()
		w.enqueue(mail("r@one.test"))
		time.Sleep(time.Hour)
		synctest.Wait()
		if w.count(queue.EventDeferred) != 2 || w.count(queue.EventDelivered) != 1 {
			t.Errorf("events %+v", w.events)
		}
		w.stop()
	})
}

func TestIdempotent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run()
		m := mail("r@one.test")
		m.Key = "order-17"
		first := w.enqueue(m)
		synctest.Wait()
		m.Body = strings.NewReader(message)
		if again := w.enqueue(m); again != first {
			t.Error("the same key gave another ID")
		}
		synctest.Wait()
		if len(w.tr.Deliveries()) != 1 || w.count(queue.EventQueued) != 1 {
			t.Errorf("%d deliveries", len(w.tr.Deliveries()))
		}
		w.stop()
	})
}
