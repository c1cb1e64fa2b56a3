package queue_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/smtp"
)

// The time of DELIVERBY passes: mode R ends the message then, mode N tells of it
// and goes on (RFC 2852 §4.1.3).
func TestDeliverByPasses(t *testing.T) {
	for _, c := range []struct {
		name     string
		byReturn bool
		notify   smtp.Notify
		action   report.Action // of the notice at that time, "" = none
	}{
		{"R", true, 0, report.Failed},
		{"R, FAILURE", true, smtp.NotifyFailure, report.Failed},
		{"R, DELAY only", true, smtp.NotifyDelay, ""},
		{"R, NEVER", true, smtp.NotifyNever, ""},
		{"N", false, 0, report.Delayed},
		{"N, DELAY", false, smtp.NotifyDelay, report.Delayed},
		{"N, FAILURE only", false, smtp.NotifyFailure, ""},
		{"N, NEVER", false, smtp.NotifyNever, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.q.DelayNotice = -1
				begun := time.Now()
				w.tr.Answer = func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
					if d.Domain == "one.test" && time.Since(begun) < 3*time.Hour {
						return d.Refuse(451, smtp.ScopeRecipient)
					}
					return d.All(smtp.Result{})
				}
				w.run()
				m := mail("r@one.test")
				m.Envelope.DeliverBy, m.Envelope.ByReturn = begun.Add(time.Hour), c.byReturn
				m.Envelope.To[0].Notify = c.notify
				w.enqueue(m)
				time.Sleep(59 * time.Minute)
				synctest.Wait()
				if n := len(w.notices()); n != 0 {
					t.Errorf("%d notices before the time", n)
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				all := w.notices()
				if c.action == "" && len(all) != 0 || c.action != "" && len(all) != 1 {
					t.Fatalf("%d notices at the time, want %q", len(all), c.action)
				}
				if c.action != "" {
					r := all[0].Recipients[0]
					status := smtp.EnhancedCode{4, 4, 7}
					if c.byReturn {
						status = smtp.EnhancedCode{5, 4, 7}
					}
					if r.Action != c.action || r.Status != status || !all[0].DeliverBy.Equal(m.Envelope.DeliverBy.Truncate(time.Second)) || all[0].Arrival.IsZero() {
						t.Errorf("notice %+v of %+v", all[0], r)
					}
				}
				time.Sleep(9 * time.Hour)
				synctest.Wait()
				if n := w.count(queue.EventDelivered); len(w.left()) != 0 || c.byReturn != (w.count(queue.EventExpired) == 1) || c.byReturn == (n > len(all)) {
					t.Errorf("left %v, events %+v", w.left(), w.events)
				}
				if n := len(w.notices()); n != len(all) {
					t.Errorf("%d notices in the end", n)
				}
				w.stop()
			})
		})
	}
}

// A hop that will not keep the time, or a trace that was asked for, is told of
// (RFC 2852 §4.1.4).
func TestDeliverByRelayed(t *testing.T) {
	for _, c := range []struct {
		name            string
		byReturn, trace bool
		hop             *smtp.Hop
		notify          smtp.Notify
		want            bool
	}{
		{"N, hop without", false, false, &smtp.Hop{Name: "mx"}, 0, true},
		{"N, hop without, but DSN", false, false, &smtp.Hop{Name: "mx", DSN: true}, 0, true},
		{"N, hop without, NEVER", false, false, &smtp.Hop{Name: "mx"}, smtp.NotifyNever, false},
		{"N, hop without, FAILURE", false, false, &smtp.Hop{Name: "mx"}, smtp.NotifyFailure, true},
		{"N, hop with", false, false, &smtp.Hop{Name: "mx", DeliverBy: true}, 0, false},
		{"N, trace", false, true, &smtp.Hop{Name: "mx", DeliverBy: true}, 0, true},
		{"R, trace", true, true, &smtp.Hop{Name: "mx", DeliverBy: true, DSN: true}, 0, true},
		{"R, trace, NEVER", true, true, &smtp.Hop{Name: "mx", DeliverBy: true}, smtp.NotifyNever, false},
		{"R", true, false, &smtp.Hop{Name: "mx", DeliverBy: true}, 0, false},
		{"delivered here", false, true, nil, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.tr.Answer = scripted(c.hop)
				w.run()
				m := mail("ok@one.test")
				m.Envelope.DeliverBy, m.Envelope.ByReturn, m.Envelope.ByTrace = time.Now().Add(time.Hour), c.byReturn, c.trace
				m.Envelope.To[0].Notify = c.notify
				w.enqueue(m)
				synctest.Wait()
				all := w.notices()
				if c.want != (len(all) == 1) {
					t.Fatalf("%d notices", len(all))
				}
				if c.want && all[0].Recipients[0].Action != report.Relayed {
					t.Errorf("notice %+v", all[0].Recipients)
				}
				w.stop()
			})
		})
	}
}

