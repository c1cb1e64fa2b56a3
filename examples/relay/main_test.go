package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postrider/postrider/examples/internal/control"
	"github.com/postrider/postrider/mx/dane"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

func TestFlags(t *testing.T) {
	for args, want := range map[string]string{
		"":                                   "-data: ",
		"-data /dev/null":                    "-data: ",
		"-data x stray":                      "unexpected argument",
		"-data x -cert a.pem":                "-cert and -key",
		"-data x -mx-port 0":                 "-mx-port",
		"-data x -user ann:pw":               "-user needs -cert",
		"-data x -allow 10.0.0.1":            "-allow: ",
		"-data x -allow 0.0.0.0/0":           "open relay",
		"-data x -cert /no.pem -key /no.pem": "/no.pem",
	} {
		c, err := parse(strings.Fields(args), io.Discard)
		if err == nil {
			err = run(c, io.Discard, nil)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

// running is a relay started by a test.
type running struct {
	addr    string
	metrics string // URL
	signals chan os.Signal
	ended   chan error
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	c, err := parse(append(args, "-listen", "127.0.0.1:0", "-hostname", "relay.test"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{signals: make(chan os.Signal, 2), ended: make(chan error, 1)}
	pr, pw := io.Pipe()
	go func() {
		r.ended <- run(c, pw, r.signals)
		pw.Close()
	}()
	sc := bufio.NewScanner(pr)
	for sc.Scan() {
		if addr, ok := strings.CutPrefix(sc.Text(), "smtp "); ok {
			r.addr = addr
		}
		if url, ok := strings.CutPrefix(sc.Text(), "metrics "); ok {
			r.metrics = url
		}
		if sc.Text() == "ready" {
			return r
		}
	}
	t.Fatalf("not ready: %v", <-r.ended)
	return nil
}

func (r *running) stop(t *testing.T) {
	t.Helper()
	r.signals <- syscall.SIGTERM
	select {
	case err := <-r.ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the relay does not end")
	}
}

const text = "From: a@client.test\r\nSubject: Hi\r\n\r\nHi\r\n"

func send(t *testing.T, d *smtpclient.Dialer, target smtpclient.Target, text string, to ...string) smtp.Result {
	t.Helper()
	env := smtp.Envelope{From: smtp.Address{Local: "a", Domain: "client.test"}}
	for _, s := range to {
		a, err := smtp.ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		env.To = append(env.To, smtp.Recipient{Address: a})
	}
	return d.Send(t.Context(), target, &env, strings.NewReader(text))[0]
}

func code(r smtp.Result) int {
	var e *smtp.Error
	if errors.As(r.Err, &e) {
		return e.Code
	}
	return r.Reply.Code
}

// world is a far side: hosts on one port, and the DNS that leads there.
func world(t *testing.T) (far *smtptest.Server, dns *mxtest.DNS, args []string) {
	t.Helper()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	cert, _, err := smtptest.Certificate("mx.dane.test")
	if err != nil {
		t.Fatal(err)
	}
	far = (&smtptest.Server{STARTTLS: true, Certificate: &cert}).Run(t)
	_, port, _ := net.SplitHostPort(far.Addr)
	n, _ := strconv.Atoi(port)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	good, err := dane.New(dane.UsageEE, dane.SelectorSPKI, dane.MatchingSHA256, leaf)
	if err != nil {
		t.Fatal(err)
	}
	bad := good
	bad.Data = make([]byte, len(good.Data))
	dns = mxtest.NewDNS(mxtest.Zone{
		"plain.test": {"MX 10 mx.plain.test"}, "mx.plain.test": {"A 127.0.0.1"},
		"dane.test": {"SECURE", "MX 10 mx.dane.test"}, "mx.dane.test": {"SECURE", "A 127.0.0.1"},
		strings.TrimSuffix(dane.Name("mx.dane.test", uint16(n)), "."): {"SECURE", "TLSA " + good.String()},
		"forged.test": {"SECURE", "MX 10 mx.forged.test"}, "mx.forged.test": {"SECURE", "A 127.0.0.1"},
		strings.TrimSuffix(dane.Name("mx.forged.test", uint16(n)), "."): {"SECURE", "TLSA " + bad.String()},
	})
	if err := dns.Err(); err != nil {
		t.Fatal(err)
	}
	dnsAddr, err := dns.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	return far, dns, []string{"-data", t.TempDir(), "-dns", dnsAddr, "-mx-port", port}
}

func TestRelay(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	far, _, args := world(t)
	r := start(t, args...)
	d := &smtpclient.Dialer{Hello: "client.test"}
	target := smtpclient.Target{Addr: r.addr}

	// What goes out, and what is added on the way.
	for _, to := range []string{"x@plain.test", "x@dane.test"} {
		if res := send(t, d, target, text, to); res.Err != nil {
			t.Errorf("%s: %v", to, res.Err)
		}
	}
	for _, m := range far.Wait(ctx, 2) {
		if !m.TLS || m.Hello != "relay.test" || !strings.HasPrefix(string(m.Data), "Received: from client.test") || !strings.HasSuffix(string(m.Data), text) {
			t.Errorf("TLS %v from %s:\n%s", m.TLS, m.Hello, m.Data)
		}
	}

	// A host that is not who DANE says waits; so does what is sent to a host
	// that is down, and both are there after a restart.
	far.Inject(smtptest.Fault{At: smtptest.Rcpt, Match: "later@", Reply: "451 4.3.0 Later"})
	for _, to := range []string{"x@forged.test", "later@plain.test"} {
		if res := send(t, d, target, text, to); res.Err != nil {
			t.Errorf("%s: %v", to, res.Err)
		}
	}
	waiting := func(n int) []*control.Entry {
		c, err := control.Dial(ctx, args[1])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			var list []*control.Entry
			for e, err := range c.List(ctx, queue.Filter{}) {
				if err != nil {
					t.Fatal(err)
				}
				if e.Attempt > 0 && !e.Sending {
					list = append(list, e)
				}
			}
			if len(list) == n {
				return list
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("%d entries wait, want %d", len(list), n)
			}
		}
	}
	list := waiting(2)
	if !slices.ContainsFunc(list, func(e *control.Entry) bool { return e.Dest == "plain.test" && e.Last == "451 4.3.0 Later" }) ||
		!slices.ContainsFunc(list, func(e *control.Entry) bool { return e.Dest == "forged.test" && strings.Contains(e.Last, "4.7.5") }) {
		t.Errorf("the queue: %+v %+v", list[0], list[1])
	}
	r.stop(t)
	far.Heal()
	r = start(t, args...)
	waiting(2)
	c, err := control.Dial(ctx, args[1])
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.Do(ctx, "retry", queue.Filter{Dest: "plain.test"}); n != 1 || err != nil {
		t.Errorf("retry: %d, %v", n, err)
	}
	c.Close()
	if m := far.Wait(ctx, 3)[2]; m.Envelope.To[0].String() != "later@plain.test" {
		t.Errorf("to %v", m.Envelope.To)
	}

	// What is refused.
	target.Addr = r.addr
	if got := code(send(t, d, target, text, "x@localpart")); got != 550 {
		t.Errorf("a domain without a dot: %d", got)
	}
	if got := code(send(t, d, target, strings.Repeat("Received: from a by b; Mon, 23 Nov 2026 12:00:00 +0000\r\n", 51)+text, "x@plain.test")); got != 554 {
		t.Errorf("a loop: %d", got)
	}
	r.stop(t)
	if _, err := control.Dial(ctx, args[1]); err == nil {
		t.Error("somebody serves the socket after the end")
	}
}

// TestMetrics reads what Prometheus would.
func TestMetrics(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	far, _, args := world(t)
	far.Inject(smtptest.Fault{At: smtptest.Rcpt, Match: "gone@", Reply: "550 5.1.1 No such user"})
	r := start(t, append(args, "-metrics", "127.0.0.1:0")...)
	defer r.stop(t)
	d := &smtpclient.Dialer{Hello: "client.test"}
	for _, to := range []string{"x@plain.test", "gone@plain.test", "x@forged.test"} {
		if res := send(t, d, smtpclient.Target{Addr: r.addr}, text, to); res.Err != nil {
			t.Errorf("%s: %v", to, res.Err)
		}
	}
	want := []string{`postrider_queue_events_total{kind="delivered"} 1`, `postrider_queue_bounces_total{class="bad-mailbox"} 1`, `postrider_queue_delivery_age_seconds_bucket{le="+Inf"} 1`}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.metrics, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(want, func(s string) bool { return !strings.Contains(string(b), s+"\n") }) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not all of %q are in\n%s", want, b)
		}
	}
}

func TestStrangers(t *testing.T) {
	_, _, args := world(t)
	r := start(t, append(args, "-allow", "192.0.2.0/24")...)
	defer r.stop(t)
	d := &smtpclient.Dialer{Hello: "client.test"}
	if res := send(t, d, smtpclient.Target{Addr: r.addr}, text, "x@plain.test"); code(res) != 550 || !strings.Contains(res.Err.Error(), "5.7.1") {
		t.Errorf("a stranger: %v", res.Err)
	}
}

func TestUsersAndSmarthost(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	far, _, args := world(t)
	cert, roots, err := smtptest.Certificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, b := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := start(t, append(args, "-allow", "192.0.2.0/24", "-user", "ann@client.test:pw", "-smarthost", far.Addr,
		"-cert", filepath.Join(dir, "cert.pem"), "-key", filepath.Join(dir, "key.pem"))...)
	defer r.stop(t)
	d := &smtpclient.Dialer{Hello: "client.test"}
	if got := code(send(t, d, smtpclient.Target{Addr: r.addr}, text, "x@nowhere.test")); got != 530 {
		t.Errorf("without a login: %d", got)
	}
	d.TLS = &tls.Config{RootCAs: roots}
	auth := &smtpclient.Auth{User: "ann@client.test", Password: "pw"}
	if res := send(t, d, smtpclient.Target{Addr: r.addr, Auth: auth}, text, "x@nowhere.test"); res.Err != nil {
		t.Error(res.Err)
	}
	// The domain exists nowhere: the smarthost has it all the same.
	if m := far.Wait(ctx, 1)[0]; m.Envelope.To[0].String() != "x@nowhere.test" || !strings.Contains(string(m.Data), "with ESMTPSA") {
		t.Errorf("to %v:\n%s", m.Envelope.To, m.Data)
	}
}
