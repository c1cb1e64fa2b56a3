package mx

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

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
	// MaxHosts and MaxAddrs bound what one delivery tries: 5 hosts, those
	// that exist or whose DNS fails, and 10 addresses (RFC 5321 §5.1 asks for
	// at least two). Negative = no limit.
	MaxHosts, MaxAddrs int

	mu    sync.Mutex
	sites map[string]site
}

type site struct {
	name    string
	expires time.Time
}

// Bounds of what Group keeps.
const (
	maxSites   = 10_000
	minSiteAge = 30 * time.Second
	maxSiteAge = time.Hour
)

// Deliver sends env to the hosts of each of its recipients' domains, one
// domain after the other, and returns a result for each recipient, in order;
// see [smtpclient.Conn.Send] for ctx, env and body.
//
// Hosts are tried in the order of the route, but one of the most preferred
// that has an idle connection comes first. The next host is tried after a
// host that cannot be reached, that refuses to talk, or that answers with a
// temporary error of its own; not after an answer about the message or a
// recipient, and not when the final dot was sent and no answer came.
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
	for _, d := range domains {
		s.deliver(ctx, d, env, byDomain[d], body, results)
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
	route, err := Lookup(ctx, s.resolver(), domain, s.Names...)
	if err != nil {
		return "", err
	}
	known = site{route.Site(), now.Add(min(max(route.TTL, minSiteAge), maxSiteAge))}
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

func (s *Sender) resolver() Resolver {
	if s.Resolver == nil {
		return net.DefaultResolver
	}
	return s.Resolver
}

// attempt is the delivery to one domain.
type attempt struct {
	s       *Sender
	env     smtp.Envelope // To is what is left
	left    []int         // of the caller's recipients
	body    Body
	results []smtp.Result
	need    smtpclient.Security
	site    string
	hosts   int // tried
	addrs   int
	best    *smtp.Error // the failure to report when no host answers
}

func (s *Sender) deliver(ctx context.Context, domain string, env *smtp.Envelope, idx []int, body Body, results []smtp.Result) {
	a := &attempt{s: s, env: *env, left: idx, body: body, results: results, need: s.Need}
	a.env.To = make([]smtp.Recipient, len(idx))
	for k, i := range idx {
		a.env.To[k] = env.To[i]
	}
	route, err := Lookup(ctx, s.resolver(), domain, s.Names...)
	if err != nil {
		a.rest(err)
		return
	}
	a.site = route.Site()
	switch {
	case env.RequireTLS && !env.From.IsZero():
		if !route.Secure {
			a.rest(&smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 30}, Scope: smtp.ScopeRoute,
				Text: "REQUIRETLS needs a mail exchanger that DNSSEC proves"})
			return
		}
		a.need = smtpclient.Verified
	case env.TLSOptional && a.need > smtpclient.Plain:
		a.need = smtpclient.Opportunistic // RFC 8689 §4.2.2
	}
	hosts, warm := a.preferWarm(route)
	for _, h := range hosts {
		if len(a.left) == 0 || ctx.Err() != nil && a.best != nil {
			break
		}
		if max := orDefault(s.MaxHosts, 5); max > 0 && a.hosts >= max {
			break
		}
		a.host(ctx, h, warm)
	}
	if a.best == nil {
		a.best = routeError(550, smtp.EnhancedCode{5, 4, 4}, "No mail exchanger of "+route.Domain+" has an address", nil)
		if route.Implicit {
			a.best.Text = "Domain " + route.Domain + " has neither mail exchanger nor address"
		}
	}
	a.rest(a.best)
}

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// rest gives err to everyone left. A host whose own error it is stays named.
func (a *attempt) rest(err error) {
	for _, i := range a.left {
		if a.results[i].Err != err {
			a.results[i] = smtp.Result{Err: err}
		}
	}
}

