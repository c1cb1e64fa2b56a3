package greylist

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

func addr(s string) smtp.Address {
	a, err := smtp.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

func TestCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		var g Greylist
		check := func(ip, from, to string, want time.Duration) {
			t.Helper()
			wait, err := g.Check(ctx, netip.MustParseAddr(ip), addr(from), addr(to))
			if wait != want || err != nil {
				t.Errorf("%s %s %s: wait %v, %v; want %v", ip, from, to, wait, err, want)
			}
		}
		check("192.0.2.1", "a@b.test", "c@d.test", time.Minute)
		time.Sleep(20 * time.Second)
		check("192.0.2.1", "a@b.test", "c@d.test", 40*time.Second)
		check("192.0.2.99", "A@b.test", "C@d.test", 40*time.Second) // a neighbour, another case
		check("192.0.2.1", "a@b.test", "other@d.test", time.Minute)
		check("192.0.3.1", "a@b.test", "c@d.test", time.Minute)
		check("192.0.3.1", "", "c@d.test", time.Minute)
		time.Sleep(40 * time.Second)
		check("192.0.2.1", "a@b.test", "c@d.test", 0)
		// The network is known now, whoever writes to whom.
		check("192.0.2.7", "x@y.test", "z@d.test", 0)
		check("192.0.3.1", "x@y.test", "z@d.test", time.Minute)
		// For IPv6 a network is a /64; IPv4 in IPv6 is IPv4.
		check("2001:db8::1", "a@b.test", "c@d.test", time.Minute)
		check("::ffff:192.0.2.1", "a@b.test", "c@d.test", 0)
		time.Sleep(time.Minute)
		check("2001:db8::2", "a@b.test", "c@d.test", 0)
		check("2001:db8:0:1::2", "a@b.test", "c@d.test", time.Minute)
		// Each mail keeps a network known; 36 days without one forget it.
		time.Sleep(35 * 24 * time.Hour)
		check("192.0.2.1", "new@b.test", "c@d.test", 0)
		time.Sleep(35 * 24 * time.Hour)
		check("192.0.2.1", "new@b.test", "c@d.test", 0)
		time.Sleep(37 * 24 * time.Hour)
		check("192.0.2.1", "new@b.test", "c@d.test", time.Minute)
		// A first attempt is worth nothing after two days.
		time.Sleep(49 * time.Hour)
		check("192.0.2.1", "new@b.test", "c@d.test", time.Minute)
		if wait, err := g.Check(ctx, netip.Addr{}, addr(""), addr("c@d.test")); wait != 0 || err != nil {
			t.Errorf("no address: %v, %v", wait, err)
		}

		none := Greylist{Delay: -1}
		if wait, err := none.Check(ctx, netip.MustParseAddr("192.0.2.1"), addr(""), addr("c@d.test")); wait != 0 || err != nil {
			t.Errorf("no delay: %v, %v", wait, err)
		}
	})
}

// TestMemoryIsBounded: a flood of attempts costs neither memory nor what is
// known of others.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		m := &Memory{Max: 1000}
		g := Greylist{Storage: m}
		good := netip.MustParseAddr("192.0.2.1")
		g.Check(ctx, good, addr("a@b.test"), addr("c@d.test"))
		time.Sleep(time.Minute)
		if wait, _ := g.Check(ctx, good, addr("a@b.test"), addr("c@d.test")); wait != 0 {
			t.Fatal(wait)
		}
		for i := range 5000 {
			g.Check(ctx, netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), addr("a@b.test"), addr(fmt.Sprintf("%d@d.test", i)))
		}
		if n, k := len(m.attempted.byKey), len(m.known.byKey); n != 1000 || k != 1 || m.attempted.order.Len() != n {
			t.Errorf("%d attempts, %d known", n, k)
		}
		if wait, _ := g.Check(ctx, good, addr("x@b.test"), addr("c@d.test")); wait != 0 {
			t.Errorf("the flood made a known network wait %v", wait)
		}
		// The oldest attempts gave way.
		if wait, _ := g.Check(ctx, netip.AddrFrom4([4]byte{10, 4999 >> 8, 4999 & 255, 1}), addr("a@b.test"), addr("4999@d.test")); wait != time.Minute {
			t.Error(wait)
		}
		time.Sleep(50 * time.Hour)
		g.Check(ctx, netip.MustParseAddr("10.0.0.1"), addr(""), addr("c@d.test"))
		if n := len(m.attempted.byKey); n != 1 {
			t.Errorf("%d attempts are remembered after their time", n)
		}
		// Networks are bounded too.
		for i := range 3000 {
			m.Keep(ctx, fmt.Sprintf("network %d", i), time.Now(), time.Now().Add(time.Hour))
		}
		if k := len(m.known.byKey); k != 1000 {
			t.Errorf("%d known", k)
		}
	})
}

