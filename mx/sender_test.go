package mx_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
	"github.com/postrider/postrider/smtp/smtptest"
)

const message = "Subject: x\r\n\r\nHello\r\n"

func envelope(t testing.TB, to ...string) *smtp.Envelope {
	t.Helper()
	env := &smtp.Envelope{From: smtp.Address{Local: "a", Domain: "b.test"}}
	for _, s := range to {
		a, err := smtp.ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		env.To = append(env.To, smtp.Recipient{Address: a})
	}
	return env
}

func check(t *testing.T, results []smtp.Result, want ...string) {
	t.Helper()
	if len(results) != len(want) {
		t.Fatalf("%d results, want %d", len(results), len(want))
	}
	for i, r := range results {
		got := "250"
		var e *smtp.Error
		if r.Err != nil {
			if !errors.As(r.Err, &e) {
				t.Errorf("result %d: %T", i, r.Err)
				continue
			}
			got = fmt.Sprintf("%v %v", smtp.Reply{Code: e.Code, Enhanced: e.Enhanced}, e.Scope)
			if e.Unsure {
				got += " unsure"
			}
		} else if r.Hop == nil {
			t.Errorf("result %d: no hop", i)
		}
		if got != want[i] {
			t.Errorf("result %d: %q, want %q (%v)", i, got, want[i], r.Err)
		}
	}
}

// network connects addresses to servers in memory.
type network struct {
	mu      sync.Mutex
	servers map[string]*smtptest.Server // by IP address
	dialled []string
}

func (n *network) DialContext(ctx context.Context, netw, addr string) (net.Conn, error) {
	host, port, _ := net.SplitHostPort(addr)
	n.mu.Lock()
	n.dialled = append(n.dialled, host)
	srv := n.servers[host]
	n.mu.Unlock()
	if srv == nil || port != "25" {
		return nil, &net.OpError{Op: "dial", Net: netw, Err: errors.New("connection refused")}
	}
	return srv.DialContext(ctx, netw, addr)
}

func (n *network) take() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := strings.Join(n.dialled, " ")
	n.dialled = nil
	return s
}

func (n *network) close() {
	for _, s := range n.servers {
		s.Close()
	}
}

