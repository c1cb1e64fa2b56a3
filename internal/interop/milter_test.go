package interop

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/smtp/dnsbl"
	"github.com/postrider/postrider/smtp/milter"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// daemon runs a program until the test ends.
func daemon(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		stop := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		stop.Stop()
		if t.Failed() {
			t.Logf("%s: %s", name, tail(out.String(), 4000))
		}
	})
}

// awaitFilter waits until a filter answers.
func awaitFilter(t *testing.T, m *milter.Client) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := m.Check(context.Background())
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

const swaksText = "From: ann@example.test\nTo: bob@example.test\nSubject: a test  of\n\tfolding\nDate: Mon, 02 Nov 2026 10:00:00 +0000\nMessage-ID: <1@example.test>\n\n  Hello\n.\n..\n\n\n"

// TestMilterOpenDKIM: OpenDKIM signs what passes our server, and our
// server's next OpenDKIM verifies it: nothing was changed on the way.
func TestMilterOpenDKIM(t *testing.T) {
	name := "/usr/sbin/opendkim"
	need(t, name, "swaks", "/usr/bin/python3")
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keyFile, conf := filepath.Join(dir, "key.pem"), filepath.Join(dir, "opendkim.conf")
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	sign, verify := freePort(t), freePort(t)
	socket := func(addr string) string { _, port, _ := strings.Cut(addr, ":"); return "inet:" + port + "@127.0.0.1" }
	pub, _ := x509.MarshalPKIXPublicKey(&key.PublicKey)
	record := "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(pub)
	keys := filepath.Join(dir, "keys")
	write(t, keys, "sel._domainkey.example.test "+record+"\n")
	write(t, conf, "Mode s\nDomain example.test\nSelector sel\nKeyFile "+keyFile+"\nCanonicalization simple/simple\nInternalHosts 0.0.0.0/0\nRequireSafeKeys no\nUserID root\nSyslog no\nSocket "+socket(sign)+"\n")
	conf2 := filepath.Join(dir, "verify.conf")
	write(t, conf2, "Mode v\nTestPublicKeys "+keys+"\nUserID root\nSyslog no\nAlwaysAddARHeader yes\nAuthservID sink.test\nSocket "+socket(verify)+"\n")
	daemon(t, name, "-f", "-x", conf)
	daemon(t, name, "-f", "-x", conf2)
	signer := &milter.Client{Network: "tcp", Address: sign, Log: slog.New(slog.DiscardHandler)}
	verifier := &milter.Client{Network: "tcp", Address: verify, Log: slog.New(slog.DiscardHandler)}
	awaitFilter(t, signer)
	awaitFilter(t, verifier)
	k := startSink(t, nil)
	k2 := startSink(t, func(s *smtpserver.Server) { s.Backend = smtpserver.Wrap(k.backend(), signer.Wrap, verifier.Wrap) })
	eml := filepath.Join(dir, "m.eml")
	write(t, eml, swaksText)
	for i, extra := range [][]string{nil, {"-tls"}, {"--pipeline"}} {
		run(t, dir, "swaks", append([]string{"--server", k2.addr, "--from", "ann@example.test", "--to", "bob@example.test", "--data", "@" + eml}, extra...)...)
		got := k.wait(t, i+1, time.Second)[i].text
		if !strings.Contains(got, "DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=example.test;") || !strings.Contains(got, "sink.test;\r\n\tdkim=pass") {
			t.Fatalf("%q", got)
		}
		file := filepath.Join(dir, "got.eml")
		write(t, file, got)
		run(t, dir, "/usr/bin/python3", "-c", verifyPy, file, "sel._domainkey.example.test", record)
	}
}

// TestMilterRspamd: rspamd marks mail, and refuses the test text for spam.
func TestMilterRspamd(t *testing.T) {
	need(t, "rspamd", "swaks")
	dir, err := os.MkdirTemp("", "rspamd-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o777)
	proxy := freePort(t)
	write(t, filepath.Join(dir, "rspamd.conf"), `
options { pidfile = "`+dir+`/pid"; filters = ""; dns { nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; } }
logging { type = "console"; level = "warning"; }
actions { reject = 15; add_header = 6; greylist = null; }
gtube_patterns = "all";
worker "rspamd_proxy" {
  bind_socket = "`+proxy+`"; milter = yes; timeout = 20s; count = 1;
  upstream "local" { default = yes; self_scan = yes; }
}
`)
	os.Chmod(filepath.Join(dir, "rspamd.conf"), 0o644)
	daemon(t, "rspamd", "-f", "-i", "--var", "DBDIR="+dir, "-c", filepath.Join(dir, "rspamd.conf"))
	m := &milter.Client{Network: "tcp", Address: proxy, Log: slog.New(slog.DiscardHandler)}
	awaitFilter(t, m)
	k := startSink(t, nil)
	k2 := startSink(t, func(s *smtpserver.Server) { s.Backend = smtpserver.Wrap(k.backend(), m.Wrap) })
	eml := filepath.Join(dir, "m.eml")
	write(t, eml, swaksText)
	args := []string{"--server", k2.addr, "--from", "ann@example.test", "--to", "bob@example.test", "--data", "@" + eml}
	run(t, dir, "swaks", args...)
	if got := k.wait(t, 1, time.Second)[0].text; !strings.Contains(got, "\r\n\r\n  Hello\r\n.\r\n..\r\n\r\n\r\n") {
		t.Errorf("%q", got)
	}
	write(t, eml, "Subject: spam\n\nXJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\n")
	out, err := try(t, dir, "swaks", args...)
	if err == nil || !strings.Contains(out, "554 5.7.1 ") || len(k.wait(t, 1, 0)) != 1 {
		t.Errorf("the test text for spam: %v\n%s", err, out)
	}
	// The connection to the filter is good for the next message too.
	run(t, dir, "swaks", append(args[:len(args)-2:len(args)-2], "--body", "again")...)
	k.wait(t, 2, time.Second)
}

// TestDNSBL: a list served over real DNS refuses swaks until it is delisted.
func TestDNSBL(t *testing.T) {
	need(t, "swaks")
	d := mxtest.NewDNS(mxtest.Zone{"1.0.0.127.bl.test": {"A 127.0.0.2", "TXT listed for a test"}})
	check := &dnsbl.Checker{Resolver: d, Lists: []dnsbl.List{{Zone: "bl.test"}, {Zone: "dbl.test", Of: dnsbl.Sender}}, Log: slog.New(slog.DiscardHandler)}
	k := startSink(t, nil)
	k2 := startSink(t, func(s *smtpserver.Server) { s.Backend = smtpserver.Wrap(k.backend(), check.Wrap) })
	args := []string{"--server", k2.addr, "--from", "ann@example.test", "--to", "bob@example.test", "-tls"}
	out, err := try(t, t.TempDir(), "swaks", args...)
	if err == nil || !strings.Contains(out, "554 5.7.1 127.0.0.1 is listed by bl.test: listed for a test") {
		t.Errorf("%v\n%s", err, out)
	}
	d.Set("1.0.0.127.bl.test")
	run(t, t.TempDir(), "swaks", args...)
	d.Set("example.test.dbl.test", "A 127.0.1.2")
	if out, err := try(t, t.TempDir(), "swaks", args...); err == nil || !strings.Contains(out, "554 5.7.1 example.test is listed by dbl.test") {
		t.Errorf("%v\n%s", err, out)
	}
	k.wait(t, 1, 0)
}
