package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/smtp"
)

// control runs one operation on w and checks how many entries it changed.
func (w *world) control(n int, err error) func(want int) {
	return func(want int) {
		w.Helper()
		if err != nil || n != want {
			w.Errorf("changed %d, %v, want %d", n, err, want)
		}
	}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// delivered returns to which recipients mail went, in order.
func (w *world) delivered() []string {
	var to []string
	for _, d := range w.tr.Deliveries() {
		for _, r := range d.Envelope.To {
			to = append(to, r.String())
		}
	}
	return to
}

// stuck queues mail that was tried once and waits.
func stuck(t *testing.T) *world {
	w := newWorld(t)
	w.q.Retry = queue.Backoff(time.Hour, time.Hour)
	w.tr.Answer = func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
		if d.Domain == "one.test" && d.Nth <= 3 {
			return d.Refuse(451, smtp.ScopeRecipient)
		}
		return d.All(smtp.Result{})
	}
	w.run()
	for i := range 3 {
		m := mail(fmt.Sprintf("r%d@one.test", i))
		m.Campaign = fmt.Sprint("c", i)
		w.enqueue(m)
	}
	synctest.Wait()
	return w
}

func TestHoldReleaseRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, ctx := stuck(t), t.Context()
		first := queue.Filter{To: addr("r0@one.test")}
		w.control(w.q.Hold(ctx, first))(1)
		w.control(w.q.RetryNow(ctx, queue.Filter{Dest: "one.test"}))(3)
		synctest.Wait()
		if n := w.count(queue.EventDelivered); n != 2 {
			t.Errorf("%d delivered, want those that are not held", n)
		}
		w.control(w.q.Release(ctx, queue.Filter{}))(1)
		synctest.Wait()
		if n := w.count(queue.EventDelivered); n != 3 || w.count(queue.EventHeld) != 1 || w.count(queue.EventReleased) != 1 {
			t.Errorf("events %+v", w.events)
		}
		w.control(w.q.Release(ctx, queue.Filter{}))(0)
		w.stop()
	})
}

func TestRetryNowAsksWhatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var down atomic.Bool
		down.Store(true)
		w.tr.Answer = func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
			if down.Load() {
				return d.Refuse(451, smtp.ScopeRoute)
			}
			return d.All(smtp.Result{})
		}
		w.run()
		w.fill(30, "", "one.test", 0)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		down.Store(false)
		w.control(w.q.RetryNow(t.Context(), queue.Filter{}))(30)
		synctest.Wait()
		if n := w.count(queue.EventDelivered); n != 30 {
			t.Errorf("%d delivered at once after RetryNow", n)
		}
		w.stop()
	})
}

func TestDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, ctx := stuck(t), t.Context()
		w.control(w.q.Drop(ctx, queue.Filter{Campaign: "c1"}))(1)
		w.control(w.q.Drop(ctx, queue.Filter{}))(2)
		synctest.Wait()
		if len(w.left()) != 0 || w.count(queue.EventDropped) != 3 || w.st.Used() != 0 || len(w.notices()) != 0 {
			t.Errorf("left %v, events %+v", w.left(), w.events)
		}
		w.stop()
	})
}

// Bounce and Expire tell the sender, whatever holds the entry back: a rule, a
// hand, or a delivery under way.
func TestBounceAndExpire(t *testing.T) {
	for _, state := range []string{"waiting", "held", "suspended", "leased"} {
		for _, op := range []string{"bounce", "expire"} {
			t.Run(state+" "+op, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w, ctx := stuck(t), t.Context()
					f := queue.Filter{Dest: "one.test"}
					switch state {
					case "held":
						w.control(w.q.Hold(ctx, f))(3)
					case "suspended":
						w.must(w.q.Suspend(ctx, f))
					case "leased":
						w.tr.Took = 10 * time.Minute
						w.control(w.q.RetryNow(ctx, f))(3)
					}
					synctest.Wait()
					w.tr.Took = 0
					var want queue.EventKind
					var status smtp.EnhancedCode
					if op == "bounce" {
						want, status = queue.EventFailed, smtp.EnhancedCode{5, 7, 1}
						w.control(w.q.Bounce(ctx, f, nil))(3)
					} else {
						want, status = queue.EventExpired, smtp.EnhancedCode{4, 0, 0}
						w.control(w.q.Expire(ctx, f))(3)
					}
					time.Sleep(time.Second)
					synctest.Wait()
					if n := w.count(want); n != 3 || len(w.left()) != 0 {
						t.Errorf("%d events, left %+v", n, w.left())
					}
					all := w.notices()
					if len(all) != 3 {
						t.Fatalf("%d notices", len(all))
					}
					for _, n := range all {
						if r := n.Recipients[0]; r.Action != report.Failed || r.Status != status {
							t.Errorf("recipient %+v", r)
						}
					}
					w.stop()
				})
			})
		}
	}
	t.Run("temporary reason", func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.q.Bounce(t.Context(), queue.Filter{}, &smtp.Error{Code: 451}); err == nil {
			t.Error("a temporary error is a reason to bounce")
		}
	})
}

