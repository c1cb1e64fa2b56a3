package dnsbl

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

const v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"

func zones() *mxtest.DNS {
	return mxtest.NewDNS(mxtest.Zone{
		"1.2.0.192.bl.test":      {"A 127.0.0.2", "A 127.0.0.9", `TXT "See https://bl.test/192.0.2.1\010now"`},
		v6 + ".bl.test":          {"A 127.0.0.3"},
		"2.2.0.192.bl.test":      {"A 127.255.255.254", "TXT query refused"},
		"3.2.0.192.bl.test":      {"A 192.0.2.80"},
		"4.2.0.192.bl.test":      {"SERVFAIL"},
		"1.2.0.192.wl.test":      {"A 127.0.10.3"},
		"5.2.0.192.codes.test":   {"A 127.0.0.10"},
		"6.2.0.192.codes.test":   {"A 127.0.0.4"},
		"bad.example.dbl.test":   {"A 127.0.1.2"},
		"xn--bcher-kva.dbl.test": {"A 127.0.1.2"},
	})
}

func TestLookupAddr(t *testing.T) {
	dns := zones()
	if err := dns.Err(); err != nil {
		t.Fatal(err)
	}
	c := &Checker{Resolver: dns, Lists: []List{
		{Zone: "bl.test.", Weight: 2},
		{Zone: "wl.test", Weight: -1},
		{Zone: "codes.test", Answers: []netip.Prefix{netip.MustParsePrefix("127.0.0.4/32")}},
		{Zone: "dbl.test", Of: Hello | Sender},
	}}
	for _, tt := range []struct {
		ip    string
		zones string
		score int
		err   error
		text  string
	}{
		{"192.0.2.1", "bl.test. wl.test", 1, nil, "See https://bl.test/192.0.2.1?now"},
		{"::ffff:192.0.2.1", "bl.test. wl.test", 1, nil, "See https://bl.test/192.0.2.1?now"},
		{"2001:db8::1", "bl.test.", 2, nil, ""},
		{"2001:db8::1%eth0", "bl.test.", 2, nil, ""},
		{"2001:db8::2", "", 0, nil, ""},
		{"192.0.2.2", "", 0, ErrList, ""},
		{"192.0.2.3", "", 0, ErrList, ""},
		{"192.0.2.5", "", 0, nil, ""},
		{"192.0.2.6", "codes.test", 1, nil, ""},
		{"192.0.2.99", "", 0, nil, ""},
	} {
		r := c.LookupAddr(context.Background(), netip.MustParseAddr(tt.ip))
		var names []string
		for _, h := range r.Hits {
			names = append(names, h.List.Zone)
		}
		if strings.Join(names, " ") != tt.zones || r.Score != tt.score || !errors.Is(errors.Join(r.Errs...), tt.err) {
			t.Errorf("%s: %q, score %d, %v", tt.ip, names, r.Score, r.Errs)
		}
		if len(r.Hits) > 0 && r.Hits[0].Text != tt.text {
			t.Errorf("%s: text %q", tt.ip, r.Hits[0].Text)
		}
	}
	r := c.LookupAddr(context.Background(), netip.MustParseAddr("192.0.2.4"))
	if len(r.Errs) != 1 || !strings.HasPrefix(r.Errs[0].Error(), "bl.test.: ") || r.Score != 0 {
		t.Errorf("a broken list: %+v", r)
	}
	if r := c.LookupAddr(context.Background(), netip.Addr{}); len(r.Hits)+len(r.Errs) != 0 {
		t.Errorf("no address: %+v", r)
	}
}

