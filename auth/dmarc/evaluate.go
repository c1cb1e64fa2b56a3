package dmarc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/smtp"
)

// What makes the result of an evaluation PermError.
var (
	ErrNoAuthor    = errors.New("dmarc: no author domain in From")
	ErrManyAuthors = errors.New("dmarc: too many author domains in From")
)

// MaxAuthors is how many author domains of one message are evaluated; more
// than one is rare, and mostly abuse (RFC 9989 §11.5).
const MaxAuthors = 4

// Evaluator evaluates messages. It may be used from several goroutines at
// once.
type Evaluator struct {
	Resolver Resolver // nil = net.DefaultResolver
	// Organizational gives the organizational domain of a domain, without the
	// DNS; nil = the tree walk of RFC 9989. With psl.Organizational it is found
	// as RFC 7489 §3.2 has it, which shows what receivers do that have not
	// moved on. The tags are those of RFC 9989 either way.
	Organizational func(domain string) string
}

// The methods of discovery, in the words of aggregate reports
// (RFC 9990 §3.1.1.5).
const (
	TreeWalk         = "treewalk"
	PublicSuffixList = "psl"
)

// Identifier is a domain and what SPF or DKIM said of it.
type Identifier struct {
	Result auth.Result // only Pass counts; TempError leaves the outcome open
	Domain string
}

// Identifiers are the authenticated identifiers of a message (RFC 9989 §3.2.4).
type Identifiers struct {
	SPF  Identifier   // of the MAIL FROM identity; zero = not checked
	DKIM []Identifier // d= of each signature
}

// Evaluation is the outcome for one message.
type Evaluation struct {
	// Result is Pass, Fail, None (no policy applies), TempError (the DNS
	// failed where it mattered) or PermError (no author domain to evaluate).
	Result auth.Result
	// Domain is the author domain, lower case A-labels.
	Domain string
	// PolicyDomain is where Record was found: Domain, its organizational
	// domain, or the public suffix domain above that.
	PolicyDomain string
	Record       *Record // nil when none applies
	// NonExistent says that the author domain does not exist; it is looked
	// into only where np could matter.
	NonExistent bool
	// Policy is the one of p, sp and np that applies to Domain; Tag is which,
	// "" when it is none of them but the NoPolicy of a broken record.
	Policy Policy
	Tag    string
	// Method is how the policy was looked for: TreeWalk or PublicSuffixList.
	Method string
	// Disposition is what the domain owner asks to be done with this message:
	// NoPolicy unless Result is Fail, else Policy, one step weaker when
	// the record says t=y. It is a request: RFC 9989 §5.4 leaves the decision
	// to the receiver and wants no rejection on this ground alone.
	Disposition Policy
	// SPFAligned and DKIMAligned say what made the message pass.
	SPFAligned, DKIMAligned bool
	// Err says why the result is TempError or PermError.
	Err error
	// Queries are the names asked for, in order.
	Queries []string
}

// Evaluate evaluates a message whose From has one domain, author.
func (e *Evaluator) Evaluate(ctx context.Context, author string, ids Identifiers) *Evaluation {
	d := e.Discover(ctx, author)
	return d.Evaluate(ctx, ids)
}

// Discovery is the policy found for an author domain, before anything is known
// of the message but its From. It is not for concurrent use.
type Discovery struct {
	ev   Evaluation
	tree tree
	done bool // Result is final whatever the identifiers say
}

// Discover finds the policy for an author domain (RFC 9989 §4.10.1), which
// need not wait for SPF and DKIM.
func (e *Evaluator) Discover(ctx context.Context, author string) *Discovery {
	d := &Discovery{tree: e.tree(ctx), ev: Evaluation{Method: TreeWalk}}
	if e.Organizational != nil {
		d.ev.Method = PublicSuffixList
	}
	var err error
	if d.ev.Domain, err = smtp.ParseDomain(author); err != nil || d.ev.Domain[0] == '[' {
		d.ev.Domain = author
		return d.end(auth.PermError, fmt.Errorf("%w: %q", ErrNoAuthor, author))
	}
	if err := d.discover(); err != nil {
		return d.end(auth.TempError, err)
	}
	return d
}

func (e *Evaluator) tree(ctx context.Context) tree {
	t := tree{ctx: ctx, resolver: e.Resolver, listed: e.Organizational}
	if t.resolver == nil {
		t.resolver = net.DefaultResolver
	}
	return t
}