// Reroute moves to another lane, and For gives that lane another way.
func TestReroute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		other := new(queuetest.Transport)
		w.q.For = func(e *queue.Entry) queue.Transport {
			if e.Lane.Dest == "!relay" {
				return other
			}
			return nil
		}
		w.tr.Answer = func(_ context.Context, d *queuetest.Delivery) []smtp.Result { return d.Refuse(451, smtp.ScopeRoute) }
		w.run()
		for i := range 600 { // more than a page
			m := mail("r@one.test")
			m.Tenant, m.Priority = fmt.Sprint("t", i%2), int8(i%3)
			w.enqueue(m)
		}
		synctest.Wait()
		w.control(w.q.Reroute(t.Context(), queue.Filter{Dest: "one.test"}, "!relay"))(600)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := w.count(queue.EventDelivered); n != 600 || w.count(queue.EventMoved) != 600 {
			t.Errorf("%d delivered, left %d", n, len(w.left()))
		}
		for _, d := range other.Deliveries() {
			if d.Envelope.To[0].Address != addr("r@one.test") {
				t.Errorf("delivered to %v", d.Envelope.To)
			}
		}
		for _, e := range w.events {
			if e.Kind == queue.EventDelivered && (e.Lane.Tenant == "" || e.Lane.Dest != "!relay") {
				t.Errorf("delivered in %+v", e.Lane)
			}
		}
		w.stop()
	})
}

func TestRedirect(t *testing.T) {
	for _, c := range []struct {
		name, to, old, other string
		want                 string // delivered to
	}{
		{"same domain", "a@one.test b@one.test", "a@one.test", "c@one.test", "[c@one.test b@one.test]"},
		{"alone, other domain", "a@one.test", "a@one.test", "c@two.test", "[c@two.test]"},
		{"not alone, other domain", "a@one.test b@one.test", "a@one.test", "c@two.test", "[b@one.test c@two.test]"},
		{"removed", "a@one.test b@one.test", "a@one.test", "<>", "[b@one.test]"},
		{"last removed", "a@one.test", "a@one.test", "<>", "[]"},
		{"somebody else", "a@one.test", "z@one.test", "y@one.test", "[a@one.test]"},
		{"UTF-8", "a@one.test", "a@one.test", "ä@one.test", "[ä@one.test]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, ctx := newWorld(t), t.Context()
				w.enqueue(mail(strings.Fields(c.to)...))
				for range 2 { // once more changes nothing
					if _, err := w.q.Redirect(ctx, queue.Filter{}, addr(c.old), addr(c.other)); err != nil {
						t.Fatal(err)
					}
				}
				w.run()
				synctest.Wait()
				got := w.delivered()
				if len(got) == 2 && got[0] == "c@two.test" {
					got[0], got[1] = got[1], got[0]
				}
				if fmt.Sprint(got) != c.want {
					t.Errorf("delivered to %v, want %v", got, c.want)
				}
				for _, d := range w.tr.Deliveries() {
					for _, r := range d.Envelope.To {
						if r.Address == addr(c.other) && (r.Original != c.old || r.OriginalType != "rfc822" || d.Body != message) {
							t.Errorf("recipient %+v", r)
						}
					}
				}
				if len(w.left()) != 0 || w.st.Used() > 200 { // a key
					t.Errorf("left %v, %d in use", w.left(), w.st.Used())
				}
				w.stop()
			})
		})
	}
	w := newWorld(t)
	if _, err := w.q.Redirect(t.Context(), queue.Filter{}, addr("a@one.test"), smtp.Address{Local: "x\r\n", Domain: "y"}); !errors.Is(err, queue.ErrMail) {
		t.Errorf("an address with a line end: %v", err)
	}
}