func TestDeliver(t *testing.T) {
	down := smtptest.Fault{At: smtptest.Connect, Reply: "421 4.3.2 Down"}
	for _, tt := range []struct {
		name    string
		faults  map[string]smtptest.Fault
		edit    func(*mx.Sender)
		to      []string
		want    []string
		dialled string
		where   string // who has the message
	}{
		{name: "first host", to: []string{"c@one.test"}, want: []string{"250"}, dialled: "10.0.0.1", where: "10.0.0.1"},
		{name: "several domains", to: []string{"c@one.test", "d@two.test", "e@ONE.test"}, want: []string{"250", "250", "250"}, dialled: "10.0.0.1 10.0.0.2", where: "10.0.0.1 10.0.0.2"},
		{name: "implicit MX", to: []string{"c@implicit.test"}, want: []string{"250"}, dialled: "10.0.0.3", where: "10.0.0.3"},
		{name: "address literal", to: []string{"c@[10.0.0.2]"}, want: []string{"250"}, dialled: "10.0.0.2", where: "10.0.0.2"},
		{name: "IPv6 literal", to: []string{"c@[IPv6:fd00::1]"}, want: []string{"250"}, dialled: "fd00::1", where: "fd00::1"},
		{name: "no connection: next", to: []string{"c@order.test"}, want: []string{"250"}, dialled: "10.0.0.99 10.0.0.2", where: "10.0.0.2"},
		{name: "IPv6 and IPv4 by turns", to: []string{"c@dual.test"}, want: []string{"250"}, dialled: "fd00::99 10.0.0.1", where: "10.0.0.1"},
		{name: "IPv4 only", edit: func(s *mx.Sender) { s.Network = "ip4" }, to: []string{"c@dual.test"}, want: []string{"250"}, dialled: "10.0.0.1", where: "10.0.0.1"},
		{name: "421: next", faults: map[string]smtptest.Fault{"10.0.0.1": down}, to: []string{"c@onetwo.test"}, want: []string{"250"}, dialled: "10.0.0.1 10.0.0.2", where: "10.0.0.2"},
		{name: "554 banner: next", faults: map[string]smtptest.Fault{"10.0.0.1": {At: smtptest.Connect, Reply: "554"}}, to: []string{"c@onetwo.test"}, want: []string{"250"}, dialled: "10.0.0.1 10.0.0.2", where: "10.0.0.2"},
		{name: "cut in the message: next", faults: map[string]smtptest.Fault{"10.0.0.1": {At: smtptest.Mail, Drop: true}}, to: []string{"c@onetwo.test"}, want: []string{"250"}, dialled: "10.0.0.1 10.0.0.2", where: "10.0.0.2"},
		{name: "cut after the dot: stop", faults: map[string]smtptest.Fault{"10.0.0.1": {At: smtptest.Dot, Drop: true}}, to: []string{"c@onetwo.test"}, want: []string{"451 4.4.2 host unsure"}, dialled: "10.0.0.1"},
		{name: "550: stop", faults: map[string]smtptest.Fault{"10.0.0.1": {At: smtptest.Rcpt, Reply: "550"}}, to: []string{"c@onetwo.test"}, want: []string{"550 5.0.0 recipient"}, dialled: "10.0.0.1"},
		{name: "greylisted: stop", faults: map[string]smtptest.Fault{"10.0.0.1": {At: smtptest.Rcpt, Reply: "450 4.7.1"}}, to: []string{"c@onetwo.test"}, want: []string{"450 4.7.1 recipient"}, dialled: "10.0.0.1"},
		{name: "one recipient fails by the host", faults: map[string]smtptest.Fault{"10.0.0.1": {At: smtptest.Rcpt, Match: "d@", Reply: "452 4.3.1"}}, to: []string{"c@onetwo.test", "d@onetwo.test"}, want: []string{"250", "250"}, dialled: "10.0.0.1 10.0.0.2", where: "10.0.0.1 10.0.0.2"},
		{name: "all down", faults: map[string]smtptest.Fault{"10.0.0.1": down, "10.0.0.2": {At: smtptest.Connect, Reply: "554"}}, to: []string{"c@onetwo.test"}, want: []string{"421 4.3.2 host"}, dialled: "10.0.0.1 10.0.0.2"},
		{name: "nothing listens", to: []string{"c@dead.test"}, want: []string{"451 4.4.1 host"}, dialled: "10.0.0.99"},
		{name: "null MX", to: []string{"c@null.test"}, want: []string{"556 5.1.10 route"}},
		{name: "no domain", to: []string{"c@nowhere.test"}, want: []string{"550 5.1.2 route"}},
		{name: "no address", to: []string{"c@txt.test"}, want: []string{"550 5.4.4 route"}},
		{name: "MX without an address", to: []string{"c@hollow.test"}, want: []string{"550 5.1.2 route"}},
		{name: "one MX without an address", to: []string{"c@halfhollow.test"}, want: []string{"250"}, dialled: "10.0.0.1", where: "10.0.0.1"},
		{name: "address lookup fails", to: []string{"c@brokenhost.test"}, want: []string{"451 4.4.3 route"}},
		{name: "refused by one, DNS of the next fails", faults: map[string]smtptest.Fault{"10.0.0.1": {At: smtptest.Connect, Reply: "554"}}, to: []string{"c@halfbroken.test"}, want: []string{"451 4.4.3 route"}, dialled: "10.0.0.1"},
		{name: "DNS fails, then refused", faults: map[string]smtptest.Fault{"10.0.0.1": {At: smtptest.Connect, Reply: "554"}}, to: []string{"c@brokenhalf.test"}, want: []string{"451 4.4.3 route"}, dialled: "10.0.0.1"},
		{name: "DNS fails for too many hosts", to: []string{"c@manybroken.test"}, want: []string{"451 4.4.3 route"}},
		{name: "DNS fails for some hosts", to: []string{"c@somebroken.test"}, want: []string{"250"}, dialled: "10.0.0.1", where: "10.0.0.1"},
		{name: "DNS fails", to: []string{"c@broken.test"}, want: []string{"451 4.4.3 route"}},
		{name: "postmaster", to: []string{"postmaster"}, want: []string{"550 5.1.3 recipient"}},
		{name: "loop", edit: func(s *mx.Sender) { s.Names = []string{"mx1.test"} }, to: []string{"c@onetwo.test"}, want: []string{"554 5.4.6 route"}},
		{name: "loop rule cuts", edit: func(s *mx.Sender) { s.Names = []string{"mx2.test"} }, faults: map[string]smtptest.Fault{"10.0.0.1": down}, to: []string{"c@onetwo.test"}, want: []string{"421 4.3.2 host"}, dialled: "10.0.0.1"},
		{name: "too many addresses", edit: func(s *mx.Sender) { s.MaxAddrs = 2 }, to: []string{"c@wide.test"}, want: []string{"451 4.4.1 host"}, dialled: "2 of them"},
		{name: "too many hosts", edit: func(s *mx.Sender) { s.MaxHosts = 1 }, to: []string{"c@order.test"}, want: []string{"451 4.4.1 host"}, dialled: "10.0.0.99"},
		{name: "other port", edit: func(s *mx.Sender) { s.Port = 2525 }, to: []string{"c@one.test"}, want: []string{"451 4.4.1 host"}, dialled: "10.0.0.1"},
		{name: "TLS needed", edit: func(s *mx.Sender) { s.Need = smtpclient.Encrypted }, to: []string{"c@onetwo.test"}, want: []string{"451 4.7.4 host"}, dialled: "10.0.0.1 10.0.0.2"},
	} {
		for _, pooled := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/pool=%v", tt.name, pooled), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := &network{servers: map[string]*smtptest.Server{}}
					for _, ip := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"} {
						n.servers[ip] = &smtptest.Server{}
						if f, ok := tt.faults[ip]; ok {
							n.servers[ip].Inject(f)
						}
					}
					defer n.close()
					s := &mx.Sender{Resolver: mxtest.NewDNS(zone())}
					if pooled {
						s.Pool = &smtpclient.Pool{Dialer: smtpclient.Dialer{DialContext: n.DialContext}}
						defer s.Pool.Close()
					} else {
						s.Dialer.DialContext = n.DialContext
					}
					if tt.edit != nil {
						tt.edit(s)
					}
					check(t, s.Deliver(t.Context(), envelope(t, tt.to...), strings.NewReader(message)), tt.want...)
					if got := n.take(); got != tt.dialled && !(tt.dialled == "2 of them" && len(strings.Fields(got)) == 2) {
						t.Errorf("dialled %q, want %q", got, tt.dialled)
					}
					var where []string
					for _, ip := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"} {
						if len(n.servers[ip].Messages()) > 0 {
							where = append(where, ip)
						}
					}
					if got := strings.Join(where, " "); got != tt.where {
						t.Errorf("delivered to %q, want %q", got, tt.where)
					}
				})
			})
		}
	}
}

