package mx_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/dane"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

// certificateOf returns the certificate that a server shows.
func certificateOf(t *testing.T, srv *smtptest.Server) *x509.Certificate {
	t.Helper()
	var cert *x509.Certificate
	d := smtpclient.Dialer{Trace: &smtpclient.Trace{TLS: func(s tls.ConnectionState, err error) { cert = s.PeerCertificates[0] }}}
	c, err := d.Dial(t.Context(), smtpclient.Target{Addr: srv.Addr, Need: smtpclient.Encrypted})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	return cert
}

// TestDANE: RFC 7672 §2.2 by its cases: which records count, where they are
// looked for, and what becomes of a host that does not meet them.
func TestDANE(t *testing.T) {
	srv := &smtptest.Server{STARTTLS: true, Hostname: "mx.a.test"}
	port := listening(t, srv)
	plainPort := listening(t, &smtptest.Server{})
	cert := certificateOf(t, srv)
	record := func(u dane.Usage, m dane.MatchingType) string {
		r, err := dane.New(u, dane.SelectorSPKI, m, cert)
		if err != nil {
			t.Fatal(err)
		}
		return "TLSA " + r.String()
	}
	good := record(dane.UsageEE, dane.MatchingSHA256)
	bad := "TLSA 3 1 1 " + strings.Repeat("ab", 32)
	for _, tt := range []struct {
		name  string
		zone  mxtest.Zone // beside a.test, whose MX is mx.a.test
		plain bool
		edit  func(*smtp.Envelope, *mx.Sender)
		want  string
		told  string
	}{
		{name: "no records", want: "250", told: "TLS"},
		{name: "met", zone: mxtest.Zone{"TLSA.mx.a.test": {"SECURE", good}}, want: "250", told: "TLS dane"},
		{name: "one of several", zone: mxtest.Zone{"TLSA.mx.a.test": {"SECURE", bad, good}}, want: "250", told: "TLS dane"},
		{name: "not met", zone: mxtest.Zone{"TLSA.mx.a.test": {"SECURE", bad}}, want: "451 4.7.5 host", told: "mismatch, failed"},
		{name: "no TLS", zone: mxtest.Zone{"TLSA.mx.a.test": {"SECURE", good}}, plain: true, want: "451 4.7.4 host", told: "no TLS, failed"},
		{name: "none usable", zone: mxtest.Zone{"TLSA.mx.a.test": {"SECURE", record(1, 1)}}, want: "250", told: "TLS"},
		{name: "none usable, no TLS", zone: mxtest.Zone{"TLSA.mx.a.test": {"SECURE", record(1, 1)}}, plain: true, want: "451 4.7.4 host", told: "no TLS, failed"},
		{name: "unproven records", zone: mxtest.Zone{"TLSA.mx.a.test": {bad}}, want: "250", told: "TLS"},
		{name: "forged records", zone: mxtest.Zone{"TLSA.mx.a.test": {"BOGUS"}}, want: "451 4.7.5 host", told: "bogus, failed"},
		{name: "records cannot be had", zone: mxtest.Zone{"TLSA.mx.a.test": {"SERVFAIL"}}, want: "451 4.7.5 host", told: "bogus, failed"},
		{name: "unproven address: not looked for", zone: mxtest.Zone{"mx.a.test": {"A 127.0.0.1"}, "TLSA.mx.a.test": {"SERVFAIL"}}, want: "250", told: "TLS"},
		{name: "unproven MX", zone: mxtest.Zone{"a.test": {"MX 10 mx.a.test"}, "TLSA.mx.a.test": {"SECURE", good}}, want: "250", told: "TLS"},
		{name: "unproven MX, not met", zone: mxtest.Zone{"a.test": {"MX 10 mx.a.test"}, "TLSA.mx.a.test": {"SECURE", bad}}, want: "451 4.7.5 host", told: "mismatch, failed"},
		{name: "alias: the expanded name first", zone: mxtest.Zone{"mx.a.test": {"SECURE", "CNAME real.test"}, "real.test": {"SECURE", "A 127.0.0.1"}, "TLSA.real.test": {"SECURE", good}, "TLSA.mx.a.test": {"SECURE", bad}}, want: "250", told: "TLS dane"},
		{name: "alias: then the name itself", zone: mxtest.Zone{"mx.a.test": {"SECURE", "CNAME real.test"}, "real.test": {"SECURE", "A 127.0.0.1"}, "TLSA.mx.a.test": {"SECURE", bad}}, want: "451 4.7.5 host", told: "mismatch, failed"},
		{name: "alias into an unsigned zone", zone: mxtest.Zone{"mx.a.test": {"SECURE", "CNAME real.test"}, "real.test": {"A 127.0.0.1"}, "TLSA.real.test": {"SERVFAIL"}, "TLSA.mx.a.test": {"SECURE", bad}}, want: "451 4.7.5 host", told: "mismatch, failed"},
		{name: "unsigned alias", zone: mxtest.Zone{"mx.a.test": {"CNAME real.test"}, "real.test": {"SECURE", "A 127.0.0.1"}, "TLSA.real.test": {"SECURE", bad}}, want: "250", told: "TLS"},
		{name: "the service is an alias", zone: mxtest.Zone{"TLSA.mx.a.test": {"SECURE", "CNAME tlsa.b.test"}, "tlsa.b.test": {"SECURE", good}}, want: "250", told: "TLS dane"},
		{name: "not met, TLS-Required: No", zone: mxtest.Zone{"TLSA.mx.a.test": {"SECURE", bad}}, edit: func(e *smtp.Envelope, _ *mx.Sender) { e.TLSOptional = true }, want: "250", told: "TLS"},
		{name: "before MTA-STS", zone: mxtest.Zone{"TLSA.mx.a.test": {"SECURE", good}}, edit: func(_ *smtp.Envelope, s *mx.Sender) { s.STS = policies{"a.test": "enforce other.test"} }, want: "250", told: "TLS dane"},
		{name: "not met, MTA-STS would be", zone: mxtest.Zone{"TLSA.mx.a.test": {"SECURE", bad}}, edit: func(_ *smtp.Envelope, s *mx.Sender) {
			s.STS, s.Dialer.TLS = policies{"a.test": "enforce mx.a.test"}, srv.ClientTLS()
		}, want: "451 4.7.5 host", told: "mismatch, failed"},
		{name: "DANE-TA needs the chain", zone: mxtest.Zone{"TLSA.mx.a.test": {"SECURE", record(dane.UsageTA, dane.MatchingSHA256)}}, want: "451 4.7.5 host", told: "mismatch, failed"},
		{name: "fixed route", edit: func(_ *smtp.Envelope, s *mx.Sender) {
			s.Route = func(context.Context, smtp.Address, string) (*mx.Route, error) { return mx.Via("mx.a.test") }
		}, zone: mxtest.Zone{"TLSA.mx.a.test": {"SECURE", good}}, want: "250", told: "TLS dane"},
	} {
		for _, pooled := range []string{"", "pool "} {
			t.Run(pooled+tt.name, func(t *testing.T) {
				zone := mxtest.Zone{"a.test": {"SECURE", "MX 10 mx.a.test"}, "mx.a.test": {"SECURE", "A 127.0.0.1"}}
				p := port
				if tt.plain {
					p = plainPort
				}
				for name, records := range tt.zone {
					if host, ok := strings.CutPrefix(name, "TLSA."); ok {
						name = dane.Name(host, p)
					}
					zone[name] = records
				}
				var told []string
				s := &mx.Sender{Resolver: mxtest.NewDNS(zone), Port: p, OnAttempt: func(a mx.Attempt) {
					word := tellOf(a)
					switch {
					case errors.Is(a.TLS, dane.ErrMismatch):
						word = strings.Replace(word, "handshake", "mismatch", 1)
					case errors.Is(a.TLS, mx.ErrBogus):
						word = "bogus, failed"
					}
					told = append(told, word)
				}}
				env := envelope(t, "x@a.test")
				if tt.edit != nil {
					tt.edit(env, s)
				}
				if pooled != "" {
					s.Pool = &smtpclient.Pool{Dialer: s.Dialer}
					defer s.Pool.Close()
				}
				check(t, s.Deliver(t.Context(), env, strings.NewReader(message)), tt.want)
				if got := strings.Join(told, "; "); got != tt.told {
					t.Errorf("told %q, want %q", got, tt.told)
				}
			})
		}
	}
}

