package spf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/smtp"
)

// Resolver looks up what SPF needs; *net.Resolver is one. See package auth for
// how its errors are read.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	// LookupNetIP is asked for network "ip4" or "ip6".
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
}

// The limits of RFC 7208 §4.6.4.
const (
	maxLookups = 10 // terms that need the DNS
	maxVoid    = 2  // lookups without an answer
	maxNames   = 10 // hosts of one mx, names of one ptr
)

// Checker checks clients. It may be used from several goroutines at once.
type Checker struct {
	Resolver Resolver // nil = net.DefaultResolver
	// Receiver is the name of the host that checks, for Received-SPF and the
	// macro r of explanations; "" = "unknown".
	Receiver string
	// Timeout is how long one check may take, all its lookups together; 0 =
	// 20 s, the least that RFC 7208 §4.6.4 suggests, negative = no limit but
	// that of the context. What is not known by then is TempError.
	Timeout time.Duration
}

// Source is the client and what it said.
type Source struct {
	IP    netip.Addr   // of the SMTP client; IPv4 mapped to IPv6 counts as IPv4
	Hello string       // the argument of EHLO or HELO
	From  smtp.Address // of MAIL; zero for the null reverse-path
}

// The identities of RFC 7208 §2.3 and §2.4.
const (
	MailFrom = "mailfrom"
	Hello    = "helo"
)

// Evaluation is the outcome of one check.
type Evaluation struct {
	// Result is None, Neutral, Pass, Fail, SoftFail, TempError or PermError.
	Result auth.Result
	// Identity is what was checked, MailFrom or Hello; Domain is its domain
	// and Sender the whole of it (postmaster@ the domain of HELO when there
	// is no other).
	Identity, Domain, Sender string
	// Mechanism is the term that matched, "" when none did; it stands in the
	// record of RecordDomain, which differs from Domain behind redirect.
	Mechanism, RecordDomain string
	// Explanation is what the domain says about a Fail (RFC 7208 §6.2), ""
	// when it says nothing. It is the text of a stranger: quote it as such.
	Explanation string
	// Err says why the result is TempError or PermError.
	Err error
	// Lookups are the DNS queries in the order they were made.
	Lookups []Lookup
	// Source is what was checked, and Receiver who did it.
	Source   Source
	Receiver string
}

// Lookup is one DNS query of a check.
type Lookup struct {
	Type    string // TXT, A, AAAA, MX or PTR
	Name    string // an address for PTR
	Answers int
	Err     error // nil also when there simply are no such records
	// Term is what made it necessary, as written in the record of Domain; ""
	// for the record of the identity itself.
	Term, Domain string
	// Record is the text of the SPF record that a TXT lookup found, "" when
	// it found none or several.
	Record string
}

// Check checks the MAIL FROM identity (RFC 7208 §2.4); when the reverse-path
// is null that is the same as the HELO identity. ctx and Timeout bound it.
func (c *Checker) Check(ctx context.Context, s Source) *Evaluation {
	if s.From.Domain == "" {
		return c.check(ctx, s, Hello, "postmaster", s.Hello)
	}
	return c.check(ctx, s, MailFrom, s.From.Local, s.From.Domain)
}

// CheckHello checks the HELO identity (RFC 7208 §2.3).
func (c *Checker) CheckHello(ctx context.Context, s Source) *Evaluation {
	return c.check(ctx, s, Hello, "postmaster", s.Hello)
}

func (c *Checker) check(ctx context.Context, s Source, identity, local, domain string) *Evaluation {
	if local == "" {
		local = "postmaster"
	}
	e := eval{resolver: c.Resolver, receiver: c.Receiver, budget: newBudget(ctx, c.Timeout),
		ip: s.IP.Unmap().WithZone(""), local: local, domain: ascii(domain), hello: s.Hello}
	if e.resolver == nil {
		e.resolver = net.DefaultResolver
	}
	defer e.budget.end()
	ev := &Evaluation{Identity: identity, Domain: e.domain, Sender: local + "@" + e.domain, Source: s, Receiver: c.Receiver}
	e.lookups = make([]Lookup, 0, 1)
	switch {
	case !s.IP.IsValid() || !validDomain(e.domain):
		// RFC 7208 §4.3.
		ev.Result = auth.None
	default:
		m := e.checkHost(e.domain)
		ev.Result, ev.Err, ev.Mechanism, ev.RecordDomain = m.result, m.err, m.mechanism, m.domain
		if m.result == auth.Fail && m.exp != "" {
			ev.Explanation = e.explain(m.exp, m.domain)
		}
	}
	ev.Lookups = e.lookups
	return ev
}

// ascii returns the A-label form of a domain that is given in another.
func ascii(domain string) string {
	for i := 0; i < len(domain); i++ {
		if domain[i] >= 0x80 {
			if a, err := smtp.ParseDomain(domain); err == nil {
				return a
			}
			break
		}
	}
	return strings.TrimSuffix(domain, ".")
}

