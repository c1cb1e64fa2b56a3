package spf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/postrider/postrider/internal/dnserr"
)

// Survey is all that a domain's record refers to.
type Survey struct {
	Domain string
	// Records are those of the domain and of all its includes and redirects,
	// each once, in the order they were found.
	Records []Published
	// Lookups is how many terms need the DNS when nothing matches before the
	// end. More than 10 is PermError for some clients (RFC 7208 §4.6.4).
	Lookups int
	// Voids is how many lookups have no answer then, of names that do not
	// depend on the message, for the worse of IPv4 and IPv6 clients. More
	// than 2 is PermError.
	Voids int
	// Problems are those of all records, as Lint finds them, and what is
	// wrong with what they refer to.
	Problems []Problem

	root *node
}

// Published is a record and where it is.
type Published struct{ Domain, Text string }

// The bounds of a survey; counts beyond maxCount are as good as infinite.
const (
	maxSurveyRecords = 128
	maxSurveyLookups = 1024
	maxSurveyOctets  = 1 << 18 // of all records
	maxHosts         = 50      // of one mx
	maxCount         = 1 << 20
)

// node is the record of one domain and what its terms stand for.
type node struct {
	domain string
	record *Record
	broken string     // why there is no record to go by, "" = there is
	err    error      // of broken
	terms  []resolved // aligned with record.Mechanisms
	next   resolved   // of redirect
	busy   bool       // on the path to what is looked at now

	lookups, void4, void6 int
	known                 bool // pass is
	pass                  ranges
	why                   string // why pass cannot be known, "" = it can
}

// resolved is what one term stands for.
type resolved struct {
	nets  []netip.Prefix
	child *node
	why   string // why it cannot be known beforehand, "" = it can
}

// Survey reads the record of a domain and everything it refers to, as far as
// that does not depend on a message: what Lint cannot see. Its Problems are
// told with the domain that has them; it can be made flat. ctx bounds it,
// Timeout does not. The error is ErrLookup, ErrNoRecord, ErrMultiple or
// ErrSyntax, about the record of the domain itself.
func (c *Checker) Survey(ctx context.Context, domain string) (*Survey, error) {
	domain = strings.ToLower(ascii(domain))
	if !validDomain(domain) {
		return nil, fmt.Errorf("%w: %.100q is no domain", ErrNoRecord, domain)
	}
	v := &surveyor{ctx: ctx, resolver: c.Resolver, nodes: make(map[string]*node), hosts: make(map[string]answer), s: &Survey{Domain: domain}}
	if v.resolver == nil {
		v.resolver = net.DefaultResolver
	}
	root, err := v.visit(domain, false)
	if err != nil {
		return nil, err
	}
	s := v.s
	s.root = root
	s.Lookups, s.Voids = root.lookups, max(root.void4, root.void6)
	if s.Lookups > maxLookups {
		s.Problems = append(s.Problems, Problem{TooManyLookups, domain, "", true,
			fmt.Sprintf("%s terms that need the DNS in all records together; above %d receivers answer permerror (RFC 7208 §4.6.4)", count(s.Lookups), maxLookups)})
	}
	for _, f := range []struct {
		name  string
		voids int
	}{{"IPv4", root.void4}, {"IPv6", root.void6}} {
		if f.voids > maxVoid {
			s.Problems = append(s.Problems, Problem{TooManyVoids, domain, "", true,
				fmt.Sprintf("for %s clients %s lookups have no answer; above %d receivers answer permerror (RFC 7208 §4.6.4)", f.name, count(f.voids), maxVoid)})
		}
	}
	return s, nil
}

func count(n int) string {
	if n >= maxCount {
		return "endlessly many"
	}
	return fmt.Sprint(n)
}

type surveyor struct {
	ctx      context.Context
	resolver Resolver
	nodes    map[string]*node
	hosts    map[string]answer // by type and name
	asked    int
	octets   int
	s        *Survey
}

// answer is what one name has.
type answer struct {
	ips []netip.Addr
	err error
}

var errBounds = fmt.Errorf("%w: the bounds of a survey are reached", ErrLookup)

