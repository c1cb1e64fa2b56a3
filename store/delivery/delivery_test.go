package delivery

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/auth/verify"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/memstore"
)

// quiet is a log that nobody reads.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// mailboxes is a store with some users, and the Recipients func for it.
func mailboxes(tb testing.TB, users ...string) (*memstore.Store, func(context.Context, smtp.Address) ([]store.Target, error)) {
	s := memstore.New()
	known := map[string]bool{}
	for _, u := range users {
		if err := s.CreateAccount(context.Background(), u); err != nil {
			tb.Fatal(err)
		}
		known[u] = true
	}
	return s, func(ctx context.Context, to smtp.Address) ([]store.Target, error) {
		switch {
		case to.Domain != "example.org":
			return nil, ErrRelay
		case to.Local == "team":
			return []store.Target{{Account: "alice"}, {Account: "bob"}}, nil
		case to.Local == "broken":
			return nil, errors.New("the database at 10.0.0.7 is down")
		case !known[to.Local]:
			return nil, ErrNoUser
		}
		return []store.Target{{Account: to.Local}}, nil
	}
}

// client speaks raw SMTP to a server over a pipe.
type client struct {
	tb testing.TB
	nc net.Conn
	r  *bufio.Reader
}

func dial(tb testing.TB, b *Backend, lmtp bool) *client {
	if b.Log == nil {
		b.Log = quiet()
	}
	srv := &smtpserver.Server{Backend: b, Hostname: "mx.example.org", LMTP: lmtp, Log: quiet()}
	ours, theirs := net.Pipe()
	go srv.ServeConn(theirs)
	tb.Cleanup(func() {
		ours.Close()
		srv.Close()
	})
	c := &client{tb, ours, bufio.NewReader(ours)}
	c.reply("220")
	if lmtp {
		c.cmd("LHLO client.example.com", "250")
	} else {
		c.cmd("EHLO client.example.com", "250")
	}
	return c
}

// reply reads one reply, which must begin with want, and returns its last line.
func (c *client) reply(want string) string {
	c.tb.Helper()
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.tb.Fatalf("want %s: %v", want, err)
		}
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		if !strings.HasPrefix(line, want) {
			c.tb.Fatalf("got %q, want %q", line, want)
		}
		return line
	}
}

func (c *client) cmd(line, want string) string {
	c.tb.Helper()
	fmt.Fprintf(c.nc, "%s\r\n", line)
	return c.reply(want)
}

// mail begins a transaction.
func (c *client) mail(to ...string) {
	c.tb.Helper()
	c.cmd("MAIL FROM:<sender@example.com>", "250")
	for _, r := range to {
		c.cmd("RCPT TO:<"+r+"@example.org>", "250")
	}
}

func (c *client) data(message string, want ...string) {
	c.tb.Helper()
	c.cmd("DATA", "354")
	go io.WriteString(c.nc, message+".\r\n")
	for _, w := range want {
		c.reply(w)
	}
}

const message = "From: sender@example.com\r\nTo: alice@example.org\r\nSubject: Hello\r\nMessage-ID: <1@example.com>\r\n\r\nHello, Alice.\r\n"

// inbox returns what is in a mailbox of an account, checked against its Summary.
func inbox(tb testing.TB, s store.Store, user string, name string) []string {
	tb.Helper()
	ctx := context.Background()
	acc, err := s.Account(ctx, user)
	if err != nil {
		tb.Fatal(err)
	}
	boxes, _, err := acc.Mailboxes(ctx, store.MailboxQuery{Names: []string{name}})
	if err != nil {
		tb.Fatal(err)
	}
	var out []string
	if len(boxes) == 0 {
		return nil
	}
	for m, err := range acc.Messages(ctx, boxes[0].ID, store.Query{Fields: store.WithBody | store.WithSummary}) {
		if err != nil {
			tb.Fatal(err)
		}
		p, err := mime.Parse(m.Body, m.Size, mime.Limits{})
		if err != nil {
			tb.Fatal(err)
		}
		if !bytes.Equal(p.Summary(), m.Summary) {
			tb.Errorf("%s: the Summary is not that of the stored message", user)
		}
		b, err := io.ReadAll(io.NewSectionReader(m.Body, 0, m.Size))
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, string(b))
	}
	return out
}

