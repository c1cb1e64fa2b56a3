package dmarcreport

import (
	"encoding/xml"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dmarc"
)

// parser puts elements where they belong. Elements of other namespaces
// (extensions) and unknown ones are passed over, in any order.
type parser struct {
	report *Report
	limits Limits
	path   []string // of the open elements: "feedback", "feedback/record", …
	outer  int      // elements before the root, and the root
	skip   int      // how many of the open ones are within one that is unknown
	text   []byte
	seen   struct{ root, metadata, policy bool }
}

func (p *parser) start(t xml.StartElement) {
	p.text = p.text[:0]
	name := t.Name.Local
	if len(p.path) == 0 {
		if p.outer++; name != "feedback" {
			return // what stands around it does not matter
		}
		p.seen.root = true
		p.report.Namespace = t.Name.Space
	}
	if n := len(p.path); n > 0 {
		name = p.path[n-1] + "/" + name
	}
	p.path = append(p.path, name)
	foreign := t.Name.Space != "" && t.Name.Space != p.report.Namespace
	if p.skip > 0 || foreign {
		p.skip++
		return
	}
	r := p.record()
	switch name {
	case "feedback/report_metadata":
		p.seen.metadata = true
	case "feedback/policy_published":
		p.seen.policy = true
	case "feedback/record":
		p.report.Records = append(p.report.Records, Record{})
	case "feedback/record/row/policy_evaluated/reason":
		r.Reasons = grow(r.Reasons)
	case "feedback/record/auth_results/dkim":
		r.Signatures = grow(r.Signatures)
	case "feedback/record/auth_results/spf":
		r.Hosts = grow(r.Hosts)
	case "feedback/extension", "feedback/extensions", "feedback/record/extensions":
		p.skip++
	}
}

func grow[T any](list []T) []T {
	var zero T
	if len(list) < maxList {
		return append(list, zero)
	}
	return list
}

// record returns the last record.
func (p *parser) record() *Record {
	if n := len(p.report.Records); n > 0 {
		return &p.report.Records[n-1]
	}
	return &Record{}
}

func last[T any](list []T) *T {
	if len(list) > 0 {
		return &list[len(list)-1]
	}
	return new(T)
}

func (p *parser) end() {
	if len(p.path) == 0 {
		return
	}
	if p.skip == 0 {
		p.value(strings.TrimSpace(string(p.text)))
	}
	if p.skip > 0 {
		p.skip--
	}
	p.text = p.text[:0]
	p.path = p.path[:len(p.path)-1]
}

// value takes the text of the element that ends.
func (p *parser) value(s string) {
	if len(p.path) < 2 {
		return
	}
	within := p.path[len(p.path)-2]
	name := p.path[len(p.path)-1][len(within)+1:]
	switch strings.TrimPrefix(within, "feedback/") {
	case "feedback":
		if name == "version" {
			p.report.Version = s
		}
	case "report_metadata":
		p.metadata(name, s)
	case "report_metadata/date_range":
		switch name {
		case "begin":
			p.report.Begin = p.date(s)
		case "end":
			p.report.End = p.date(s)
		}
	case "policy_published":
		p.policy(name, s)
	case "record/row":
		p.row(name, s)
	case "record/row/policy_evaluated":
		r := p.record()
		switch name {
		case "disposition":
			r.Disposition = p.word("disposition", s, "none", "pass", "quarantine", "reject")
		case "dkim":
			r.DKIM = p.aligned(s)
		case "spf":
			r.SPF = p.aligned(s)
		}
	case "record/row/policy_evaluated/reason":
		switch reason := last(p.record().Reasons); name {
		case "type":
			reason.Type = ReasonType(s)
		case "comment":
			reason.Comment = s
		}
	case "record/identifiers":
		switch r := p.record(); name {
		case "header_from":
			r.HeaderFrom = domain(s)
		case "envelope_from":
			r.EnvelopeFrom = domain(s)
		case "envelope_to":
			r.EnvelopeTo = domain(s)
		}
	case "record/auth_results/dkim":
		switch g := last(p.record().Signatures); name {
		case "domain":
			g.Domain = domain(s)
		case "selector":
			g.Selector = s
		case "result":
			g.Result = p.result(s)
		case "human_result":
			g.Comment = s
		}
	case "record/auth_results/spf":
		switch h := last(p.record().Hosts); name {
		case "domain":
			h.Domain = domain(s)
		case "scope":
			h.Scope = strings.ToLower(s)
		case "result":
			h.Result = p.result(s)
		case "human_result":
			h.Comment = s
		}
	}
}