// OrganizationalDomain returns the organizational domain of a domain
// (RFC 9989 §4.10.2). The error wraps ErrLookup, or is that of
// smtp.ParseDomain.
func (e *Evaluator) OrganizationalDomain(ctx context.Context, domain string) (string, error) {
	domain, err := smtp.ParseDomain(domain)
	if err != nil {
		return "", err
	}
	t := e.tree(ctx)
	return t.organizational(domain)
}

func (d *Discovery) end(r auth.Result, err error) *Discovery {
	d.done = true
	d.ev.Result, d.ev.Err, d.ev.Policy, d.ev.Disposition = r, err, "", NoPolicy
	return d
}

func (d *Discovery) discover() error {
	author := d.ev.Domain
	f := d.tree.at(author)
	if f.err != nil {
		return f.err
	}
	if f.record == nil {
		var err error
		if f, err = d.tree.above(author); err != nil {
			return err
		}
		if f.record == nil {
			d.end(auth.None, nil)
			return nil
		}
	}
	d.ev.PolicyDomain, d.ev.Record = f.domain, f.record
	sub := f.domain != author
	if sub && f.record.NonExistent != "" && !f.record.Broken {
		var err error
		if d.ev.NonExistent, err = d.tree.nonExistent(author); err != nil {
			return err
		}
	}
	policy, tag, applies := f.record.policyFor(sub, d.ev.NonExistent)
	if !applies {
		d.end(auth.None, nil)
		d.ev.Record, d.ev.PolicyDomain = nil, ""
		return nil
	}
	d.ev.Policy, d.ev.Tag = policy, tag
	return nil
}

// Evaluate holds the identifiers of the message against the policy
// (RFC 9989 §5.3). It may have to ask the DNS for their organizational
// domains.
func (d *Discovery) Evaluate(ctx context.Context, ids Identifiers) *Evaluation {
	d.tree.ctx = ctx
	ev := d.ev
	if !d.done {
		d.align(&ev, ids)
	}
	ev.Queries = d.tree.queries
	return &ev
}

func (d *Discovery) align(ev *Evaluation, ids Identifiers) {
	// open is why the message cannot be said to fail.
	var open error
	check := func(id Identifier, mode Alignment) bool {
		if id.Result != auth.Pass && id.Result != auth.TempError {
			return false
		}
		aligned, err := d.aligned(id.Domain, mode)
		switch {
		case err != nil:
			open = err
		case aligned && id.Result == auth.TempError:
			open = fmt.Errorf("%w: %s could not be authenticated", ErrLookup, id.Domain)
		}
		return aligned && err == nil && id.Result == auth.Pass
	}
	ev.SPFAligned = check(ids.SPF, ev.Record.SPF)
	for _, id := range ids.DKIM {
		ev.DKIMAligned = ev.DKIMAligned || check(id, ev.Record.DKIM)
	}
	ev.Disposition = NoPolicy
	switch {
	case ev.SPFAligned || ev.DKIMAligned:
		ev.Result = auth.Pass
	case open != nil:
		ev.Result, ev.Err = auth.TempError, open
	default:
		ev.Result, ev.Disposition = auth.Fail, ev.Policy
		if ev.Record.Testing {
			switch ev.Policy {
			case Reject:
				ev.Disposition = Quarantine
			case Quarantine:
				ev.Disposition = NoPolicy
			}
		}
	}
}

// aligned is RFC 9989 §4.4: domain against the author domain.
func (d *Discovery) aligned(domain string, mode Alignment) (bool, error) {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	author := d.ev.Domain
	if domain == author {
		return true, nil
	}
	if mode == Strict || domain == "" || top(domain) != top(author) {
		return false, nil
	}
	mine, err := d.tree.organizational(author)
	if err != nil {
		return false, err
	}
	theirs, err := d.tree.organizational(domain)
	return mine == theirs && err == nil, err
}

// top returns the last label: domains that differ there have nothing in
// common, which saves a walk.
func top(domain string) string {
	return domain[strings.LastIndexByte(domain, '.')+1:]
}

// EvaluateAll evaluates a message with any number of author domains, as
// RFC 9989 §11.5 recommends: each one, and the strictest outcome of a
// failing one counts. Without any the result is PermError; with more than
// MaxAuthors different ones it is PermError with the Disposition Reject,
// because skipping some would be a way around every policy.
func (e *Evaluator) EvaluateAll(ctx context.Context, authors []string, ids Identifiers) *Evaluation {
	return e.DiscoverAll(ctx, authors).Evaluate(ctx, ids)
}

