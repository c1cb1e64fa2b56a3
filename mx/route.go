package mx

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/internal/dnserr"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
)

// Route is where mail for a domain goes.
type Route struct {
	// Domain is the A-label domain or the address literal asked for.
	Domain string
	// Hosts are in the order to try: preference first, chance among equals.
	Hosts []Host
	// Implicit says that the domain has no MX and is its own host (RFC 5321
	// §5.1), or is an address literal.
	Implicit bool
	// Secure says that DNSSEC proves the MX answer, or that there was
	// nothing to prove (a literal). Only a Querier can tell.
	Secure bool
	// TTL is how long the route may be kept; 0 = unknown.
	TTL time.Duration
	// Auth logs in at each host; nil = no login. It is for fixed routes.
	Auth *smtpclient.Auth
}

// Host is a mail exchanger.
type Host struct {
	// Name is in lower case without a final dot, or an address literal.
	Name string
	// Pref is the preference; the lowest is tried first.
	Pref uint16
	// Port is where it listens; 0 = Sender.Port.
	Port uint16
}

// Via returns the route to fixed hosts, tried in their order: a smarthost, or
// the way to a domain that has no MX. Each is a name or an address literal,
// perhaps with a port: "relay.example.org:587", "[192.0.2.1]", "192.0.2.1:25".
func Via(hosts ...string) (*Route, error) {
	if len(hosts) == 0 {
		return nil, errNoHosts
	}
	r := &Route{Secure: true}
	for i, h := range hosts {
		host, port := h, ""
		if name, p, err := net.SplitHostPort(h); err == nil {
			host, port = name, p
		}
		host = strings.Trim(host, "[]")
		if ip, err := netip.ParseAddr(strings.TrimPrefix(host, "IPv6:")); err == nil {
			host = "[" + ip.String() + "]"
			if ip.Unmap().Is6() {
				host = "[IPv6:" + ip.String() + "]"
			}
		}
		name, err := smtp.ParseDomain(host)
		if err != nil {
			return nil, fmt.Errorf("mx: host %q: %w", h, err)
		}
		out := Host{Name: name, Pref: uint16(min(i, 1<<16-1))}
		if port != "" {
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("mx: host %q: malformed port", h)
			}
			out.Port = uint16(n)
		}
		if i == 0 {
			r.Domain = name
		}
		r.Hosts = append(r.Hosts, out)
	}
	return r, nil
}

var errNoHosts = errors.New("mx: a route needs a host")