// TestVerifiedReuse: a connection is used again for those who would verify it
// in the same way, and not for others.
func TestVerifiedReuse(t *testing.T) {
	srv := &smtptest.Server{STARTTLS: true, Hostname: "mx.a.test"}
	port := listening(t, srv)
	r, err := dane.New(dane.UsageEE, dane.SelectorSPKI, dane.MatchingSHA256, certificateOf(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	dns := mxtest.NewDNS(mxtest.Zone{"a.test": {"SECURE", "MX 10 mx.a.test"}, "b.test": {"MX 10 mx.a.test"}, "mx.a.test": {"SECURE", "A 127.0.0.1"},
		dane.Name("mx.a.test", port): {"SECURE", "TLSA " + r.String()}})
	s := &mx.Sender{Resolver: dns, Port: port, Pool: &smtpclient.Pool{}}
	defer s.Pool.Close()
	before := srv.Connections()
	for range 3 {
		check(t, s.Deliver(t.Context(), envelope(t, "x@a.test"), strings.NewReader(message)), "250")
	}
	if n := srv.Connections() - before; n != 1 {
		t.Errorf("%d connections for one policy", n)
	}
	check(t, s.Deliver(t.Context(), envelope(t, "x@b.test"), strings.NewReader(message)), "250")
	if n := srv.Connections() - before; n != 2 {
		t.Errorf("%d connections for two", n)
	}
	// The records change: what was verified by the old ones is not enough.
	dns.Set(dane.Name("mx.a.test", port), "SECURE", "TLSA 3 1 1 "+strings.Repeat("ab", 32))
	check(t, s.Deliver(t.Context(), envelope(t, "x@a.test"), strings.NewReader(message)), "451 4.7.5 host")
}