// TestMemory holds Memory to what Storage says.
func TestMemory(t *testing.T) {
	ctx := context.Background()
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	at := func(h int) time.Time { return now.Add(time.Duration(h) * time.Hour) }
	for _, kind := range []string{"network x", "triplet x"} {
		var m Memory
		if ok, _ := m.Known(ctx, kind, now, at(1)); ok {
			t.Errorf("%s is known at first", kind)
		}
		if first, known, _ := m.First(ctx, kind, now, at(2)); known || first != now {
			t.Errorf("%s: %v, %v", kind, first, known)
		}
		if first, known, _ := m.First(ctx, kind, at(1), at(9)); !known || first != now {
			t.Errorf("%s: %v, %v", kind, first, known)
		}
		if first, known, _ := m.First(ctx, kind, at(3), at(5)); known || first != at(3) {
			t.Errorf("%s after its time: %v, %v", kind, first, known)
		}
		if ok, _ := m.Known(ctx, kind, at(4), at(4)); !ok { // does not move the time back
			t.Errorf("%s is not known", kind)
		}
		if ok, _ := m.Known(ctx, kind, at(5), at(8)); !ok {
			t.Errorf("%s: the time was moved back", kind)
		}
		if ok, _ := m.Known(ctx, kind, at(8), at(8)); !ok {
			t.Errorf("%s: the time was not moved", kind)
		}
		m.Keep(ctx, kind, at(8), at(20))
		if first, known, _ := m.First(ctx, kind, at(20), at(21)); !known || first != at(3) {
			t.Errorf("%s kept: %v, %v", kind, first, known)
		}
	}
}

type peerAt struct {
	net.Conn
	ip string
}

func (c peerAt) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.ip), Port: 4711} }

// inner says which recipients it was asked for.
type inner struct{ asked *[]string }