func zone() mxtest.Zone {
	z := mxtest.Zone{
		"mx1.test": {"A 10.0.0.1"}, "mx2.test": {"A 10.0.0.2"}, "dead-mx.test": {"A 10.0.0.99"},
		"one.test": {"MX 10 mx1.test", "SECURE"}, "two.test": {"MX 10 mx2.test"},
		"onetwo.test":   {"MX 10 mx1.test", "MX 20 mx2.test"},
		"order.test":    {"MX 20 mx2.test", "MX 10 dead-mx.test"},
		"implicit.test": {"A 10.0.0.3"},
		"dual.test":     {"MX 10 dual-mx.test"}, "dual-mx.test": {"A 10.0.0.1", "AAAA fd00::99"},
		"dead.test": {"MX 10 dead-mx.test"},
		"null.test": {"MX 0 ."}, "txt.test": {"TXT x"}, "broken.test": {"SERVFAIL"},
		"hollow.test": {"MX 10 none.test"}, "halfhollow.test": {"MX 10 none.test", "MX 20 mx1.test"},
		"brokenhost.test": {"MX 10 broken.test"},
		"equal.test":      {"MX 10 mx1.test", "MX 10 mx2.test"},
		"wide.test":       {"MX 10 wide-mx.test"},
		"halfbroken.test": {"MX 10 mx1.test", "MX 20 broken.test"}, "brokenhalf.test": {"MX 10 broken.test", "MX 20 mx1.test"},
		"somebroken.test": {"MX 10 broken1.test", "MX 20 broken2.test", "MX 30 mx1.test"},
	}
	for i := range 20 {
		z[fmt.Sprintf("broken%d.test", i)] = []string{"SERVFAIL"}
		z["manybroken.test"] = append(z["manybroken.test"], fmt.Sprintf("MX %d broken%d.test", i, i))
	}
	z["manybroken.test"] = append(z["manybroken.test"], "MX 99 mx1.test")
	for i := range 9 {
		z["wide-mx.test"] = append(z["wide-mx.test"], fmt.Sprintf("A 10.0.1.%d", i))
	}
	return z
}

// Of equally preferred hosts, the one with an idle connection is taken.
func TestWarmConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{servers: map[string]*smtptest.Server{"10.0.0.1": {}, "10.0.0.2": {}}}
		defer n.close()
		s := &mx.Sender{Resolver: mxtest.NewDNS(zone()), Pool: &smtpclient.Pool{Dialer: smtpclient.Dialer{DialContext: n.DialContext}}}
		defer s.Pool.Close()
		for range 40 {
			check(t, s.Deliver(t.Context(), envelope(t, "c@equal.test"), strings.NewReader(message)), "250")
		}
		if got := n.take(); len(strings.Fields(got)) != 1 {
			t.Errorf("dialled %q", got)
		}
	})
}