func TestDeliverySMTP(t *testing.T) {
	s, rcpt := mailboxes(t, "alice", "bob")
	c := dial(t, &Backend{Recipients: rcpt, Target: To(s)}, false)
	c.mail("alice", "bob")
	c.data(message, "250 2.0.0 OK ")
	for _, user := range []string{"alice", "bob"} {
		got := inbox(t, s, user, "INBOX")
		if len(got) != 1 {
			t.Fatalf("%s has %d messages, want 1", user, len(got))
		}
		head, ok := strings.CutSuffix(got[0], message)
		if !ok {
			t.Fatalf("the message changed:\n%s", got[0])
		}
		want := "Return-Path: <sender@example.com>\r\nDelivered-To: " + user + "@example.org\r\nReceived: from client.example.com"
		if !strings.HasPrefix(head, want) {
			t.Errorf("head is\n%s\nwant\n%s", head, want)
		}
		if strings.Contains(head, "for <") {
			t.Error("Received names one of several recipients")
		}
	}
}

func TestRecipients(t *testing.T) {
	s, rcpt := mailboxes(t, "alice", "bob")
	c := dial(t, &Backend{Recipients: rcpt, Target: To(s)}, false)
	c.cmd("MAIL FROM:<sender@example.com>", "250")
	c.cmd("RCPT TO:<nobody@example.org>", "550 5.1.1")
	c.cmd("RCPT TO:<alice@elsewhere.example>", "550 5.7.1")
	if r := c.cmd("RCPT TO:<broken@example.org>", "451 4.3.0"); strings.Contains(r, "10.0.0.7") {
		t.Errorf("a private cause went out: %s", r)
	}
	c.cmd("DATA", "5")
	c.cmd("RCPT TO:<team@example.org>", "250")
	c.data(message, "250")
	for _, user := range []string{"alice", "bob"} {
		if n := len(inbox(t, s, user, "INBOX")); n != 1 {
			t.Errorf("%s, behind an alias, has %d messages", user, n)
		}
	}
}

// TestOwner: mail for a former owner of a mailbox is refused (RFC 7293 §5.1),
// but for the addresses of offices.
func TestOwner(t *testing.T) {
	st, recipients := mailboxes(t, "alice", "bob", "broken", "abuse")
	b := &Backend{Recipients: recipients, Target: To(st)}
	talk := func() *client {
		srv := &smtpserver.Server{Backend: b, Hostname: "mx.example.org", Log: quiet(), Extensions: append(smtpserver.DefaultExtensions(), smtp.ExtRRVS)}
		ours, theirs := net.Pipe()
		go srv.ServeConn(theirs)
		t.Cleanup(func() { ours.Close(); srv.Close() })
		c := &client{t, ours, bufio.NewReader(ours)}
		c.reply("220")
		c.cmd("EHLO x", "250")
		c.cmd("MAIL FROM:<>", "250")
		return c
	}
	talk().cmd("RCPT TO:<alice@example.org> RRVS=2014-04-03T23:01:00Z", "555") // not offered
	b.OwnedSince = func(_ context.Context, to smtp.Address) (time.Time, error) {
		switch to.Local {
		case "alice", "abuse":
			return time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC), nil
		case "broken":
			return time.Time{}, errors.New("database is away")
		}
		return time.Time{}, nil
	}
	c := talk()
	c.cmd("RCPT TO:<alice@example.org> RRVS=2014-04-03T23:01:00Z", "550 5.7.17")
	c.cmd("RCPT TO:<alice@example.org> RRVS=2015-01-01T00:00:00Z", "250")
	c.cmd("RCPT TO:<alice@example.org> RRVS=2016-04-03T23:01:00Z;C", "250")
	c.cmd("RCPT TO:<alice@example.org>", "250")
	c.cmd("RCPT TO:<bob@example.org> RRVS=2014-04-03T23:01:00Z", "550 5.7.19")
	c.cmd("RCPT TO:<nobody@example.org> RRVS=2014-04-03T23:01:00Z", "550 5.1.1")
	c.cmd("RCPT TO:<broken@example.org> RRVS=2014-04-03T23:01:00Z", "451 4.3.0")
	c.cmd("RCPT TO:<abuse@example.org> RRVS=2014-04-03T23:01:00Z", "250")
}

