package spf_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"

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
