package queue_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/smtp"
)

// flaky is a storage that fails now and then.
type flaky struct {
	*memqueue.Storage
	mu  sync.Mutex
	rnd *rand.Rand
	bad int // in a hundred
}

var errFlaky = errors.New("the storage is away")

func (f *flaky) fails() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rnd.IntN(100) < f.bad {
		return errFlaky
	}
	return nil
}

func (f *flaky) Lease(ctx context.Context, o queue.Owner, want []queue.Want) ([]*queue.Lease, error) {
	if err := f.fails(); err != nil {
		return nil, err
	}
	return f.Storage.Lease(ctx, o, want)
}

func (f *flaky) Renew(ctx context.Context, o queue.Owner, d time.Duration) (queue.Renewal, error) {
	if err := f.fails(); err != nil {
		return queue.Renewal{}, err
	}
	return f.Storage.Renew(ctx, o, d)
}

func (f *flaky) Finish(ctx context.Context, o *queue.Outcome) error {
	if err := f.fails(); err != nil {
		return err
	}
	return f.Storage.Finish(ctx, o)
}

func (f *flaky) Open(ctx context.Context, m *queue.Message) (queue.Blob, error) {
	if err := f.fails(); err != nil {
		return nil, err
	}
	return f.Storage.Open(ctx, m)
}

// Whatever hosts and storage do, each recipient comes to one end, nobody
// waits for ever, and nothing is left behind.
func TestChaos(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(seed, 1))
				w := newWorld(t)
				if seed%2 == 1 {
					w.q.Storage = &flaky{Storage: w.st, rnd: rand.New(rand.NewPCG(seed, 2)), bad: 10}
				}
				w.q.Concurrency, w.q.PerTenant, w.q.PerSite, w.q.PerLane = 1+rnd.IntN(20), 1+rnd.IntN(10), 1+rnd.IntN(8), 1+rnd.IntN(6)
				if seed > 3 {
					w.tr.Site = func(d string) string { return fmt.Sprint(len(d)) }
				}
				var mu sync.Mutex
				answers := rand.New(rand.NewPCG(seed, 3))
				w.tr.Answer = func(ctx context.Context, d *queuetest.Delivery) []smtp.Result {
					mu.Lock()
					defer mu.Unlock()
					scope := smtp.Scope(answers.IntN(4))
					switch answers.IntN(6) {
					case 0:
						return d.Refuse(451, scope)
					case 1:
						return d.Refuse(550, scope)
					case 2:
						return d.All(smtp.Result{Err: &smtp.Error{Code: 451, Scope: scope, Unsure: true}})
					case 3:
						return d.All(smtp.Result{Err: errFlaky})
					}
					return d.All(smtp.Result{})
				}
				w.q.MaxAge = 12 * time.Hour
				w.tr.Took = time.Duration(rnd.IntN(3000)) * time.Millisecond
				w.run()
				const n = 600
				for i := range n {
					m := mail(fmt.Sprintf("r@d%d.test", rnd.IntN(60)))
					m.Envelope.From = smtp.Address{}
					m.Tenant = fmt.Sprint(rnd.IntN(8))
					m.Priority = int8(rnd.IntN(4))
					if i%7 == 0 {
						m.Due = time.Now().Add(time.Duration(rnd.IntN(7200)) * time.Second)
					}
					w.enqueue(m)
					if i%50 == 0 {
						time.Sleep(time.Duration(rnd.IntN(600)) * time.Second)
					}
				}
				time.Sleep(24 * time.Hour)
				synctest.Wait()
				left := w.left()
				ends := w.count(queue.EventDelivered) + w.count(queue.EventFailed) + w.count(queue.EventExpired)
				if len(left) != 0 || ends != n || w.st.Used() != 0 {
					t.Errorf("%d left, %d ends of %d, %d octets in use", len(left), ends, n, w.st.Used())
				}
				if w.count(queue.EventExpired) > n/20 {
					t.Errorf("%d expired", w.count(queue.EventExpired))
				}
				w.stop()
			})
		})
	}
}