func TestPartialFailure(t *testing.T) {
	t.Run("LMTP answers for each", func(t *testing.T) {
		s, rcpt := mailboxes(t, "alice", "bob")
		s.SetQuota("bob", 10)
		c := dial(t, &Backend{Recipients: rcpt, Target: To(s)}, true)
		c.mail("alice", "bob")
		c.data(message, "250 2.0.0", "452 4.2.2")
		if n := len(inbox(t, s, "alice", "INBOX")); n != 1 {
			t.Errorf("alice has %d messages", n)
		}
	})
	t.Run("SMTP loses and doubles nothing", func(t *testing.T) {
		s, rcpt := mailboxes(t, "alice", "bob")
		s.SetQuota("bob", 10)
		b := &Backend{Recipients: rcpt, Target: To(s)}
		c := dial(t, b, false)
		c.mail("alice", "bob")
		c.data(message, "452 4.2.2")
		s.SetQuota("bob", 0)
		c = dial(t, b, false) // the sender's next try
		c.mail("alice", "bob")
		c.data(message, "250")
		for _, user := range []string{"alice", "bob"} {
			if n := len(inbox(t, s, user, "INBOX")); n != 1 {
				t.Errorf("%s has %d messages, want 1", user, n)
			}
		}
	})
	t.Run("a message without Message-ID is never a duplicate", func(t *testing.T) {
		s, rcpt := mailboxes(t, "alice")
		c := dial(t, &Backend{Recipients: rcpt, Target: To(s)}, false)
		for range 2 {
			c.mail("alice")
			c.data("Subject: disk full\r\n\r\n", "250")
		}
		if n := len(inbox(t, s, "alice", "INBOX")); n != 2 {
			t.Errorf("alice has %d messages, want 2", n)
		}
	})
	t.Run("same Message-ID with other content is another message", func(t *testing.T) {
		s, rcpt := mailboxes(t, "alice")
		c := dial(t, &Backend{Recipients: rcpt, Target: To(s)}, false)
		for _, body := range []string{"forged\r\n", "true\r\n"} {
			c.mail("alice")
			c.data("Message-ID: <1@example.com>\r\n\r\n"+body, "250")
		}
		if n := len(inbox(t, s, "alice", "INBOX")); n != 2 {
			t.Errorf("alice has %d messages, want 2", n)
		}
	})
	t.Run("the same recipient twice", func(t *testing.T) {
		s, rcpt := mailboxes(t, "alice")
		c := dial(t, &Backend{Recipients: rcpt, Target: To(s)}, true)
		c.mail("alice", "alice")
		c.data("\r\n", "250", "250")
		if n := len(inbox(t, s, "alice", "INBOX")); n != 1 {
			t.Errorf("alice has %d messages, want 1", n)
		}
	})
}

func TestTruncatedMessage(t *testing.T) {
	s, rcpt := mailboxes(t, "alice")
	ours, theirs := net.Pipe()
	srv := &smtpserver.Server{Backend: &Backend{Recipients: rcpt, Target: To(s), Log: quiet()}, Hostname: "mx.example.org", Log: quiet()}
	ended := make(chan struct{})
	go func() {
		srv.ServeConn(theirs)
		close(ended)
	}()
	c := &client{t, ours, bufio.NewReader(ours)}
	c.reply("220")
	c.cmd("EHLO client.example.com", "250")
	c.mail("alice")
	c.cmd("DATA", "354")
	io.WriteString(ours, message)
	ours.Close()
	<-ended
	if n := len(inbox(t, s, "alice", "INBOX")); n != 0 {
		t.Fatalf("half a message was stored")
	}
	srv.Close()
}

