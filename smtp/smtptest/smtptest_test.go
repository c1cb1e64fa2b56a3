package smtptest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/smtp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-sasl"

	"github.com/postrider/postrider/auth/login"
	mailsmtp "github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

const mail = "From: Shop <shop@example.org>\r\nTo: alice@example.org\r\nSubject: =?utf-8?q?Willkommen_=E2=9C=93?=\r\n" +
	"MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n" +
	"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nPlease confirm: https://shop.example.org/c?a=1&b=2.\r\n" +
	"--b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
	"<a href=3D\"https://shop.example.org/c?a=3D1&amp;b=3D2\">go</a> or <a href=3D'http://x.test/'>x</a>\r\n--b--\r\n"

// Somebody who uses net/smtp and imports nothing else of ours.
func TestNetSMTP(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	srv := smtptest.New(t)
	if err := smtp.SendMail(srv.Addr, nil, "shop@example.org", []string{"alice@example.org"}, []byte(mail)); err != nil {
		t.Fatal(err)
	}
	m := srv.Wait(ctx, 1)[0]
	want := []string{"https://shop.example.org/c?a=1&b=2", "http://x.test/"}
	if got := m.Links(); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("links %q, want %q", got, want)
	}
	if m.Subject() != "Willkommen ✓" || string(m.Data) != mail || m.Envelope.To[0].String() != "alice@example.org" {
		t.Errorf("message %+v, subject %q", m.Envelope, m.Subject())
	}
}