// The notice of a message that was held says how that was asked for (RFC 4865
// §5.1.2), and mail that is to be held is.
func TestFutureReleaseNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tr.Answer = scripted(nil)
		w.run()
		m := mail("bad@one.test")
		m.Envelope.HoldUntil, m.Envelope.HoldRequest = time.Now().Add(time.Hour), "for;3600"
		w.enqueue(m)
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if n := len(w.tr.Deliveries()); n != 0 {
			t.Errorf("%d deliveries of what is held", n)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if d := w.tr.Deliveries(); !d[0].Envelope.HoldUntil.IsZero() {
			t.Error("the hop is asked to hold it, too")
		}
		all := w.notices()
		if len(all) != 1 || all[0].FutureRelease != "for;3600" || all[0].Arrival.IsZero() {
			t.Errorf("notices %+v", all)
		}
		w.stop()
	})
}

// What MAIL and RCPT asked for of a notification, and what may be issued: each
// row is a rule of RFC 3461 §5.2.
func TestNotify(t *testing.T) {
	const (
		never, success, failure, delay = smtp.NotifyNever, smtp.NotifySuccess, smtp.NotifyFailure, smtp.NotifyDelay
	)
	plain, dsn := &smtp.Hop{Name: "mx.one.test"}, &smtp.Hop{Name: "mx.one.test", DSN: true}
	for _, c := range []struct {
		rule   string
		to     string // "bad", "ok" or "late"
		notify smtp.Notify
		hop    *smtp.Hop
		want   report.Action
	}{
		{"§5.2.1 a conforming hop tells of success", "ok", success, dsn, ""},
		{"§5.2.1 of our refusal we tell", "bad", failure, dsn, report.Failed},
		{"§5.2.2 (b)", "ok", success, plain, report.Relayed},
		{"§5.2.2 (b) among others", "ok", success | failure | delay, plain, report.Relayed},
		{"§5.2.2 (c)", "bad", failure, plain, report.Failed},
		{"§5.2.2 (d) success", "ok", never, plain, ""},
		{"§5.2.2 (d) failure", "bad", never, plain, ""},
		{"§5.2.2 (d) delay", "late", never, plain, ""},
		{"§5.2.2 (e)", "ok", 0, plain, ""},
		{"§5.2.2 (f)", "bad", 0, plain, report.Failed},
		{"§5.2.3 (a)", "ok", success, nil, report.Delivered},
		{"§5.2.3 (b)", "ok", failure | delay, nil, ""},
		{"§5.2.3 (c)", "ok", 0, nil, ""},
		{"§5.2.5 (a)", "late", delay, plain, report.Delayed},
		{"§5.2.5 (b)", "late", 0, plain, report.Delayed},
		{"§5.2.5 (c)", "late", success | failure, plain, ""},
		{"§5.2.6 (a)", "bad", failure, nil, report.Failed},
		{"§5.2.6 (b)", "bad", success | delay, nil, ""},
		{"§5.2.6 (c)", "bad", 0, nil, report.Failed},
	} {
		for _, from := range []string{"a@from.test", "<>"} {
			t.Run(c.rule+" "+from, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					w.tr.Answer = scripted(c.hop)
					w.run()
					m := mail(c.to + "@one.test")
					m.Envelope.From = addr(from)
					m.Envelope.To[0].Notify = c.notify
					w.enqueue(m)
					time.Sleep(5 * time.Hour)
					synctest.Wait()
					var want report.Action
					if from != "<>" { // §5.2: never for the null reverse-path
						want = c.want
					}
					all := w.notices()
					switch {
					case want == "" && len(all) != 0, want != "" && len(all) != 1:
						t.Fatalf("%d notices, want %q", len(all), want)
					case want != "" && all[0].Recipients[0].Action != want:
						t.Errorf("action %q, want %q", all[0].Recipients[0].Action, want)
					}
					w.q.Close()
				})
			})
		}
	}
}