func TestLoop(t *testing.T) {
	s, rcpt := mailboxes(t, "alice")
	b := &Backend{Recipients: rcpt, Target: To(s), MaxReceived: 3}
	c := dial(t, b, false)
	c.mail("alice")
	c.data(strings.Repeat("Received: by a; Mon, 1 Jan 2024 00:00:00 +0000\r\n", 3)+message, "250")
	c.mail("alice")
	c.data(strings.Repeat("received:\r\n\tby a\r\n", 4)+message, "554 5.4.6")
	if n := len(inbox(t, s, "alice", "INBOX")); n != 1 {
		t.Fatalf("%d messages, want 1", n)
	}
}

func TestForgedResults(t *testing.T) {
	s, rcpt := mailboxes(t, "alice")
	c := dial(t, &Backend{Recipients: rcpt, Target: To(s)}, false)
	c.mail("alice")
	foreign := "Authentication-Results: other.example; spf=pass\r\n"
	c.data("Authentication-Results: MX.example.org;\r\n\tdkim=pass header.d=bank.example\r\n"+
		foreign+"authentication-results :\r\n (comment) mx.example.org 1; none\r\n"+message, "250")
	got := inbox(t, s, "alice", "INBOX")
	if len(got) != 1 || !strings.HasSuffix(got[0], "\r\n"+foreign+message) || strings.Contains(got[0], "bank.example") {
		t.Fatalf("got %q", got)
	}
}

func TestUnparsable(t *testing.T) {
	s, rcpt := mailboxes(t, "alice")
	b := &Backend{Recipients: rcpt, Target: To(s)}
	for i, m := range []string{
		"",
		"\r\n",
		"no header at all\r\n",
		" a continuation of nothing\r\nSubject: x\r\n\r\nbody\r\n",
		"Subject: header only\r\n",
		"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\n--x",
		"Content-Type: multipart/mixed\r\n\r\nno boundary\r\n",
		"\xff\xfe: \x80\r\n\r\n\xff\r\n",
	} {
		if m != "" && !strings.HasSuffix(m, "\r\n") {
			m += "\r\n"
		}
		c := dial(t, b, false)
		c.mail("alice")
		c.data(m, "250")
		got := inbox(t, s, "alice", "INBOX")
		if len(got) != i+1 || !strings.HasSuffix(got[i], m) {
			t.Errorf("%q was stored as %q", m, got)
		}
	}
}

func TestLongHeader(t *testing.T) {
	s, rcpt := mailboxes(t, "alice")
	c := dial(t, &Backend{Recipients: rcpt, Target: To(s)}, false)
	c.mail("alice")
	c.data(strings.Repeat("X: "+strings.Repeat("x", 900)+"\r\n", 1300)+"\r\n", "552 5.3.4")
	c.mail("alice")
	c.data(message, "250")
}

// zone is a DNS with TXT records alone.
type zone map[string]string

func (z zone) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if txt, ok := z[strings.TrimSuffix(name, ".")]; ok {
		return []string{txt}, nil
	}
	return nil, &net.DNSError{Name: name, IsNotFound: true}
}

func (z zone) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	return nil, &net.DNSError{Name: name, IsNotFound: true}
}

func (z zone) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Name: name, IsNotFound: true}
}

func (z zone) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	return nil, &net.DNSError{Name: addr, IsNotFound: true}
}

