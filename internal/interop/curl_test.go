package interop

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestCurl(t *testing.T) {
	need(t, "curl")
	s := start(t)
	dir := t.TempDir()
	msg := filepath.Join(dir, "m.eml")
	write(t, msg, "From: "+alice+"\r\nTo: "+bob+"\r\nSubject: curl\r\n\r\nHello\r\n")
	curl := func(args ...string) string {
		t.Helper()
		return run(t, dir, "curl", append([]string{"-sS", "--ssl-reqd", "--cacert", s.certFile}, args...)...)
	}
	url := func(scheme, listener, path string) string {
		return scheme + "://localhost:" + s.port(t, listener) + path
	}
	box := s.imap(t, bob, bobPass)
	send := []string{"--mail-from", alice, "--mail-rcpt", bob, "-u", alice + ":" + alicePass, "-T", msg}
	curl(append(send, url("smtp", "submission", ""))...)
	box.wait("INBOX", 1)
	curl(append(send, url("smtps", "submissions", ""))...)
	box.wait("INBOX", 2)

	as := []string{"-u", bob + ":" + bobPass}
	for _, l := range []string{"imap", "imaps"} {
		got := curl(append(as, url(l, l, "/INBOX;MAILINDEX=1"))...)
		if !strings.HasSuffix(got, "Subject: curl\r\n\r\nHello\r\n") && !strings.Contains(got, "Subject: curl\r\n") {
			t.Errorf("%s: %q", l, got)
		}
		if got := curl(append(as, url(l, l, "/INBOX?SUBJECT%20curl"))...); !strings.Contains(got, "SEARCH 1 2") {
			t.Errorf("%s search: %q", l, got)
		}
		if got := curl(append(as, url(l, l, "/"))...); !strings.Contains(got, "INBOX") {
			t.Errorf("%s list: %q", l, got)
		}
		curl(append(as, "-T", msg, url(l, l, "/INBOX"))...)
	}
	box.wait("INBOX", 4)
	for _, l := range []string{"pop3", "pop3s"} {
		if got := curl(append(as, url(l, l, "/"))...); !strings.Contains(got, "4 ") {
			t.Errorf("%s list: %q", l, got)
		}
		if got := curl(append(as, url(l, l, "/1"))...); !strings.Contains(got, "Subject: curl\r\n") || !strings.HasSuffix(got, "Hello\r\n") {
			t.Errorf("%s: %q", l, got)
		}
	}
	// Without TLS no password is taken.
	if out, err := try(t, dir, "curl", append([]string{"-sS", url("imap", "imap", "/")}, as...)...); err == nil {
		t.Errorf("a password was taken in plain text: %s", out)
	}
}