// The TLS of a host is used without asking whose it is; broken TLS is no
// reason not to deliver, unless it is needed.
func TestOpportunisticTLS(t *testing.T) {
	srv := &smtptest.Server{STARTTLS: true, Hostname: "mx1.test"}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	dns := mxtest.NewDNS(mxtest.Zone{"a.test": {"MX 10 mx1.test", "SECURE"}, "mx1.test": {"A 127.0.0.1"}, "b.test": {"MX 10 mx1.test"}})
	_, port, _ := net.SplitHostPort(srv.Addr)
	var p uint16
	fmt.Sscan(port, &p)
	s := &mx.Sender{Resolver: dns, Port: p}
	res := s.Deliver(t.Context(), envelope(t, "c@a.test"), strings.NewReader(message))
	check(t, res, "250")
	if h := res[0].Hop; h.TLS == 0 || h.Auth != "" || h.Name != "mx1.test" || h.Addr.Port() != p {
		t.Errorf("%+v", h)
	}
	s = &mx.Sender{Resolver: dns, Port: p, Need: smtpclient.Verified, Dialer: smtpclient.Dialer{TLS: srv.ClientTLS()}}
	res = s.Deliver(t.Context(), envelope(t, "c@a.test"), strings.NewReader(message))
	check(t, res, "250")
	if h := res[0].Hop; h.Auth != "pkix" {
		t.Errorf("%+v", h)
	}
	// REQUIRETLS: a proven route, a verified host, and the extension.
	env := envelope(t, "c@a.test", "c@b.test")
	env.RequireTLS = true
	check(t, s.Deliver(t.Context(), env, strings.NewReader(message)), "550 5.7.30 host", "550 5.7.30 route")
	env.From = smtp.Address{}
	check(t, s.Deliver(t.Context(), env, strings.NewReader(message)), "250", "250")

	srv.Inject(smtptest.Fault{At: smtptest.TLS})
	check(t, s.Deliver(t.Context(), envelope(t, "c@a.test"), strings.NewReader(message)), "451 4.7.5 host")
	env = envelope(t, "c@a.test")
	env.TLSOptional = true
	res = s.Deliver(t.Context(), env, strings.NewReader(message))
	check(t, res, "250")
	if h := res[0].Hop; h.TLS != 0 {
		t.Errorf("%+v", h)
	}
}

func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := mxtest.NewDNS(mxtest.Zone{
			"a.test": {"600 MX 10 x.test", "600 MX 10 y.test"}, "b.test": {"600 MX 5 y.test", "600 MX 5 x.test", "MX 20 z.test"},
			"c.test": {"MX 10 x.test"}, "null.test": {"MX 0 ."},
		})
		s := &mx.Sender{Resolver: dns}
		group := func(d string) string {
			g, err := s.Group(t.Context(), d)
			if err != nil {
				t.Errorf("%s: %v", d, err)
			}
			return g
		}
		if a, b, c := group("a.test"), group("b.test"), group("c.test"); a != b || a == c || a == "" {
			t.Errorf("%q %q %q", a, b, c)
		}
		n := len(dns.Questions())
		time.Sleep(9 * time.Minute)
		if group("a.test"); len(dns.Questions()) != n {
			t.Error("asked again within the time to live")
		}
		time.Sleep(2 * time.Minute)
		if group("a.test"); len(dns.Questions()) == n {
			t.Error("not asked again after it")
		}
		if _, err := s.Group(t.Context(), "null.test"); err == nil {
			t.Error("null MX has a group")
		}
	})
}

func TestDeliverCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{servers: map[string]*smtptest.Server{"10.0.0.1": {}, "10.0.0.2": {}}}
		defer n.close()
		n.servers["10.0.0.1"].Inject(smtptest.Fault{At: smtptest.Mail, Delay: time.Hour})
		s := &mx.Sender{Resolver: mxtest.NewDNS(zone()), Dialer: smtpclient.Dialer{DialContext: n.DialContext}}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		check(t, s.Deliver(ctx, envelope(t, "c@onetwo.test", "d@two.test"), strings.NewReader(message)), "451 4.4.2 recipient", "451 4.4.3 recipient")
		if got := n.take(); got != "10.0.0.1" {
			t.Errorf("dialled %q", got)
		}
	})
}

func BenchmarkDeliver(b *testing.B) {
	n := &network{servers: map[string]*smtptest.Server{"10.0.0.1": {}}}
	defer n.close()
	s := &mx.Sender{Resolver: mxtest.NewDNS(zone()), Pool: &smtpclient.Pool{Dialer: smtpclient.Dialer{DialContext: n.DialContext}}}
	defer s.Pool.Close()
	env := envelope(b, "c@one.test")
	b.ReportAllocs()
	for b.Loop() {
		if res := s.Deliver(b.Context(), env, strings.NewReader(message)); res[0].Err != nil {
			b.Fatal(res[0].Err)
		}
	}
}
