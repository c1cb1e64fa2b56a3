package smtpserver

import (
	"bytes"
	"crypto/tls"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/smtp"
)

func TestReceived(t *testing.T) {
	at := time.Date(2026, 11, 23, 9, 5, 7, 0, time.FixedZone("", 3600))
	v4 := netip.MustParseAddrPort("192.0.2.1:4711")
	v6 := netip.MustParseAddrPort("[2001:db8::1%eth0]:4711")
	modern := &tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256}
	long := strings.Repeat("long.", 11) + "test"
	tests := []struct {
		name     string
		c        Conn
		id, for_ string
		want     string
	}{
		{"all", Conn{hello: "client.test", remote: v4, extended: true, tls: modern, loggedIn: true}, "4F2a", "b@two.test",
			"Received: from client.test ([192.0.2.1])\r\n\t(using TLS 1.3 with cipher TLS_AES_128_GCM_SHA256)\r\n" +
				"\tby mx.test with ESMTPSA\r\n\tid 4F2a\r\n\tfor <b@two.test>;\r\n\tMon, 23 Nov 2026 09:05:07 +0100\r\n"},
		{"least", Conn{}, "", "",
			"Received: from unknown\r\n\tby mx.test with SMTP;\r\n\tMon, 23 Nov 2026 09:05:07 +0100\r\n"},
		{"IPv6", Conn{hello: "[IPv6:2001:db8::1]", remote: v6, extended: true}, "", "",
			"Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])\r\n\tby mx.test with ESMTP;\r\n\tMon, 23 Nov 2026 09:05:07 +0100\r\n"},
		{"U-label", Conn{hello: "bücher.test", remote: v4, extended: true}, "", "",
			"Received: from xn--bcher-kva.test ([192.0.2.1])\r\n\tby mx.test with ESMTP;\r\n\tMon, 23 Nov 2026 09:05:07 +0100\r\n"},
		{"hostile", Conn{hello: `x)(\;é@y`, remote: v4, extended: true}, "a b\r\nc;(", "b@two.test>\r\nX: y",
			"Received: from [192.0.2.1]\r\n\t(HELO x\\)\\(\\\\;??@y)\r\n\tby mx.test with ESMTP\r\n\tid abc;\r\n\tMon, 23 Nov 2026 09:05:07 +0100\r\n"},
		{"hostile without an address", Conn{hello: "!", extended: true}, "", "",
			"Received: from unknown\r\n\t(HELO !)\r\n\tby mx.test with ESMTP;\r\n\tMon, 23 Nov 2026 09:05:07 +0100\r\n"},
		{"long", Conn{hello: long, remote: v6, extended: true}, strings.Repeat("i", 100), "",
			"Received: from " + long + "\r\n\t([IPv6:2001:db8::1])\r\n\tby mx.test with ESMTP\r\n\tid " + strings.Repeat("i", 70) + ";\r\n\tMon, 23 Nov 2026 09:05:07 +0100\r\n"},
		{"UTF-8", Conn{hello: "client.test", extended: true, tx: transaction{utf8: true}}, "", "ü@zwö.test",
			"Received: from client.test\r\n\tby mx.test with UTF8SMTP\r\n\tfor <ü@xn--zw-gka.test>;\r\n\tMon, 23 Nov 2026 09:05:07 +0100\r\n"},
		{"UTF-8 without SMTPUTF8", Conn{hello: "client.test", extended: true}, "", "ü@zwö.test",
			"Received: from client.test\r\n\tby mx.test with ESMTP;\r\n\tMon, 23 Nov 2026 09:05:07 +0100\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.c.srv = &Server{name: "mx.test"}
			got := string(tt.c.Received(tt.id, tt.for_, at))
			if got != tt.want {
				t.Errorf("got\n%q, want\n%q", got, tt.want)
			}
			for line := range strings.SplitSeq(got, "\r\n") {
				if len(line) > 78 {
					t.Errorf("line of %d: %q", len(line), line)
				}
			}
		})
	}
}

func TestProtocol(t *testing.T) {
	for want, c := range map[string]*Conn{
		"SMTP":       {},
		"ESMTP":      {extended: true},
		"ESMTPS":     {extended: true, tls: &tls.ConnectionState{}},
		"ESMTPA":     {extended: true, loggedIn: true},
		"ESMTPSA":    {extended: true, loggedIn: true, tls: &tls.ConnectionState{}},
		"UTF8SMTP":   {extended: true, tx: transaction{utf8: true}},
		"UTF8SMTPSA": {extended: true, tx: transaction{utf8: true}, loggedIn: true, tls: &tls.ConnectionState{}},
		"LMTP":       {srv: &Server{LMTP: true}, extended: true},
		"LMTPS":      {srv: &Server{LMTP: true}, extended: true, tls: &tls.ConnectionState{}},
		"UTF8LMTPA":  {srv: &Server{LMTP: true}, extended: true, tx: transaction{utf8: true}, loggedIn: true},
	} {
		if c.srv == nil {
			c.srv = &Server{}
		}
		if got := c.Protocol(); got != want {
			t.Errorf("Protocol() = %s, want %s", got, want)
		}
	}
}

