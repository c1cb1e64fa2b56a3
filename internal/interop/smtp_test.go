package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSwaks(t *testing.T) {
	need(t, "swaks")
	s := start(t)
	dir := t.TempDir()
	box := s.imap(t, bob, bobPass)
	n := 0
	send := func(name string, args ...string) {
		t.Run(name, func(t *testing.T) {
			out := run(t, dir, "swaks", append([]string{"--to", bob, "--header", "Subject: " + name,
				"--body", "swaks " + name}, args...)...)
			if !strings.Contains(out, "250 2.") {
				t.Fatalf("no acceptance:\n%s", out)
			}
			n++
			box.t = t
			box.wait("INBOX", n)
		})
	}
	sub := []string{"--from", alice, "-au", alice, "-ap", alicePass}
	send("plain", "--server", s.addr["smtp"], "--from", "carol@elsewhere.test")
	send("starttls", "--server", s.addr["smtp"], "-tls", "--from", "carol@elsewhere.test")
	send("pipelining", "--server", s.addr["smtp"], "--pipeline", "--from", "carol@elsewhere.test")
	send("auth-plain", append(sub, "--server", s.addr["submission"], "-tls", "-a", "PLAIN")...)
	send("auth-login", append(sub, "--server", s.addr["submission"], "-tls", "-a", "LOGIN")...)
	send("implicit-tls", append(sub, "--server", s.addr["submissions"], "-tlsc", "-a", "PLAIN")...)
	send("lmtp", "--server", s.addr["lmtp"], "--protocol", "LMTP", "--from", "carol@elsewhere.test")

	big := filepath.Join(dir, "big.eml")
	line := strings.Repeat("0123456789abcdef", 4) + "\n"
	write(t, big, "From: "+alice+"\nTo: "+bob+"\nSubject: big\nDate: Mon, 02 Nov 2026 10:00:00 +0000\n\n"+strings.Repeat(line, 20<<20/len(line)))
	send("20-MB", append(sub, "--server", s.addr["submission"], "-tls", "-a", "PLAIN", "--data", "@"+big)...)

	// What must be refused.
	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"relay", "550", []string{"--server", s.addr["smtp"], "--from", "carol@elsewhere.test", "--to", "dave@elsewhere.test"}},
		{"unknown-user", "550", []string{"--server", s.addr["smtp"], "--from", "carol@elsewhere.test", "--to", "nobody@example.test"}},
		{"no-auth", "530", []string{"--server", s.addr["submission"], "-tls", "--from", alice, "--to", bob}},
		{"wrong-password", "535", []string{"--server", s.addr["submission"], "-tls", "-a", "PLAIN", "-au", alice, "-ap", "wrong", "--from", alice, "--to", bob}},
		{"plaintext-auth", "did not advertise authentication", []string{"--server", s.addr["submission"], "-a", "PLAIN", "-au", alice, "-ap", alicePass, "--from", alice, "--to", bob}},
		{"other-sender", "55", append([]string{"--server", s.addr["submission"], "-tls", "-a", "PLAIN", "-au", alice, "-ap", alicePass}, "--from", bob, "--to", bob)},
	} {
		t.Run("refused/"+c.name, func(t *testing.T) {
			out, err := try(t, dir, "swaks", c.args...)
			if err == nil || !strings.Contains(out, c.want) {
				t.Fatalf("want %s and a failure, got %v:\n%s", c.want, err, out)
			}
		})
	}
	box.t = t
	box.wait("INBOX", n)
}

func TestMsmtp(t *testing.T) {
	need(t, "msmtp")
	s := start(t)
	dir := t.TempDir()
	rc := filepath.Join(dir, "msmtprc")
	conf := func(extra string) {
		write(t, rc, fmt.Sprintf("account default\nhost localhost\nauth on\nuser %s\npassword %s\nfrom %s\ntls on\ntls_trust_file %s\n%s\n",
			alice, alicePass, alice, s.certFile, extra))
	}
	msg := filepath.Join(dir, "m.eml")
	write(t, msg, "From: "+alice+"\nTo: "+bob+"\nSubject: msmtp\n\nHello\n.\n..\n")
	box := s.imap(t, bob, bobPass)
	for i, extra := range []string{
		"tls_starttls on\nport " + s.port(t, "submission"),
		"tls_starttls off\nport " + s.port(t, "submissions"),
	} {
		conf(extra)
		run(t, dir, "sh", "-c", "msmtp -C "+rc+" "+bob+" < "+msg)
		box.wait("INBOX", i+1)
	}
	box.ok("SELECT INBOX")
	if m := box.message(2); !strings.HasSuffix(m, "\r\n\r\nHello\r\n.\r\n..\r\n") {
		t.Errorf("the body did not survive: %q", tail(m, 100))
	}
}

func TestNodemailerImapflow(t *testing.T) {
	need(t, "node", filepath.Join("node", "node_modules"))
	s := start(t)
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, "node")
	box := s.imap(t, bob, bobPass)
	run(t, dir, "node", "send.mjs", "localhost", s.port(t, "submission"), "false", alice, alicePass, s.certFile, bob, "Grüße 1")
	box.wait("INBOX", 1)
	run(t, dir, "node", "send.mjs", "localhost", s.port(t, "submissions"), "true", alice, alicePass, s.certFile, bob, "Grüße 2")
	box.wait("INBOX", 2)
	for i, l := range []string{"imap", "imaps"} {
		out := run(t, dir, "node", "read.mjs", "localhost", s.port(t, l), fmt.Sprint(l == "imaps"), bob, bobPass, s.certFile, fmt.Sprintf("Grüße %d", i+1))
		for _, want := range []string{`"found":1`, `"subject":"Grüße `, `"from":"Älice"`, `"fileName":"naïve café.txt"`,
			`"sizeAgrees":true`, `"attachment":"attached\n"`, `"flags":["$Label1","\\Flagged"]`, `"moved":1`} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %s in %s", l, want, out)
			}
		}
	}
}
