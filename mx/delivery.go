package mx

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/internal/dnserr"
	"github.com/postrider/postrider/mx/mtasts"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
)

// delivery is that of one envelope to one domain.
type delivery struct {
	s       *Sender
	env     smtp.Envelope // To is what is left
	left    []int         // of the caller's recipients
	body    Body
	results []smtp.Result
	route   *Route
	fixed   bool     // the route is not by MX
	joined  []string // other domains that go with this one
	site    string
	need    smtpclient.Security
	// must says that the message itself asks for security: what does not
	// offer it bounces (RFC 8689 §4.2.1).
	must   bool
	sts    *mtasts.Policy
	stsErr error
	hosts  int         // tried
	addrs  int         // tried
	best   *smtp.Error // the failure to report when no host answers
}

// prepare finds the way to a domain and what is asked for on it. nil: there is
// none, and the results say so.
func (s *Sender) prepare(ctx context.Context, domain string, env *smtp.Envelope, idx []int, body Body, results []smtp.Result) *delivery {
	d := &delivery{s: s, env: *env, left: idx, body: body, results: results, need: s.Need}
	d.env.To = make([]smtp.Recipient, len(idx))
	for k, i := range idx {
		d.env.To[k] = env.To[i]
	}
	var err error
	d.route, d.fixed, err = s.route(ctx, env.From, domain)
	if err != nil {
		d.rest(err)
		s.tell(Attempt{Domain: domain, Err: err})
		return nil
	}
	d.site = s.siteOf(d.route)
	if err := d.demand(ctx); err != nil {
		d.rest(err)
		d.tell(Attempt{TLS: err, Err: err})
		return nil
	}
	return d
}

// key names what deliveries must have in common to be one; alone says that
// this one has a policy of its own.
func (d *delivery) key() (key string, alone bool) {
	var b strings.Builder
	for _, h := range d.route.Hosts {
		fmt.Fprintf(&b, "%d %s:%d ", h.Pref, h.Name, h.Port)
	}
	fmt.Fprint(&b, d.fixed, d.route.Secure, d.route.Auth != nil)
	return b.String(), d.sts != nil || d.stsErr != nil || d.must || d.route.Auth != nil || strings.HasPrefix(d.route.Domain, "[")
}

// join adds the recipients of another domain with the same hosts.
func (d *delivery) join(o *delivery) {
	d.left = append(d.left, o.left...)
	d.env.To = append(d.env.To, o.env.To...)
	d.joined = append(d.joined, o.route.Domain)
}

// run delivers.
func (d *delivery) run(ctx context.Context) {
	s := d.s
	hosts, warm := d.preferWarm()
	for _, h := range hosts {
		if len(d.left) == 0 || ctx.Err() != nil && d.best != nil {
			break
		}
		if max := orDefault(s.MaxHosts, 5); max > 0 && d.hosts >= max {
			break
		}
		d.host(ctx, h, warm)
	}
	if d.best == nil {
		d.best = routeError(550, smtp.EnhancedCode{5, 4, 4}, "No mail exchanger of "+d.route.Domain+" has an address", nil)
		if d.route.Implicit {
			d.best.Text = "Domain " + d.route.Domain + " has neither mail exchanger nor address"
		}
		if len(d.joined) > 0 {
			d.best.Text = "No mail exchanger of the domain has an address"
		}
	}
	d.rest(d.best)
}

// demand finds what security the message, the settings and the policy of the
// domain ask for. Its error means that no host can have the message.
func (d *delivery) demand(ctx context.Context) error {
	if d.s.STS != nil && !strings.HasPrefix(d.route.Domain, "[") {
		d.sts, d.stsErr = d.s.STS.Lookup(ctx, d.route.Domain)
		if d.sts != nil && d.sts.Mode == mtasts.None {
			d.sts = nil
		}
		if d.stsErr != nil && d.sts == nil {
			d.tell(Attempt{})
			d.stsErr = nil
		}
	}
	d.must = d.env.RequireTLS && !d.env.From.IsZero()
	switch {
	case d.must:
		// RFC 8689 §4.2.1: DNSSEC proves the host's name, or a policy does.
		if !d.route.Secure && !d.enforced() {
			return &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 30}, Scope: smtp.ScopeRoute,
				Text: "REQUIRETLS needs a mail exchanger that DNSSEC or MTA-STS proves"}
		}
		d.need = smtpclient.Verified
	case d.env.TLSOptional: // RFC 8689 §4.2.2
		if d.need > smtpclient.Plain {
			d.need = smtpclient.Opportunistic
		}
	}
	return nil
}

