package mx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/mx/resolver"
	"github.com/postrider/postrider/smtp/smtpclient"
)

// TestBrokenDNS: whatever the DNS does, the mail waits, the reply says why,
// and it takes its bounded time. Nothing is dialled.
func TestBrokenDNS(t *testing.T) {
	// Each answers every question that comes on nc.
	hang := func(nc net.Conn) { io.Copy(io.Discard, nc) }
	garbage := func(answer string) func(net.Conn) {
		return func(nc net.Conn) {
			buf := make([]byte, 1500)
			for {
				n, err := nc.Read(buf)
				if err != nil {
					return
				}
				text := strings.NewReplacer("ID", string(buf[:2]), "Q", string(buf[12:n])).Replace(answer)
				if _, err := io.WriteString(nc, text); err != nil {
					return
				}
			}
		}
	}
	flood := func(nc net.Conn) {
		go io.Copy(io.Discard, nc)
		for {
			if _, err := nc.Write([]byte("another answer altogether")); err != nil {
				return
			}
		}
	}
	for _, tt := range []struct {
		name  string
		serve func(nc net.Conn) // nil = refuses the connection
		edit  func(*resolver.Resolver)
		took  time.Duration
	}{
		{name: "no server", took: 0},
		{name: "hangs", serve: hang, took: 2 * 3 * time.Second},
		{name: "three that hang", serve: hang, edit: func(r *resolver.Resolver) { r.Servers = []string{"10.0.0.53", "10.0.1.53", "10.0.2.53"} }, took: 2 * 3 * 3 * time.Second},
		{name: "closes", serve: func(nc net.Conn) {}},
		{name: "empty datagrams", serve: garbage("x")},
		{name: "another id", serve: garbage("\x00\x00\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00Q")},
		{name: "a question for an answer", serve: garbage("ID\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00Q")},
		{name: "cut in a record", serve: garbage("ID\x81\x80\x00\x01\x00\x09\x00\x00\x00\x00Q\xc0\x0c\x00\x0f")},
		{name: "truncated for ever", serve: garbage("ID\x83\x80\x00\x01\x00\x00\x00\x00\x00\x00")},
		{name: "a flood", serve: flood},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &resolver.Resolver{Servers: []string{"10.0.0.53"}}
				r.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
					if tt.serve == nil {
						return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
					}
					ours, theirs := net.Pipe()
					go func() {
						defer theirs.Close()
						tt.serve(theirs)
					}()
					return ours, nil
				}
				if tt.edit != nil {
					tt.edit(r)
				}
				n := &network{}
				s := &mx.Sender{Resolver: r, Dialer: smtpclient.Dialer{DialContext: n.DialContext}}
				start := time.Now()
				check(t, s.Deliver(t.Context(), envelope(t, "c@one.test", "d@one.test"), strings.NewReader(message)), "451 4.4.3 route", "451 4.4.3 route")
				if took := time.Since(start); tt.took > 0 && took != tt.took || took > 20*time.Second {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if got := n.take(); got != "" {
					t.Errorf("dialled %q", got)
				}
				if _, err := s.Group(t.Context(), "one.test"); err == nil {
					t.Error("a site without DNS")
				}
			})
		})
	}
}

// TestDNSMends: what failed is not held against the domain afterwards.
func TestDNSMends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mxtest.NewDNS(mxtest.Zone{"one.test": {"SERVFAIL"}})
		r := &resolver.Resolver{Servers: []string{"127.0.0.1:53"}, DialContext: d.DialContext, Attempts: 1}
		if _, err := mx.Lookup(t.Context(), r, "one.test"); err == nil {
			t.Error("no error")
		}
		d.Set("one.test", "MX 10 mx1.test")
		if route, err := mx.Lookup(t.Context(), r, "one.test"); err != nil || len(route.Hosts) != 1 {
			t.Errorf("%+v, %v", route, err)
		}
	})
}

