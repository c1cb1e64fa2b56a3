package spf

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/postrider/postrider/internal/dnserr"
)

// done records a lookup and reads its error: nil means that the answers, if
// any, count.
func (e *eval) done(typ, name string, answers int, err error) error {
	if dnserr.NotFound(err) || err != nil && !printable(name) {
		answers, err = 0, nil
	}
	if err != nil {
		err = fmt.Errorf("%w: %s %s: %w", ErrLookup, typ, name, err)
	}
	e.lookups = append(e.lookups, Lookup{Type: typ, Name: name, Answers: answers, Err: err, Term: e.cause.term, Domain: e.cause.domain})
	return err
}

// printable reports whether a name is of the kind that resolvers ask for.
// Macros make others; where a resolver refuses one, it does not exist.
func printable(name string) bool {
	for i := 0; i < len(name); i++ {
		if name[i] <= ' ' || name[i] >= 0x7f || name[i] == '\\' {
			return false
		}
	}
	return true
}

// void counts a lookup without an answer (RFC 7208 §4.6.4).
func (e *eval) void() error {
	if e.voids++; e.voids > maxVoid {
		return ErrVoid
	}
	return nil
}

func (e *eval) txt(name string) ([]string, error) {
	if err := e.late(); err != nil {
		return nil, err
	}
	txts, err := e.resolver.LookupTXT(e.budget, name+".")
	if err := e.done("TXT", name, len(txts), err); err != nil {
		return nil, err
	}
	return txts, nil
}

// network is the family of the client's address.
func (e *eval) network() string {
	if e.ip.Is4() {
		return "ip4"
	}
	return "ip6"
}

// addresses looks up addresses without counting.
func (e *eval) addresses(network, host string) ([]netip.Addr, error) {
	if err := e.late(); err != nil {
		return nil, err
	}
	ips, err := e.resolver.LookupNetIP(e.budget, network, host+".")
	typ := "A"
	if network == "ip6" {
		typ = "AAAA"
	}
	if err := e.done(typ, host, len(ips), err); err != nil {
		return nil, err
	}
	if network == "ip4" {
		for i := range ips {
			if ips[i].Is4In6() {
				// *net.Resolver has been seen to map. Not in place: the
				// answer may be a cache's.
				ips = append([]netip.Addr(nil), ips...)
				for j := range ips {
					ips[j] = ips[j].Unmap()
				}
				break
			}
		}
	}
	return ips, nil
}

func (e *eval) ips(network, host string) ([]netip.Addr, error) {
	ips, err := e.addresses(network, host)
	if err == nil && len(ips) == 0 {
		err = e.void()
	}
	return ips, err
}

func (e *eval) mx(name string) ([]*net.MX, error) {
	if err := e.late(); err != nil {
		return nil, err
	}
	mxs, err := e.resolver.LookupMX(e.budget, name+".")
	if err := e.done("MX", name, len(mxs), err); err != nil {
		return nil, err
	}
	if len(mxs) == 0 {
		return nil, e.void()
	}
	return mxs, nil
}

// ptr returns the names of the client's address, at most ten, not validated.
// An error means that there are none (RFC 7208 §5.5).
func (e *eval) ptr() []name {
	if e.named || e.late() != nil {
		return e.names
	}
	e.named = true
	names, err := e.resolver.LookupAddr(e.budget, e.ip.String())
	if e.done("PTR", e.ip.String(), len(names), err) != nil {
		return nil
	}
	for _, n := range names[:min(len(names), maxNames)] {
		if n = strings.TrimSuffix(n, "."); validName(n) {
			e.names = append(e.names, name{name: n})
		}
	}
	return e.names
}