// The fields and the envelope of a notice (RFC 3461 §6).
func TestNoticeFields(t *testing.T) {
	for _, c := range []struct {
		name, host string
		change     func(*queue.Mail)
		check      func(t *testing.T, d *report.DSN, body string)
	}{
		{"§6.3 (a) ENVID", "mta.test", func(m *queue.Mail) { m.Envelope.EnvelopeID = "a=b +c" }, func(t *testing.T, d *report.DSN, body string) {
			if !strings.Contains(body, "\r\nOriginal-Envelope-Id: a=b +c\r\n") {
				t.Error("ENVID is not as it was, decoded")
			}
		}},
		{"§6.3 (a) no ENVID, (d) no ORCPT", "mta.test", nil, func(t *testing.T, d *report.DSN, body string) {
			if strings.Contains(body, "Original-Envelope-Id") || strings.Contains(body, "Original-Recipient") {
				t.Error("fields that nobody asked for")
			}
		}},
		{"§6.3 (b) a name", "mta.test", nil, func(t *testing.T, d *report.DSN, body string) {
			if !strings.Contains(body, "\r\nReporting-MTA: dns; mta.test\r\n") {
				t.Error("Reporting-MTA")
			}
		}},
		{"§6.3 (b) no name", "box", nil, func(t *testing.T, d *report.DSN, body string) {
			if !strings.Contains(body, "\r\nReporting-MTA: x-local-hostname; box\r\n") {
				t.Error("Reporting-MTA")
			}
		}},
		{"§6.3 (d) ORCPT", "mta.test", func(m *queue.Mail) {
			m.Envelope.To[0].OriginalType, m.Envelope.To[0].Original = "rfc822", "Old.Name@ONE.test"
		}, func(t *testing.T, d *report.DSN, body string) {
			if !strings.Contains(body, "\r\nOriginal-Recipient: rfc822; Old.Name@ONE.test\r\n") {
				t.Error("Original-Recipient is not as it was")
			}
		}},
		{"§6.3 (e) to (i)", "mta.test", nil, func(t *testing.T, d *report.DSN, body string) {
			for _, f := range []string{"Final-Recipient: rfc822; bad@one.test", "Action: failed", "Status: 5.1.1",
				"Remote-MTA: dns; mx.one.test", "Diagnostic-Code: smtp; 550 5.1.1 No such user here"} {
				if !strings.Contains(body, "\r\n"+f+"\r\n") {
					t.Errorf("no %q", f)
				}
			}
		}},
		{"§6.2 RET=FULL", "mta.test", func(m *queue.Mail) { m.Envelope.Return = smtp.ReturnFull }, func(t *testing.T, d *report.DSN, body string) {
			if returned(t, d) != message {
				t.Errorf("returned %q", returned(t, d))
			}
		}},
		{"RFC 6533 §3", "mta.test", func(m *queue.Mail) {
			m.Envelope.To[0].Address = addr("badä@one.test")
			m.Envelope.To[0].OriginalType, m.Envelope.To[0].Original = "utf-8", "bädold@one.test"
		}, func(t *testing.T, d *report.DSN, body string) {
			for _, f := range []string{"Final-Recipient: utf-8; badä@one.test", "Original-Recipient: utf-8; bädold@one.test"} {
				if !strings.Contains(body, f) {
					t.Errorf("no %q", f)
				}
			}
			if !strings.Contains(body, "report-type=global-delivery-status") || !strings.Contains(body, "Content-Type: message/global-delivery-status") {
				t.Error("its types are not those of RFC 6533")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.q.Hostname = c.host
				w.tr.Answer = scripted(&smtp.Hop{Name: "mx.one.test"})
				w.run()
				m := mail("bad@one.test", "ok@one.test")
				if c.change != nil {
					c.change(&m)
				}
				w.enqueue(m)
				synctest.Wait()
				all := w.notices()
				if len(all) != 1 || len(all[0].Recipients) != 1 { // §5.2.8: of nobody else
					t.Fatalf("notices %+v", all)
				}
				for _, d := range w.tr.Deliveries() {
					if d.Domain != "from.test" {
						continue
					}
					c.check(t, all[0], d.Body)
					// §6.1
					if e := d.Envelope; !e.From.IsZero() || e.Return != "" || e.To[0].Notify != smtp.NotifyNever || e.To[0].Address != addr("a@from.test") {
						t.Errorf("envelope of the notice %+v", e)
					}
				}
				w.stop()
			})
		})
	}
}
