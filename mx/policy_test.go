package mx_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/mtasts"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

// policies are those of domains, "fail" the error of one.
type policies map[string]string

func (p policies) Lookup(_ context.Context, domain string) (*mtasts.Policy, error) {
	mode, hosts, _ := strings.Cut(p[domain], " ")
	var err error
	if mode == "fail" {
		err = &mtasts.Error{Domain: domain, Reason: mtasts.FetchFailed, Err: errors.New("404")}
		mode, hosts, _ = strings.Cut(hosts, " ")
	}
	if mode == "" {
		return nil, err
	}
	return &mtasts.Policy{Mode: mtasts.Mode(mode), MX: strings.Fields(hosts), MaxAge: time.Hour}, err
}

// listening starts a server on loopback and returns its port.
func listening(t *testing.T, srv *smtptest.Server) uint16 {
	t.Helper()
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	return netip.MustParseAddrPort(srv.Addr).Port()
}

// TestMTASTS: what a policy asks for is kept to or only told of, as its mode
// says (RFC 8461 §5), and "TLS-Required: No" and REQUIRETLS have their say.
func TestMTASTS(t *testing.T) {
	good := &smtptest.Server{STARTTLS: true, Hostname: "mx.a.test"}
	port := listening(t, good)
	plain := &smtptest.Server{}
	plainPort := listening(t, plain)
	zone := mxtest.Zone{"a.test": {"MX 10 mx.a.test"}, "mx.a.test": {"A 127.0.0.1"}, "b.test": {"MX 10 mx.b.test"}, "mx.b.test": {"A 127.0.0.1"}}
	for _, tt := range []struct {
		name, policy, to string
		plain            bool
		edit             func(*smtp.Envelope)
		want, told       string
	}{
		{"met", "enforce mx.a.test", "x@a.test", false, nil, "250", "TLS pkix"},
		{"met by a wildcard", "enforce *.a.test", "x@a.test", false, nil, "250", "TLS pkix"},
		{"another host", "enforce mx2.a.test", "x@a.test", false, nil, "451 4.7.5 host", "not in policy, failed"},
		{"another host, tested", "testing mx2.a.test", "x@a.test", false, nil, "250", "not in policy; TLS pkix"},
		{"another certificate", "enforce mx.b.test", "x@b.test", false, nil, "451 4.7.5 host", "handshake, failed"},
		{"another certificate, tested", "testing mx.b.test", "x@b.test", false, nil, "250", "unverified: another name"},
		{"no TLS", "enforce mx.a.test", "x@a.test", true, nil, "451 4.7.4 host", "no TLS, failed"},
		{"no TLS, tested", "testing mx.a.test", "x@a.test", true, nil, "250", "no TLS"},
		{"none", "none", "x@a.test", true, nil, "250", "plain"},
		{"no policy", "", "x@a.test", false, nil, "250", "TLS pkix"},
		{"no TLS, TLS-Required: No", "enforce mx.a.test", "x@a.test", true, func(e *smtp.Envelope) { e.TLSOptional = true }, "250", "no TLS"},
		{"another host, TLS-Required: No", "enforce mx2.a.test", "x@a.test", false, func(e *smtp.Envelope) { e.TLSOptional = true }, "250", "TLS pkix"},
		{"REQUIRETLS without a proof of the host", "testing mx.a.test", "x@a.test", false, func(e *smtp.Envelope) { e.RequireTLS = true }, "550 5.7.30 route", "failed"},
		{"REQUIRETLS, no TLS", "enforce mx.a.test", "x@a.test", true, func(e *smtp.Envelope) { e.RequireTLS = true }, "550 5.7.10 host", "no TLS, failed"},
		{"no fetch", "fail", "x@a.test", false, nil, "250", "sts-policy-fetch-error; TLS pkix"},
		{"no fetch, kept", "fail enforce mx.a.test", "x@a.test", false, nil, "250", "TLS pkix, sts-policy-fetch-error"},
		{"address literal", "fail", "x@[127.0.0.1]", true, nil, "250", "plain"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			domain := tt.to[strings.IndexByte(tt.to, '@')+1:]
			var told []string
			s := &mx.Sender{Resolver: mxtest.NewDNS(zone), Port: port, Dialer: smtpclient.Dialer{TLS: good.ClientTLS()}, STS: policies{domain: tt.policy},
				OnAttempt: func(a mx.Attempt) {
					told = append(told, tellOf(a))
					if a.Domain != domain || a.Time.IsZero() {
						t.Errorf("%+v", a)
					}
				}}
			if tt.plain {
				s.Port = plainPort
			}
			env := envelope(t, tt.to)
			if tt.edit != nil {
				tt.edit(env)
			}
			before := len(good.Messages()) + len(plain.Messages())
			check(t, s.Deliver(t.Context(), env, strings.NewReader(message)), tt.want)
			if got := strings.Join(told, "; "); got != tt.told {
				t.Errorf("told %q, want %q", got, tt.told)
			}
			if n := len(good.Messages()) + len(plain.Messages()) - before; (n == 1) != (tt.want == "250") {
				t.Errorf("%d messages arrived", n)
			}
		})
	}
}

