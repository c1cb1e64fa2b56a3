package dmarc

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNotRecord is what ParseRecord returns for a text that is not a DMARC
// record: it does not begin with v=DMARC1.
var ErrNotRecord = errors.New("dmarc: not a DMARC record")

// Policy is what a domain owner asks to be done with messages that fail
// (RFC 9989 §4.7, p).
type Policy string

// The policies, from weak to strict. The zero value is no policy at all.
const (
	NoPolicy   Policy = "none" // no preference: only reports are wanted
	Quarantine Policy = "quarantine"
	Reject     Policy = "reject"
)

// strictness orders policies.
func (p Policy) strictness() int {
	switch p {
	case NoPolicy:
		return 1
	case Quarantine:
		return 2
	case Reject:
		return 3
	}
	return 0
}

// Alignment is how alike two domains have to be (RFC 9989 §4.4).
type Alignment string

// The alignment modes.
const (
	Relaxed Alignment = "r" // the same organizational domain
	Strict  Alignment = "s" // the same domain
)

// PSD is whether a domain is a public suffix domain (RFC 9989 §4.7, psd).
type PSD string

// The values of psd.
const (
	PSDYes     PSD = "y" // others register below it
	PSDNo      PSD = "n" // it is an organizational domain
	PSDUnknown PSD = "u"
)

// Record is a DMARC policy record (RFC 9989 §4.7). A tag with a value that the
// RFC does not know counts as absent, but p, sp and np also set Broken.
type Record struct {
	Policy           Policy // p, "" = absent
	Subdomain        Policy // sp, "" = absent
	NonExistent      Policy // np, "" = absent
	DKIM, SPF        Alignment
	PSD              PSD
	Testing          bool     // t=y
	FailureOptions   []string // fo: 0, 1, d, s, sorted
	AggregateReports []string // rua: URIs, without the size limits of RFC 7489
	FailureReports   []string // ruf
	// Broken says that p is absent or that p, sp or np has an unknown value.
	// With a URI in AggregateReports the policy then is NoPolicy, without
	// one there is none (RFC 9989 §4.10.1).
	Broken bool
}

// ParseRecord parses the text of a record. Only v is required; syntax errors
// elsewhere make a tag count as absent (RFC 9989 §4.8).
func ParseRecord(text string) (*Record, error) {
	first, rest, _ := strings.Cut(text, ";")
	name, value, ok := strings.Cut(first, "=")
	if !ok || trim(name) != "v" || trim(value) != "DMARC1" {
		return nil, ErrNotRecord
	}
	r := &Record{DKIM: Relaxed, SPF: Relaxed, PSD: PSDUnknown, FailureOptions: []string{"0"}}
	seen := make(map[string]bool, 8)
	for spec := range strings.SplitSeq(rest, ";") {
		name, value, ok := strings.Cut(spec, "=")
		name, value = strings.ToLower(trim(name)), trim(value)
		// The first of a repeated tag counts.
		if !ok || value == "" || seen[name] {
			continue
		}
		seen[name] = true
		r.set(name, value)
	}
	r.Broken = r.Broken || r.Policy == ""
	return r, nil
}

func (r *Record) set(name, value string) {
	low := strings.ToLower(value)
	switch name {
	case "p":
		r.policy(&r.Policy, low)
	case "sp":
		r.policy(&r.Subdomain, low)
	case "np":
		r.policy(&r.NonExistent, low)
	case "adkim":
		if a := Alignment(low); a == Relaxed || a == Strict {
			r.DKIM = a
		}
	case "aspf":
		if a := Alignment(low); a == Relaxed || a == Strict {
			r.SPF = a
		}
	case "psd":
		if p := PSD(low); p == PSDYes || p == PSDNo {
			r.PSD = p
		}
	case "t":
		r.Testing = low == "y"
	case "fo":
		r.failureOptions(low)
	case "rua":
		r.AggregateReports = uris(value)
	case "ruf":
		r.FailureReports = uris(value)
	}
}

func (r *Record) policy(p *Policy, value string) {
	if *p = Policy(value); p.strictness() == 0 {
		*p, r.Broken = "", true
	}
}

// failureOptions takes fo: each of 0, 1, d, s at most once, and not both 0
// and 1.
func (r *Record) failureOptions(value string) {
	var has [4]bool
	const known = "01ds"
	for o := range strings.SplitSeq(value, ":") {
		o = trim(o)
		i := strings.Index(known, o)
		if len(o) != 1 || i < 0 || has[i] {
			return
		}
		has[i] = true
	}
	if has[0] && has[1] {
		return
	}
	r.FailureOptions = nil
	for i := range known {
		if has[i] {
			r.FailureOptions = append(r.FailureOptions, known[i:i+1])
		}
	}
}

// maxURIs bounds the reporting addresses of one record.
const maxURIs = 50

// uris splits a list of URIs and drops what is none, and the obsolete size
// limit behind a "!".
func uris(list string) []string {
	var out []string
	for u := range strings.SplitSeq(list, ",") {
		u = trim(u)
		if i := strings.IndexByte(u, '!'); i >= 0 {
			u = u[:i]
		}
		if isURI(u) && len(out) < maxURIs {
			out = append(out, u)
		}
	}
	return out
}

// isURI reports whether s looks like a URI of RFC 3986: a scheme, a colon and
// something behind it, without spaces.
func isURI(s string) bool {
	colon := strings.IndexByte(s, ':')
	if colon < 1 || colon == len(s)-1 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte("<>\"{}|\\^`", c) >= 0 {
			return false
		}
		low := c | 0x20
		alpha := low >= 'a' && low <= 'z'
		if i < colon && !alpha && (i == 0 || !(c >= '0' && c <= '9') && strings.IndexByte("+-.", c) < 0) {
			return false
		}
	}
	return true
}

func trim(s string) string { return strings.Trim(s, " \t") }

// String returns the record as it would be published, without tags that have
// their default.
func (r *Record) String() string {
	var b strings.Builder
	b.WriteString("v=DMARC1")
	tag := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "; %s=%s", name, value)
		}
	}
	tag("p", string(r.Policy))
	tag("sp", string(r.Subdomain))
	tag("np", string(r.NonExistent))
	if r.DKIM == Strict {
		tag("adkim", "s")
	}
	if r.SPF == Strict {
		tag("aspf", "s")
	}
	if r.PSD != PSDUnknown {
		tag("psd", string(r.PSD))
	}
	if r.Testing {
		tag("t", "y")
	}
	if fo := strings.Join(r.FailureOptions, ":"); fo != "0" {
		tag("fo", fo)
	}
	tag("rua", strings.Join(r.AggregateReports, ","))
	tag("ruf", strings.Join(r.FailureReports, ","))
	return b.String()
}

// policyFor returns the policy of r for a domain below the one it was found
// at (sub), the tag it stands in, and whether DMARC applies at all
// (RFC 9989 §4.10.1).
func (r *Record) policyFor(sub, missing bool) (Policy, string, bool) {
	switch {
	case r.Broken:
		return NoPolicy, "", len(r.AggregateReports) > 0
	case sub && missing && r.NonExistent != "":
		return r.NonExistent, "np", true
	case sub && r.Subdomain != "":
		return r.Subdomain, "sp", true
	}
	return r.Policy, "p", true
}
