package ratelimit

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

func TestRate(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	type step struct {
		after time.Duration
		n     int
		wait  time.Duration
	}
	for _, tt := range []struct {
		name  string
		r     Rate
		steps []step
	}{
		{"burst is N", Rate{N: 3, Per: time.Minute}, []step{
			{0, 1, 0}, {0, 1, 0}, {0, 1, 0}, {0, 1, 20 * time.Second}, {15 * time.Second, 1, 5 * time.Second}, {20 * time.Second, 1, 0}, {20 * time.Second, 1, 20 * time.Second}, {10 * time.Minute, 3, 0}, {10 * time.Minute, 1, 20 * time.Second}}},
		{"burst 1", Rate{N: 60, Per: time.Hour, Burst: 1}, []step{
			{0, 1, 0}, {0, 1, time.Minute}, {59 * time.Second, 1, time.Second}, {time.Minute, 1, 0}}},
		{"a minute is the default", Rate{N: 1}, []step{{0, 1, 0}, {0, 1, time.Minute}}},
		{"more than the burst never fits", Rate{N: 2}, []step{{0, 3, 30 * time.Second}, {time.Hour, 3, 30 * time.Second}}},
		{"no limit", Rate{}, []step{{0, 1000, 0}, {0, 1000, 0}}},
		{"nothing costs nothing", Rate{N: 1}, []step{{0, 0, 0}, {0, -5, 0}, {0, 1, 0}}},
		{"no overflow", Rate{N: 1, Per: 24 * time.Hour, Burst: 1 << 62}, []step{{0, 1 << 60, 0}}},
		{"finer than a nanosecond", Rate{N: 1 << 40, Per: time.Second}, []step{{0, 1000, 0}}},
	} {
		var m Memory
		for i, s := range tt.steps {
			wait, err := m.Take(context.Background(), "k", s.n, tt.r, start.Add(s.after))
			if wait != s.wait || err != nil {
				t.Errorf("%s, step %d: wait %v, %v; want %v", tt.name, i, wait, err, s.wait)
			}
		}
	}
}

// TestMemoryIsBounded: neither keys that are over nor keys in use pile up.
func TestMemoryIsBounded(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	m := Memory{Max: 5000}
	r := Rate{N: 1, Per: time.Hour}
	for i := range 100_000 {
		m.Take(context.Background(), fmt.Sprint(i), 1, r, now)
		if len(m.paid) > m.Max {
			t.Fatalf("%d keys", len(m.paid))
		}
	}
	if len(m.paid) < m.Max/2 {
		t.Errorf("only %d keys are left of %d", len(m.paid), m.Max)
	}
	now = now.Add(2 * time.Hour)
	for i := range 2000 {
		m.Take(context.Background(), fmt.Sprint("late", i), 1, r, now)
	}
	if len(m.paid) > 5000 {
		t.Errorf("%d keys, of which 2,000 are in use", len(m.paid))
	}
	// What is refused or free is not kept.
	m = Memory{}
	for i := range 100 {
		m.Take(context.Background(), fmt.Sprint(i), 5, r, now)
	}
	if len(m.paid) != 0 {
		t.Errorf("%d keys of refusals", len(m.paid))
	}
}

// peerAt makes a pipe look like TCP from an address.
type peerAt struct {
	net.Conn
	ip string
}

func (c peerAt) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.ip), Port: 4711} }

type inner struct{ refuse bool }

func (in inner) Mail(context.Context, smtp.Address, smtp.MailOptions) error { return nil }
func (in inner) Rcpt(context.Context, smtp.Address, smtp.RcptOptions) error {
	if in.refuse {
		return smtp.Errorf(550, smtp.EnhancedCode{5, 1, 1}, "No such user")
	}
	return nil
}
func (in inner) Data(_ context.Context, r io.Reader) (smtp.Reply, error) {
	_, err := io.Copy(io.Discard, r)
	return smtp.Reply{}, err
}
func (in inner) Reset()       {}
func (in inner) Close() error { return nil }

var backend = smtpserver.BackendFunc(func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) { return inner{}, nil })

// talk runs one connection from ip and returns the replies.
func talk(t *testing.T, s *smtpserver.Server, ip string, lines ...string) []string {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		s.ServeConn(peerAt{theirs, ip})
		close(done)
	}()
	go io.WriteString(ours, strings.Join(append(lines, "QUIT"), "\r\n")+"\r\n")
	b, _ := io.ReadAll(ours)
	ours.Close()
	<-done
	return strings.Split(strings.TrimSpace(string(b)), "\r\n")
}