// tellOf says in some words what an attempt tells.
func tellOf(a mx.Attempt) string {
	var s []string
	var te *smtpclient.TLSError
	switch {
	case errors.Is(a.TLS, mx.ErrNotInPolicy):
		s = append(s, "not in policy")
	case errors.As(a.TLS, &te):
		s = append(s, "handshake")
	case errors.Is(a.TLS, smtpclient.ErrTLSRequired):
		s = append(s, "no TLS")
	case a.TLS != nil && a.Err == nil:
		s = append(s, "unverified")
		if errors.As(a.TLS, new(x509.HostnameError)) {
			s[len(s)-1] += ": another name"
		}
	case a.Err == nil && a.Hop != nil && a.Hop.TLS != 0:
		s = append(s, strings.TrimSpace("TLS "+a.Hop.Auth))
	case a.Err == nil && a.Hop != nil:
		s = append(s, "plain")
	}
	if a.Err != nil {
		s = append(s, "failed")
	}
	var e *mtasts.Error
	if errors.As(a.STSErr, &e) {
		s = append(s, string(e.Reason))
	}
	return strings.Join(s, ", ")
}

// TestRoute: a smarthost for some, the MX for the rest.
func TestRoute(t *testing.T) {
	smart, direct := &smtptest.Server{Hostname: "smart.test"}, &smtptest.Server{}
	smartPort := listening(t, smart)
	s := &mx.Sender{
		Resolver: mxtest.NewDNS(mxtest.Zone{"smart.test": {"A 127.0.0.1"}, "a.test": {"MX 10 mx.a.test"}, "mx.a.test": {"A 127.0.0.1"}}),
		Port:     listening(t, direct),
		STS:      policies{"a.test": "enforce nothing.test"},
		Route: func(_ context.Context, from smtp.Address, domain string) (*mx.Route, error) {
			switch {
			case domain == "closed.test":
				return nil, &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 1}, Text: "Not from here", Scope: smtp.ScopeRoute}
			case domain == "b.test", from.Domain == "viasmart.test":
				return mx.Via(fmt.Sprintf("Smart.test:%d", smartPort))
			}
			return nil, nil
		},
		Allow: mx.Public, // for routes by MX
	}
	check(t, s.Deliver(t.Context(), envelope(t, "x@b.test", "x@closed.test", "x@a.test"), strings.NewReader(message)), "250", "550 5.7.1 route", "550 5.4.4 route")
	env := envelope(t, "x@a.test")
	env.From.Domain = "viasmart.test"
	check(t, s.Deliver(t.Context(), env, strings.NewReader(message)), "250")
	if n := len(smart.Messages()); n != 2 || len(direct.Messages()) != 0 {
		t.Errorf("%d through the smarthost, %d direct", n, len(direct.Messages()))
	}
	if g, err := s.Group(t.Context(), "b.test"); err != nil || g != "smart.test" {
		t.Errorf("%q %v", g, err)
	}
	for in, want := range map[string]string{
		"relay.example.org": "relay.example.org 0", "relay.example.org:587": "relay.example.org 587", "192.0.2.1": "[192.0.2.1] 0", "192.0.2.1:25": "[192.0.2.1] 25",
		"[192.0.2.1]:2525": "[192.0.2.1] 2525", "[2001:db8::1]:25": "[IPv6:2001:db8::1] 25", "2001:db8::1": "[IPv6:2001:db8::1] 0", "bücher.example": "xn--bcher-kva.example 0",
		"": "", "a..b": "", "a.test:0": "", "a.test:99999": "", "a.test:smtp": "", "a b": "",
	} {
		r, err := mx.Via(in)
		got := ""
		if err == nil {
			got = fmt.Sprint(r.Hosts[0].Name, " ", r.Hosts[0].Port)
		}
		if got != want {
			t.Errorf("%q: %q, want %q (%v)", in, got, want, err)
		}
	}
	if r, err := mx.Via("a.test", "b.test"); err != nil || len(r.Hosts) != 2 || r.Hosts[0].Pref >= r.Hosts[1].Pref {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := mx.Via(); err == nil {
		t.Error("a route to nowhere")
	}
}

