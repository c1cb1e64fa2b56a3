package feedback_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/feedback"
	"github.com/postrider/postrider/queue/memqueue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/returnpath"
)

func addr(s string) smtp.Address {
	a, err := smtp.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

var matcher = &feedback.Matcher{Base: addr("b@mail.example"), Key: []byte("secret")}

func TestReturnPath(t *testing.T) {
	m := &queue.Message{ID: queue.NewID()}
	for _, c := range []struct {
		to   string
		fits bool
	}{
		{"ann@example.org", true},
		{"Ann.O'Neil+x=y@ex.test", true},
		{"\"a b\"@ex.test", true},
		{"somebody.with.a.long.name@a-company.example.org", false},
		{"ä@ex.test", false},
		{"x@[192.0.2.1]", true},
	} {
		a := matcher.ReturnPath(m, addr("shop@shop.example"), addr(c.to))
		if !a.Valid() || !returnpath.Fits(a) || !a.ASCII() {
			t.Errorf("%s: the path %v", c.to, a)
		}
		for _, local := range []string{a.Local, strings.ToUpper(a.Local)} {
			o, err := matcher.Match(smtp.Address{Local: local, Domain: a.Domain})
			if err != nil || o.Message != m.ID {
				t.Errorf("%s: %v matches %+v, %v", c.to, local, o, err)
			}
			want := addr(c.to)
			if !c.fits {
				want = smtp.Address{}
			}
			if !strings.EqualFold(o.Recipient.String(), want.String()) || local == a.Local && o.Recipient != want {
				t.Errorf("%s: recipient %v", c.to, o.Recipient)
			}
		}
	}
	a := matcher.ReturnPath(m, smtp.Address{}, addr("ann@example.org"))
	other := (&feedback.Matcher{Base: matcher.Base, Key: []byte("other")}).ReturnPath(m, smtp.Address{}, addr("ann@example.org"))
	for _, bad := range []smtp.Address{
		{}, matcher.Base, addr("b+x@mail.example"), {Local: a.Local, Domain: "elsewhere.example"}, other,
		{Local: a.Local[:20], Domain: a.Domain}, {Local: a.Local[:len("b+")+26], Domain: a.Domain},
		{Local: a.Local[:3] + "0" + a.Local[4:], Domain: a.Domain}, {Local: a.Local + "=", Domain: a.Domain},
		{Local: "c" + a.Local[1:], Domain: a.Domain},
	} {
		if o, err := matcher.Match(bad); !errors.Is(err, returnpath.ErrNotOurs) && (err == nil || o != feedback.Origin{}) {
			t.Errorf("%v matches %+v, %v", bad, o, err)
		}
	}
}

// A notice of our own queue comes back to the return path it was sent to.
func TestOwnBounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &queuetest.Transport{Answer: func(_ context.Context, d *queuetest.Delivery) []smtp.Result {
			if d.Domain == "mail.example" {
				return d.All(smtp.Result{})
			}
			results := d.All(smtp.Result{})
			for i, to := range d.Envelope.To {
				if to.Local == "bad" {
					results[i].Err = &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 1, 1}, Text: "No such user"}
				}
			}
			return results
		}}
		q := &queue.Queue{Storage: new(memqueue.Storage), Transport: tr, Hostname: "mta.test", ReturnPath: matcher.ReturnPath,
			Log: slog.New(slog.DiscardHandler)}
		id, err := q.Enqueue(t.Context(), queue.Mail{Body: strings.NewReader("Message-ID: <1@shop.example>\r\nSubject: x\r\n\r\nx\r\n"),
			Envelope: smtp.Envelope{From: addr("shop@shop.example"), To: []smtp.Recipient{
				{Address: addr("good@one.test")}, {Address: addr("bad@one.test")}}}})
		if err != nil {
			t.Fatal(err)
		}
		go q.Run(context.Background())
		synctest.Wait()
		var bounces int
		paths := make(map[string]bool)
		for _, d := range tr.Deliveries() {
			if d.Domain != "mail.example" {
				paths[d.Envelope.From.String()] = true
				continue
			}
			bounces++
			r := strings.NewReader(d.Body)
			list, err := matcher.Read(t.Context(), d.Envelope.To[0].Address, r, r.Size())
			if err != nil || len(list) != 1 {
				t.Fatalf("%+v, %v", list, err)
			}
			if f := list[0]; f.Message != id || f.Recipient != addr("bad@one.test") || f.Class != report.BadMailbox || !f.Class.Hard() ||
				f.MessageID != "1@shop.example" || f.Status != (smtp.EnhancedCode{5, 1, 1}) {
				t.Errorf("feedback %+v", f)
			}
			if !d.Envelope.From.IsZero() {
				t.Errorf("the notice has the return path %v", d.Envelope.From)
			}
		}
		if bounces != 1 || len(paths) != 2 {
			t.Errorf("%d bounces, paths %v", bounces, paths)
		}
		q.Close()
	})
}

func render(t *testing.T, m *mime.Message) *bytes.Reader {
	t.Helper()
	var b bytes.Buffer
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(b.Bytes())
}

