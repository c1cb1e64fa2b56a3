package interop

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// postfix is a Postfix of its own: private configuration and queue, one port
// on loopback.
type postfix struct {
	addr, dir string
}

const masterCf = `%s inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
showq unix n - n - - showq
`

func startPostfix(t *testing.T, certFile, keyFile string, settings ...string) *postfix {
	t.Helper()
	return startPostfixAt(t, freePort(t), certFile, keyFile, settings...)
}

func startPostfixAt(t *testing.T, addr, certFile, keyFile string, settings ...string) *postfix {
	t.Helper()
	need(t, "/usr/sbin/postfix")
	if os.Getuid() != 0 {
		t.Skip("Postfix must be started by root")
	}
	// Its daemons run as another user, who must get through.
	dir, err := os.MkdirTemp("", "postfix-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	p := &postfix{addr: addr, dir: dir}
	for _, d := range []string{"conf", "queue", "data"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run(t, dir, "chown", "postfix", "data")
	conf := append([]string{
		"compatibility_level = 3.6", "queue_directory = " + dir + "/queue", "data_directory = " + dir + "/data",
		"command_directory = /usr/sbin", "daemon_directory = /usr/lib/postfix/sbin", "mail_owner = postfix", "setgid_group = postdrop",
		"myhostname = postfix.test", "mydestination =", "alias_maps =", "local_recipient_maps =", "inet_interfaces = 127.0.0.1", "inet_protocols = ipv4",
		"maillog_file = " + dir + "/log", "maillog_file_prefixes = " + dir, "mynetworks = 192.0.2.0/32",
		"smtpd_tls_cert_file = " + certFile, "smtpd_tls_key_file = " + keyFile, "smtpd_tls_security_level = may",
		"smtpd_sasl_auth_enable = yes", "smtpd_sasl_type = dovecot", "smtpd_sasl_path = inet:" + dovecotAuth(t),
		"smtpd_relay_restrictions = permit_sasl_authenticated, reject", "smtputf8_enable = yes", "minimal_backoff_time = 1s", "queue_run_delay = 1s",
		"smtpd_client_connection_count_limit = 0",
	}, settings...)
	write(t, filepath.Join(dir, "conf", "main.cf"), strings.Join(conf, "\n")+"\n")
	write(t, filepath.Join(dir, "conf", "master.cf"), fmt.Sprintf(masterCf, p.addr))
	cmd := exec.Command("/usr/sbin/postfix", "-c", filepath.Join(dir, "conf"), "start-fg")
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		try(t, dir, "/usr/sbin/postfix", "-c", filepath.Join(dir, "conf"), "stop")
		stop := time.AfterFunc(10*time.Second, func() { cmd.Process.Signal(syscall.SIGKILL) })
		cmd.Wait()
		stop.Stop()
		if t.Failed() {
			b, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("Postfix: %s\n%s", out, tail(string(b), 6000))
		}
	})
	awaitPort(t, p.addr)
	return p
}