// TestAllow: a stranger's records do not lead into one's own network.
func TestAllow(t *testing.T) {
	n := &network{servers: map[string]*smtptest.Server{"10.0.0.1": {}, "10.0.0.2": {}}}
	defer n.close()
	s := &mx.Sender{Resolver: mxtest.NewDNS(zone()), Dialer: smtpclient.Dialer{DialContext: n.DialContext},
		Allow: func(a netip.Addr) bool { return a == netip.MustParseAddr("10.0.0.2") }}
	check(t, s.Deliver(t.Context(), envelope(t, "x@one.test", "x@onetwo.test", "x@[10.0.0.1]"), strings.NewReader(message)), "550 5.4.4 route", "250", "550 5.4.4 route")
	if got := n.take(); got != "10.0.0.2" {
		t.Errorf("dialled %q", got)
	}
	for a, want := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "2606:4700::1111": true, "::ffff:8.8.8.8": true, "223.255.255.1": true, "2a00::1": true,
		"127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "172.32.0.1": true, "192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false,
		"0.0.0.0": false, "224.0.0.1": false, "255.255.255.255": false, "192.0.2.1": false, "::1": false, "::": false, "fe80::1%eth0": false, "fd00::1": false,
		"ff02::1": false, "::ffff:127.0.0.1": false, "2001:db8::1": false, "::127.0.0.1": false, "2002:7f00:1::": false,
	} {
		if got := mx.Public(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %v", a, got)
		}
	}
	if mx.Public(netip.Addr{}) {
		t.Error("no address is public")
	}
}

// TestProviders: the tenants of a provider share a site.
func TestProviders(t *testing.T) {
	dns := mxtest.NewDNS(mxtest.Zone{
		"a.test": {"MX 0 a-test.mail.big.test"}, "b.test": {"MX 0 b-test.mail.big.test", "MX 10 other.test"}, "c.test": {"MX 0 c-test.mail.big.test", "MX 0 other.test"},
	})
	s := &mx.Sender{Resolver: dns, Providers: []string{"*.Mail.big.test"}}
	var got []string
	for _, d := range []string{"a.test", "b.test", "c.test"} {
		g, err := s.Group(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, g)
	}
	if s := strings.Join(got, " "); s != "*.Mail.big.test *.Mail.big.test c-test.mail.big.test,other.test" {
		t.Error(s)
	}
}

