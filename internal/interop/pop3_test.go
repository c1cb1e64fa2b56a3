package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fill appends n small messages to bob's INBOX.
func fill(t *testing.T, s *server, n int) *imapConn {
	t.Helper()
	box := s.imap(t, bob, bobPass)
	for i := range n {
		box.append("INBOX", "", fmt.Sprintf("From: %s\r\nTo: %s\r\nSubject: message %d\r\nMessage-ID: <m%d@example.test>\r\nDate: Mon, 02 Nov 2026 10:00:00 +0000\r\n\r\n.dot\r\nbody %d\r\n", alice, bob, i, i, i))
	}
	return box
}

// maildir counts the messages of a Maildir and checks one body.
func maildir(t *testing.T, dir string) int {
	t.Helper()
	n := 0
	for _, sub := range []string{"new", "cur"} {
		files, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(filepath.Join(dir, sub, f.Name()))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(b), "\n.dot\nbody ") && !strings.Contains(string(b), "\r\n.dot\r\nbody ") {
				t.Errorf("%s: the body did not survive: %q", f.Name(), b)
			}
			n++
		}
	}
	return n
}

// script makes a delivery agent that keeps each message in a file got.*.
func script(t *testing.T, dir string) string {
	t.Helper()
	mda := filepath.Join(dir, "mda")
	write(t, mda, "#!/bin/sh\ncat > \"$(mktemp "+dir+"/got.XXXXXX)\"\n")
	if err := os.Chmod(mda, 0o700); err != nil {
		t.Fatal(err)
	}
	return mda
}

func makeMaildir(t *testing.T, dir string) {
	t.Helper()
	for _, sub := range []string{"new", "cur", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMpop(t *testing.T) {
	need(t, "mpop")
	s := start(t)
	fill(t, s, 20)
	for i, c := range []struct{ listener, starttls, keep string }{
		{"pop3", "on", "on"}, {"pop3s", "off", "off"},
	} {
		dir := t.TempDir()
		makeMaildir(t, filepath.Join(dir, "Mail"))
		rc := filepath.Join(dir, "mpoprc")
		write(t, rc, fmt.Sprintf("account default\nhost localhost\nport %s\nuser %s\npassword %s\ntls on\ntls_starttls %s\ntls_trust_file %s\ndelivery maildir %s\nkeep %s\nuidls_file %s\n",
			s.port(t, c.listener), bob, bobPass, c.starttls, s.certFile, filepath.Join(dir, "Mail"), c.keep, filepath.Join(dir, "uidls")))
		run(t, dir, "mpop", "-C", rc)
		if n := maildir(t, filepath.Join(dir, "Mail")); n != 20 {
			t.Errorf("round %d: %d messages", i, n)
		}
		run(t, dir, "mpop", "-C", rc) // UIDLs are stable: nothing comes twice
		if n := maildir(t, filepath.Join(dir, "Mail")); n != 20 {
			t.Errorf("round %d: %d messages after the second run", i, n)
		}
	}
	s.imap(t, bob, bobPass).wait("INBOX", 0)
}

func TestFetchmail(t *testing.T) {
	need(t, "fetchmail")
	s := start(t)
	for _, proto := range []string{"pop3", "pop3s", "imap", "imaps"} {
		t.Run(proto, func(t *testing.T) {
			fill(t, s, 10)
			dir := t.TempDir()
			mda := script(t, dir)
			rc := filepath.Join(dir, "fetchmailrc")
			ssl, service := "sslproto TLS1.2+ ", "protocol "+proto
			if plain, ok := strings.CutSuffix(proto, "s"); ok {
				ssl, service = "ssl ", "protocol "+plain
			}
			write(t, rc, fmt.Sprintf("poll localhost %s service %s auth password user \"%s\" password \"%s\" %s sslcertfile %s sslcertck sslcommonname localhost mda \"%s\" nokeep fetchall\n",
				service, s.port(t, proto), bob, bobPass, ssl, s.certFile, mda))
			run(t, dir, "fetchmail", "-f", rc, "--nodetach", "--nosyslog", "-v")
			got, _ := filepath.Glob(filepath.Join(dir, "got.*"))
			if len(got) != 10 {
				t.Errorf("%d messages fetched, want 10", len(got))
			}
			s.imap(t, bob, bobPass).wait("INBOX", 0)
		})
	}
}

func TestGetmail(t *testing.T) {
	need(t, "getmail")
	s := start(t)
	for _, c := range []struct{ kind, listener string }{{"SimplePOP3SSLRetriever", "pop3s"}, {"SimpleIMAPSSLRetriever", "imaps"}} {
		t.Run(c.listener, func(t *testing.T) {
			fill(t, s, 10)
			dir := t.TempDir()
			// A Maildir destination refuses to run as root.
			mda := script(t, dir)
			mailboxes := ""
			if c.listener == "imaps" {
				mailboxes = "mailboxes = (\"INBOX\",)\n"
			}
			write(t, filepath.Join(dir, "getmailrc"), fmt.Sprintf("[retriever]\ntype = %s\nserver = localhost\nport = %s\nusername = %s\npassword = %s\nca_certs = %s\n%s[destination]\ntype = MDA_external\npath = %s\nallow_root_commands = true\n[options]\ndelete = true\n",
				c.kind, s.port(t, c.listener), bob, bobPass, s.certFile, mailboxes, mda))
			run(t, dir, "getmail", "--getmaildir="+dir, "--rcfile="+filepath.Join(dir, "getmailrc"))
			if got, _ := filepath.Glob(filepath.Join(dir, "got.*")); len(got) != 10 {
				t.Errorf("%d messages fetched, want 10", len(got))
			}
			s.imap(t, bob, bobPass).wait("INBOX", 0)
		})
	}
}