func (p *parser) metadata(name, s string) {
	switch r := p.report; name {
	case "org_name":
		r.Organization = s
	case "email":
		r.Email = s
	case "extra_contact_info":
		r.Contact = s
	case "report_id":
		r.ID = strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">")
	case "error":
		if s != "" && len(r.Errors) < maxList {
			r.Errors = append(r.Errors, s)
		}
	case "generator":
		r.Generator = s
	}
}

func (p *parser) policy(name, s string) {
	switch pub := &p.report.Policy; name {
	case "domain":
		pub.Domain = domain(s)
	case "discovery_method":
		pub.Method = p.word(name, s, dmarc.TreeWalk, dmarc.PublicSuffixList)
	case "p":
		pub.Policy = dmarc.Policy(p.word(name, s, "none", "quarantine", "reject"))
	case "sp":
		pub.Subdomain = dmarc.Policy(p.word(name, s, "none", "quarantine", "reject"))
	case "np":
		pub.NonExistent = dmarc.Policy(p.word(name, s, "none", "quarantine", "reject"))
	case "adkim":
		pub.DKIM = dmarc.Alignment(p.word(name, s, "r", "s"))
	case "aspf":
		pub.SPF = dmarc.Alignment(p.word(name, s, "r", "s"))
	case "fo":
		pub.FailureOptions = s
	case "testing":
		pub.Testing = p.word(name, s, "y", "n") == "y"
	case "pct":
		pub.Percent = s
	}
}

func (p *parser) row(name, s string) {
	switch r := p.record(); name {
	case "source_ip":
		addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
		if err != nil {
			p.report.defect("source_ip %.100q is no address", s)
			r.SourceText = s
			return
		}
		r.Source = addr.Unmap()
	case "count":
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 || n > maxCount {
			p.report.defect("count %.100q is no count", s)
			n = 0
		}
		r.Count = n
	}
}

// maxCount keeps sums of counts from overflowing.
const maxCount = 1 << 32

// date reads seconds since 1970; some write milliseconds or a fraction.
func (p *parser) date(s string) time.Time {
	whole, _, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n < 0 || n > 1<<50 {
		p.report.defect("date %.100q is no number of seconds", s)
		return time.Time{}
	}
	if n > 1<<36 {
		p.report.defect("date %.100q is in milliseconds", s)
		n /= 1000
	}
	return time.Unix(n, 0).UTC()
}

// word reads one of a few words.
func (p *parser) word(name, s string, known ...string) string {
	low := strings.ToLower(s)
	for _, w := range known {
		if low == w {
			if s != w {
				p.report.defect("%s %q is not in lower case", name, s)
			}
			return w
		}
	}
	if s != "" {
		p.report.defect("%s %.100q is not known", name, s)
	}
	return ""
}

// aligned reads pass or fail; what is neither did not pass.
func (p *parser) aligned(s string) auth.Result {
	if p.word("policy_evaluated", s, "pass", "fail") == "pass" {
		return auth.Pass
	}
	return auth.Fail
}

func (p *parser) result(s string) auth.Result {
	switch low := strings.ToLower(s); low {
	case "hardfail": // RFC 7489 had none of these, but some reporters do
		return auth.Fail
	case "error", "unknown":
		return auth.PermError
	default:
		return auth.Result(p.word("result", s, "none", "neutral", "pass", "fail", "softfail", "policy", "temperror", "permerror"))
	}
}

func domain(s string) string { return strings.ToLower(strings.TrimSuffix(s, ".")) }

func (r *Report) defect(format string, args ...any) {
	if len(r.Defects) < maxList {
		r.Defects = append(r.Defects, fmt.Sprintf(format, args...))
	}
}

// done says what is missing.
func (p *parser) done() (*Report, error) {
	r := p.report
	if !p.seen.root || !p.seen.metadata && !p.seen.policy && len(r.Records) == 0 {
		return nil, fmt.Errorf("%w: no feedback element with content", ErrFormat)
	}
	for _, missing := range []struct {
		name   string
		absent bool
	}{
		{"report_id", r.ID == ""}, {"org_name", r.Organization == ""}, {"email", r.Email == ""}, {"date_range", r.Begin.IsZero() || r.End.IsZero()},
		{"policy_published/domain", r.Policy.Domain == ""}, {"policy_published/p", r.Policy.Policy == ""}, {"record", len(r.Records) == 0},
	} {
		if missing.absent {
			r.defect("%s is missing", missing.name)
		}
	}
	for i := range r.Records {
		rec := &r.Records[i]
		rec.Reasons = slices.DeleteFunc(rec.Reasons, func(reason Reason) bool { return reason == Reason{} })
	}
	return r, nil
}