func TestVerifyAndPolicy(t *testing.T) {
	s, rcpt := mailboxes(t, "alice")
	dns := zone{
		"good.example":              "v=spf1 ip4:127.0.0.1 -all",
		"_dmarc.good.example":       "v=DMARC1; p=reject",
		"reject.example":            "v=spf1 -all",
		"_dmarc.reject.example":     "v=DMARC1; p=reject",
		"quarantine.example":        "v=spf1 -all",
		"_dmarc.quarantine.example": "v=DMARC1; p=quarantine",
	}
	b := &Backend{Recipients: rcpt, Target: To(s), Verifier: &verify.Verifier{Resolver: dns}, Policy: DMARC, Log: quiet()}
	srv := &smtpserver.Server{Backend: b, Hostname: "mx.example.org", Log: quiet()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &client{t, nc, bufio.NewReader(nc)}
	c.reply("220")
	c.cmd("EHLO client.example.com", "250")
	for domain, want := range map[string]string{"good.example": "250", "reject.example": "550 5.7.1", "quarantine.example": "250", "unknown.example": "250"} {
		c.cmd("MAIL FROM:<a@"+domain+">", "250")
		c.cmd("RCPT TO:<alice@example.org>", "250")
		c.data("From: a@"+domain+"\r\nSubject: "+domain+"\r\n\r\n", want)
	}
	got := inbox(t, s, "alice", "INBOX")
	junk := inbox(t, s, "alice", "Junk")
	if len(got) != 2 || len(junk) != 1 || !strings.Contains(junk[0], "quarantine.example") {
		t.Fatalf("Inbox %q, Junk %q", got, junk)
	}
	for _, m := range got {
		if strings.Contains(m, "Subject: good.example") {
			m = strings.NewReplacer("\r\n\t", " ", "\r\n ", " ").Replace(m)
			if !strings.Contains(m, "\r\nAuthentication-Results: mx.example.org;") || !strings.Contains(m, "dmarc=pass") || !strings.Contains(m, "spf=pass") {
				t.Errorf("no good Authentication-Results:\n%s", m)
			}
			if strings.Index(m, "Authentication-Results") > strings.Index(m, "Received:") {
				t.Error("Authentication-Results is below Received")
			}
		}
	}
}

// stuck is a Target of an adopter's own.
type stuck struct{ errs []error }

func (s stuck) Deliver(ctx context.Context, in *Inbound) []error { return s.errs }

func TestOwnTarget(t *testing.T) {
	_, rcpt := mailboxes(t, "alice", "bob")
	for _, x := range []struct {
		errs []error
		want string
	}{
		{[]error{nil, nil}, "250"},
		{[]error{nil, errors.New("secret")}, "451 4.3.0"},
		{[]error{&smtp.Error{Code: 550, Text: "no"}, store.ErrUnavailable}, "451 4.3.0"},
		{[]error{&smtp.Error{Code: 550, Text: "no"}, nil}, "550"},
		{[]error{store.ErrTooBig, store.ErrQuota}, "452 4.2.2"},
		{nil, "451 4.3.0"},
	} {
		c := dial(t, &Backend{Recipients: rcpt, Target: stuck{x.errs}}, false)
		c.mail("alice", "bob")
		c.data(message, x.want)
	}
}

// TestHeaderFilterWrites: who writes a header has it back as it was, and what
// is left out is left out however it is cut.
func TestHeaderFilterWrites(t *testing.T) {
	const forged = "Authentication-Results: mx.example.org; spf=pass\r\n"
	const text = "A: 1\r\n" + forged + "Received: x\r\nB: 2\r\n" + forged + "\r\nbody\r\n"
	want := strings.ReplaceAll(text, forged, "")
	for cut := range len(text) {
		f := headerFilter{ids: []string{"mx.example.org"}}
		in := []byte(text)
		var got []byte
		for _, b := range [][]byte{in[:cut], in[cut:]} {
			if f.done {
				got = append(got, b...)
				continue
			}
			out, rest, err := f.write(b)
			if err != nil {
				t.Fatal(err)
			}
			got = append(append(got, out...), rest...)
		}
		if string(got) != want || f.received != 1 {
			t.Fatalf("cut at %d: %q, %d Received", cut, got, f.received)
		}
		if string(in) != text {
			t.Fatalf("cut at %d: what was written is %q now", cut, in)
		}
	}
}