func has(replies []string, reply string) (n int) {
	for _, r := range replies {
		if r == reply {
			n++
		}
	}
	return n
}

func newServer(l *Limiter) *smtpserver.Server {
	quiet := slog.New(slog.DiscardHandler)
	l.Log = quiet
	return &smtpserver.Server{Hostname: "mx.test", Backend: smtpserver.Wrap(backend, l.Wrap), Log: quiet,
		Auth: everybody{}, InsecureAuth: true}
}

// everybody lets anybody in under any name.
type everybody struct{}

func (everybody) Mechanisms(*login.Conn) []string { return []string{"PLAIN"} }
func (everybody) Start(context.Context, string, *login.Conn) (login.Exchange, error) {
	return &exchange{}, nil
}

type exchange struct{ user string }

func (x *exchange) Next(response []byte) ([]byte, bool, error) {
	x.user = strings.Split(string(response), "\x00")[1]
	return nil, true, nil
}
func (x *exchange) Identity() login.Identity { return login.Identity{User: x.user} }

func TestConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Limiter{Connections: Rate{N: 2, Per: time.Minute}}
		s := newServer(l)
		const full, ok = "421 4.7.0 Too many connections, try again in 30s", "220 mx.test ESMTP ready"
		for i, step := range []struct {
			ip, want string
		}{
			{"192.0.2.1", ok}, {"192.0.2.1", ok}, {"192.0.2.1", full}, {"192.0.2.2", ok},
			{"2001:db8::1", ok}, {"2001:db8::2", ok}, {"2001:db8::3", full}, {"2001:db8:0:1::1", ok},
			{"::ffff:192.0.2.1", full}, {"192.0.2.1", full},
		} {
			if got := talk(t, s, step.ip); got[0] != step.want {
				t.Errorf("%d from %s: %q", i, step.ip, got)
			}
		}
		time.Sleep(30 * time.Second)
		if got := talk(t, s, "192.0.2.1"); got[0] != ok {
			t.Errorf("after a rest: %q", got)
		}
	})
}

func TestMessagesAndRecipients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Limiter{Messages: Rate{N: 2, Per: time.Minute}, Recipients: Rate{N: 3, Per: time.Minute}}
		s := newServer(l)
		mail := []string{"EHLO x", "MAIL FROM:<a@b.test>", "RSET", "MAIL FROM:<a@b.test>", "RSET", "MAIL FROM:<a@b.test>"}
		got := talk(t, s, "192.0.2.1", mail...)
		if has(got, "250 2.1.0 Sender OK") != 2 || has(got, "450 4.7.1 Too many messages, try again in 30s") != 1 {
			t.Errorf("%q", got)
		}
		rcpt := []string{"EHLO x", "MAIL FROM:<a@b.test>", "RCPT TO:<1@c.test>", "RCPT TO:<2@c.test>", "RCPT TO:<3@c.test>", "RCPT TO:<4@c.test>"}
		got = talk(t, s, "192.0.2.2", rcpt...)
		if has(got, "250 2.1.5 Recipient OK") != 3 || has(got, "450 4.7.1 Too many recipients, try again in 20s") != 1 {
			t.Errorf("%q", got)
		}
		// A login counts for itself, wherever it comes from.
		auth := func(user string) string {
			return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00secret"))
		}
		with := func(user string) []string { return append([]string{"EHLO x", auth(user)}, mail[1:]...) }
		if got = talk(t, s, "192.0.2.1", with("ann")...); has(got, "250 2.1.0 Sender OK") != 2 {
			t.Errorf("ann: %q", got)
		}
		if got = talk(t, s, "198.51.100.7", with("ann")...); has(got, "250 2.1.0 Sender OK") != 0 {
			t.Errorf("ann elsewhere: %q", got)
		}
		if got = talk(t, s, "192.0.2.1", with("bea")...); has(got, "250 2.1.0 Sender OK") != 2 {
			t.Errorf("bea: %q", got)
		}
		// Who is exempt is not counted.
		l2 := &Limiter{Messages: Rate{N: 1}, Exempt: func(c *smtpserver.Conn) bool { return c.Hello() == "x" }}
		if got = talk(t, newServer(l2), "192.0.2.1", mail...); has(got, "250 2.1.0 Sender OK") != 3 {
			t.Errorf("exempt: %q", got)
		}
		// A pipe has no address and is ours.
		l3 := &Limiter{Connections: Rate{N: 1}, Messages: Rate{N: 1}}
		s3 := newServer(l3)
		for range 3 {
			if got = talk(t, s3, "", "EHLO x", "MAIL FROM:<a@b.test>"); has(got, "250 2.1.0 Sender OK") != 1 {
				t.Errorf("no address: %q", got)
			}
		}
	})
}