// validDomain reports whether a domain can have a record at all: at least two
// labels, none of them empty or too long, and no literal (RFC 7208 §4.3).
func validDomain(s string) bool {
	return len(s) > 0 && s[0] != '[' && strings.IndexByte(s, '.') > 0 && validName(s)
}

func validName(s string) bool {
	if len(s) > 253 {
		return false
	}
	label := 0
	for i := 0; i < len(s); i++ {
		if s[i] != '.' {
			if label++; label > 63 {
				return false
			}
			continue
		}
		if label == 0 {
			return false
		}
		label = 0
	}
	return label > 0
}

// eval is one check under way.
type eval struct {
	budget                         *budget
	resolver                       Resolver
	receiver, local, domain, hello string
	ip                             netip.Addr
	terms, voids                   int
	lookups                        []Lookup
	cause                          cause  // of the next lookup
	names                          []name // of ptr, looked up once
	named                          bool
}

// cause is the term that is evaluated, and the domain whose record has it.
type cause struct{ term, domain string }

// name is one of the client's names.
type name struct {
	name             string
	asked, validated bool
}

// match is what one record says.
type match struct {
	result                 auth.Result
	err                    error
	mechanism, domain, exp string
}

func permanent(err error) match { return match{result: auth.PermError, err: err} }

// failed turns an error into the result it stands for.
func failed(err error) match {
	if errors.Is(err, ErrLookup) {
		return match{result: auth.TempError, err: err}
	}
	return permanent(err)
}

// checkHost is check_host of RFC 7208 §4. The limit of terms bounds how often
// it calls itself.
func (e *eval) checkHost(domain string) match {
	record, found, err := e.record(domain)
	if err != nil {
		return failed(err)
	}
	if !found {
		return match{result: auth.None}
	}
	// All of it is checked first (RFC 7208 §4.6). The terms are not kept: a
	// stranger's record may have tens of thousands.
	var r Record
	asks := 0
	for term, rest := nextTerm(record[len(version):]); term != ""; term, rest = nextTerm(rest) {
		if name, value, ok := cutModifier(term); ok {
			err = r.modifier(name, value)
			r.Modifiers = r.Modifiers[:0]
		} else if m, ok := parseMechanism(term); !ok {
			err = syntax(term)
		} else if m.asks() {
			asks++
		}
		if err != nil {
			return permanent(fmt.Errorf("%w in the record of %s", err, domain))
		}
	}
	e.lookups = slices.Grow(e.lookups, min(asks, maxLookups))
	for term, rest := nextTerm(record[len(version):]); term != ""; term, rest = nextTerm(rest) {
		if _, _, ok := cutModifier(term); ok {
			continue
		}
		m, _ := parseMechanism(term)
		e.cause = cause{term, domain}
		matched, err := e.matches(&m, domain)
		if err == nil && e.named {
			// Neither ptr nor the macro p says that a lookup failed.
			err = e.late()
		}
		if err != nil {
			return failed(err)
		}
		if matched {
			return match{result: m.Result, mechanism: m.String(), domain: domain, exp: r.Exp}
		}
	}
	if r.Redirect == "" {
		return match{result: auth.Neutral, domain: domain}
	}
	if err := e.term(); err != nil {
		return permanent(err)
	}
	e.cause = cause{"redirect=" + r.Redirect, domain}
	target, ok := e.target(r.Redirect, domain)
	if !ok {
		return permanent(fmt.Errorf("%w: redirect=%s", ErrNoRecord, r.Redirect))
	}
	m := e.checkHost(target)
	if m.result == auth.None {
		return permanent(fmt.Errorf("%w: redirect=%s", ErrNoRecord, target))
	}
	return m
}

// record fetches the one SPF record of a domain (RFC 7208 §4.4, §4.5).
func (e *eval) record(domain string) (record string, found bool, err error) {
	txts, err := e.txt(domain)
	if err != nil {
		return "", false, err
	}
	record, found, err = onlyRecord(txts, domain)
	e.lookups[len(e.lookups)-1].Record = record
	return record, found, err
}

// onlyRecord picks the SPF record of a domain out of its TXT records.
func onlyRecord(txts []string, domain string) (record string, found bool, err error) {
	for _, txt := range txts {
		if !isRecord(txt) {
			continue
		}
		if found {
			return "", false, fmt.Errorf("%w: %s", ErrMultiple, domain)
		}
		record, found = txt, true
	}
	return record, found, nil
}

// term counts a term that needs the DNS.
func (e *eval) term() error {
	if e.terms++; e.terms > maxLookups {
		return ErrLimit
	}
	return nil
}

// target expands a domain-spec. It reports whether the result is a name that
// can be asked for; one that cannot is as good as one that does not exist.
func (e *eval) target(spec, domain string) (string, bool) {
	if spec == "" {
		return domain, true
	}
	name, ok := e.expand(spec, domain, false)
	if !ok {
		return "", false
	}
	name = strings.TrimSuffix(name, ".")
	for len(name) > 253 {
		// RFC 7208 §7.3: labels go from the left.
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			return "", false
		}
		name = rest
	}
	return name, validName(name)
}