func TestLookupDomain(t *testing.T) {
	dns := zones()
	dns.Set("bücher.example.dbl.test") // removed: there is none
	dns.Set("xn--bcher-kva.example.dbl.test", "A 127.0.1.2")
	c := &Checker{Resolver: dns, Lists: []List{{Zone: "dbl.test", Of: Hello | Sender}, {Zone: "bl.test"}}}
	for name, want := range map[string]int{
		"bad.example": 1, "BAD.Example.": 1, "bücher.example": 1, "good.example": 0, "": 0, "localhost": 0,
		"[192.0.2.1]": 0, "192.0.2.1": 0, "not a name": 0, strings.Repeat("l.", 124) + "example": 0,
	} {
		for _, of := range []Subject{Hello, Sender} {
			if r := c.LookupDomain(context.Background(), of, name); r.Score != want || len(r.Errs) > 0 {
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
	for _, q := range dns.Questions() {
		if strings.HasPrefix(q.Name, "192.") || strings.Contains(q.Name, "bl.test") && !strings.Contains(q.Name, "dbl.test") {
			t.Errorf("asked for %v", q)
		}
	}
}

// slow answers after a time, or not at all; it counts the open questions.
type slow struct {
	after time.Duration
	open  *atomic.Int32
}

func (s slow) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	s.open.Add(1)
	defer s.open.Add(-1)
	select {
	case <-time.After(s.after):
		return []netip.Addr{netip.MustParseAddr("127.0.0.2")}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
func (s slow) LookupTXT(context.Context, string) ([]string, error) { return nil, errors.New("no") }

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lists := make([]List, 10)
		for i := range lists {
			lists[i].Zone = "bl.test"
		}
		var open atomic.Int32
		c := &Checker{Lists: lists, Resolver: slow{time.Second, &open}}
		began := time.Now()
		if r := c.LookupAddr(context.Background(), netip.MustParseAddr("192.0.2.1")); r.Score != 10 || time.Since(began) != time.Second {
			t.Errorf("%+v after %v: lists are not asked at once", r, time.Since(began))
		}
		c.Resolver = slow{time.Hour, &open}
		began = time.Now()
		r := c.LookupAddr(context.Background(), netip.MustParseAddr("192.0.2.1"))
		if r.Score != 0 || len(r.Errs) != 10 || time.Since(began) != 5*time.Second || open.Load() != 0 {
			t.Errorf("%+v after %v", r, time.Since(began))
		}
	})
}

type peerAt struct {
	net.Conn
	ip string
}

func (c peerAt) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.ip), Port: 4711} }

// inner counts what it was asked.
type inner struct{ rcpts *atomic.Int32 }

func (in inner) Mail(context.Context, smtp.Address, smtp.MailOptions) error { return nil }
func (in inner) Rcpt(context.Context, smtp.Address, smtp.RcptOptions) error {
	in.rcpts.Add(1)
	return nil
}
func (in inner) Data(_ context.Context, r io.Reader) (smtp.Reply, error) {
	_, err := io.Copy(io.Discard, r)
	return smtp.Reply{}, err
}
func (in inner) Reset()       {}
func (in inner) Close() error { return nil }

type everybody struct{}

func (everybody) Mechanisms(*login.Conn) []string { return []string{"PLAIN"} }
func (everybody) Start(context.Context, string, *login.Conn) (login.Exchange, error) {
	return exchange{}, nil
}

type exchange struct{}

func (exchange) Next([]byte) ([]byte, bool, error) { return nil, true, nil }
func (exchange) Identity() login.Identity          { return login.Identity{User: "ann"} }

func server(c *Checker, rcpts *atomic.Int32) *smtpserver.Server {
	quiet := slog.New(slog.DiscardHandler)
	c.Log = quiet
	return &smtpserver.Server{Hostname: "mx.test", Log: quiet, Auth: everybody{}, InsecureAuth: true,
		Backend: smtpserver.Wrap(smtpserver.BackendFunc(func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) {
			return inner{rcpts}, nil
		}), c.Wrap)}
}