// Site names the set of hosts that the route prefers: domains with the same
// site share their hosts, and their limits.
func (r *Route) Site() string {
	var names []string
	for _, h := range r.Hosts {
		if h.Pref == r.Hosts[0].Pref {
			names = append(names, h.Name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}

// maxHosts bounds the hosts of a route, whatever the DNS says.
const maxHosts = 50

const typeMX = 15

// Lookup finds the route of domain: a name, which may be a U-label, or an
// address literal. own are names of the host that asks: its own MX record and
// those that are not preferred to it are left out (RFC 5321 §5.1).
//
// The error is an *smtp.Error with ScopeRoute: 556 5.1.10 for a null MX, 550
// 5.1.2 for a domain that does not exist, 550 5.4.4 when no MX names a host,
// 554 5.4.6 when mail would loop, and 451 4.4.3 while the DNS fails.
func Lookup(ctx context.Context, r Resolver, domain string, own ...string) (*Route, error) {
	if r == nil {
		r = net.DefaultResolver
	}
	d, err := smtp.ParseDomain(domain)
	if err != nil {
		return nil, routeError(550, smtp.EnhancedCode{5, 1, 2}, "Malformed domain", err)
	}
	if strings.HasPrefix(d, "[") {
		return &Route{Domain: d, Hosts: []Host{{Name: d}}, Implicit: true, Secure: true}, nil
	}
	route := &Route{Domain: d}
	mxs, err := route.lookupMX(ctx, r)
	switch {
	case err != nil && dnserr.NXDomain(err):
		// A *net.Resolver cannot say so; then addresses are still asked for.
		return nil, routeError(550, smtp.EnhancedCode{5, 1, 2}, "Domain "+d+" does not exist", err)
	case err != nil && !dnserr.NotFound(err) && len(mxs) == 0:
		return nil, temporary(ctx, d, err)
	case len(mxs) == 0:
		route.Implicit = true
		route.Hosts = []Host{{Name: d}}
		if !route.cut(own) {
			return nil, loops(d)
		}
		return route, nil
	}
	if len(mxs) == 1 && strings.TrimSuffix(mxs[0].Host, ".") == "" {
		return nil, routeError(556, smtp.EnhancedCode{5, 1, 10}, "Domain "+d+" does not accept mail", errNullMX)
	}
	for _, m := range mxs {
		// A name that is none of a host's (an IP address, a lone dot beside
		// others) is passed over.
		if name, ok := hostName(m.Host); ok {
			route.Hosts = append(route.Hosts, Host{Name: name, Pref: m.Pref})
		}
	}
	if len(route.Hosts) == 0 {
		return nil, routeError(550, smtp.EnhancedCode{5, 4, 4}, "No mail exchanger of "+d+" is a host", nil)
	}
	rand.Shuffle(len(route.Hosts), func(i, j int) { route.Hosts[i], route.Hosts[j] = route.Hosts[j], route.Hosts[i] })
	slices.SortStableFunc(route.Hosts, func(a, b Host) int { return cmp.Compare(a.Pref, b.Pref) })
	if !route.cut(own) {
		return nil, loops(d)
	}
	seen := map[string]bool{}
	route.Hosts = slices.DeleteFunc(route.Hosts, func(h Host) bool {
		dup := seen[h.Name]
		seen[h.Name] = true
		return dup
	})
	route.Hosts = route.Hosts[:min(len(route.Hosts), maxHosts)]
	return route, nil
}

// lookupMX asks for MX records, through a Querier when there is one.
func (route *Route) lookupMX(ctx context.Context, r Resolver) ([]*net.MX, error) {
	q, ok := r.(Querier)
	if !ok {
		return r.LookupMX(ctx, route.Domain+".")
	}
	a, err := q.Query(ctx, route.Domain+".", typeMX)
	if err != nil {
		return nil, err
	}
	route.Secure, route.TTL = a.Secure, a.TTL
	return a.MX, nil
}

// cut applies the loop rule; false = nothing is left.
func (route *Route) cut(own []string) bool {
	for i, h := range route.Hosts {
		if slices.ContainsFunc(own, func(n string) bool { return strings.EqualFold(strings.TrimSuffix(n, "."), h.Name) }) {
			end := i
			for end > 0 && route.Hosts[end-1].Pref == h.Pref {
				end--
			}
			route.Hosts = route.Hosts[:end]
			return end > 0
		}
	}
	return true
}

// addrs finds the addresses of a host, in the order to try: IPv6 and IPv4 by
// turns, so that a broken family costs one attempt, with chance among equals.
func addrs(ctx context.Context, r Resolver, host, network string) ([]netip.Addr, error) {
	if strings.HasPrefix(host, "[") {
		ip, err := netip.ParseAddr(strings.TrimPrefix(strings.Trim(host, "[]"), "IPv6:"))
		return []netip.Addr{ip}, err
	}
	list, err := r.LookupNetIP(ctx, network, host+".")
	if len(list) == 0 {
		if err == nil {
			err = &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
		}
		return nil, err
	}
	var six, four []netip.Addr
	for _, a := range list {
		a = a.Unmap()
		if a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	out := make([]netip.Addr, 0, len(list))
	for _, fam := range [...][]netip.Addr{six, four} {
		rand.Shuffle(len(fam), func(i, j int) { fam[i], fam[j] = fam[j], fam[i] })
	}
	for i := range max(len(six), len(four)) {
		if i < len(six) {
			out = append(out, six[i])
		}
		if i < len(four) {
			out = append(out, four[i])
		}
	}
	return out, nil
}

var errNullMX = errors.New("mx: null MX")

// hostName returns s in lower case without its final dot, if it can be the
// name of a host.
func hostName(s string) (string, bool) {
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	if s == "" || len(s) > 253 {
		return "", false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return "", false
		}
		for i := 0; i < len(label); i++ {
			c := label[i]
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return "", false
			}
		}
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return "", false
	}
	return s, true
}

func routeError(code int, enhanced smtp.EnhancedCode, text string, err error) *smtp.Error {
	return &smtp.Error{Code: code, Enhanced: enhanced, Text: text, Scope: smtp.ScopeRoute, Err: err}
}

func loops(d string) *smtp.Error {
	return routeError(554, smtp.EnhancedCode{5, 4, 6}, "Mail for "+d+" loops back to this host", nil)
}

// temporary is the error while the DNS fails.
func temporary(ctx context.Context, name string, err error) *smtp.Error {
	e := routeError(451, smtp.EnhancedCode{4, 4, 3}, "DNS failure for "+name, err)
	if ctx.Err() != nil {
		e.Text = "Delivery was interrupted"
		if errors.Is(ctx.Err(), context.Canceled) {
			e.Scope = smtp.ScopeRecipient
		}
	}
	return e
}