// TestThreeHundredMX: of a domain with more hosts than any has, five are tried.
func TestThreeHundredMX(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := mxtest.Zone{}
		for i := range 300 {
			z["many.test"] = append(z["many.test"], fmt.Sprintf("MX %d mx%d.test", i/3, i))
			z[fmt.Sprintf("mx%d.test", i)] = []string{fmt.Sprintf("A 10.9.%d.%d", i/100, i%100)}
		}
		dns := mxtest.NewDNS(z)
		route, err := mx.Lookup(t.Context(), dns, "many.test")
		if err != nil || len(route.Hosts) != 50 || route.Hosts[0].Pref != 0 || route.Hosts[49].Pref != 16 {
			t.Fatalf("%d hosts, %v", len(route.Hosts), err)
		}
		n := &network{}
		s := &mx.Sender{Resolver: dns, Dialer: smtpclient.Dialer{DialContext: n.DialContext}}
		check(t, s.Deliver(t.Context(), envelope(t, "c@many.test"), strings.NewReader(message)), "451 4.4.1 host")
		if got := len(strings.Fields(n.take())); got != 5 {
			t.Errorf("dialled %d hosts, want 5", got)
		}
		if asked := len(dns.Questions()); asked > 30 {
			t.Errorf("asked %d questions", asked)
		}
	})
}

// TestCNAMELoop: a domain, or a host, whose aliases lead in a circle, is a
// failure of its DNS; it costs few questions.
func TestCNAMELoop(t *testing.T) {
	dns := mxtest.NewDNS(mxtest.Zone{
		"loop.test": {"CNAME loop2.test"}, "loop2.test": {"CNAME loop.test"},
		"self.test": {"CNAME self.test"},
		"host.test": {"MX 10 loop.test"},
	})
	n := &network{}
	s := &mx.Sender{Resolver: dns, Dialer: smtpclient.Dialer{DialContext: n.DialContext}}
	for _, to := range []string{"c@loop.test", "c@self.test", "c@host.test"} {
		before := len(dns.Questions())
		check(t, s.Deliver(t.Context(), envelope(t, to), strings.NewReader(message)), "451 4.4.3 route")
		if asked := len(dns.Questions()) - before; asked > 20 {
			t.Errorf("%s: asked %d questions", to, asked)
		}
	}
	if got := n.take(); got != "" {
		t.Errorf("dialled %q", got)
	}
}

// TestLameServer: a server that names others instead of answering says nothing
// of the domain: its mail waits, and is not sent to the domain's own address.
func TestLameServer(t *testing.T) {
	dns := mxtest.NewDNS(mxtest.Zone{"lame.test": {"LAME MX", "A 10.0.0.1"}, "refused.test": {"REFUSED"}})
	n := &network{}
	s := &mx.Sender{Resolver: dns, Dialer: smtpclient.Dialer{DialContext: n.DialContext}}
	check(t, s.Deliver(t.Context(), envelope(t, "c@lame.test", "c@refused.test"), strings.NewReader(message)), "451 4.4.3 route", "451 4.4.3 route")
	if got := n.take(); got != "" {
		t.Errorf("dialled %q", got)
	}
}

// TestSlowDNS: answers that take their time are waited for, up to the
// resolver's limit.
func TestSlowDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := mxtest.NewDNS(mxtest.Zone{"slow.test": {"DELAY 2s", "MX 10 mx.test"}, "slower.test": {"DELAY 1h", "MX 10 mx.test"}})
		r := &resolver.Resolver{Servers: []string{"127.0.0.1:53"}, DialContext: dns.DialContext}
		for _, tt := range []struct {
			domain string
			ok     bool
			took   time.Duration
		}{{"slow.test", true, 2 * time.Second}, {"slower.test", false, 6 * time.Second}} {
			begun := time.Now()
			_, err := mx.Lookup(t.Context(), r, tt.domain)
			if took := time.Since(begun); (err == nil) != tt.ok || took != tt.took {
				t.Errorf("%s: %v after %v", tt.domain, err, took)
			}
		}
	})
}