func TestRead(t *testing.T) {
	msg := &queue.Message{ID: queue.NewID()}
	path := matcher.ReturnPath(msg, smtp.Address{}, addr("ann@example.org"))
	original := mime.ParseHeader([]byte("Message-ID: <17@shop.example>\r\nSubject: x\r\n"))
	from := mime.Address{Address: addr("postmaster@far.test")}
	dsn := func(action report.Action, final ...string) *bytes.Reader {
		d := &report.DSN{ReportingMTA: "far.test", OriginalHeader: original}
		for _, f := range final {
			d.Recipients = append(d.Recipients, report.Recipient{Final: f, Action: action})
		}
		m, err := d.Message(from, path)
		if err != nil {
			t.Fatal(err)
		}
		return render(t, m)
	}
	complaint := func(mailFrom string) *bytes.Reader {
		a := &report.ARF{Type: "abuse", UserAgent: "far/1", MailFrom: mailFrom, OriginalHeader: original}
		m, err := a.Message(from, mime.Address{Address: addr("fbl@mail.example")})
		if err != nil {
			t.Fatal(err)
		}
		return render(t, m)
	}
	find := func(_ context.Context, id string) (queue.ID, error) {
		if id == "17@shop.example" {
			return msg.ID, nil
		}
		return queue.ID{}, nil
	}
	away := errors.New("the database is away")
	for _, c := range []struct {
		name  string
		to    smtp.Address
		text  *bytes.Reader
		find  func(context.Context, string) (queue.ID, error)
		err   error
		class report.Class
		rcpts string
	}{
		{"failed", path, dsn(report.Failed, "ann@example.org"), nil, nil, report.Unknown, "[ann@example.org]"},
		{"forwarded", path, dsn(report.Failed, "ann@elsewhere.test", "bob@elsewhere.test"), nil, nil, report.Unknown, "[ann@example.org]"},
		{"delayed", path, dsn(report.Delayed, "ann@example.org"), nil, nil, report.Late, "[ann@example.org]"},
		{"relayed", path, dsn(report.Relayed, "ann@example.org"), nil, nil, report.Success, "[ann@example.org]"},
		{"by Message-ID", addr("shop@shop.example"), dsn(report.Failed, "a@x.test", "b@x.test"), find, nil, report.Unknown, "[a@x.test b@x.test]"},
		{"unknown", addr("shop@shop.example"), dsn(report.Failed, "a@x.test"), nil, feedback.ErrUnmatched, report.Unknown, "[a@x.test]"},
		{"Find fails", addr("shop@shop.example"), dsn(report.Failed, "a@x.test"), func(context.Context, string) (queue.ID, error) { return queue.ID{}, away }, away, "", "[]"},
		{"complaint", addr("fbl@mail.example"), complaint(path.String()), nil, nil, report.Complaint, "[ann@example.org]"},
		{"complaint by Message-ID", addr("fbl@mail.example"), complaint(""), find, nil, report.Complaint, "[]"},
		{"complaint, forged path", addr("fbl@mail.example"), complaint("b+" + msg.ID.String() + "-00000000@mail.example"), nil, feedback.ErrUnmatched, report.Complaint, "[]"},
		{"away", path, bytes.NewReader([]byte("Auto-Submitted: auto-replied\r\nFrom: ann@example.org\r\nSubject: Out of office\r\n\r\nI am away.\r\n")), nil, nil, report.AutoReply, "[ann@example.org]"},
		{"a letter", path, bytes.NewReader([]byte("From: ann@example.org\r\nSubject: Thanks\r\n\r\nIt came.\r\n")), nil, feedback.ErrNotFeedback, "", "[]"},
		{"nothing", path, bytes.NewReader(nil), nil, feedback.ErrNotFeedback, "", "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := *matcher
			m.Find = c.find
			list, err := m.Read(t.Context(), c.to, c.text, c.text.Size())
			if !errors.Is(err, c.err) {
				t.Fatalf("%v, want %v", err, c.err)
			}
			var rcpts []string
			for _, f := range list {
				if f.Class != c.class || (c.err == nil) != (f.Message == msg.ID) {
					t.Errorf("feedback %+v", f)
				}
				if !f.Recipient.IsZero() {
					rcpts = append(rcpts, f.Recipient.String())
				}
			}
			if fmt.Sprint(rcpts) != c.rcpts || c.class != "" && len(list) == 0 {
				t.Errorf("recipients %v, want %s", rcpts, c.rcpts)
			}
		})
	}
}

func FuzzMatch(f *testing.F) {
	m := &queue.Message{ID: queue.NewID()}
	f.Add(matcher.ReturnPath(m, smtp.Address{}, addr("ann@example.org")).Local)
	f.Add("b+")
	f.Fuzz(func(t *testing.T, local string) {
		o, err := matcher.Match(smtp.Address{Local: local, Domain: "mail.example"})
		if err != nil {
			return
		}
		const n = len("b+") + 26 + len("-") + 8
		again := matcher.ReturnPath(&queue.Message{ID: o.Message}, smtp.Address{}, o.Recipient)
		if !strings.EqualFold(again.Local[:n], local[:n]) {
			t.Errorf("%q is %+v, which is %v", local, o, again)
		}
	})
}

func BenchmarkReturnPath(b *testing.B) {
	m := &queue.Message{ID: queue.NewID(), Received: time.Now()}
	to := addr("ann@example.org")
	b.ReportAllocs()
	for b.Loop() {
		matcher.ReturnPath(m, smtp.Address{}, to)
	}
}
