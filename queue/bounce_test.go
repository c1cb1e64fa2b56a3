package queue_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/smtp"
)

// notices returns the reports that reached the sender's domain.
func (w *world) notices() []*report.DSN {
	w.Helper()
	var found []*report.DSN
	for _, d := range w.tr.Deliveries() {
		if d.Domain != "from.test" {
			continue
		}
		if !d.Envelope.From.IsZero() || len(d.Envelope.To) != 1 || d.Envelope.To[0].Address != addr("a@from.test") {
			w.Errorf("a notice was sent with the envelope %+v", d.Envelope)
		}
		r := strings.NewReader(d.Body)
		dsn, err := report.Parse(r, r.Size())
		if err != nil {
			w.Fatalf("%v in:\n%s", err, d.Body)
		}
		found = append(found, dsn)
	}
	return found
}

func returned(t *testing.T, d *report.DSN) string {
	if d.Original == nil {
		return ""
	}
	r, err := d.Original()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, _ := io.ReadAll(r)
	return string(text)
}

// scripted answers for each recipient by its local part.
func scripted(hop *smtp.Hop) func(context.Context, *queuetest.Delivery) []smtp.Result {
	return func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
		results := make([]smtp.Result, len(d.Envelope.To))
		for i, to := range d.Envelope.To {
			r := &results[i]
			r.Hop = hop
			switch {
			case strings.HasPrefix(to.Local, "bad"):
				r.Reply = smtp.Reply{Code: 550, Enhanced: smtp.EnhancedCode{5, 1, 1}, Text: "No such user\nhere"}
				r.Err = &smtp.Error{Code: 550, Enhanced: r.Reply.Enhanced, Text: r.Reply.Text}
			case strings.HasPrefix(to.Local, "late"):
				r.Err = &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 7, 1}, Text: "Greylisted"}
			default:
				r.Reply = smtp.Reply{Code: 250, Enhanced: smtp.EnhancedCode{2, 1, 5}, Text: "OK"}
			}
		}
		return results
	}
}

func TestBounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tr.Answer = scripted(&smtp.Hop{Name: "mx.one.test"})
		w.run()
		m := mail("bad1@one.test", "ok@one.test", "bad2@one.test", "bad3@two.test")
		m.Tenant = "t"
		m.Envelope.EnvelopeID = "env id"
		m.Envelope.To[0].OriginalType, m.Envelope.To[0].Original = "rfc822", "Old@one.test"
		w.enqueue(m)
		synctest.Wait()
		all := w.notices()
		if len(all) != 2 {
			t.Fatalf("%d notices, want one for each entry", len(all))
		}
		d := all[0]
		if len(d.Recipients) == 1 {
			d = all[1]
		}
		if len(d.Recipients) != 2 || d.ReportingMTA != "mta.test" || d.EnvelopeID != "env id" || d.Arrival.IsZero() {
			t.Fatalf("notice %+v", d)
		}
		r := d.Recipients[0]
		if r.Final != "bad1@one.test" || r.Original != "Old@one.test" || r.Action != report.Failed ||
			r.Status != (smtp.EnhancedCode{5, 1, 1}) || r.RemoteMTA != "mx.one.test" || r.Diagnostic != "550 5.1.1 No such user here" || r.LastAttempt.IsZero() {
			t.Errorf("recipient %+v", r)
		}
		if d.Recipients[1].Original != "" {
			t.Error("an original recipient that nobody gave")
		}
		if d.OriginalHeader.Get("Subject") != "x" || returned(t, d) != "" {
			t.Errorf("the notice returns %q and %q", d.OriginalHeader.Bytes(), returned(t, d))
		}
		for _, e := range w.events {
			if e.Lane.Dest == "from.test" && e.Lane.Tenant != "t" {
				t.Error("the notice is not its tenant's")
			}
		}
		if len(w.left()) != 0 || w.st.Used() != 0 {
			t.Errorf("left %v", w.left())
		}
		w.stop()
	})
}

func TestNoNotice(t *testing.T) {
	for _, c := range []struct {
		name   string
		from   string
		notify smtp.Notify
		want   int
	}{
		{"a notice bounces", "<>", 0, 0},
		{"never", "a@from.test", smtp.NotifyNever, 0},
		{"success only", "a@from.test", smtp.NotifySuccess, 0},
		{"failure", "a@from.test", smtp.NotifyFailure, 1},
		{"unsaid", "a@from.test", 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.tr.Answer = scripted(nil)
				w.run()
				m := mail("bad@one.test")
				m.Envelope.From = addr(c.from)
				m.Envelope.To[0].Notify = c.notify
				w.enqueue(m)
				synctest.Wait()
				if n := len(w.notices()); n != c.want {
					t.Errorf("%d notices, want %d", n, c.want)
				}
				w.stop()
			})
		})
	}
}

// The sender is told of a success only if asked and if the hop will not.
func TestSuccessNotice(t *testing.T) {
	for _, c := range []struct {
		name   string
		hop    *smtp.Hop
		notify smtp.Notify
		want   report.Action
	}{
		{"relayed", &smtp.Hop{Name: "mx"}, smtp.NotifySuccess, report.Relayed},
		{"hop reports itself", &smtp.Hop{Name: "mx", DSN: true}, smtp.NotifySuccess, ""},
		{"delivered here", nil, smtp.NotifySuccess | smtp.NotifyFailure, report.Delivered},
		{"not asked", &smtp.Hop{Name: "mx"}, 0, ""},
		{"asked for failure", &smtp.Hop{Name: "mx"}, smtp.NotifyFailure, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.tr.Answer = scripted(c.hop)
				w.run()
				m := mail("ok@one.test")
				m.Envelope.To[0].Notify = c.notify
				m.Envelope.Return = smtp.ReturnFull
				w.enqueue(m)
				synctest.Wait()
				all := w.notices()
				switch {
				case c.want == "" && len(all) != 0, c.want != "" && len(all) != 1:
					t.Fatalf("%d notices", len(all))
				case c.want != "" && (all[0].Recipients[0].Action != c.want || all[0].Recipients[0].Status != smtp.EnhancedCode{2, 1, 5}):
					t.Errorf("notice %+v", all[0].Recipients)
				case c.want != "" && returned(t, all[0]) != "":
					t.Error("a success returns the whole message")
				}
				w.stop()
			})
		})
	}
}

func TestDelayNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.q.MaxAge = 24 * time.Hour
		w.tr.Answer = scripted(&smtp.Hop{Name: "mx.one.test"})
		w.run()
		m := mail("late1@one.test", "late2@one.test")
		m.Envelope.To[1].Notify = smtp.NotifyFailure
		begun := time.Now()
		w.enqueue(m)
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		all := w.notices()
		if len(all) != 1 || len(all[0].Recipients) != 1 {
			t.Fatalf("%d notices", len(all))
		}
		r := all[0].Recipients[0]
		if r.Final != "late1@one.test" || r.Action != report.Delayed || r.Status != (smtp.EnhancedCode{4, 7, 1}) ||
			r.RetryUntil.Sub(begun).Round(time.Second) != 24*time.Hour {
			t.Errorf("recipient %+v", r)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		all = w.notices()
		if len(all) != 2 || len(all[1].Recipients) != 2 || all[1].Recipients[0].Action != report.Failed ||
			all[1].Recipients[0].Status != (smtp.EnhancedCode{4, 7, 1}) || all[1].Recipients[0].DiagnosticType != "x-postrider" {
			t.Fatalf("notices %+v", all)
		}
		w.stop()
	})
}

func TestReturn(t *testing.T) {
	large := message + strings.Repeat("Some line of text.\r\n", 100_000)
	for _, c := range []struct {
		name    string
		options smtp.MailOptions
		body    string
		full    bool
	}{
		{"unsaid", smtp.MailOptions{}, message, false},
		{"headers", smtp.MailOptions{Return: smtp.ReturnHeaders}, message, false},
		{"full", smtp.MailOptions{Return: smtp.ReturnFull}, message, true},
		{"full, 8-bit", smtp.MailOptions{Return: smtp.ReturnFull}, message + "\u00e4\r\n", true},
		{"too large", smtp.MailOptions{Return: smtp.ReturnFull}, large, false},
		{"required TLS", smtp.MailOptions{Return: smtp.ReturnFull, RequireTLS: true}, message, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.tr.Answer = scripted(nil)
				w.run()
				m := mail("bad@one.test")
				m.Envelope.MailOptions = c.options
				m.Body = strings.NewReader(c.body)
				w.enqueue(m)
				synctest.Wait()
				all := w.notices()
				if len(all) != 1 {
					t.Fatalf("%d notices", len(all))
				}
				got := returned(t, all[0])
				if c.full != (got == c.body) || !c.full && got != "" || all[0].OriginalHeader.Get("Subject") != "x" {
					t.Errorf("returned %q", got)
				}
				for _, d := range w.tr.Deliveries() {
					if d.Domain == "from.test" && d.Envelope.RequireTLS != c.options.RequireTLS {
						t.Error("the notice of mail that required TLS does not")
					}
				}
				w.stop()
			})
		})
	}
}

// A bounce and the outcome it tells of are one step: when that fails neither
// is there.
func TestBounceIsAtomic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		f := &failing{Storage: w.st}
		w.q.Storage = f
		f.set(true)
		w.tr.Answer = scripted(nil)
		w.run()
		w.enqueue(mail("bad@one.test"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.left()); n != 1 {
			t.Errorf("%d entries while the outcome cannot be written", n)
		}
		w.q.Close() // gives up
		next := newWorld(t)
		next.st, next.q.Storage = w.st, w.st
		next.tr.Answer = scripted(nil)
		next.run()
		time.Sleep(2 * time.Minute) // until the first one's lease is over
		synctest.Wait()
		if n := len(next.notices()); n != 1 {
			t.Errorf("%d notices, want 1", n)
		}
		next.stop()
	})
}

// Whatever a transport says, the notice can be made.
func TestBounceOddResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.q.Hostname = "a b"
		odd := []smtp.Result{
			{Err: &smtp.Error{Code: 554}},
			{Err: &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{4, 2, 1}, Text: "wrong\r\nclass"}},
			{Err: &smtp.Error{Code: 550, Err: errors.New("private")}, Reply: smtp.Reply{Code: 550, Text: "\x00\xff\r\nX: y"}, Hop: &smtp.Hop{Name: "a\r\nb"}},
		}
		w.tr.Answer = func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
			if d.Domain == "from.test" {
				return d.All(smtp.Result{})
			}
			return odd
		}
		w.run()
		w.enqueue(mail("x@one.test", "\"y z\"@one.test", "\u00e4@one.test"))
		synctest.Wait()
		all := w.notices()
		if len(all) != 1 || len(all[0].Recipients) != 3 {
			t.Fatalf("notices %+v", all)
		}
		for _, r := range all[0].Recipients {
			if r.Action != report.Failed || r.Status[0] != 5 {
				t.Errorf("recipient %+v", r)
			}
		}
		for _, d := range w.tr.Deliveries() {
			if strings.Contains(d.Body, "private") {
				t.Error("a private cause is told to the sender")
			}
		}
		w.stop()
	})
}

var _ queue.Transport = (*queuetest.Transport)(nil)