// ask counts a lookup and reads its error.
func ask[T any](v *surveyor, lookup func() ([]T, error)) ([]T, error) {
	if v.asked++; v.asked > maxSurveyLookups {
		return nil, errBounds
	}
	err := v.ctx.Err()
	var found []T
	if err == nil {
		found, err = lookup()
	}
	switch {
	case dnserr.NotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrLookup, err)
	}
	return found, nil
}

// visit reads the record of a domain, once. The node is never nil; the error
// is that of a record that is not there or not valid.
func (v *surveyor) visit(domain string, included bool) (*node, error) {
	n, ok := v.nodes[domain]
	if !ok {
		n = &node{domain: domain}
		v.nodes[domain] = n
		if n.broken, n.err = v.read(n, included); n.err == nil {
			v.resolve(n)
		}
	}
	return n, n.err
}

// read fetches and parses the record of n, or says what is wrong with it.
func (v *surveyor) read(n *node, included bool) (string, error) {
	if len(v.nodes) > maxSurveyRecords {
		return "the bounds of a survey are reached", errBounds
	}
	txts, err := ask(v, func() ([]string, error) { return v.resolver.LookupTXT(v.ctx, n.domain+".") })
	text, found := "", false
	if err == nil {
		text, found, err = onlyRecord(txts, n.domain)
	}
	switch {
	case errors.Is(err, ErrMultiple):
		return "there are several records", err
	case err != nil:
		return "the record cannot be had now", err
	case !found:
		return "there is no record", fmt.Errorf("%w: %s", ErrNoRecord, n.domain)
	}
	if v.octets += len(text); v.octets > maxSurveyOctets {
		return "the bounds of a survey are reached", errBounds
	}
	v.s.Records = append(v.s.Records, Published{n.domain, text})
	for _, p := range Lint(text) {
		if p.Kind == TooManyLookups || // the survey counts all of them
			included && p.Kind == WeakAll && p.Term[0] == '?' { // only pass counts
			continue
		}
		p.Domain = n.domain
		v.s.Problems = append(v.s.Problems, p)
	}
	if n.record, err = ParseRecord(text); err != nil {
		return "the record is not valid", fmt.Errorf("%w in the record of %s", err, n.domain)
	}
	return "", nil
}

// resolve finds out what the terms of n stand for.
func (v *surveyor) resolve(n *node) {
	n.busy = true
	r := n.record
	n.terms = make([]resolved, len(r.Mechanisms))
	ends := false
	for i := range r.Mechanisms {
		m := &r.Mechanisms[i]
		if ends = m.Name == "all"; ends {
			break // nothing behind it is looked at
		}
		v.term(n, m, &n.terms[i])
	}
	if r.Redirect != "" && !ends {
		n.lookups++
		v.follow(n, r.Redirect, "redirect="+r.Redirect, &n.next)
	}
	n.lookups, n.void4, n.void6 = min(n.lookups, maxCount), min(n.void4, maxCount), min(n.void6, maxCount)
	n.busy = false
}

func (v *surveyor) problem(n *node, kind Kind, term string, wrong bool, text string) {
	if len(v.s.Problems) < maxSurveyRecords*maxProblems {
		v.s.Problems = append(v.s.Problems, Problem{kind, n.domain, fmt.Sprintf("%.100s", term), wrong, text})
	}
}

// Why a name cannot be looked up beforehand.
const (
	dynamic = "depends on the message"
	noName  = "is no name that can be asked for"
)

// static expands a domain-spec, or says why it cannot.
func static(spec, domain string) (name, why string) {
	if strings.Trim(macroLetters(spec), "d") != "" {
		return "", dynamic
	}
	e := eval{domain: domain}
	name, ok := e.target(spec, domain)
	if !ok {
		return "", noName
	}
	return strings.ToLower(name), ""
}

