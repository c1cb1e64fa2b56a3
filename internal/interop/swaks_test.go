package interop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/smtp/proxyproto"
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

// TestSwaksProxies: swaks as a proxy of both versions, as one that speaks for
// others with XCLIENT, IPv6 clients among them, over a Unix socket, and with a
// certificate.
func TestSwaksProxies(t *testing.T) {
	need(t, "swaks")
	dir := t.TempDir()
	certFile, keyFile, cert := certificate(t, dir)
	k := startSink(t, func(s *smtpserver.Server) {
		s.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		s.TLS.ClientCAs, s.TLS.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven
		s.TLS.ClientCAs.AddCert(cert)
		s.Auth = &login.Certificates{Identify: func(_ context.Context, c *login.Conn, _ string) (login.Identity, error) {
			return login.Identity{User: c.TLS.PeerCertificates[0].Subject.CommonName}, nil
		}}
	})
	also := func(network, address string, wrap func(net.Listener) net.Listener) string {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		go k.server.Serve(wrap(l)) // until the sink is closed
		return l.Addr().String()
	}
	plain := func(l net.Listener) net.Listener { return l }
	proxy := also("tcp", "127.0.0.1:0", func(l net.Listener) net.Listener {
		return &proxyproto.Listener{Listener: l, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Log: slog.New(slog.DiscardHandler)}
	})
	socket := also("unix", filepath.Join(dir, "s"), plain)
	v1 := []string{"--server", proxy, "--proxy-version", "1", "--proxy-family", "TCP4", "--proxy-source", "192.0.2.1", "--proxy-source-port", "4711", "--proxy-dest", "192.0.2.9", "--proxy-dest-port", "25"}
	v2 := []string{"--server", proxy, "--proxy-version", "2", "--proxy-family", "AF_INET6", "--proxy-protocol", "STREAM", "--proxy-command", "PROXY",
		"--proxy-source", "2001:db8::1", "--proxy-source-port", "4711", "--proxy-dest", "2001:db8::9", "--proxy-dest-port", "25"}
	for i, tt := range []struct {
		name string
		args []string
		want string // of remote, user and hello
	}{
		{"PROXY 1", v1, "192.0.2.1:4711  x.test"},
		{"PROXY 2", v2, "[2001:db8::1]:4711  x.test"},
		{"PROXY and TLS", append(v2, "-tls"), "[2001:db8::1]:4711  x.test"},
		{"XCLIENT", []string{"--server", k.addr, "--xclient-addr", "192.0.2.7", "--xclient-name", "a.test", "--xclient-port", "7", "--xclient-helo", "b.test"}, "192.0.2.7:7 a.test  x.test"},
		{"XCLIENT, one by one", []string{"--server", k.addr, "--xclient", "ADDR=IPV6:2001:db8::7 PORT=8", "--xclient-delim", "--xclient-name", "a.test"}, "[2001:db8::7]:8 a.test  x.test"},
		{"XCLIENT with a login", []string{"--server", k.addr, "--xclient-login", "carol", "--xclient-addr", "192.0.2.7", "--xclient-port", "7"}, "192.0.2.7:7 carol XCLIENT x.test"},
		{"XCLIENT before TLS", []string{"--server", k.addr, "-tls", "--xclient-addr", "192.0.2.7", "--xclient-port", "7", "--xclient-before-starttls"}, "192.0.2.7:7  x.test"},
		{"Unix socket", []string{"--socket", socket}, "invalid AddrPort  x.test"},
	} {
		out, err := try(t, dir, "swaks", slices.Concat(tt.args, []string{"--from", "ann@example.test", "--to", "bob@example.test", "--ehlo", "x.test", "--timeout", "20"})...)
		if err != nil {
			t.Fatalf("%s: %v\n%s", tt.name, err, tail(out, 2000))
		}
		m := k.wait(t, i+1, 5*time.Second)[i]
		if got := m.remote + " " + m.user + " " + m.hello; got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	// swaks knows no EXTERNAL, but shows its certificate.
	out, err := try(t, dir, "swaks", "--server", k.addr, "-tls", "--tls-cert", certFile, "--tls-key", keyFile, "--to", "bob@example.test", "--quit-after", "HELO", "--timeout", "20")
	if err != nil || !strings.Contains(out, "AUTH EXTERNAL") {
		t.Errorf("%v\n%s", err, tail(out, 2000))
	}
}