// TestSources: connections come from the pool's addresses, by weight.
func TestSources(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	from := make(chan string, 400)
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			from <- netip.MustParseAddrPort(nc.RemoteAddr().String()).Addr().String()
			nc.Close()
		}
	}()
	s := &mx.Sender{Resolver: mxtest.NewDNS(mxtest.Zone{"a.test": {"A 127.0.0.1"}}), Port: netip.MustParseAddrPort(l.Addr().String()).Port(),
		Sources: []mx.Source{{Addr: netip.MustParseAddr("127.0.0.2")}, {Addr: netip.MustParseAddr("127.0.0.3"), Weight: 9}, {Addr: netip.MustParseAddr("127.0.0.4"), Weight: -1}, {Addr: netip.MustParseAddr("::1"), Weight: 1000}}}
	counts := map[string]int{}
	for range 200 {
		s.Deliver(t.Context(), envelope(t, "x@a.test"), strings.NewReader(message))
		counts[<-from]++
	}
	if len(counts) != 2 || counts["127.0.0.2"] == 0 || counts["127.0.0.3"] < 100 {
		t.Errorf("%v", counts)
	}
	s.Sources = []mx.Source{{Addr: netip.MustParseAddr("::1")}}
	check(t, s.Deliver(t.Context(), envelope(t, "x@a.test"), strings.NewReader(message)), "451 4.3.5 route")
}

// TestBrokenTLS: a host whose TLS is broken gets the message in plain text,
// and is not asked for TLS again for a while.
func TestBrokenTLS(t *testing.T) {
	srv := &smtptest.Server{STARTTLS: true, Hostname: "mx.a.test"}
	port := listening(t, srv)
	srv.Inject(smtptest.Fault{At: smtptest.TLS})
	var told []string
	s := &mx.Sender{Resolver: mxtest.NewDNS(mxtest.Zone{"a.test": {"A 127.0.0.1"}}), Port: port, OnAttempt: func(a mx.Attempt) { told = append(told, tellOf(a)) }}
	for range 3 {
		check(t, s.Deliver(t.Context(), envelope(t, "x@a.test"), strings.NewReader(message)), "250")
	}
	if n := srv.Connections(); n != 4 {
		t.Errorf("%d connections", n)
	}
	if got := strings.Join(told, "; "); got != "handshake; plain; plain" {
		t.Error(got)
	}
	s.Need = smtpclient.Encrypted
	check(t, s.Deliver(t.Context(), envelope(t, "x@a.test"), strings.NewReader(message)), "451 4.7.5 host")
}

// TestTogether: domains with the same hosts share a transaction, unless one
// has a policy of its own.
func TestTogether(t *testing.T) {
	srv := &smtptest.Server{}
	port := listening(t, srv)
	zone := mxtest.Zone{"mx.test": {"A 127.0.0.1"}}
	for _, d := range []string{"a.test", "b.test", "c.test", "own.test"} {
		zone[d] = []string{"MX 10 mx.test"}
	}
	zone["other.test"] = []string{"MX 20 mx.test"}
	told := map[string]int{}
	s := &mx.Sender{Resolver: mxtest.NewDNS(zone), Port: port, STS: policies{"own.test": "testing mx.test"}, OnAttempt: func(a mx.Attempt) { told[a.Domain]++ }}
	srv.Inject(smtptest.Fault{At: smtptest.Rcpt, Match: "x@b.test", Reply: "550 5.1.1 No such user"})
	check(t, s.Deliver(t.Context(), envelope(t, "x@a.test", "x@own.test", "x@b.test", "y@a.test", "x@other.test", "x@c.test", "x@none.test"), strings.NewReader(message)),
		"250", "250", "550 5.1.1 recipient", "250", "250", "250", "550 5.1.2 route")
	var got []string
	for _, m := range srv.Messages() {
		var to []string
		for _, r := range m.Envelope.To {
			to = append(to, r.String())
		}
		got = append(got, strings.Join(to, " "))
	}
	if s := strings.Join(got, "; "); s != "x@a.test y@a.test x@c.test; x@own.test; x@other.test" {
		t.Error(s)
	}
	for _, d := range []string{"a.test", "b.test", "c.test", "own.test", "other.test", "none.test"} {
		if told[d] != 1 {
			t.Errorf("%d attempts told of %s", told[d], d)
		}
	}
}
