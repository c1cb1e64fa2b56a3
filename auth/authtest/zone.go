package authtest

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Zone is a DNS in memory: names to their records, each as a type and its
// data. It is read as mxtest.Zone is, and knows a part of that:
//
//	"A 192.0.2.1", "AAAA 2001:db8::1", "MX 10 mx.example.org", "TXT v=spf1 -all",
//	"PTR mail.example.org" of an address ("192.0.2.1")
//
// Names are without a final dot, in lower case. A TXT record is taken as it
// stands. SERVFAIL and TIMEOUT, alone or before a type ("SERVFAIL MX"), make the
// lookup fail, at once; NXDOMAIN says that there is no such name, whatever is
// below it. Nor is there a name that is neither in the zone nor above one that
// is; an error about it says so with NXDomain, as package auth has it.
//
// Lookups may be concurrent, as long as nobody changes the zone.
type Zone map[string][]string

// noName is the error of a name that does not exist.
type noName struct{ *net.DNSError }

func (noName) NXDomain() bool  { return true }
func (e noName) Unwrap() error { return e.DNSError }

// find returns the data of the records of a type.
func (z Zone) find(ctx context.Context, typ, name string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	records, ok := z[name]
	var found []string
	for _, r := range records {
		word, data, _ := strings.Cut(r, " ")
		switch {
		case word == typ:
			found = append(found, data)
		case word == "NXDOMAIN":
			return nil, noName{&net.DNSError{Err: "no such host", Name: name, IsNotFound: true}}
		case word == "SERVFAIL" && (data == "" || data == typ):
			return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
		case word == "TIMEOUT" && (data == "" || data == typ):
			return nil, &net.DNSError{Err: "i/o timeout", Name: name, IsTimeout: true, IsTemporary: true}
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	none := &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	for other := range z {
		ok = ok || strings.HasSuffix(other, "."+name)
	}
	if !ok {
		return nil, noName{none}
	}
	return nil, none
}

// LookupTXT is that of net.Resolver.
func (z Zone) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return z.find(ctx, "TXT", name)
}

// LookupMX is that of net.Resolver.
func (z Zone) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	list, err := z.find(ctx, "MX", name)
	var out []*net.MX
	for _, data := range list {
		pref, host, _ := strings.Cut(data, " ")
		n, err := strconv.ParseUint(pref, 10, 16)
		if err != nil {
			return nil, &net.DNSError{Err: "bad MX record " + data, Name: name}
		}
		out = append(out, &net.MX{Host: strings.TrimSuffix(host, ".") + ".", Pref: uint16(n)})
	}
	return out, err
}

// LookupNetIP is that of net.Resolver.
func (z Zone) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	var out []netip.Addr
	var failed error
	for _, typ := range [...]string{"A", "AAAA"} {
		if network == "ip4" && typ == "AAAA" || network == "ip6" && typ == "A" {
			continue
		}
		list, err := z.find(ctx, typ, host)
		if err != nil {
			failed = err
		}
		for _, data := range list {
			ip, err := netip.ParseAddr(data)
			if err != nil {
				return nil, &net.DNSError{Err: "bad address " + data, Name: host}
			}
			out = append(out, ip)
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	return nil, failed
}

// LookupAddr is that of net.Resolver.
func (z Zone) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	list, err := z.find(ctx, "PTR", addr)
	var out []string
	for _, host := range list {
		out = append(out, strings.TrimSuffix(host, ".")+".")
	}
	return out, err
}