func (in inner) Mail(context.Context, smtp.Address, smtp.MailOptions) error { return nil }
func (in inner) Rcpt(_ context.Context, to smtp.Address, _ smtp.RcptOptions) error {
	*in.asked = append(*in.asked, to.String())
	if to.Local == "nobody" {
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

// everybody lets anybody in.
type everybody struct{}

func (everybody) Mechanisms(*login.Conn) []string { return []string{"PLAIN"} }
func (everybody) Start(context.Context, string, *login.Conn) (login.Exchange, error) {
	return exchange{}, nil
}

type exchange struct{}

func (exchange) Next([]byte) ([]byte, bool, error) { return nil, true, nil }
func (exchange) Identity() login.Identity          { return login.Identity{User: "ann"} }

// talk runs one connection and returns its replies.
func talk(g *Greylist, asked *[]string, ip string, lines ...string) string {
	quiet := slog.New(slog.DiscardHandler)
	g.Log = quiet
	backend := smtpserver.BackendFunc(func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) { return inner{asked}, nil })
	return serveTalk(&smtpserver.Server{Hostname: "mx.test", Backend: smtpserver.Wrap(backend, g.Wrap), Log: quiet, Auth: everybody{}, InsecureAuth: true}, ip, lines...)
}

func serveTalk(s *smtpserver.Server, ip string, lines ...string) string {
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
	return string(b)
}

func TestSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		var g Greylist
		mail := []string{"EHLO x", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "RCPT TO:<nobody@d.test>"}
		got := talk(&g, &asked, "192.0.2.1", mail...)
		if strings.Count(got, "451 4.7.1 Greylisted, try again in 1m0s\r\n") != 2 || len(asked) != 0 {
			t.Errorf("%q, asked %q", got, asked)
		}
		if got = talk(&g, &asked, "192.0.2.2", append([]string{"EHLO x", "AUTH PLAIN eA=="}, mail[1:]...)...); !strings.Contains(got, "250 2.1.5") {
			t.Errorf("who has logged in: %q", got)
		}
		if got = talk(&g, &asked, "", mail...); !strings.Contains(got, "250 2.1.5") {
			t.Errorf("a pipe: %q", got)
		}
		asked = nil
		time.Sleep(90 * time.Second)
		got = talk(&g, &asked, "192.0.2.1", mail...)
		if !strings.Contains(got, "250 2.1.5") || !strings.Contains(got, "550 5.1.1 No such user") || len(asked) != 2 {
			t.Errorf("%q, asked %q", got, asked)
		}
		ex := Greylist{Exempt: func(_ context.Context, c *smtpserver.Conn, from, to smtp.Address) bool {
			return c.Hello() == "x" && from == addr("a@b.test") && to.Local == "c"
		}}
		got = talk(&ex, &asked, "192.0.2.1", mail...)
		if strings.Count(got, "451 4.7.1") != 1 || !strings.Contains(got, "250 2.1.5") {
			t.Errorf("exempt: %q", got)
		}
	})
}

// broken is a Storage whose database is away, in one of its calls.
type broken struct{ known, first, keep error }

func (b broken) Known(context.Context, string, time.Time, time.Time) (bool, error) {
	return false, b.known
}
func (b broken) First(context.Context, string, time.Time, time.Time) (time.Time, bool, error) {
	return time.Time{}, true, b.first
}
func (b broken) Keep(context.Context, string, time.Time, time.Time) error { return b.keep }

func TestStorageFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("away")
		for _, b := range []broken{{known: away}, {first: away}, {keep: away}} {
			g := Greylist{Storage: b}
			if _, err := g.Check(context.Background(), netip.MustParseAddr("192.0.2.1"), addr(""), addr("c@d.test")); !errors.Is(err, away) {
				t.Errorf("%+v: %v", b, err)
			}
			var asked []string
			if got := talk(&g, &asked, "192.0.2.1", "EHLO x", "MAIL FROM:<>", "RCPT TO:<c@d.test>"); !strings.Contains(got, "250 2.1.5") {
				t.Errorf("%+v: mail stops with the storage: %q", b, got)
			}
		}
	})
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
	for _, session := range []smtpserver.Session{&each{}, inner{new([]string)}} {
		g := Greylist{Log: slog.New(slog.DiscardHandler), Exempt: func(_ context.Context, _ *smtpserver.Conn, _, to smtp.Address) bool { return to.Local != "late" }}
		got := serveTalk(&smtpserver.Server{LMTP: true, Log: g.Log, Backend: smtpserver.Wrap(smtpserver.BackendFunc(
			func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) { return session, nil }), g.Wrap)}, "192.0.2.1", lines...)
		_, answers, _ := strings.Cut(got, "\r\n354 ")
		_, answers, _ = strings.Cut(answers, "\r\n")
		want := "250 2.1.5 For one\r\n452 4.2.2 Mailbox full\r\n221 2.0.0 Goodbye\r\n"
		if _, ok := session.(*each); !ok {
			want = "250 2.0.0 OK\r\n250 2.0.0 OK\r\n221 2.0.0 Goodbye\r\n"
		}
		if answers != want || !strings.Contains(got, "451 4.7.1 Greylisted") {
			t.Errorf("%T: %q", session, got)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	b.ReportAllocs()
	var g Greylist
	ip, from, to := netip.MustParseAddr("192.0.2.1"), addr("a@b.test"), addr("c@d.test")
	for b.Loop() {
		g.Check(context.Background(), ip, from, to)
	}
}