// Whatever a rule chooses by, nothing of it goes while it stands, and all of it
// after, also with another queue than the one that was told.
func TestSuspendAndResume(t *testing.T) {
	for _, c := range []struct {
		name string
		f    queue.Filter
	}{
		{"all", queue.Filter{}},
		{"domain", queue.Filter{Dest: "one.test"}},
		{"tenant", queue.Filter{Tenant: "t"}},
		{"sender", queue.Filter{From: addr("a@from.test")}},
		{"campaign", queue.Filter{Campaign: "c"}},
		{"recipient", queue.Filter{To: addr("r@one.test")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, ctx := newWorld(t), t.Context()
				operator := &queue.Queue{Storage: w.st} // in another process
				w.must(operator.Suspend(ctx, c.f))
				w.must(operator.Suspend(ctx, c.f))
				if rules, err := w.q.Suspended(ctx); err != nil || len(rules) != 1 {
					t.Errorf("rules %v, %v", rules, err)
				}
				w.run()
				synctest.Wait()
				send := func(to string) {
					m := mail(to)
					m.Tenant, m.Campaign = "t", "c"
					w.enqueue(m)
				}
				send("r@one.test")
				by := mail("s@two.test")
				by.Envelope.From = addr("other@from.test")
				w.enqueue(by)
				held := mail("h@one.test") // by hand, for its own reason
				held.Tenant, held.Campaign, held.Envelope.From = "t", "c", addr("a@from.test")
				id := w.enqueue(held)
				w.control(w.q.Hold(ctx, queue.Filter{IDs: []queue.ID{id}}))(1)
				time.Sleep(time.Minute)
				synctest.Wait()
				for _, to := range w.delivered() {
					if to == "r@one.test" {
						t.Error("delivered while suspended")
					}
				}
				if n := len(w.delivered()); c.name != "all" && n != 1 {
					t.Errorf("delivered to %v, want what no rule chooses", w.delivered())
				}
				w.must(operator.Resume(ctx, c.f))
				send("r2@one.test") // before the queue knows
				time.Sleep(time.Minute)
				synctest.Wait()
				if n := w.count(queue.EventDelivered); n != 3 {
					t.Errorf("delivered to %v after the resume", w.delivered())
				}
				if left := w.left(); len(left) != 1 || !left[0].Held || left[0].Suspended {
					t.Errorf("left %+v, want what was held by hand", left)
				}
				w.stop()
			})
		})
	}
}

// The queue of this process learns at once what is asked of it.
func TestControlIsPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tr.Took = time.Hour
		w.run()
		w.enqueue(mail("r@one.test"))
		synctest.Wait()
		begun := time.Now()
		w.control(w.q.Drop(t.Context(), queue.Filter{}))(1)
		synctest.Wait()
		if len(w.left()) != 0 || !time.Now().Equal(begun) {
			t.Errorf("a delivery went on for %v", time.Since(begun))
		}
		w.must(w.q.Suspend(t.Context(), queue.Filter{}))
		synctest.Wait()
		w.enqueue(mail("s@one.test"))
		synctest.Wait()
		if n := len(w.tr.Deliveries()); n != 1 {
			t.Errorf("%d deliveries", n)
		}
		w.must(w.q.Resume(t.Context(), queue.Filter{}))
		synctest.Wait()
		if n := len(w.tr.Deliveries()); n != 2 || !time.Now().Equal(begun) {
			t.Errorf("%d deliveries after the resume", n)
		}
		w.q.Close()
	})
}

// A storage that cannot be edited says so.
func TestControlUnsupported(t *testing.T) {
	w := newWorld(t)
	w.q.Storage = blind{w.st}
	ctx := t.Context()
	for name, err := range map[string]error{
		"Hold":      second(w.q.Hold(ctx, queue.Filter{})),
		"Reroute":   second(w.q.Reroute(ctx, queue.Filter{}, "x")),
		"Redirect":  second(w.q.Redirect(ctx, queue.Filter{}, addr("a@b.test"), addr("c@d.test"))),
		"Suspend":   w.q.Suspend(ctx, queue.Filter{}),
		"Suspended": second(w.q.Suspended(ctx)),
	} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, err := range w.q.List(ctx, queue.Filter{}) {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("List: %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
