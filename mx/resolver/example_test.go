package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/mx/resolver"
)

// The resolver has the methods of *net.Resolver, and tells a name that does
// not exist from one without such records.
func Example() {
	dns := mxtest.NewDNS(mxtest.Zone{"example.org": {"MX 10 mx.example.org"}})
	addr, err := dns.Listen("")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dns.Close()

	r := &resolver.Resolver{Servers: []string{addr}}
	hosts, err := r.LookupMX(context.Background(), "example.org.")
	fmt.Println(hosts[0].Host, hosts[0].Pref, err)

	_, err = r.LookupNetIP(context.Background(), "ip", "nowhere.example.org.")
	var missing interface{ NXDomain() bool }
	fmt.Println(errors.As(err, &missing) && missing.NXDomain())
	var std *net.DNSError
	fmt.Println(errors.As(err, &std) && std.IsNotFound)
	// Output:
	// mx.example.org. 10 <nil>
	// true
	// true
}