// preferWarm puts the hosts of the best preference that have idle connections
// first, and returns their addresses.
func (a *attempt) preferWarm(route *Route) ([]Host, map[string]string) {
	if a.s.Pool == nil {
		return route.Hosts, nil
	}
	idle := a.s.Pool.Idle(a.site)
	if len(idle) == 0 {
		return route.Hosts, nil
	}
	warm := map[string]string{}
	for _, t := range idle {
		if _, ok := warm[t.Name]; !ok {
			warm[t.Name] = t.Addr
		}
	}
	hosts := slices.Clone(route.Hosts)
	best := 0
	for best < len(hosts) && hosts[best].Pref == hosts[0].Pref {
		best++
	}
	slices.SortStableFunc(hosts[:best], func(x, y Host) int {
		_, wx := warm[x.Name]
		_, wy := warm[y.Name]
		switch {
		case wx == wy:
			return 0
		case wx:
			return -1
		}
		return 1
	})
	return hosts, warm
}

// host tries the addresses of one host.
func (a *attempt) host(ctx context.Context, h Host, warm map[string]string) {
	s := a.s
	network := s.Network
	if network == "" {
		network = "ip"
	}
	list, err := addrs(ctx, s.resolver(), h.Name, network)
	if err != nil {
		switch {
		case !notFound(err):
			a.hosts++ // it took its time, too
			a.note(temporary(ctx, h.Name, err))
		case a.best == nil && nxDomain(err):
			a.note(routeError(550, smtp.EnhancedCode{5, 1, 2}, "Host "+h.Name+" does not exist", err))
		case a.best == nil:
			a.note(routeError(550, smtp.EnhancedCode{5, 4, 4}, "Host "+h.Name+" has no address", err))
		}
		return
	}
	a.hosts++
	port := s.Port
	if port == 0 {
		port = 25
	}
	targets := make([]string, len(list))
	for i, ip := range list {
		targets[i] = netip.AddrPortFrom(ip, port).String()
	}
	if w, ok := warm[h.Name]; ok {
		if i := slices.Index(targets, w); i > 0 {
			targets[0], targets[i] = targets[i], targets[0]
		}
	}
	for _, addr := range targets {
		if max := orDefault(s.MaxAddrs, 10); len(a.left) == 0 || ctx.Err() != nil && a.best != nil || max > 0 && a.addrs >= max {
			return
		}
		a.addrs++
		a.send(ctx, smtpclient.Target{Addr: addr, Name: strings.TrimPrefix(strings.Trim(h.Name, "[]"), "IPv6:"), Group: a.site, Need: a.need})
	}
}

// send tries one address, and keeps those recipients for the next whom the
// host itself failed.
func (a *attempt) send(ctx context.Context, t smtpclient.Target) {
	var results []smtp.Result
	if a.s.Pool != nil {
		results = a.s.Pool.Send(ctx, t, &a.env, a.body)
	} else {
		results = a.s.Dialer.Send(ctx, t, &a.env, a.body)
	}
	var left []int
	var to []smtp.Recipient
	for k, res := range results {
		i := a.left[k]
		var e *smtp.Error
		if res.Err != nil && errors.As(res.Err, &e) && a.another(ctx, e) {
			a.note(e)
			a.results[i] = smtp.Result{Err: a.best, Reply: res.Reply, Hop: res.Hop}
			if a.best != e {
				a.results[i] = smtp.Result{Err: a.best}
			}
			left = append(left, i)
			to = append(to, a.env.To[k])
			continue
		}
		a.results[i] = res
	}
	a.left, a.env.To = left, to
}

// another reports whether e asks for another host. 5yz in place of the
// banner speaks of the host as well (RFC 5321 §3.1, RFC 7504 §5).
func (a *attempt) another(ctx context.Context, e *smtp.Error) bool {
	return e.Scope == smtp.ScopeHost && !e.Unsure && ctx.Err() == nil
}

// note keeps the failure to report: the last one, but a temporary one rather
// than a permanent one, since the host may come back.
func (a *attempt) note(e *smtp.Error) {
	if a.best == nil || e.Temporary() || !a.best.Temporary() {
		a.best = e
	}
}