// dovecotAuth is the side of Dovecot's authentication protocol that Postfix
// asks, for one user and PLAIN.
func dovecotAuth(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.WriteString(c, "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n")
				for sc := bufio.NewScanner(c); sc.Scan(); {
					f := strings.Split(sc.Text(), "\t")
					if f[0] != "AUTH" {
						continue
					}
					_, resp, _ := strings.Cut(sc.Text(), "\tresp=")
					if b, _ := base64.StdEncoding.DecodeString(resp); string(b) == "\x00ann\x00secret" {
						fmt.Fprintf(c, "OK\t%s\tuser=ann\n", f[1])
					} else {
						fmt.Fprintf(c, "FAIL\t%s\tuser=ann\n", f[1])
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func (p *postfix) log(t *testing.T) string {
	b, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// freePort returns an address that was free a moment ago.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func awaitPort(t testing.TB, addr string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func mustAddress(t testing.TB, s string) smtp.Address {
	t.Helper()
	a, err := smtp.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// trusting is a Dialer that trusts one certificate.
func trusting(t testing.TB, certFile string) *smtpclient.Dialer {
	t.Helper()
	pem, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &smtpclient.Dialer{TLS: &tls.Config{RootCAs: pool}}
}

// TestPostfix: our client sends to Postfix with STARTTLS and a login, and
// Postfix relays to our server the same way. Nothing is lost, nothing comes
// twice, and what the client said of a message arrives behind Postfix.
func TestPostfix(t *testing.T) {
	hash, err := login.Hash("relay-secret")
	if err != nil {
		t.Fatal(err)
	}
	k := startSink(t, func(s *smtpserver.Server) {
		s.Auth = &login.Passwords{Lookup: func(_ context.Context, name string) (login.Record, error) {
			if name != "postfix" {
				return login.Record{}, login.ErrNoUser
			}
			return login.Record{Hash: hash}, nil
		}}
		s.RequireAuth = true
	})
	keyFile := filepath.Join(filepath.Dir(k.certFile), "key.pem")
	p := startPostfix(t, k.certFile, keyFile, "relayhost = [127.0.0.1]:"+k.port(t),
		"smtp_tls_security_level = encrypt", "smtp_tls_CAfile = "+k.certFile, "smtp_sasl_auth_enable = yes",
		"smtp_sasl_password_maps = static:postfix:relay-secret", "smtp_sasl_security_options = noanonymous", "smtp_sasl_tls_security_options = noanonymous")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	d := trusting(t, k.certFile)
	target := smtpclient.Target{Addr: p.addr, Name: "localhost", Need: smtpclient.Verified,
		Auth: &smtpclient.Auth{User: "ann", Password: "secret"}}

	// One message with everything.
	env := &smtp.Envelope{From: mustAddress(t, "grüße@example.test"), To: []smtp.Recipient{
		{Address: mustAddress(t, "bücher@example.test"), RcptOptions: smtp.RcptOptions{Notify: smtp.NotifySuccess | smtp.NotifyFailure, OriginalType: "rfc822", Original: "first+tag@example.test"}},
		{Address: mustAddress(t, "plain@example.test"), RcptOptions: smtp.RcptOptions{Notify: smtp.NotifyNever, OriginalType: "rfc822", Original: "a+b@example.test"}},
	}}
	env.UTF8, env.Body, env.Return, env.EnvelopeID = true, smtp.Body8Bit, smtp.ReturnHeaders, "id+1=2"
	text := "From: grüße@example.test\r\nSubject: Grüße\r\n\r\n.dot\r\n..\r\nüber\r\n" + strings.Repeat("x", 900) + "\r\n"
	for i, r := range d.Send(ctx, target, env, strings.NewReader(text)) {
		if r.Err != nil {
			t.Fatalf("%v: %v", env.To[i], r.Err)
		}
	}
	got := k.wait(t, 1, time.Minute)[0]
	if got.from != env.From || got.protocol != "UTF8SMTPSA" || !strings.HasPrefix(got.user, "postfix ") ||
		!strings.Contains(got.text, "Subject: Grüße\r\n") || !strings.HasSuffix(got.text, text[strings.Index(text, "\r\n\r\n"):]) {
		t.Errorf("%+v", got)
	}
	if !got.options.UTF8 || got.options.Body != smtp.Body8Bit || got.options.Return != smtp.ReturnHeaders || got.options.EnvelopeID != "id+1=2" || got.options.Size == 0 {
		t.Errorf("MAIL: %+v", got.options)
	}
	if len(got.to) != 2 || got.to[0] != env.To[0] || got.to[1] != env.To[1] {
		t.Errorf("RCPT: %+v, want %+v", got.to, env.To)
	}

	// Refusals come back as they are.
	refused := d.Send(ctx, smtpclient.Target{Addr: p.addr, Name: "localhost"}, &smtp.Envelope{From: mustAddress(t, "a@example.test"),
		To: []smtp.Recipient{{Address: mustAddress(t, "b@example.test")}}}, strings.NewReader("Subject: x\r\n\r\n"))
	if e := asError(refused[0].Err); e == nil || e.Code != 554 || e.Enhanced != (smtp.EnhancedCode{5, 7, 1}) {
		t.Errorf("relaying without a login: %v", refused[0].Err)
	}

	n := relayed(t)
	began := time.Now()
	pool := &smtpclient.Pool{Dialer: *d}
	defer pool.Close()
	numbers := make(chan int)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for i := range numbers {
				env := &smtp.Envelope{From: mustAddress(t, "a@example.test"), To: []smtp.Recipient{{Address: mustAddress(t, "b@example.test")}}}
				text := fmt.Sprintf("From: a@example.test\r\nSubject: number %d\r\n\r\n%s", i, strings.Repeat(strings.Repeat("y", 70)+"\r\n", 50))
				if r := pool.Send(ctx, target, env, strings.NewReader(text))[0]; r.Err != nil {
					t.Errorf("number %d: %v", i, r.Err)
				}
			}
		})
	}
	for i := range n {
		numbers <- i
	}
	close(numbers)
	wg.Wait()
	sent := time.Since(began)
	k.wait(t, 1+n, 5*time.Minute)
	t.Logf("%d of %d messages into Postfix in %v, out of it to us in %v", n, n, sent, time.Since(began))
	try(t, p.dir, "/usr/sbin/postqueue", "-c", filepath.Join(p.dir, "conf"), "-f")
	time.Sleep(time.Second) // for what should not come
	var texts []string
	for _, m := range k.wait(t, 1+n, 0)[1:] {
		texts = append(texts, m.text)
	}
	exactlyOnce(t, n, texts)
	logged := p.log(t)
	for what, want := range map[string]string{"STARTTLS": "starttls=1", "login": "sasl_username=ann"} {
		if !strings.Contains(logged, want) {
			t.Errorf("%s: Postfix's log has no %q", what, want)
		}
	}
	t.Logf("our client logged in with %s", between(logged, "sasl_method=", ","))
}

func between(s, from, to string) string {
	_, s, _ = strings.Cut(s, from)
	s, _, _ = strings.Cut(s, to)
	return s
}

// TestSMTPSource and TestSMTPSink: Postfix's load generator into our server,
// and our client into its sink.
func TestSMTPSource(t *testing.T) {
	need(t, "/usr/sbin/smtp-source")
	n := relayed(t)
	for _, lmtp := range []bool{false, true} {
		k := startSink(t, func(s *smtpserver.Server) { s.LMTP = lmtp })
		args := []string{"-c", "-s", "20", "-m", fmt.Sprint(n), "-l", "4096", "-r", "2", "-f", "a@example.test", "-t", "b@example.test"}
		if lmtp {
			args = append([]string{"-L"}, args...)
		}
		run(t, t.TempDir(), "/usr/sbin/smtp-source", append(args, k.addr)...)
		for _, m := range k.wait(t, n, time.Minute) {
			if len(m.to) != 2 || len(m.text) < 3500 {
				t.Fatalf("%+v", m)
			}
		}
		if got := len(k.wait(t, n, 0)); got != n {
			t.Errorf("%d messages, want %d", got, n)
		}
	}
}

func TestSMTPSink(t *testing.T) {
	need(t, "/usr/sbin/smtp-sink")
	n := relayed(t)
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		os.Chmod(d, 0o777)
	}
	for _, args := range [][]string{nil, {"-p"}, {"-e"}, {"-L"}} { // no PIPELINING, no EHLO, LMTP
		addr := freePort(t)
		mails, err := os.MkdirTemp(dir, "mails")
		if err != nil {
			t.Fatal(err)
		}
		os.Chmod(mails, 0o777)
		cmd := exec.Command("/usr/sbin/smtp-sink", append(args, "-u", "nobody", "-d", mails+"/%M.", addr, "100")...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		awaitPort(t, addr)
		pool := &smtpclient.Pool{}
		target := smtpclient.Target{Addr: addr, LMTP: len(args) > 0 && args[0] == "-L"}
		var wg sync.WaitGroup
		for w := range 5 {
			wg.Go(func() {
				for i := w; i < n; i += 5 {
					env := &smtp.Envelope{From: mustAddress(t, "a@example.test"), To: []smtp.Recipient{{Address: mustAddress(t, "b@example.test")}}}
					text := fmt.Sprintf("From: a@example.test\r\nSubject: number %d\r\n\r\n.\r\n.dot\r\n", i)
					if r := pool.Send(context.Background(), target, env, strings.NewReader(text))[0]; r.Err != nil {
						t.Errorf("%v: number %d: %v", args, i, r.Err)
					}
				}
			})
		}
		wg.Wait()
		pool.Close()
		cmd.Process.Kill()
		cmd.Wait()
		var texts []string
		files, _ := filepath.Glob(mails + "/*")
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n.\n.dot\n\n") && !strings.HasSuffix(string(b), "\n.\n.dot\n") {
				t.Fatalf("%v: %q", args, tail(string(b), 300))
			}
			texts = append(texts, string(b))
		}
		exactlyOnce(t, n, texts)
	}
}

func asError(err error) *smtp.Error {
	e, _ := err.(*smtp.Error)
	return e
}