func TestNetSMTPTLSAndAuth(t *testing.T) {
	srv := &smtptest.Server{Hostname: "localhost", STARTTLS: true, RequireAuth: true, Users: map[string]string{"u": "p"}}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	dial := func() *smtp.Client {
		c, err := smtp.Dial(srv.Addr)
		if err != nil {
			t.Fatal(err)
		}
		cfg := srv.ClientTLS()
		cfg.ServerName = "localhost"
		if err := c.StartTLS(cfg); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := dial()
	if err := c.Auth(smtp.PlainAuth("", "u", "wrong", "127.0.0.1")); err == nil {
		t.Error("wrong password accepted")
	}
	c = dial()
	defer c.Close()
	if err := c.Auth(smtp.PlainAuth("", "u", "p", "127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	c.Mail("a@b.test")
	c.Rcpt("c@d.test")
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("Subject: x\r\n\r\nhi\r\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if m := srv.Messages()[0]; m.User != "u" || !m.TLS {
		t.Errorf("user %q, TLS %v", m.User, m.TLS)
	}
}

// Every mechanism that clients of other packages may want.
func TestMechanisms(t *testing.T) {
	srv := (&smtptest.Server{Users: map[string]string{"u": "p", "v": "q"}, RequireAuth: true,
		Mechanisms: []string{"SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"}}).Run(t)
	c, err := smtp.Dial(srv.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Auth(smtp.CRAMMD5Auth("u", "p")); err != nil {
		t.Error(err)
	}
	send := func(mech, user, pass string) string {
		cred := &login.Credentials{User: user, Password: pass}
		if strings.Contains(mech, "OAUTH") {
			cred.Token = func(context.Context) (string, error) { return pass, nil }
		}
		d := &smtpclient.Dialer{}
		to := smtpclient.Target{Addr: srv.Addr, Auth: &smtpclient.Auth{Insecure: true, Client: func([]string, *tls.ConnectionState) (sasl.Client, error) {
			return cred.Client(t.Context(), []string{mech}, nil)
		}}}
		a := mailsmtp.Address{Local: "a", Domain: "b.test"}
		res := d.Send(t.Context(), to, &mailsmtp.Envelope{From: a, To: []mailsmtp.Recipient{{Address: a}}}, strings.NewReader(mail))
		if res[0].Err != nil {
			var e *mailsmtp.Error
			errors.As(res[0].Err, &e)
			return strconv.Itoa(e.Code)
		}
		list := srv.Messages()
		return list[len(list)-1].User
	}
	for _, mech := range srv.Mechanisms {
		if got := send(mech, "v", "q"); got != "v" {
			t.Errorf("%s: %s", mech, got)
		}
		if got := send(mech, "v", "p"); got != "454" {
			t.Errorf("%s: %s with the wrong password", mech, got)
		}
	}
	srv.Inject(smtptest.Fault{At: smtptest.Auth, Match: "PLAIN", Reply: "535 5.7.8 No", Times: 1})
	srv.Inject(smtptest.Fault{At: smtptest.Auth, Reply: "454 4.7.0 Later", Times: 1})
	srv.Inject(smtptest.Fault{At: smtptest.Auth, Drop: true, Times: 1})
	for _, want := range []string{"454", "454", "451", "v"} {
		if got := send("PLAIN", "v", "q"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestFaults(t *testing.T) {
	send := func(srv *smtptest.Server) error {
		return smtp.SendMail(srv.Addr, nil, "a@b.test", []string{"bob@d.test"}, []byte(mail))
	}
	const refuse = "550 5.1.1 No such user"
	for name, f := range map[string]smtptest.Fault{
		"banner":   {At: smtptest.Connect, Reply: "554 Go away"},
		"connect":  {At: smtptest.Connect, Drop: true},
		"mail":     {At: smtptest.Mail, Match: "a@", Reply: refuse},
		"rcpt":     {At: smtptest.Rcpt, Match: "bob@", Reply: refuse},
		"in data":  {At: smtptest.Data, Drop: true},
		"dot":      {At: smtptest.Dot, Reply: refuse},
		"dot drop": {At: smtptest.Dot, Drop: true},
	} {
		t.Run(name, func(t *testing.T) {
			srv := smtptest.New(t)
			f.Times = 1
			srv.Inject(f)
			if err := send(srv); err == nil {
				t.Error("no error")
			}
			if n := len(srv.Messages()); n != 0 {
				t.Errorf("%d messages kept", n)
			}
			if err := send(srv); err != nil {
				t.Errorf("after the fault: %v", err)
			}
			if n := len(srv.Messages()); n != 1 {
				t.Errorf("%d messages kept after it", n)
			}
			srv.Inject(smtptest.Fault{At: smtptest.Rcpt, Reply: refuse})
			srv.Heal()
			if err := send(srv); err != nil {
				t.Errorf("healed: %v", err)
			}
		})
	}
	t.Run("TLS", func(t *testing.T) {
		srv := &smtptest.Server{ImplicitTLS: true}
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		srv.Inject(smtptest.Fault{At: smtptest.TLS})
		if _, err := tls.Dial("tcp", srv.Addr, srv.ClientTLS()); err == nil {
			t.Error("handshake succeeded")
		}
	})
}

func TestReply(t *testing.T) {
	srv := smtptest.New(t)
	for reply, want := range map[string]string{
		"450 4.7.1 Greylisted, wait": `450 "4.7.1 Greylisted, wait"`,
		"550 No such user":           "550 \"5.0.0 No such user\"",
		"what?":                      "451 ",
		"250 fine":                   "451 ",
	} {
		srv.Heal()
		srv.Inject(smtptest.Fault{At: smtptest.Rcpt, Reply: reply})
		err := smtp.SendMail(srv.Addr, nil, "a@b.test", []string{"c@d.test"}, []byte(mail))
		if err == nil || !strings.HasPrefix(strings.NewReplacer("\"", "").Replace(err.Error()), strings.NewReplacer("\"", "").Replace(want)) {
			t.Errorf("%q: %v, want %s", reply, err, want)
		}
	}
}

func TestMemoryAndDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &smtptest.Server{}
		defer srv.Close()
		srv.Inject(smtptest.Fault{At: smtptest.Mail, Delay: time.Minute})
		nc, err := srv.DialContext(t.Context(), "tcp", "mx.test:25")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		c, err := smtp.NewClient(nc, "mx.test")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Mail("a@b.test"); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d != time.Minute {
			t.Errorf("delay %v", d)
		}
		c.Close()
	})
}

type recorder struct{ failed string }

func (r *recorder) Helper()        {}
func (r *recorder) Cleanup(func()) {}
func (r *recorder) Fatalf(f string, a ...any) {
	r.failed = f
}

func TestWaitFails(t *testing.T) {
	r := &recorder{}
	srv := smtptest.New(r)
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if srv.Wait(ctx, 1); r.failed == "" {
		t.Error("Wait did not fail the test")
	}
}

func TestScript(t *testing.T) {
	for _, tt := range []struct {
		script smtptest.Script
		client string
		ok     bool
	}{
		{"S: 220 hi\nC: EHLO *\nRAW \"250 x\\r\\n\"\nHANG", "EHLO me.test\r\n", true},
		{"C: MAIL FROM:<*> SIZE=* BODY=8BITMIME\nBODY\nCLOSE", "MAIL FROM:<a@b> SIZE=3 BODY=8BITMIME\r\nx\r\n.\r\n", true},
		{"C: HELO x", "EHLO x\r\n", false},
		{"JUMP", "", false},
	} {
		a, b := net.Pipe()
		done := make(chan error)
		go func() { done <- tt.script.Serve(a) }()
		go b.Write([]byte(tt.client))
		buf := make([]byte, 100)
		for {
			if n, err := b.Read(buf); err != nil || strings.HasPrefix(string(buf[:n]), "250") {
				break
			}
		}
		b.Close()
		if err := <-done; (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.script, err)
		}
	}
	p := &smtptest.Peer{Scripts: []smtptest.Script{"CLOSE"}}
	if err := p.Wait(); err == nil {
		t.Error("unplayed script not reported")
	}
	p.DialContext(t.Context(), "tcp", "x:25")
	if _, err := p.DialContext(t.Context(), "tcp", "x:25"); !errors.As(err, new(*net.OpError)) {
		t.Errorf("after the last script: %v", err)
	}
}