// blind is a storage that is no Waker.
type blind struct{ queue.Storage }

func TestBlindStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.q.Storage = blind{w.st}
		w.run()
		for i := range 100 {
			begun := time.Now()
			w.fill(1, "", "one.test", 0)
			time.Sleep(1100 * time.Millisecond)
			synctest.Wait()
			if n := w.count(queue.EventDelivered); n != i+1 {
				t.Fatalf("%d delivered of %d after %v", n, i+1, time.Since(begun))
			}
		}
		w.stop()
	})
}

// split routes by domain, as a program with mailboxes of its own does.
type split struct{ local, remote *queuetest.Transport }

func (s split) Deliver(ctx context.Context, env *smtp.Envelope, body queue.Body) []smtp.Result {
	if env.To[0].Domain == "local.test" {
		return s.local.Deliver(ctx, env, body)
	}
	return s.remote.Deliver(ctx, env, body)
}

func TestSplitTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		local := &queuetest.Transport{Answer: func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
			results := d.All(smtp.Result{})
			results[1].Err = &smtp.Error{Code: 550, Text: "no such mailbox"}
			results[2].Err = &smtp.Error{Code: 452, Text: "over quota"}
			return results
		}}
		w.q.Transport = split{local, w.tr}
		w.run()
		m := mail("a@local.test", "b@local.test", "c@local.test", "d@far.test")
		m.Envelope.From = smtp.Address{}
		w.enqueue(m)
		synctest.Wait()
		if n, f := len(local.Deliveries()), len(w.tr.Deliveries()); n != 1 || f != 1 {
			t.Errorf("%d local and %d remote deliveries", n, f)
		}
		left := w.left()
		if len(left) != 1 || len(left[0].Envelope.To) != 1 || left[0].Envelope.To[0].Local != "c" || w.count(queue.EventDelivered) != 2 {
			t.Errorf("left %+v", left)
		}
		w.stop()
	})
}

// A queue may be stopped and started at any time.
func TestRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(1, 1))
		st := new(memqueue.Storage)
		delivered, queued := 0, 0
		for range 50 {
			w := newWorld(t)
			w.st, w.q.Storage = st, st
			w.tr.Took = 3 * time.Second
			w.run()
			for range rnd.IntN(20) {
				w.fill(1, "", fmt.Sprintf("d%d.test", rnd.IntN(10)), 0)
				queued++
			}
			time.Sleep(time.Duration(rnd.IntN(8000)) * time.Millisecond)
			if rnd.IntN(2) == 0 {
				w.stop()
			} else {
				w.q.Close()
				<-w.ended
			}
			delivered += w.count(queue.EventDelivered)
		}
		last := newWorld(t)
		last.st, last.q.Storage = st, st
		last.run()
		time.Sleep(time.Hour)
		synctest.Wait()
		delivered += last.count(queue.EventDelivered)
		if delivered != queued || len(last.left()) != 0 {
			t.Errorf("%d delivered of %d, %d left", delivered, queued, len(last.left()))
		}
		last.stop()
	})
}

func TestID(t *testing.T) {
	a := queue.NewID()
	b, err := queue.ParseID(a.String())
	if err != nil || a != b || len(a.String()) != 26 {
		t.Errorf("%v became %v, %v", a, b, err)
	}
	for _, s := range []string{"", "x", a.String() + "0", a.String()[:25], "zzzzzzzzzzzzzzzzzzzzzzzzzz", "0000000000000000000000000v", a.String()[:25] + "\n"} {
		if id, err := queue.ParseID(s); err == nil {
			t.Errorf("%q is the ID %v", s, id)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		a := queue.NewID()
		time.Sleep(time.Millisecond)
		if b := queue.NewID(); b.String() <= a.String() {
			t.Errorf("%v sorts before %v", b, a)
		}
	})
}

func FuzzParseID(f *testing.F) {
	f.Add(queue.NewID().String())
	f.Add("0000000000000000000000000g")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := queue.ParseID(s); err == nil && id.String() != s {
			t.Errorf("%q is %v", s, id)
		}
	})
}