// broken is a Storage whose database is away.
type broken struct{}

func (broken) Take(context.Context, string, int, Rate, time.Time) (time.Duration, error) {
	return time.Hour, errors.New("away")
}

func TestStorageFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Limiter{Connections: Rate{N: 1}, Messages: Rate{N: 1}, Storage: broken{}}
		if got := talk(t, newServer(l), "192.0.2.1", "EHLO x", "MAIL FROM:<a@b.test>"); has(got, "250 2.1.0 Sender OK") != 1 {
			t.Errorf("mail stops with the storage: %q", got)
		}
	})
}

func TestBackendError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Limiter{}
		s := &smtpserver.Server{Log: slog.New(slog.DiscardHandler), Backend: smtpserver.Wrap(smtpserver.BackendFunc(
			func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) {
				return nil, smtp.Errorf(554, smtp.EnhancedCode{5, 7, 1}, "No")
			}), l.Wrap)}
		if got := talk(t, s, "192.0.2.1"); got[0] != "554 5.7.1 No" {
			t.Errorf("%q", got)
		}
	})
}

// TestUnwrap: what the inner session can do is still to be found.
func TestUnwrap(t *testing.T) {
	var s smtpserver.Session = &session{Inner: smtpserver.Inner{Session: inner{refuse: true}}}
	u, ok := s.(interface{ Unwrap() smtpserver.Session })
	if !ok || u.Unwrap() != (inner{refuse: true}) {
		t.Error("Unwrap")
	}
}

// each answers in LMTP for every recipient that it has heard of.
type each struct {
	inner
	to []string
}

func (s *each) Rcpt(_ context.Context, to smtp.Address, _ smtp.RcptOptions) error {
	s.to = append(s.to, to.Local)
	return nil
}

func (s *each) DataLMTP(_ context.Context, r io.Reader) (results []smtp.Result) {
	io.Copy(io.Discard, r)
	for _, to := range s.to {
		res := smtp.Result{Reply: smtp.Reply{Code: 250, Enhanced: smtp.EnhancedCode{2, 1, 5}, Text: "For " + to}}
		if to == "full" {
			res = smtp.Result{Err: &smtp.Error{Code: 452, Enhanced: smtp.EnhancedCode{4, 2, 2}, Text: "Mailbox full"}}
		}
		results = append(results, res)
	}
	return results
}

// TestLMTP: each recipient has the answer of the session within, also when
// there is one for all, and one that was refused before has none.
func TestLMTP(t *testing.T) {
	lines := []string{"LHLO x", "MAIL FROM:<a@b.test>", "RCPT TO:<one@d.test>", "RCPT TO:<full@d.test>", "RCPT TO:<late@d.test>", "DATA", "x", "."}
	for _, session := range []smtpserver.Session{&each{}, inner{}} {
		l := &Limiter{Recipients: Rate{N: 2}}
		s := newServer(l)
		s.LMTP, s.Backend = true, smtpserver.Wrap(smtpserver.BackendFunc(func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) { return session, nil }), l.Wrap)
		got := talk(t, s, "192.0.2.1", lines...)
		_, answers, _ := strings.Cut(strings.Join(got, "\n"), "\n354 ")
		_, answers, _ = strings.Cut(answers, "\n")
		want := "250 2.1.5 For one\n452 4.2.2 Mailbox full\n221 2.0.0 Goodbye"
		if _, ok := session.(*each); !ok {
			want = "250 2.0.0 OK\n250 2.0.0 OK\n221 2.0.0 Goodbye"
		}
		if answers != want || !strings.Contains(strings.Join(got, "\n"), "450 4.7.1 Too many recipients") {
			t.Errorf("%T: %q", session, got)
		}
	}
}

func BenchmarkTake(b *testing.B) {
	b.ReportAllocs()
	var m Memory
	now := time.Now()
	i := 0
	keys := make([]string, 1<<16)
	for i := range keys {
		keys[i] = fmt.Sprintf("connections 192.0.%d.%d/32", i>>8, i&255)
	}
	for b.Loop() {
		m.Take(context.Background(), keys[i&(len(keys)-1)], 1, Rate{N: 100}, now)
		i++
	}
}