// matches evaluates one mechanism (RFC 7208 §5).
func (e *eval) matches(m *Mechanism, domain string) (bool, error) {
	switch m.Name {
	case "all":
		return true, nil
	case "ip4", "ip6":
		return m.Network.Contains(e.ip), nil
	}
	if err := e.term(); err != nil {
		return false, err
	}
	target, ok := e.target(m.Domain, domain)
	if !ok {
		if m.Name == "include" {
			return false, fmt.Errorf("%w: %s", ErrNoRecord, m.Domain)
		}
		return false, nil
	}
	switch m.Name {
	case "include":
		return e.include(target)
	case "a":
		return e.matchHost(target, m)
	case "mx":
		return e.matchMX(target, m)
	case "exists":
		ips, err := e.ips("ip4", target)
		return len(ips) > 0, err
	case "ptr":
		return e.matchPTR(target)
	}
	return false, nil
}

// include is RFC 7208 §5.2.
func (e *eval) include(target string) (bool, error) {
	switch m := e.checkHost(target); m.result {
	case auth.Pass:
		return true, nil
	case auth.None:
		return false, fmt.Errorf("%w: include:%s", ErrNoRecord, target)
	case auth.TempError, auth.PermError:
		return false, m.err
	}
	return false, nil
}

func (e *eval) matchHost(host string, m *Mechanism) (bool, error) {
	ips, err := e.ips(e.network(), host)
	if err != nil {
		return false, err
	}
	n := m.Bits4
	if !e.ip.Is4() {
		n = m.Bits6
	}
	for _, ip := range ips {
		if p, err := ip.Prefix(n); err == nil && p.Contains(e.ip) {
			return true, nil
		}
	}
	return false, nil
}

func (e *eval) matchMX(target string, m *Mechanism) (bool, error) {
	hosts, err := e.mx(target)
	if err != nil {
		return false, err
	}
	for i, mx := range hosts {
		if i == maxNames {
			return false, fmt.Errorf("%w: more than %d hosts of mx:%s", ErrLimit, maxNames, target)
		}
		host := strings.TrimSuffix(mx.Host, ".")
		if !validName(host) {
			continue // null MX, or nothing that has an address
		}
		if ok, err := e.matchHost(host, m); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// matchPTR is RFC 7208 §5.5. Only names that could match are validated.
func (e *eval) matchPTR(target string) (bool, error) {
	names := e.ptr()
	for i := range names {
		if isWithin(names[i].name, target) && e.validated(&names[i]) {
			return true, nil
		}
	}
	return false, nil
}

// validatedName is the value of the macro p (RFC 7208 §7.3): the best of the
// names that the client's address has both ways.
func (e *eval) validatedName(domain string) string {
	names := e.ptr()
	for _, fits := range []func(string) bool{
		func(n string) bool { return strings.EqualFold(n, domain) },
		func(n string) bool { return isWithin(n, domain) && !strings.EqualFold(n, domain) },
		func(n string) bool { return !isWithin(n, domain) },
	} {
		for i := range names {
			if n := &names[i]; fits(n.name) && e.validated(n) {
				return n.name
			}
		}
	}
	return "unknown"
}

// validated reports whether a name of the address has the address. It asks
// once, however many macros want to know.
func (e *eval) validated(n *name) bool {
	if n.asked {
		return n.validated
	}
	ips, _ := e.addresses(e.network(), n.name)
	n.asked, n.validated = true, slices.Contains(ips, e.ip)
	return n.validated
}

// isWithin reports whether name is domain or below it.
func isWithin(name, domain string) bool {
	n := len(name) - len(domain)
	return n >= 0 && strings.EqualFold(name[n:], domain) && (n == 0 || name[n-1] == '.')
}

// explain fetches and expands the explanation (RFC 7208 §6.2); whatever goes
// wrong means that there is none.
func (e *eval) explain(spec, domain string) string {
	e.cause = cause{"exp=" + spec, domain}
	target, ok := e.target(spec, domain)
	if !ok {
		return ""
	}
	txts, err := e.txt(target)
	if err != nil || len(txts) != 1 {
		return ""
	}
	text := txts[0]
	for i := 0; i < len(text); i++ {
		if text[i] < 0x20 || text[i] > 0x7e {
			return ""
		}
	}
	// The spaces between words are no part of a macro-string.
	for word := range strings.SplitSeq(text, " ") {
		if !validMacro(word, true) {
			return ""
		}
	}
	text, _ = e.expand(text, domain, true)
	// A local part of RFC 6531 may have brought in more than ASCII, and no
	// control character may reach a reply.
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return '?'
		}
		return r
	}, text)
}

// MethodResult returns e for an Authentication-Results field
// (RFC 8601 §2.7.2).
func (e *Evaluation) MethodResult() auth.MethodResult {
	m := auth.MethodResult{Method: "spf", Result: e.Result, Reason: e.reason()}
	value := e.Domain
	if e.Identity == MailFrom {
		value = e.Sender
	}
	if value != "" {
		m.Props = []auth.Property{{Type: "smtp", Name: e.Identity, Value: value}}
	}
	return m
}