// FuzzReceived: whatever a peer calls itself, the field is one well-formed
// field.
func FuzzReceived(f *testing.F) {
	f.Add("client.test", "id", "b@two.test", false)
	f.Add("x\r\nEvil: y", "a\nb", "<\"a\\\"\r\n b\"@two.test>", true)
	f.Add("((\\", ";", "\"(\"@two.test", false)
	f.Fuzz(func(t *testing.T, hello, id, to string, utf8 bool) {
		c := &Conn{srv: &Server{name: "mx.test"}, hello: hello, extended: true, tx: transaction{utf8: utf8}}
		got := c.Received(id, to, time.Unix(0, 0))
		body, ok := bytes.CutSuffix(got, []byte("\r\n"))
		if !ok || !bytes.HasPrefix(got, []byte("Received: from ")) {
			t.Fatalf("%q", got)
		}
		for i, line := range bytes.Split(body, []byte("\r\n")) {
			if i > 0 && (len(line) < 2 || line[0] != '\t') {
				t.Errorf("line %d of %q", i, got)
			}
			if bytes.ContainsAny(line, "\r\n\x00") {
				t.Errorf("control characters in %q", line)
			}
		}
		if depth := commentDepth(string(body)); depth != 0 {
			t.Errorf("parentheses do not match in %q", got)
		}
	})
}

// commentDepth counts the parentheses that open and close comments: not
// those that are escaped or inside the quotes of an address.
func commentDepth(s string) (depth int) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			i++
		case c == '"' && depth == 0:
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth--
		}
	}
	return depth
}

func TestAppendReply(t *testing.T) {
	long := strings.Repeat("x", 600)
	tests := []struct {
		code           int
		enhanced, text string
		utf8           bool
		want           string
	}{
		{250, "2.0.0", "OK", false, "250 2.0.0 OK\r\n"},
		{220, "", "mx.test", false, "220 mx.test\r\n"},
		{250, "2.0.0", "", false, "250 2.0.0\r\n"},
		{334, "", "", false, "334 \r\n"},
		{550, "5.1.1", "a\nb\n", false, "550-5.1.1 a\r\n550 5.1.1 b\r\n"},
		{550, "5.1.1", "a\r\nb", false, "550-5.1.1 a\r\n550 5.1.1 b\r\n"},
		{550, "5.1.1", "a\n\nb", false, "550-5.1.1 a\r\n550-5.1.1 \r\n550 5.1.1 b\r\n"},
		{550, "", "a\rb\x00\x7f\x80", false, "550 a?b???\r\n"},
		{550, "", "ü", false, "550 ??\r\n"},
		{550, "", "ü", true, "550 ü\r\n"},
		{550, "5.1.1", long, false, "550-5.1.1 " + long[:500] + "\r\n550 5.1.1 " + long[500:] + "\r\n"},
	}
	for _, tt := range tests {
		if got := string(appendReply(nil, tt.code, tt.enhanced, tt.text, tt.utf8)); got != tt.want {
			t.Errorf("%d %q %q: got %q, want %q", tt.code, tt.enhanced, tt.text, got, tt.want)
		}
	}
}

func FuzzAppendReply(f *testing.F) {
	f.Add(550, "5.1.1", "a\r\nb\x00", true)
	f.Add(250, "", strings.Repeat("x", 2000)+"\n", false)
	f.Fuzz(func(t *testing.T, code int, enhanced, text string, utf8 bool) {
		if code < 200 || code > 599 || enhanced != "" {
			enhanced, code = "2.0.0", 250
		}
		got := appendReply(nil, code, enhanced, text, utf8)
		body, ok := bytes.CutSuffix(got, []byte("\r\n"))
		if !ok {
			t.Fatalf("%q", got)
		}
		lines := bytes.Split(body, []byte("\r\n"))
		for i, line := range lines {
			want := byte('-')
			if i == len(lines)-1 {
				want = ' '
			}
			if len(line) > 510 || line[3] != want || bytes.ContainsAny(line, "\r\n\x00") {
				t.Errorf("line %d of %q", i, got)
			}
		}
	})
}

func FuzzParameters(f *testing.F) {
	for _, s := range []string{"SIZE=1 BODY=8BITMIME", "SMTPUTF8 RET=FULL ENVID=a+20", "AUTH=<>", "  =  ", "ENVID=+", "NOTIFY=NEVER ORCPT=utf-8;\\x{FC}", "NOTIFY=DELAY,SUCCESS ORCPT=rfc822;a+2Bb"} {
		f.Add(s)
	}
	c := &Conn{srv: &Server{}, extended: true, ext: extensions{set: extSize | ext8Bit | extUTF8 | extDSN}}
	f.Fuzz(func(t *testing.T, s string) {
		o, e := c.mailOptions(s)
		if e == nil {
			if o.Size < 0 || len(o.EnvelopeID) > 100 || strings.ContainsAny(o.EnvelopeID+o.Auth, "\r\n\x00") {
				t.Errorf("%q: %+v", s, o)
			}
		}
		if ro, e := c.rcptOptions(s); e == nil {
			if strings.ContainsAny(ro.Original, "\r\n\x00") || ro.Notify&smtp.NotifyNever != 0 && ro.Notify != smtp.NotifyNever {
				t.Errorf("%q: %+v", s, ro)
			}
		}
	})
}
