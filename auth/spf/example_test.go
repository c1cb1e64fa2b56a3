package spf_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/postrider/postrider/auth/spf"
	"github.com/postrider/postrider/smtp"
)

// fixed stands in for a *net.Resolver.
type fixed map[string]string

func (f fixed) LookupTXT(_ context.Context, name string) ([]string, error) {
	return []string{f[name]}, nil
}
func (fixed) LookupMX(context.Context, string) ([]*net.MX, error) { return nil, nil }
func (fixed) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return nil, nil
}
func (fixed) LookupAddr(context.Context, string) ([]string, error) { return nil, nil }

func ExampleChecker() {
	c := &spf.Checker{Receiver: "mx.example.org", Resolver: fixed{
		"example.net.":     "v=spf1 ip4:192.0.2.0/24 -all exp=why.example.net",
		"why.example.net.": "%{i} is not one of our servers",
	}}
	for _, ip := range []string{"192.0.2.25", "198.51.100.7"} {
		e := c.Check(context.Background(), spf.Source{
			IP:    netip.MustParseAddr(ip),
			Hello: "mail.example.net",
			From:  smtp.Address{Local: "alice", Domain: "example.net"},
		})
		fmt.Printf("%s by %s %q\n", e.Result, e.Mechanism, e.Explanation)
	}
	// Output:
	// pass by ip4:192.0.2.0/24 ""
	// fail by -all "198.51.100.7 is not one of our servers"
}

func ExampleEvaluation_Received() {
	c := &spf.Checker{Receiver: "mx.example.org", Resolver: fixed{"example.net.": "v=spf1 ip4:192.0.2.0/24 -all"}}
	e := c.Check(context.Background(), spf.Source{
		IP:    netip.MustParseAddr("192.0.2.25"),
		Hello: "mail.example.net",
		From:  smtp.Address{Local: "alice", Domain: "example.net"},
	})
	fmt.Print(strings.ReplaceAll(e.Received().String(), "\r\n", "\n"))
	// Output:
	// Received-SPF: pass (mx.example.org: domain of alice@example.net designates
	//  192.0.2.25 as permitted sender) receiver=mx.example.org; identity=mailfrom;
	//  client-ip=192.0.2.25; envelope-from="alice@example.net";
	//  helo=mail.example.net; mechanism="ip4:192.0.2.0/24"
}

func ExampleLint() {
	for _, p := range spf.Lint("v=spf1 include=_spf.example.net ptr ip4:2001:db8::1 ?all") {
		fmt.Println(p)
	}
	// Output:
	// wrong: include=_spf.example.net: is ignored: a mechanism has a colon, include:_spf.example.net
	// advice: ptr: is slow and unreliable, and should not be published (RFC 7208 §5.5)
	// wrong: ip4:2001:db8::1: the address is IPv6: ip6
	// advice: ?all: says nothing about anybody else; ~all or -all does
}

func ExampleSurvey_Flatten() {
	c := &spf.Checker{Resolver: fixed{
		"example.net.":      "v=spf1 ip4:192.0.2.0/25 include:spf.example. exists:%{i}.ok.example.net -all",
		"spf.example.":      "v=spf1 ip4:192.0.2.128/25 include:more.spf.example ~all",
		"more.spf.example.": "v=spf1 ip6:2001:db8::/32 ~all",
	}}
	s, err := c.Survey(context.Background(), "example.net")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Lookups, "lookups")
	flat, kept := s.Flatten()
	fmt.Println(flat)
	for _, p := range kept {
		fmt.Println(p)
	}
	// Output:
	// 3 lookups
	// v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 exists:%{i}.ok.example.net -all
	// advice: example.net: exists:%{i}.ok.example.net: cannot be made flat: depends on the message
}
