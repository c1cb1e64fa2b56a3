package verify

import (
	"context"
	"net/netip"
	"strings"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/internal/dnserr"
)

// maxNames bounds how many names of one address are looked up.
const maxNames = 5

// IPRev is whether the client's address has a name that has that address
// (RFC 8601 §3).
type IPRev struct {
	// Result is Pass, Fail, TempError or PermError (no name at all).
	Result auth.Result
	Name   string // the name that was confirmed, "" unless Result is Pass
}

// MethodResult returns i for an Authentication-Results field
// (RFC 8601 §2.7.3).
func (i *IPRev) MethodResult(ip netip.Addr) auth.MethodResult {
	return auth.MethodResult{Method: "iprev", Result: i.Result, Comment: i.Name,
		Props: []auth.Property{{Type: "policy", Name: "iprev", Value: ip.Unmap().String()}}}
}

func iprev(ctx context.Context, r Resolver, ip netip.Addr) *IPRev {
	ip = ip.Unmap().WithZone("")
	names, err := r.LookupAddr(ctx, ip.String())
	if err != nil && !dnserr.NotFound(err) {
		return &IPRev{Result: auth.TempError}
	}
	if len(names) == 0 {
		return &IPRev{Result: auth.PermError}
	}
	network := "ip6"
	if ip.Is4() {
		network = "ip4"
	}
	out := &IPRev{Result: auth.Fail}
	for _, name := range names[:min(len(names), maxNames)] {
		name = strings.TrimSuffix(name, ".")
		ips, err := r.LookupNetIP(ctx, network, name+".")
		if err != nil && !dnserr.NotFound(err) {
			out.Result = auth.TempError
			continue
		}
		for _, a := range ips {
			if a.Unmap() == ip {
				return &IPRev{Result: auth.Pass, Name: name}
			}
		}
	}
	return out
}