// Discoveries are the policies for all author domains of a message.
type Discoveries struct {
	all []*Discovery
	err error
}

// DiscoverAll is Discover for any number of author domains; repeated ones
// count once.
func (e *Evaluator) DiscoverAll(ctx context.Context, authors []string) *Discoveries {
	var distinct []string
	for _, a := range authors {
		a = strings.ToLower(strings.TrimSuffix(a, "."))
		if slices.Contains(distinct, a) {
			continue
		}
		if len(distinct) == MaxAuthors {
			return &Discoveries{err: ErrManyAuthors}
		}
		distinct = append(distinct, a)
	}
	if len(distinct) == 0 {
		return &Discoveries{err: ErrNoAuthor}
	}
	ds := new(Discoveries)
	for _, a := range distinct {
		ds.all = append(ds.all, e.Discover(ctx, a))
	}
	return ds
}

// Evaluate is Discovery.Evaluate for all of them.
func (ds *Discoveries) Evaluate(ctx context.Context, ids Identifiers) *Evaluation {
	if ds.err != nil {
		ev := &Evaluation{Result: auth.PermError, Err: ds.err, Disposition: NoPolicy}
		if errors.Is(ds.err, ErrManyAuthors) {
			ev.Disposition = Reject
		}
		return ev
	}
	var worst *Evaluation
	var queries []string
	for _, d := range ds.all {
		ev := d.Evaluate(ctx, ids)
		queries = append(queries, ev.Queries...)
		if worst == nil || ev.severity() > worst.severity() {
			worst = ev
		}
	}
	worst.Queries = queries
	return worst
}

// severity orders the outcomes of several author domains.
func (ev *Evaluation) severity() int {
	switch ev.Result {
	case auth.Fail:
		if ev.Disposition == NoPolicy {
			return 3
		}
		return 4 + ev.Disposition.strictness() // 6, 7
	case auth.TempError:
		return 4
	case auth.PermError:
		return 2
	case auth.None:
		return 1
	}
	return 0
}

// MethodResult returns ev for an Authentication-Results field
// (RFC 9989 §9.1).
func (ev *Evaluation) MethodResult() auth.MethodResult {
	m := auth.MethodResult{Method: "dmarc", Result: ev.Result}
	if ev.Record != nil {
		m.Comment = "p=" + string(ev.Policy)
	}
	switch {
	case errors.Is(ev.Err, ErrNoAuthor):
		m.Reason = "no author domain"
	case errors.Is(ev.Err, ErrManyAuthors):
		m.Reason = "too many author domains"
	case ev.Err != nil:
		m.Reason = "DNS lookup failed"
	}
	if ev.Domain != "" {
		m.Props = []auth.Property{{Type: "header", Name: "from", Value: ev.Domain}}
	}
	if ev.Result == auth.Fail {
		m.Props = append(m.Props, auth.Property{Type: "policy", Name: "dmarc", Value: string(ev.Disposition)})
	}
	return m
}

// String says in a line of text what came out and why, for logs and people.
func (ev *Evaluation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s for %s", ev.Result, ev.Domain)
	switch {
	case ev.Err != nil:
		fmt.Fprintf(&b, ": %v", ev.Err)
	case ev.Record == nil:
		b.WriteString(": no policy is published")
	case ev.SPFAligned && ev.DKIMAligned:
		b.WriteString(": SPF and DKIM are aligned")
	case ev.SPFAligned:
		b.WriteString(": SPF is aligned")
	case ev.DKIMAligned:
		b.WriteString(": DKIM is aligned")
	default:
		b.WriteString(": neither SPF nor DKIM passed for an aligned domain")
	}
	if ev.Record == nil {
		return b.String()
	}
	if ev.Tag == "" {
		fmt.Fprintf(&b, "; the record of %s is broken and counts as p=none", ev.PolicyDomain)
	} else {
		fmt.Fprintf(&b, "; %s=%s of %s", ev.Tag, ev.Policy, ev.PolicyDomain)
	}
	if ev.NonExistent {
		b.WriteString(", the domain does not exist")
	}
	if ev.Result == auth.Fail && ev.Disposition != ev.Policy {
		fmt.Fprintf(&b, ", which t=y weakens to %s", ev.Disposition)
	}
	return b.String()
}
