package interop

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/smtp/smtpserver"
)

// TestSwaksOptions: what swaks can do beyond TestSwaks.
func TestSwaksOptions(t *testing.T) {
	need(t, "swaks")
	dir := t.TempDir()
	k := startSink(t, withLogin(t))
	tlsOnly := startSink(t, func(s *smtpserver.Server) { s.ImplicitTLS = true })
	lmtp := startSink(t, func(s *smtpserver.Server) { s.LMTP = true })
	basic := func(k *sink) []string {
		return []string{"--server", k.addr, "--from", "ann@example.test", "--to", "bob@example.test", "--timeout", "20"}
	}
	login := []string{"-au", alice, "-ap", alicePass}
	count := map[*sink]int{}
	for _, tt := range []struct {
		name, out string
		k         *sink
		args      []string
		check     func(m sunk) bool
	}{
		{"helo", "250 sink.test", k, []string{"--protocol", "SMTP", "--ehlo", "x.test"}, func(m sunk) bool { return m.protocol == "SMTP" && m.hello == "x.test" }},
		{"esmtp", "", k, []string{"--protocol", "ESMTP"}, func(m sunk) bool { return m.protocol == "ESMTP" }},
		{"esmtps", "", k, []string{"--protocol", "ESMTPS"}, func(m sunk) bool { return m.protocol == "ESMTPS" }},
		{"ssmtp", "", tlsOnly, []string{"--protocol", "SSMTP"}, func(m sunk) bool { return m.protocol == "ESMTPS" }},
		{"lmtp", "", lmtp, []string{"--protocol", "LMTP"}, func(m sunk) bool { return m.protocol == "LMTP" }},
		{"esmtpsa", "235 ", k, append([]string{"--protocol", "ESMTPSA", "-a", "PLAIN"}, login...), func(m sunk) bool { return m.user == alice+" PLAIN" }},
		{"login", "235 ", k, append([]string{"-tls", "-a", "LOGIN"}, login...), func(m sunk) bool { return m.user == alice+" LOGIN" }},
		{"cram", "235 ", k, append([]string{"-tls", "-a", "CRAM-MD5"}, login...), func(m sunk) bool { return m.user == alice+" CRAM-MD5" }},
		{"optional login", "", k, append([]string{"-tls", "-ao"}, login...), func(m sunk) bool { return m.user != "" }},
		{"tls 1.2", "", k, []string{"-tls", "--tls-protocol", "tlsv1_2"}, func(m sunk) bool { return m.protocol == "ESMTPS" }},
		{"optional tls", "", k, []string{"-tlso"}, func(m sunk) bool { return m.protocol == "ESMTPS" }},
		{"verified tls", "", k, []string{"-tls", "--tls-verify", "--tls-ca-path", k.certFile}, func(m sunk) bool { return m.protocol == "ESMTPS" }},
		{"pipelined recipients", "", k, []string{"--pipeline", "--to", "bob@example.test,eve@example.test"}, func(m sunk) bool { return len(m.to) == 2 }},
		{"one refused", "550 5.1.1 ", k, []string{"--to", "bob@example.test,nobody@example.test"}, func(m sunk) bool { return len(m.to) == 1 }},
		{"pipelined, one refused", "550 5.1.1 ", k, []string{"--pipeline", "--to", "bob@example.test,nobody@example.test"}, func(m sunk) bool { return len(m.to) == 1 }},
		{"null sender", "", k, []string{"--from", "<>"}, func(m sunk) bool { return m.from.IsZero() }},
		{"attachment", "", k, []string{"--attach", "@" + filepath.Join(dir, "a.txt")}, func(m sunk) bool { return strings.Contains(m.text, "Content-Disposition: attachment") }},
		{"header", "", k, []string{"--add-header", "X-Test: one", "--header", "Subject: two"}, func(m sunk) bool {
			return strings.Contains(m.text, "\r\nX-Test: one\r\n") && strings.Contains(m.text, "Subject: two\r\n")
		}},
		{"no hints, no info", "", k, []string{"-hr", "-n"}, func(m sunk) bool { return m.text != "" }},
	} {
		write(t, filepath.Join(dir, "a.txt"), "attached\n")
		out, err := try(t, dir, "swaks", append(basic(tt.k), tt.args...)...)
		// swaks ends with an error when one of several recipients is refused.
		if err != nil && !strings.Contains(tt.name, "refused") || !strings.Contains(out, tt.out) {
			t.Errorf("%s: %v\n%s", tt.name, err, tail(out, 2000))
			continue
		}
		count[tt.k]++
		mails := tt.k.wait(t, count[tt.k], 5*time.Second)
		if m := mails[count[tt.k]-1]; !tt.check(m) {
			t.Errorf("%s: %+v", tt.name, m)
		}
	}
	// Stopping at any point leaves nothing behind.
	for _, stop := range []string{"CONNECT", "FIRST-HELO", "TLS", "HELO", "AUTH", "MAIL", "RCPT"} {
		for _, how := range []string{"--quit-after", "--drop-after"} {
			out, err := try(t, dir, "swaks", slices.Concat(basic(k), login, []string{"-tls", "-a", "PLAIN", how, stop})...)
			if err != nil && how == "--quit-after" {
				t.Errorf("%s %s: %v\n%s", how, stop, err, tail(out, 1000))
			}
		}
	}
	for _, drop := range []string{"DATA", "DOT"} {
		try(t, dir, "swaks", append(basic(k), "--drop-after-send", drop)...)
	}
	time.Sleep(200 * time.Millisecond)
	if n := len(k.wait(t, 0, 0)); n != count[k] && n != count[k]+1 { // a dot that was sent is a message
		t.Errorf("%d messages, want %d", n, count[k])
	}
}
