package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// eximBinary is where CONTRIBUTING.md says to unpack Exim, which cannot be
// installed beside Postfix.
const eximBinary = "/opt/exim/usr/sbin/exim4"

// TestExim: Exim sends through our server, with TLS, and with each extension
// of those it knows that is on offer.
func TestExim(t *testing.T) {
	need(t, eximBinary)
	if os.Getuid() != 0 {
		t.Skip("Exim must be started by root")
	}
	k := startSink(t, nil)
	dir, err := os.MkdirTemp("", "exim-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	run(t, dir, "chown", "Debian-exim", dir)
	os.Chmod(dir, 0o755)
	conf, ca := filepath.Join(dir, "exim.conf"), filepath.Join(dir, "ca.pem")
	pem, err := os.ReadFile(k.certFile)
	if err != nil {
		t.Fatal(err)
	}
	write(t, ca, string(pem))
	os.Chmod(ca, 0o644)
	write(t, conf, fmt.Sprintf(`exim_user = Debian-exim
exim_group = nogroup
exim_path = /opt/exim/usr/sbin/exim4
never_users =
primary_hostname = exim.test
spool_directory = %[1]s/spool
log_file_path = %[1]s/%%slog
keep_environment =
acl_smtp_rcpt = accept
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
log_selector = +all
begin routers
out:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = out
begin transports
out:
  driver = smtp
  port = %[2]s
  hosts_require_tls = *
  tls_verify_certificates = %[3]s
  tls_verify_hosts = *
  hosts_try_chunking = *
begin retry
* * F,1h,1s
`, dir, k.port(t), ca))
	os.Chmod(conf, 0o644) // it is read again by its own user
	send := func(text string, args ...string) {
		t.Helper()
		cmd := exec.Command(eximBinary, append([]string{"-C", conf, "-odf", "-f", "ann@example.test"}, args...)...)
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("exim: %v\n%s", err, out)
		}
	}
	defer func() {
		if t.Failed() {
			b, _ := os.ReadFile(filepath.Join(dir, "mainlog"))
			t.Logf("%s", tail(string(b), 3000))
		}
	}()
	send("Subject: small\n\n.\n.dot\n", "-i", "bob@example.test", "eve@example.test")
	m := k.wait(t, 1, 10*time.Second)[0]
	if m.protocol != "ESMTPS" || len(m.to) != 2 || !strings.HasSuffix(m.text, "\r\n\r\n.\r\n.dot\r\n") {
		t.Errorf("%+v", m)
	}
	// Over one chunk of Exim's.
	big := strings.Repeat(strings.Repeat("z", 76)+"\n", 10000)
	send("Subject: big\n\n"+big, "-i", "bob@example.test")
	if m = k.wait(t, 2, 10*time.Second)[1]; !strings.HasSuffix(m.text, strings.ReplaceAll(big, "\n", "\r\n")) {
		t.Errorf("%d octets: %q", len(m.text), tail(m.text, 200))
	}
	// DSN options come through, given to Exim as a submission in SMTP on stdin.
	cmd := exec.Command(eximBinary, "-C", conf, "-odf", "-bs")
	cmd.Stdin = strings.NewReader("EHLO x\r\nMAIL FROM:<ann@example.test> RET=HDRS ENVID=e1\r\nRCPT TO:<bob@example.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;first@example.test\r\nDATA\r\nSubject: dsn\r\n\r\nx\r\n.\r\nQUIT\r\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m = k.wait(t, 3, 10*time.Second)[2]
	if m.options.EnvelopeID != "e1" || m.options.Return != "HDRS" || m.to[0].Original != "first@example.test" || m.to[0].Notify == 0 {
		t.Errorf("%+v\n%s", m, out)
	}
	b, _ := os.ReadFile(filepath.Join(dir, "mainlog"))
	t.Logf("Exim sent in chunks: %v", strings.Contains(string(b), " K C=\"250"))
	if strings.Contains(string(b), "==") || strings.Contains(string(b), "**") {
		t.Errorf("deferred or failed:\n%s", b)
	}
}
