package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postrider/postrider/examples/internal/control"
	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/imap/imapclient"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
)

func TestFlags(t *testing.T) {
	for args, want := range map[string]string{
		"-data /dev/null":              "-data: ",
		"-cert a.pem":                  "-cert and -key",
		"-mx-port 0":                   "-mx-port",
		"-retry 0s":                    "-retry",
		"stray":                        "unexpected argument",
		"-user alice":                  "want addr:password",
		"-user alice@other.test:x":     "none of the domains",
		"-domain a..b":                 "-domain a..b",
		"-dkim sel":                    "want selector:keyfile",
		"-dkim sel:/no/such/file":      "-dkim: open /no/such/file",
		"-cert /none.pem -key /no.pem": "/none.pem",
		"-smtp 127.0.0.1:99999":        "-smtp: ",
	} {
		c, err := parse(strings.Fields(args), io.Discard)
		if err == nil {
			err = run(c, io.Discard, nil)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
	c, err := parse(nil, io.Discard)
	if err != nil || *c.listen["smtp"] != "127.0.0.1:2525" || *c.listen["lmtp"] != "" || c.mxPort != 25 {
		t.Errorf("defaults: %+v %v", c, err)
	}
}

// running is a server started by a test.
type running struct {
	addr    map[string]string
	lines   []string
	signals chan os.Signal
	ended   chan error
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	for _, l := range []string{"smtp", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s"} {
		args = append(args, "-"+l, "127.0.0.1:0")
	}
	c, err := parse(args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{addr: map[string]string{}, signals: make(chan os.Signal, 2), ended: make(chan error, 1)}
	pr, pw := io.Pipe()
	go func() {
		r.ended <- run(c, pw, r.signals)
		pw.Close()
	}()
	sc := bufio.NewScanner(pr)
	for sc.Scan() {
		r.lines = append(r.lines, sc.Text())
		if f := strings.Fields(sc.Text()); len(f) > 1 {
			if _, _, err := net.SplitHostPort(f[1]); err == nil {
				r.addr[f[0]] = f[1]
			}
		}
		if sc.Text() == "ready" {
			return r
		}
	}
	t.Fatalf("not ready: %v", <-r.ended)
	return nil
}

func (r *running) stop(t *testing.T, signals int) {
	t.Helper()
	for range signals {
		r.signals <- syscall.SIGTERM
	}
	select {
	case err := <-r.ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the server does not end")
	}
}

func send(t *testing.T, addr, to string, auth *smtpclient.Auth) []smtp.Result {
	t.Helper()
	a, err := smtp.ParseAddress(to)
	if err != nil {
		t.Fatal(err)
	}
	from := smtp.Address{Local: "alice", Domain: "example.test"}
	m := &mime.Message{From: []mime.Address{{Address: from}}, To: []mime.Address{{Address: a}}, Subject: "Hello", Text: "Hi\n"}
	env, err := m.Envelope()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	d := smtpclient.Dialer{Hello: "client.test", TLS: &tls.Config{InsecureSkipVerify: true}}
	return d.Send(t.Context(), smtpclient.Target{Addr: addr, Auth: auth}, &env, bytes.NewReader(b.Bytes()))
}

func TestServer(t *testing.T) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	dns := mxtest.NewDNS(mxtest.Zone{"dead.test": {"MX 10 mx.dead.test"}, "mx.dead.test": {"A 127.0.0.1"}})
	dnsAddr, err := dns.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	// A port that nobody listens on.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, deadPort, _ := net.SplitHostPort(l.Addr().String())
	l.Close()

	r := start(t, "-user", "Alice@example.test:secret one", "-user", "bob@example.test:two", "-dns", dnsAddr, "-mx-port", deadPort)
	auth := &smtpclient.Auth{User: "alice@example.test", Password: "secret one"}
	for _, to := range []string{"bob@example.test", "bob+tag@example.test", "postmaster@example.test", "x@dead.test"} {
		if res := send(t, r.addr["submission"], to, auth); res[0].Err != nil {
			t.Errorf("%s: %v", to, res[0].Err)
		}
	}
	if res := send(t, r.addr["smtp"], "x@dead.test", nil); smtp.ReplyFor(res[0].Err).Code != 550 {
		t.Errorf("a stranger may relay: %v", res[0])
	}
	if res := send(t, r.addr["submission"], "bob@example.test", nil); smtp.ReplyFor(res[0].Err).Code != 530 {
		t.Errorf("a stranger may submit: %v", res[0])
	}

	d := imapclient.Dialer{TLS: &tls.Config{InsecureSkipVerify: true}}
	c, err := d.Dial(t.Context(), r.addr["imap"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login(t.Context(), "bob@example.test", "two"); err != nil {
		t.Fatal(err)
	}
	for n, end := uint32(0), time.Now().Add(10*time.Second); n != 2; {
		box, err := c.Select(t.Context(), "INBOX")
		if err != nil {
			t.Fatal(err)
		}
		if n = box.Messages; time.Now().After(end) {
			t.Fatalf("%d messages for bob", n)
		}
	}
	boxes, err := c.List(t.Context(), "", "*", imap.ListOptions{})
	if err != nil || len(boxes) != 6 {
		t.Errorf("%d mailboxes, %v", len(boxes), err)
	}
	r.stop(t, 1)
}

// TestLost shows that mail which dies with the process is named.
func TestLost(t *testing.T) {
	c, err := parse([]string{"-user", "alice@example.test:x"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newServer(c)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.queue.Enqueue(t.Context(), queue.Mail{Envelope: smtp.Envelope{From: smtp.Address{Local: "alice", Domain: "example.test"},
		To: []smtp.Recipient{{Address: smtp.Address{Local: "x", Domain: "dead.test"}}}}, Body: strings.NewReader("Subject: x\r\n\r\n")})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s.report(&out)
	s.close()
	if got := out.String(); !strings.Contains(got, "from <alice@example.test> to <x@dead.test>, tried 0 times") {
		t.Errorf("report: %q", got)
	}
}

// TestData shows that what is queued is there after a restart.
func TestData(t *testing.T) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	dir := t.TempDir()
	open := func() *server {
		c, err := parse([]string{"-data", dir, "-user", "alice@example.test:x"}, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		s, err := newServer(c)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	var out bytes.Buffer
	if s.describe(&out); !strings.Contains(out.String(), "the queue and the mailboxes are in "+dir) {
		t.Errorf("it says %q", out.String())
	}
	id, err := s.queue.Enqueue(t.Context(), queue.Mail{Envelope: smtp.Envelope{From: smtp.Address{Local: "alice", Domain: "example.test"},
		To: []smtp.Recipient{{Address: smtp.Address{Local: "x", Domain: "dead.test"}}}}, Body: strings.NewReader("Subject: x\r\n\r\n")})
	if err != nil {
		t.Fatal(err)
	}
	s.close()
	out.Reset()
	if s.report(&out); out.Len() > 0 {
		t.Errorf("reported as lost: %s", out.String())
	}
	s = open()
	defer s.close()
	if left := s.left(); len(left) != 1 || left[0].Message.ID != id {
		t.Errorf("after a restart: %v, want message %v", left, id)
	}
}

// TestMailboxes shows that mail is in its mailbox after a restart, with what
// its reader did to it.
func TestMailboxes(t *testing.T) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	args := []string{"-data", t.TempDir(), "-index", "-user", "alice@example.test:x"}
	look := func(r *running, f func(c *imapclient.Client, box *imap.SelectData)) {
		d := imapclient.Dialer{TLS: &tls.Config{InsecureSkipVerify: true}}
		c, err := d.Dial(t.Context(), r.addr["imap"])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Login(t.Context(), "alice@example.test", "x"); err != nil {
			t.Fatal(err)
		}
		box, err := c.Select(t.Context(), "INBOX")
		if err != nil {
			t.Fatal(err)
		}
		f(c, box)
	}
	auth := &smtpclient.Auth{User: "alice@example.test", Password: "x"}
	r := start(t, args...)
	if res := send(t, r.addr["submission"], "alice@example.test", auth); res[0].Err != nil {
		t.Fatal(res[0].Err)
	}
	look(r, func(c *imapclient.Client, _ *imap.SelectData) {
		const text = "Subject: Kept\r\n\r\nHi\r\n"
		if _, err := c.Append(t.Context(), "INBOX", strings.NewReader(text), int64(len(text)), imapclient.AppendOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	r.stop(t, 1)
	r = start(t, args...)
	look(r, func(c *imapclient.Client, box *imap.SelectData) {
		if box.Messages != 2 {
			t.Errorf("%d messages after a restart, want 2", box.Messages)
		}
		found, err := c.Search(t.Context(), false, &imap.SearchCriteria{Text: []string{"KEPT"}}, imap.SearchOptions{})
		if err != nil || found.All.String() != "2" {
			t.Errorf("found %v, %v", found, err)
		}
		if err := c.Create(t.Context(), "Mine"); err != nil {
			t.Error(err)
		}
	})
	r.stop(t, 1)
	r = start(t, args...)
	look(r, func(c *imapclient.Client, box *imap.SelectData) {
		boxes, err := c.List(t.Context(), "", "*", imap.ListOptions{})
		if err != nil || len(boxes) != 7 {
			t.Errorf("%d mailboxes, %v, want 7", len(boxes), err)
		}
	})
	r.stop(t, 1)
}

// TestSecondSignal shows that a second signal cuts a session that does not
// end.
func TestSecondSignal(t *testing.T) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	r := start(t)
	if got := strings.Join(r.lines, "\n"); !strings.Contains(got, "try:") || !strings.Contains(got, "user alice@example.test has the password ") {
		t.Errorf("what to try: %s", got)
	}
	nc, err := net.Dial("tcp", r.addr["smtp"])
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	io.WriteString(nc, "EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n")
	br := bufio.NewReader(nc)
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "354") {
			break
		}
	}
	begun := time.Now()
	r.stop(t, 2)
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the second signal did not cut: %v", took)
	}
}

// TestControl shows that the queue of a running server is open to queuectl.
func TestControl(t *testing.T) {
	dir := t.TempDir()
	r := start(t, "-data", dir)
	c, err := control.Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range c.List(t.Context(), queue.Filter{}) {
		t.Errorf("in a new queue: %+v %v", e, err)
	}
	c.Close()
	r.stop(t, 1)
	if _, err := control.Dial(t.Context(), dir); err == nil {
		t.Error("somebody serves the socket after the end")
	}
}
