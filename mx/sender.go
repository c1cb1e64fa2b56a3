package mx

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/mx/mtasts"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
)

// Body is a message; see [smtpclient.Body].
type Body = smtpclient.Body

// Sender delivers envelopes to the hosts of their recipients' domains. The
// zero Sender is ready. Its fields are read-only once it is in use, and it
// may be used from many goroutines. 0 = the default named.
type Sender struct {
	// Resolver is asked for MX and addresses; nil = net.DefaultResolver. If
	// it is a Querier too, Group keeps answers for their time to live.
	Resolver Resolver
	// Pool keeps the connections; its Dialer has the EHLO name, the TLS
	// configuration, DialContext and timeouts. nil = a connection for each
	// domain of each envelope, opened by Dialer.
	Pool *smtpclient.Pool
	// Dialer opens connections while Pool is nil.
	Dialer smtpclient.Dialer
	// Port is where hosts listen; 25.
	Port uint16
	// Network restricts the addresses: "ip4" or "ip6"; "" = both.
	Network string
	// Need is the security to insist on. The default, Opportunistic, is
	// TLS wherever a host offers it, unauthenticated, and plain text where
	// it does not or where its TLS is broken.
	Need smtpclient.Security
	// Names are this system's own host names, for the loop rule of RFC 5321
	// §5.1: MX hosts from them on are not tried.
	Names []string
	// STS finds MTA-STS policies (RFC 8461), which are then kept to;
	// *mtasts.Client does. nil = there are none.
	STS interface {
		Lookup(ctx context.Context, domain string) (*mtasts.Policy, error)
	}
	// Route chooses a way other than the MX for a domain, perhaps by who
	// sends: see [Via]. nil, and a nil Route, mean the MX. It is called at
	// each delivery and each Group, the latter with a zero from.
	Route func(ctx context.Context, from smtp.Address, domain string) (*Route, error)
	// Providers are patterns such as "*.mail.protection.outlook.com": all
	// domains whose preferred hosts match the same one are one site, whatever
	// the names of their own hosts there.
	Providers []string
	// Allow says whether an address may be connected to; [Public] keeps
	// strangers' MX records from reaching into one's own network. nil = any.
	// It is not asked for hosts of Route.
	Allow func(netip.Addr) bool
	// Sources are the local addresses to connect from, of either family;
	// empty = as the system chooses. Pool's or Dialer's DialContext must be
	// nil then.
	Sources []Source
	// OnAttempt is told of each host tried, and of each domain for which
	// there was none to try. It is called in the middle of a delivery.
	OnAttempt func(Attempt)
	// MaxHosts and MaxAddrs bound what one delivery tries: 5 hosts, those
	// that exist or whose DNS fails, and 10 addresses (RFC 5321 §5.1 asks for
	// at least two). Negative = no limit.
	MaxHosts, MaxAddrs int

	mu     sync.Mutex
	sites  map[string]site
	broken map[string]time.Time // hosts whose TLS failed, and when
	failed map[string]failed    // hosts that failed lately, by one family
}

// Source is a local address to send from.
type Source struct {
	Addr netip.Addr
	// Weight is its share of the connections among those of its family; 0 =
	// 1, negative = none.
	Weight int
}

type site struct {
	name    string
	expires time.Time
}

// brokenFor is how long a host's broken TLS is remembered.
const brokenFor = time.Hour

// isBroken reports whether the TLS of a host failed lately.
func (s *Sender) isBroken(host string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.broken[host]
	return ok && time.Since(at) < brokenFor
}

func (s *Sender) setBroken(host string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.broken = map[string]time.Time{}
	}
	if len(s.broken) >= maxSites {
		maps.DeleteFunc(s.broken, func(_ string, at time.Time) bool { return now.Sub(at) >= brokenFor })
	}
	if len(s.broken) < maxSites {
		s.broken[host] = now
	}
}

// failed is the family of addresses by which a host failed last, and when.
type failed struct {
	four bool
	at   time.Time
}

// failedFor is how long that is remembered.
const failedFor = time.Hour

// failedBy reports which family to leave for last at a host, if any.
func (s *Sender) failedBy(host string) (four, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.failed[host]
	return f.four, ok && time.Since(f.at) < failedFor
}

// outcome remembers how an address of a host did: bad is a failure that the
// other family may not have.
func (s *Sender) outcome(host string, addr netip.Addr, bad bool) {
	now := time.Now()
	four := addr.Unmap().Is4()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !bad {
		if f, ok := s.failed[host]; ok && f.four == four {
			delete(s.failed, host)
		}
		return
	}
	if s.failed == nil {
		s.failed = map[string]failed{}
	}
	if len(s.failed) >= maxSites {
		maps.DeleteFunc(s.failed, func(_ string, f failed) bool { return now.Sub(f.at) >= failedFor })
	}
	if len(s.failed) < maxSites {
		s.failed[host] = failed{four, now}
	}
}