// tell completes an attempt and hands it on, for each domain that it was for.
func (d *delivery) tell(a Attempt) {
	a.Domain, a.STS, a.STSErr = d.route.Domain, d.sts, d.stsErr
	d.stsErr = nil // it is told of once
	d.s.tell(a)
	for _, domain := range d.joined {
		a.Domain = domain
		d.s.tell(a)
	}
}

func (s *Sender) tell(a Attempt) {
	if s.OnAttempt != nil {
		a.Time = time.Now()
		s.OnAttempt(a)
	}
}

// rest gives err to everyone left. A host whose own error it is stays named.
func (d *delivery) rest(err error) {
	for _, i := range d.left {
		if d.results[i].Err != err {
			d.results[i] = smtp.Result{Err: err}
		}
	}
}

// preferWarm puts the hosts of the best preference that have idle connections
// first, and returns their addresses.
func (d *delivery) preferWarm() ([]Host, map[string]string) {
	if d.s.Pool == nil {
		return d.route.Hosts, nil
	}
	idle := d.s.Pool.Idle(d.site)
	if len(idle) == 0 {
		return d.route.Hosts, nil
	}
	warm := map[string]string{}
	for _, t := range idle {
		if _, ok := warm[t.Name]; !ok {
			warm[t.Name] = t.Addr
		}
	}
	hosts := slices.Clone(d.route.Hosts)
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
func (d *delivery) host(ctx context.Context, h Host, warm map[string]string) {
	s := d.s
	network := s.Network
	if network == "" {
		network = "ip"
	}
	list, err := addrs(ctx, s.resolver(), h.Name, network)
	if err != nil {
		switch {
		case !dnserr.NotFound(err):
			d.hosts++ // it took its time, too
			d.note(temporary(ctx, h.Name, err))
		case d.best == nil && nxDomain(err):
			d.note(routeError(550, smtp.EnhancedCode{5, 1, 2}, "Host "+h.Name+" does not exist", err))
		case d.best == nil:
			d.note(routeError(550, smtp.EnhancedCode{5, 4, 4}, "Host "+h.Name+" has no address", err))
		}
		d.tell(Attempt{Host: h.Name, Err: err})
		return
	}
	if s.Allow != nil && !d.fixed {
		list = slices.DeleteFunc(list, func(a netip.Addr) bool { return !s.Allow(a) })
		if len(list) == 0 {
			err := routeError(550, smtp.EnhancedCode{5, 4, 4}, "Host "+h.Name+" has no address that mail may go to", errNotAllowed)
			d.note(err)
			d.tell(Attempt{Host: h.Name, Err: err})
			return
		}
	}
	d.hosts++
	port := h.Port
	if port == 0 {
		port = s.Port
	}
	if port == 0 {
		port = 25
	}
	targets := make([]netip.AddrPort, len(list))
	for i, ip := range list {
		targets[i] = netip.AddrPortFrom(ip, port)
	}
	policy, ok := d.policy(ctx, h, port)
	if !ok {
		return
	}
	four, failed := s.failedBy(h.Name)
	last := func(a netip.AddrPort) bool { return failed && a.Addr().Is4() == four }
	if len(targets) > 1 && last(targets[0]) && !last(targets[1]) {
		// By turns, but the other family first.
		for i := 0; i+1 < len(targets) && last(targets[i]) && !last(targets[i+1]); i += 2 {
			targets[i], targets[i+1] = targets[i+1], targets[i]
		}
	}
	if w, ok := warm[h.Name]; ok {
		if i := slices.IndexFunc(targets, func(a netip.AddrPort) bool { return a.String() == w }); i > 0 && (!last(targets[i]) || last(targets[0])) {
			targets[0], targets[i] = targets[i], targets[0]
		}
	}
	for _, addr := range targets {
		if max := orDefault(s.MaxAddrs, 10); len(d.left) == 0 || ctx.Err() != nil && d.best != nil || max > 0 && d.addrs >= max {
			return
		}
		d.addrs++
		t := smtpclient.Target{Addr: addr.String(), Name: strings.TrimPrefix(strings.Trim(h.Name, "[]"), "IPv6:"), Group: d.site, Need: policy.need, Verifier: policy.verifier, Auth: d.route.Auth}
		if len(s.Sources) > 0 {
			source, ok := s.source(addr.Addr())
			if !ok {
				d.note(routeError(451, smtp.EnhancedCode{4, 3, 5}, "No source address for "+addr.Addr().String(), nil))
				continue
			}
			t.Source = source
		}
		d.send(ctx, h, addr, t, policy)
	}
}

var errNotAllowed = errors.New("mx: address is not allowed")

// source chooses by chance, and by weight, among the addresses of the family
// of to.
func (s *Sender) source(to netip.Addr) (netip.Addr, bool) {
	weight := func(c Source) int {
		if c.Addr.Unmap().Is4() != to.Unmap().Is4() || c.Weight < 0 {
			return 0
		}
		return max(c.Weight, 1)
	}
	total := 0
	for _, c := range s.Sources {
		total += weight(c)
	}
	if total == 0 {
		return netip.Addr{}, false
	}
	n := rand.N(total)
	for _, c := range s.Sources {
		if n -= weight(c); n < 0 {
			return c.Addr, true
		}
	}
	return netip.Addr{}, false
}

// send tries one address, and keeps those recipients for the next whom the
// host itself failed.
func (d *delivery) send(ctx context.Context, h Host, addr netip.AddrPort, t smtpclient.Target, policy hostPolicy) {
	var results []smtp.Result
	if d.s.Pool != nil {
		results = d.s.Pool.Send(ctx, t, &d.env, d.body)
	} else {
		results = d.s.Dialer.Send(ctx, t, &d.env, d.body)
	}
	told := Attempt{Host: h.Name, Addr: addr, TLSA: policy.tlsa}
	good, bad := false, false
	var left []int
	var to []smtp.Recipient
	for k, res := range results {
		i := d.left[k]
		if told.Hop == nil {
			told.Hop = res.Hop
		}
		if told.Err == nil {
			told.Err = res.Err
		}
		var e *smtp.Error
		errors.As(res.Err, &e)
		good, bad = good || res.Err == nil, bad || e != nil && ofAddress(e) && ctx.Err() == nil
		if e != nil && d.another(ctx, e) {
			e = d.final(e)
			d.note(e)
			d.results[i] = smtp.Result{Err: d.best, Reply: res.Reply, Hop: res.Hop}
			if d.best != e {
				d.results[i] = smtp.Result{Err: d.best}
			}
			left = append(left, i)
			to = append(to, d.env.To[k])
			continue
		}
		d.results[i] = res
	}
	d.left, d.env.To = left, to
	if good || bad {
		d.s.outcome(h.Name, addr.Addr(), bad)
	}
	told.TLS = d.tlsProblem(policy, told.Hop, told.Err)
	if told.Hop != nil && told.Hop.TLSErr != nil {
		d.s.setBroken(h.Name)
	}
	d.tell(told)
}

// ofAddress reports whether e may be about the address that mail came from or
// went to, so that the other family may do better: the host failed, or its
// policy refuses for now (RFC 3463 §3.8).
func ofAddress(e *smtp.Error) bool {
	return e.Scope == smtp.ScopeHost || e.Temporary() && (e.Enhanced[1] == 7 || e.Enhanced[1] == 0)
}

// another reports whether e asks for another host. 5yz in place of the
// banner speaks of the host as well (RFC 5321 §3.1, RFC 7504 §5).
func (d *delivery) another(ctx context.Context, e *smtp.Error) bool {
	return e.Scope == smtp.ScopeHost && !e.Unsure && ctx.Err() == nil
}

// note keeps the failure to report: the last one, but a temporary one rather
// than a permanent one, since the host may come back.
func (d *delivery) note(e *smtp.Error) {
	if d.best == nil || e.Temporary() || !d.best.Temporary() {
		d.best = e
	}
}
