package interop

import (
	"bufio"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mjl-/mox/dns"
	moxsasl "github.com/mjl-/mox/sasl"
	moxclient "github.com/mjl-/mox/smtpclient"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// withLogin lets alice in by every mechanism that Passwords has.
func withLogin(t *testing.T) func(s *smtpserver.Server) {
	t.Helper()
	r := login.Record{Password: alicePass}
	for _, mech := range []string{"SCRAM-SHA-256", "SCRAM-SHA-1"} {
		keys, err := login.SCRAM(mech, alicePass)
		if err != nil {
			t.Fatal(err)
		}
		r.SCRAM = append(r.SCRAM, keys)
	}
	return func(s *smtpserver.Server) {
		s.Auth = &login.Passwords{Offer: []string{"SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN", "CRAM-MD5"}, Lookup: func(_ context.Context, name string) (login.Record, error) {
			if name != alice {
				return login.Record{}, login.ErrNoUser
			}
			return r, nil
		}}
	}
}

const smtplibPy = `
import sys, ssl, smtplib
from email.message import EmailMessage
from email.policy import SMTP
host, port, ca, user, password = sys.argv[1:]
ctx = ssl.create_default_context(cafile=ca)
m = EmailMessage()
m['From'], m['To'], m['Subject'] = user, 'bob@example.test', 'smtplib'
m.set_content('Hello\n.\n..\n')
for mech in ['auth_plain', 'auth_login', 'auth_cram_md5']:
    s = smtplib.SMTP('localhost', int(port), timeout=20)
    s.starttls(context=ctx)
    s.ehlo()
    s.user, s.password = user, password
    s.auth(mech[5:].upper().replace('_', '-'), getattr(s, mech))
    s.send_message(m)
    s.sendmail(user, ['bob@example.test', 'eve@example.test'], m.as_bytes(policy=SMTP), mail_options=['RET=HDRS', 'ENVID=x+2By'],
        rcpt_options=['NOTIFY=SUCCESS,FAILURE', 'ORCPT=rfc822;a+2Bb@example.test'])
    assert s.noop()[0] == 250 and s.verify('x')[0] in (252, 502) and s.rset()[0] == 250
    refused = s.sendmail(user, ['bob@example.test', 'nobody@example.test'], m.as_bytes(policy=SMTP))
    assert refused['nobody@example.test'][0] == 550, refused
    s.quit()
try:
    s = smtplib.SMTP('localhost', int(port), timeout=20)
    s.starttls(context=ctx)
    s.login(user, 'wrong')
    sys.exit('a wrong password was taken')
except smtplib.SMTPAuthenticationError as e:
    assert e.smtp_code == 535, e
m.replace_header('Subject', 'Grüße')
m.replace_header('To', 'bücher@example.test')
s = smtplib.SMTP('localhost', int(port), timeout=20)
s.starttls(context=ctx)
s.login(user, password)
s.send_message(m)
s.quit()
`

func TestSMTPlib(t *testing.T) {
	need(t, "/usr/bin/python3")
	k := startSink(t, withLogin(t))
	run(t, t.TempDir(), "/usr/bin/python3", "-c", smtplibPy, "localhost", k.port(t), k.certFile, alice, alicePass)
	mails := k.wait(t, 10, time.Second)
	if len(mails) != 10 {
		t.Fatalf("%d messages", len(mails))
	}
	for i, mech := range []string{"PLAIN", "LOGIN", "CRAM-MD5"} {
		m := mails[3*i+1]
		if m.user != alice+" "+mech || m.options.EnvelopeID != "x+y" || len(m.to) != 2 || m.to[1].Original != "a+b@example.test" || !strings.HasSuffix(m.text, "\r\n\r\nHello\r\n.\r\n..\r\n") {
			t.Errorf("%+v", m)
		}
	}
	if m := mails[9]; !m.options.UTF8 || m.to[0].Local != "bücher" || m.protocol != "UTF8SMTPSA" {
		t.Errorf("%+v", m)
	}
}

// TestMoxClient: mox's client logs in with SCRAM bound to the connection, and
// asks for REQUIRETLS.
func TestMoxClient(t *testing.T) {
	k := startSink(t, func(s *smtpserver.Server) {
		withLogin(t)(s)
		s.RequireAuth, s.Extensions = true, append(smtpserver.DefaultExtensions(), smtp.ExtRequireTLS)
	})
	ctx := context.Background()
	for _, tt := range []struct {
		mech    string
		version uint16
		client  func(cs tls.ConnectionState) moxsasl.Client
	}{
		{"SCRAM-SHA-256-PLUS", tls.VersionTLS13, func(cs tls.ConnectionState) moxsasl.Client {
			return moxsasl.NewClientSCRAMSHA256PLUS(alice, alicePass, cs)
		}},
		{"SCRAM-SHA-1-PLUS", tls.VersionTLS13, func(cs tls.ConnectionState) moxsasl.Client {
			return moxsasl.NewClientSCRAMSHA1PLUS(alice, alicePass, cs)
		}},
		{"SCRAM-SHA-256", tls.VersionTLS13, func(tls.ConnectionState) moxsasl.Client { return moxsasl.NewClientSCRAMSHA256(alice, alicePass, false) }},
		{"CRAM-MD5", tls.VersionTLS12, func(tls.ConnectionState) moxsasl.Client { return moxsasl.NewClientCRAMMD5(alice, alicePass) }},
		{"PLAIN", tls.VersionTLS12, func(tls.ConnectionState) moxsasl.Client { return moxsasl.NewClientPlain(alice, alicePass) }},
	} {
		t.Run(tt.mech, func(t *testing.T) {
			nc, err := net.Dial("tcp", k.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			before := len(k.wait(t, 0, 0))
			offered := ""
			c, err := moxclient.New(ctx, slog.New(slog.DiscardHandler), nc, moxclient.TLSRequiredStartTLS, true, dns.Domain{ASCII: "mox.test"}, dns.Domain{ASCII: "localhost"},
				moxclient.Opts{TLSConfig: &tls.Config{RootCAs: trusting(t, k.certFile).TLS.RootCAs, ServerName: "localhost", MaxVersion: tt.version},
					Auth: func(mechanisms []string, cs *tls.ConnectionState) (moxsasl.Client, error) {
						offered = strings.Join(mechanisms, " ")
						return tt.client(*cs), nil
					}})
			if err != nil {
				t.Fatalf("%v (offered: %s)", err, offered)
			}
			text := "Subject: mox\r\n\r\n.\r\n"
			if !c.SupportsRequireTLS() {
				t.Error("mox sees no REQUIRETLS")
			}
			if err := c.Deliver(ctx, alice, bob, int64(len(text)), strings.NewReader(text), true, false, true); err != nil {
				t.Fatal(err)
			}
			c.Close()
			m := k.wait(t, before+1, time.Second)[before]
			if m.user != alice+" "+tt.mech || m.text != text || !m.options.RequireTLS {
				t.Errorf("%+v", m)
			}
		})
	}
}

// TestNodeSMTPServer: our client against npm's smtp-server.
func TestNodeSMTPServer(t *testing.T) {
	need(t, "node", filepath.Join("node", "node_modules", "smtp-server"))
	dir := t.TempDir()
	certFile, keyFile, _ := certificate(t, dir)
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "receive.mjs", certFile, keyFile, alice, alicePass)
	cmd.Dir = filepath.Join(wd, "node")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	lines := bufio.NewScanner(out)
	next := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("smtp-server has ended: %v", lines.Err())
		}
		return lines.Text()
	}
	addr := next()
	d := trusting(t, certFile)
	target := smtpclient.Target{Addr: addr, Name: "localhost", Auth: &smtpclient.Auth{User: alice, Password: alicePass}}
	pool := &smtpclient.Pool{Dialer: *d}
	defer pool.Close()
	env := &smtp.Envelope{From: mustAddress(t, alice), To: []smtp.Recipient{{Address: mustAddress(t, bob)}, {Address: mustAddress(t, "refused@example.test")}}}
	for range 3 {
		r := pool.Send(context.Background(), target, env, strings.NewReader("Subject: node\r\n\r\n.\r\nGrüße\r\n"))
		if r[0].Err != nil || asError(r[1].Err) == nil || asError(r[1].Err).Code != 550 {
			t.Fatalf("%v, %v", r[0].Err, r[1].Err)
		}
		if got, want := next(), `{"user":"alice@example.test","tls":true,"from":"alice@example.test","to":["bob@example.test"],"text":"Subject: node\r\n\r\n.\r\nGrüße\r\n"}`; got != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
	}
	if r := d.Send(context.Background(), smtpclient.Target{Addr: addr, Name: "localhost", Auth: &smtpclient.Auth{User: alice, Password: "wrong"}}, env, strings.NewReader("x\r\n")); asError(r[0].Err) == nil {
		t.Errorf("a wrong password: %v", r[0].Err)
	}
}