// talk runs one connection and returns its replies.
func talk(s *smtpserver.Server, ip string, lines ...string) string {
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
	dns := zones()
	var rcpts atomic.Int32
	c := &Checker{Resolver: dns, Lists: []List{{Zone: "bl.test"}, {Zone: "dbl.test", Of: Hello | Sender}}}
	s := server(c, &rcpts)
	to := "RCPT TO:<c@d.test>"
	for _, tt := range []struct {
		name, ip string
		lines    []string
		want     string
		rcpts    int32
	}{
		{"clean", "192.0.2.99", []string{"EHLO x.test", "MAIL FROM:<a@b.test>", to, to}, "250 2.1.5", 2},
		{"address", "192.0.2.1", []string{"EHLO x.test", "MAIL FROM:<a@b.test>", to},
			"554 5.7.1 192.0.2.1 is listed by bl.test: See https://bl.test/192.0.2.1?now\r\n", 0},
		{"postmaster", "192.0.2.1", []string{"EHLO x.test", "MAIL FROM:<a@b.test>", "RCPT TO:<Postmaster>"}, "250 2.1.5", 1},
		{"login", "192.0.2.1", []string{"EHLO x.test", "AUTH PLAIN eA==", "MAIL FROM:<a@b.test>", to}, "250 2.1.5", 1},
		{"hello", "192.0.2.99", []string{"EHLO bad.example", "MAIL FROM:<a@b.test>", to}, "554 5.7.1 bad.example is listed by dbl.test\r\n", 0},
		{"second hello", "192.0.2.99", []string{"EHLO good.example", "MAIL FROM:<a@b.test>", to, "EHLO bad.example", "MAIL FROM:<a@b.test>", to}, "554 5.7.1 bad.example is", 1},
		{"first hello", "192.0.2.99", []string{"EHLO bad.example", "MAIL FROM:<a@b.test>", "EHLO good.example", "MAIL FROM:<a@b.test>", to}, "250 2.1.5", 1},
		{"sender", "192.0.2.99", []string{"EHLO x.test", "MAIL FROM:<a@bad.example>", to}, "554 5.7.1 bad.example is listed by dbl.test\r\n", 0},
		{"next sender", "192.0.2.99", []string{"EHLO x.test", "MAIL FROM:<a@bad.example>", to, "RSET", "MAIL FROM:<a@b.test>", to}, "250 2.1.5", 1},
		{"null sender", "192.0.2.99", []string{"EHLO x.test", "MAIL FROM:<>", to}, "250 2.1.5", 1},
		{"trouble is no listing", "192.0.2.2", []string{"EHLO x.test", "MAIL FROM:<>", to}, "250 2.1.5", 1},
		{"no RCPT", "192.0.2.1", []string{"EHLO x.test", "MAIL FROM:<a@b.test>"}, "250 2.1.0", 0},
	} {
		rcpts.Store(0)
		if got := talk(s, tt.ip, tt.lines...); !strings.Contains(got, tt.want) || rcpts.Load() != tt.rcpts {
			t.Errorf("%s: %q, %d recipients at the backend", tt.name, got, rcpts.Load())
		}
	}
	c2 := &Checker{Resolver: dns, Lists: c.Lists, Decide: func(_ context.Context, conn *smtpserver.Conn, to smtp.Address, r Result) error {
		if to.Local == "strict" && r.Score > 0 {
			return smtp.Errorf(450, smtp.EnhancedCode{4, 7, 1}, "%s has %d", conn.Remote().Addr(), r.Score)
		}
		return nil
	}}
	got := talk(server(c2, &rcpts), "192.0.2.1", "EHLO bad.example", "MAIL FROM:<a@bad.example>", to, "RCPT TO:<strict@d.test>")
	if !strings.Contains(got, "250 2.1.5") || !strings.Contains(got, "450 4.7.1 192.0.2.1 has 3\r\n") {
		t.Errorf("Decide: %q", got)
	}
	white := &Checker{Lists: []List{{Zone: "w", Weight: -2}}, Threshold: -5}
	if err := white.Refuse(Result{Score: -2, Hits: []Hit{{List: &white.Lists[0]}}}); err != nil {
		t.Errorf("refused by a white list: %v", err)
	}
}