func (v *surveyor) term(n *node, m *Mechanism, r *resolved) {
	switch m.Name {
	case "ip4", "ip6":
		r.nets = []netip.Prefix{m.Network.Masked()}
		return
	case "include":
		n.lookups++
		v.follow(n, m.Domain, m.text, r)
		return
	case "ptr":
		n.lookups++
		r.why = "depends on the names of the client"
		return
	case "exists":
		n.lookups++
		r.why = dynamic
		return
	}
	n.lookups++
	name, why := static(m.Domain, n.domain)
	switch why {
	case dynamic:
		r.why = why
		return
	case noName: // which matches nothing
		v.problem(n, NoAnswer, m.text, true, noName)
		return
	}
	if m.Name == "a" {
		v.host(n, m, name, r)
		return
	}
	hosts, err := ask(v, func() ([]*net.MX, error) { return v.resolver.LookupMX(v.ctx, name+".") })
	switch {
	case err != nil:
		r.why = "its hosts cannot be looked up now"
		v.problem(n, LookupFailed, m.text, false, fmt.Sprintf("MX of %s: %s", name, publicError(err)))
		return
	case len(hosts) == 0:
		n.void4++
		n.void6++
		v.problem(n, NoAnswer, m.text, false, name+" has no MX")
	case len(hosts) > maxHosts:
		r.why = "has too many hosts"
		fallthrough
	case len(hosts) > maxNames:
		v.problem(n, TooManyLookups, m.text, true, fmt.Sprintf("%s has %d MX; above %d receivers answer permerror (RFC 7208 §4.6.4)", name, len(hosts), maxNames))
	}
	for _, mx := range hosts[:min(len(hosts), maxHosts)] {
		if host := strings.ToLower(strings.TrimSuffix(mx.Host, ".")); validName(host) {
			v.host(n, m, host, r)
		}
	}
}

// publicError is what can be said of a failed lookup.
func publicError(err error) string {
	if errors.Is(err, errBounds) {
		return "the bounds of a survey are reached"
	}
	return "the lookup failed"
}

// host adds the networks of one host.
func (v *surveyor) host(n *node, m *Mechanism, host string, r *resolved) {
	found := false
	for _, f := range []struct {
		network string
		bits    int
		voids   *int
	}{{"ip4", m.Bits4, &n.void4}, {"ip6", m.Bits6, &n.void6}} {
		key := f.network + " " + host
		a, ok := v.hosts[key]
		if !ok {
			a.ips, a.err = ask(v, func() ([]netip.Addr, error) { return v.resolver.LookupNetIP(v.ctx, f.network, host+".") })
			v.hosts[key] = a
		}
		if a.err != nil {
			r.why = "its addresses cannot be looked up now"
			v.problem(n, LookupFailed, m.text, false, fmt.Sprintf("addresses of %s: %s", host, publicError(a.err)))
			return
		}
		if len(a.ips) == 0 {
			*f.voids++
		}
		for _, ip := range a.ips {
			if ip = ip.Unmap(); ip.Is4() != (f.network == "ip4") {
				continue
			}
			found = true
			if p, err := ip.WithZone("").Prefix(f.bits); err == nil {
				r.nets = append(r.nets, p)
			}
		}
	}
	if !found {
		v.problem(n, NoAnswer, m.text, false, host+" has no address")
	}
}

// follow reads what include and redirect point to.
func (v *surveyor) follow(n *node, spec, term string, r *resolved) {
	name, why := static(spec, n.domain)
	if why != "" {
		if r.why = why; why == noName {
			v.problem(n, NoRecord, term, true, noName+"; receivers answer permerror")
		}
		return
	}
	child, err := v.visit(name, !strings.HasPrefix(term, "redirect="))
	switch {
	case child.busy:
		r.why = "leads back to " + name
		v.problem(n, Loop, term, true, r.why+"; receivers answer permerror")
		n.lookups = maxCount
		return
	case errors.Is(err, ErrLookup):
		r.why = child.broken + ": " + name
		v.problem(n, LookupFailed, term, false, r.why)
		return
	case err != nil:
		r.why = child.broken + " at " + name
		v.problem(n, NoRecord, term, true, r.why+"; receivers answer permerror")
		return
	}
	r.child = child
	n.lookups += child.lookups
	n.void4 += child.void4
	n.void6 += child.void6
}