// Bounds of what Group keeps, of hosts whose TLS is broken, and of those that
// failed.
const (
	maxSites   = 10_000
	minSiteAge = 30 * time.Second
	maxSiteAge = time.Hour
)

// Deliver sends env to the hosts of its recipients' domains and returns a
// result for each recipient, in order; see [smtpclient.Conn.Send] for ctx, env
// and body. Domains with the same hosts, and no policy of their own, go in one
// transaction; otherwise one domain is delivered to after the other.
//
// Hosts are tried in the order of the route, but one of the most preferred
// that has an idle connection comes first. The next host is tried after a
// host that cannot be reached, that refuses to talk, or that answers with a
// temporary error of its own; not after an answer about the message or a
// recipient, and not when the final dot was sent and no answer came.
//
// The addresses of a host are tried with IPv6 and IPv4 by turns, IPv6 first.
// After a failure that may be about the address that mail came from (no
// connection, 421, a temporary refusal by policy such as 450 4.7.1) the next
// delivery to the host begins with the other family, for an hour or until the
// family that failed has delivered.
//
// Where TLS is opportunistic, a host whose TLS is broken gets the message in
// plain text, and for an hour is not asked for TLS again.
func (s *Sender) Deliver(ctx context.Context, env *smtp.Envelope, body Body) []smtp.Result {
	results := make([]smtp.Result, len(env.To))
	var domains []string
	byDomain := map[string][]int{}
	for i := range env.To {
		d := env.To[i].Domain
		if d == "" {
			results[i].Err = &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 1, 3}, Text: "Recipient has no domain"}
			continue
		}
		d = strings.ToLower(d)
		if byDomain[d] == nil {
			domains = append(domains, d)
		}
		byDomain[d] = append(byDomain[d], i)
	}
	var all []*delivery
	byRoute := map[string]*delivery{}
	for _, name := range domains {
		d := s.prepare(ctx, name, env, byDomain[name], body, results)
		if d == nil {
			continue // it has its results
		}
		key, alone := d.key()
		if other := byRoute[key]; other != nil && !alone {
			other.join(d)
			continue
		}
		if !alone {
			byRoute[key] = d
		}
		all = append(all, d)
	}
	for _, d := range all {
		d.run(ctx)
	}
	return results
}

// Group names the site of a domain: the set of hosts it prefers. Domains with
// the same site share their hosts, so a limit on connections is theirs
// together; Deliver gives it to the pool. Its error is Lookup's.
func (s *Sender) Group(ctx context.Context, domain string) (string, error) {
	now := time.Now()
	s.mu.Lock()
	known, ok := s.sites[domain]
	s.mu.Unlock()
	if ok && now.Before(known.expires) {
		return known.name, nil
	}
	route, _, err := s.route(ctx, smtp.Address{}, domain)
	if err != nil {
		return "", err
	}
	known = site{s.siteOf(route), now.Add(min(max(route.TTL, minSiteAge), maxSiteAge))}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sites == nil {
		s.sites = map[string]site{}
	}
	if len(s.sites) >= maxSites {
		maps.DeleteFunc(s.sites, func(_ string, other site) bool { return now.After(other.expires) })
	}
	for d := range s.sites {
		if len(s.sites) < maxSites {
			break
		}
		delete(s.sites, d)
	}
	s.sites[domain] = known
	return known.name, nil
}

// route finds the way to a domain; fixed says that it is not by MX.
func (s *Sender) route(ctx context.Context, from smtp.Address, domain string) (r *Route, fixed bool, err error) {
	if s.Route != nil {
		if r, err = s.Route(ctx, from, domain); r != nil || err != nil {
			return r, true, err
		}
	}
	r, err = Lookup(ctx, s.resolver(), domain, s.Names...)
	return r, false, err
}

// siteOf is the route's Site, or the provider that it belongs to.
func (s *Sender) siteOf(r *Route) string {
	for _, p := range s.Providers {
		suffix := strings.TrimPrefix(strings.ToLower(p), "*")
		all := true
		for _, h := range r.Hosts {
			if h.Pref == r.Hosts[0].Pref {
				all = all && strings.HasSuffix(h.Name, suffix)
			}
		}
		if all && len(r.Hosts) > 0 {
			return p
		}
	}
	return r.Site()
}

func (s *Sender) resolver() Resolver {
	if s.Resolver == nil {
		return net.DefaultResolver
	}
	return s.Resolver
}

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}
