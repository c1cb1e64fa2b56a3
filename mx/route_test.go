package mx_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/smtp"
)

var (
	_ mx.Resolver = (*net.Resolver)(nil)
	_ mx.Querier  = (*mxtest.DNS)(nil)
)

// plain hides what a *net.Resolver does not have: Query and NXDomain.
type plain struct{ d *mxtest.DNS }

func (p plain) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	mxs, err := p.d.LookupMX(ctx, name)
	return mxs, p.hide(err)
}

func (p plain) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if !strings.HasSuffix(host, ".") {
		return nil, fmt.Errorf("%q is not absolute", host)
	}
	list, err := p.d.LookupNetIP(ctx, network, host)
	return list, p.hide(err)
}

func (p plain) hide(err error) error {
	var de *net.DNSError
	if errors.As(err, &de) {
		return &net.DNSError{Err: de.Err, Name: de.Name, IsNotFound: de.IsNotFound, IsTemporary: de.IsTemporary, IsTimeout: de.IsTimeout}
	}
	return err
}

func TestLookup(t *testing.T) {
	d := mxtest.NewDNS(mxtest.Zone{
		"example.test":       {"600 MX 10 MX1.example.test", "600 MX 10 mx2.example.test", "MX 20 mx3.example.test", "SECURE"},
		"implicit.test":      {"A 127.0.0.1"},
		"alias.test":         {"CNAME example.test"},
		"null.test":          {"MX 0 ."},
		"notnull.test":       {"MX 0 .", "MX 10 mx1.example.test"},
		"numbers.test":       {"MX 10 192.0.2.1"},
		"txt.test":           {"TXT x"},
		"broken.test":        {"SERVFAIL MX", "A 127.0.0.1"},
		"dup.test":           {"MX 10 mx1.example.test", "MX 20 mx1.example.test"},
		"xn--bcher-kva.test": {"MX 10 mx1.example.test"},
	})
	for _, tt := range []struct {
		domain string
		own    string
		hosts  string // sorted within a preference
		err    string
	}{
		{domain: "example.test", hosts: "10 mx1.example.test,10 mx2.example.test,20 mx3.example.test"},
		{domain: "EXAMPLE.test.", hosts: "10 mx1.example.test,10 mx2.example.test,20 mx3.example.test"},
		{domain: "alias.test", hosts: "10 mx1.example.test,10 mx2.example.test,20 mx3.example.test"},
		{domain: "implicit.test", hosts: "0 implicit.test"},
		{domain: "txt.test", hosts: "0 txt.test"},
		{domain: "notnull.test", hosts: "10 mx1.example.test"},
		{domain: "dup.test", hosts: "10 mx1.example.test"},
		{domain: "bücher.test", hosts: "10 mx1.example.test"},
		{domain: "[192.0.2.1]", hosts: "0 [192.0.2.1]"},
		{domain: "[IPv6:2001:DB8::1]", hosts: "0 [IPv6:2001:db8::1]"},
		{domain: "example.test", own: "MX3.example.test.", hosts: "10 mx1.example.test,10 mx2.example.test"},
		{domain: "example.test", own: "mx2.example.test", err: "554 5.4.6"},
		{domain: "implicit.test", own: "implicit.test", err: "554 5.4.6"},
		{domain: "null.test", err: "556 5.1.10"},
		{domain: "numbers.test", err: "550 5.4.4"},
		{domain: "nowhere.test", err: "550 5.1.2"},
		{domain: "broken.test", err: "451 4.4.3"},
		{domain: "a b.test", err: "550 5.1.2"},
		{domain: "", err: "550 5.1.2"},
	} {
		for _, r := range []mx.Resolver{d, plain{d}} {
			_, isPlain := r.(plain)
			route, err := mx.Lookup(t.Context(), r, tt.domain, tt.own)
			if err != nil {
				var e *smtp.Error
				if !errors.As(err, &e) || e.Scope != smtp.ScopeRoute {
					t.Errorf("%s: %#v", tt.domain, err)
					continue
				}
				if got := (smtp.Reply{Code: e.Code, Enhanced: e.Enhanced}).String(); got != tt.err {
					t.Errorf("%s: %q, want %q (%v)", tt.domain, got, tt.err, err)
				}
				continue
			}
			if isPlain && tt.domain == "nowhere.test" {
				continue // it cannot tell: the Sender finds no address
			}
			var hosts []string
			for _, h := range route.Hosts {
				hosts = append(hosts, fmt.Sprintf("%d %s", h.Pref, h.Name))
			}
			if len(hosts) > 1 && hosts[0] > hosts[1] {
				hosts[0], hosts[1] = hosts[1], hosts[0]
			}
			if got := strings.Join(hosts, ","); got != tt.hosts || tt.err != "" {
				t.Errorf("%s: %q, want %q", tt.domain, got, tt.hosts)
			}
			if secure := !isPlain && strings.EqualFold(tt.domain[:1], "e") || strings.HasPrefix(tt.domain, "["); route.Secure != secure {
				t.Errorf("%s: secure %v", tt.domain, route.Secure)
			}
			if !isPlain && tt.domain == "example.test" && route.TTL != time.Minute {
				t.Errorf("TTL %v", route.TTL)
			}
		}
	}
}

// Equal preferences share the mail.
func TestChanceAmongEquals(t *testing.T) {
	d := mxtest.NewDNS(mxtest.Zone{"a.test": {"MX 10 x.test", "MX 10 y.test", "MX 10 z.test", "MX 5 first.test"}})
	count := map[string]int{}
	for range 300 {
		route, err := mx.Lookup(t.Context(), d, "a.test")
		if err != nil || len(route.Hosts) != 4 || route.Hosts[0].Name != "first.test" {
			t.Fatal(route, err)
		}
		count[route.Hosts[1].Name]++
		if s := route.Site(); s != "first.test" {
			t.Errorf("site %q", s)
		}
	}
	for _, n := range count {
		if n < 50 {
			t.Errorf("%v", count)
		}
	}
}
