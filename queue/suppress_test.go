package queue_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/smtp"
)

func TestSuppressionList(t *testing.T) {
	l := new(queue.SuppressionList)
	ask := func(tenant string, to ...string) []string {
		var list []smtp.Address
		for _, s := range to {
			list = append(list, addr(s))
		}
		reasons, err := l.Suppressed(t.Context(), tenant, list)
		if err != nil {
			t.Fatal(err)
		}
		return reasons
	}
	if r := ask("t", "a@one.test"); r != nil {
		t.Errorf("an empty list says %q", r)
	}
	l.Add("t", addr("Ann@one.test"), "complained")
	l.Add("", addr("bob@one.test"), "")
	l.Add("", smtp.Address{Domain: "gone.test"}, "no such domain")
	for _, c := range []struct {
		tenant string
		want   string
	}{
		{"t", `["complained" "suppressed" "no such domain" ""]`},
		{"u", `["" "suppressed" "no such domain" ""]`},
	} {
		if got := fmt.Sprintf("%q", ask(c.tenant, "aNN@one.test", "bob@one.test", "x@gone.test", "y@one.test")); got != c.want {
			t.Errorf("tenant %s: %s, want %s", c.tenant, got, c.want)
		}
	}
	var all []string
	for a, reason := range l.All("") {
		all = append(all, a.Local+"@"+a.Domain+" "+reason)
	}
	if fmt.Sprintf("%q", all) != `["@gone.test no such domain" "bob@one.test suppressed"]` {
		t.Errorf("all %q", all)
	}
	l.Remove("t", addr("ann@one.test"))
	if r := ask("t", "ann@one.test"); r[0] != "" {
		t.Errorf("after Remove %q", r)
	}
}

// Who is suppressed is an event, and nobody hears of it but those who asked to.
func TestSuppressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		list := new(queue.SuppressionList)
		w.q.Suppressor = list
		list.Add("t", addr("no@one.test"), "complained")
		w.run()
		send := func(notify smtp.Notify, to ...string) error {
			m := mail(to...)
			m.Tenant = "t"
			m.Envelope.To[0].Notify = notify
			_, err := w.q.Enqueue(t.Context(), m)
			return err
		}
		if err := send(0, "no@one.test", "yes@one.test"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := fmt.Sprint(w.delivered()); got != "[yes@one.test]" {
			t.Errorf("delivered to %s", got)
		}
		if w.count(queue.EventSuppressed) != 1 || w.count(queue.EventFailed) != 0 {
			t.Errorf("events %+v", w.events)
		}
		for _, e := range w.events {
			if e.Kind == queue.EventSuppressed && (e.To != addr("no@one.test") || !errors.Is(e.Result.Err, queue.ErrSuppressed)) {
				t.Errorf("event %+v", e)
			}
		}
		if err := send(0, "no@one.test"); !errors.Is(err, queue.ErrSuppressed) {
			t.Errorf("nobody is left: %v", err)
		}
		if w.st.Used() != 0 {
			t.Errorf("%d octets in use", w.st.Used())
		}
		if err := send(smtp.NotifyFailure, "no@one.test"); err != nil {
			t.Errorf("who wants to hear of it does: %v", err)
		}
		synctest.Wait()
		if n := w.notices(); len(n) != 1 || n[0].Recipients[0].Final != "no@one.test" {
			t.Errorf("notices %+v", n)
		}
		if w.count(queue.EventSuppressed) != 3 || len(w.left()) != 0 {
			t.Errorf("events %+v", w.events)
		}
		w.stop()
	})
}

// Who is suppressed after the mail was queued is not written to either.
func TestSuppressedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		list := new(queue.SuppressionList)
		w.q.Suppressor = list
		w.tr.Answer = func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
			if d.Nth == 1 {
				return d.Refuse(451, smtp.ScopeRecipient)
			}
			return d.All(smtp.Result{})
		}
		w.run()
		w.enqueue(mail("no@one.test", "yes@one.test"))
		synctest.Wait()
		list.Add("", addr("no@one.test"), "complained")
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := fmt.Sprint(w.delivered()); got != "[no@one.test yes@one.test yes@one.test]" {
			t.Errorf("delivered to %s", got)
		}
		if w.count(queue.EventSuppressed) != 1 || len(w.left()) != 0 || len(w.notices()) != 0 {
			t.Errorf("events %+v", w.events)
		}
		w.stop()
	})
}

// moodySuppressor cannot be asked for a while.
type moodySuppressor struct{ until time.Time }

func (m *moodySuppressor) Suppressed(context.Context, string, []smtp.Address) ([]string, error) {
	if time.Now().Before(m.until) {
		return nil, errors.New("the database is away")
	}
	return nil, nil
}

func TestSuppressorFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.enqueue(mail("a@one.test"))
		w.q.Suppressor = &moodySuppressor{until: time.Now().Add(10 * time.Minute)}
		if _, err := w.q.Enqueue(t.Context(), mail("a@one.test")); err == nil || errors.Is(err, queue.ErrSuppressed) {
			t.Errorf("queued without having asked: %v", err)
		}
		w.run()
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		if n := len(w.tr.Deliveries()); n != 0 {
			t.Errorf("%d deliveries without having asked", n)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if n := w.count(queue.EventDelivered); n != 1 {
			t.Errorf("%d delivered", n)
		}
		w.stop()
	})
}