// TestSessionEnds: a peer that leaves ends its questions, and no goroutine
// stays (synctest would report a deadlock).
func TestSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rcpts, open atomic.Int32
		c := &Checker{Resolver: slow{time.Hour, &open}, Timeout: 24 * time.Hour,
			Lists: []List{{Zone: "bl.test"}, {Zone: "dbl.test", Of: Hello | Sender}}}
		s := server(c, &rcpts)
		began := time.Now()
		got := talk(s, "192.0.2.1", "EHLO x.test", "MAIL FROM:<a@b.test>", "RSET", "MAIL FROM:<c@d.test>", "RSET")
		if open.Load() != 0 || time.Since(began) != 0 || strings.Count(got, "250 2.1.0") != 2 {
			t.Errorf("%q; %d questions are open after %v", got, open.Load(), time.Since(began))
		}
		// RCPT waits, and Close of the server cuts that short.
		ours, theirs := net.Pipe()
		done := make(chan error)
		go func() { done <- s.ServeConn(peerAt{theirs, "192.0.2.1"}) }()
		go io.Copy(io.Discard, ours)
		io.WriteString(ours, "EHLO x.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n")
		synctest.Wait()
		if open.Load() != 3 {
			t.Errorf("%d questions", open.Load())
		}
		s.Close()
		<-done
		if open.Load() != 0 {
			t.Errorf("%d questions after Close", open.Load())
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
	for _, session := range []smtpserver.Session{&each{}, inner{new(atomic.Int32)}} {
		c := &Checker{Resolver: zones(), Lists: []List{{Zone: "bl.test"}}, Decide: func(_ context.Context, _ *smtpserver.Conn, to smtp.Address, r Result) error {
			if to.Local == "late" && r.Score > 0 {
				return &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 7, 1}, Text: "Listed"}
			}
			return nil
		}}
		s := server(c, nil)
		s.LMTP, s.Backend = true, smtpserver.Wrap(smtpserver.BackendFunc(func(context.Context, *smtpserver.Conn) (smtpserver.Session, error) { return session, nil }), c.Wrap)
		got := talk(s, "192.0.2.1", lines...)
		_, answers, _ := strings.Cut(got, "\r\n354 ")
		_, answers, _ = strings.Cut(answers, "\r\n")
		want := "250 2.1.5 For one\r\n452 4.2.2 Mailbox full\r\n221 2.0.0 Goodbye\r\n"
		if _, ok := session.(*each); !ok {
			want = "250 2.0.0 OK\r\n250 2.0.0 OK\r\n221 2.0.0 Goodbye\r\n"
		}
		if answers != want || !strings.Contains(got, "554 5.7.1 Listed") {
			t.Errorf("%T: %q", session, got)
		}
	}
}

func BenchmarkReverse(b *testing.B) {
	b.ReportAllocs()
	ip := netip.MustParseAddr("2001:db8::1")
	for b.Loop() {
		reverse(ip)
	}
}

func FuzzLookupDomain(f *testing.F) {
	f.Add("bad.example")
	f.Add("[192.0.2.1]")
	f.Add("bücher.example")
	dns := mxtest.NewDNS(mxtest.Zone{})
	c := &Checker{Resolver: dns, Lists: []List{{Zone: "dbl.test", Of: Hello}}}
	f.Fuzz(func(t *testing.T, s string) {
		if r := c.LookupDomain(context.Background(), Hello, s); len(r.Hits) > 0 || len(r.Errs) > 0 {
			t.Fatalf("%q: %+v", s, r)
		}
		for _, ch := range []byte(clean(s)) {
			if ch < ' ' || ch >= 0x7f {
				t.Fatalf("%q", clean(s))
			}
		}
	})
}
