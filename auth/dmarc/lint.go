package dmarc

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/postrider/postrider/smtp"
)

// Problem is what Lint found in a record.
type Problem struct {
	Tag string // the tag it is about, "" = the record as a whole
	// Wrong says that RFC 9989 does not allow it and that receivers will not
	// do what the record seems to ask for; otherwise it is advice.
	Wrong bool
	Text  string
}

func (p Problem) String() string {
	kind := "advice"
	if p.Wrong {
		kind = "wrong"
	}
	if p.Tag == "" {
		return kind + ": " + p.Text
	}
	return kind + ": " + p.Tag + ": " + p.Text
}

// Lint says what is wrong with the text of a record, or could be better, in
// the order of the text.
func Lint(text string) []Problem {
	l := &linter{tags: make(map[string]string)}
	r, err := ParseRecord(text)
	if err != nil {
		l.wrong("", "it does not begin with v=DMARC1 (in capitals), so it is no DMARC record")
		return l.problems
	}
	l.record(r, text)
	return l.problems
}

type linter struct {
	problems []Problem
	tags     map[string]string
}

func (l *linter) add(tag string, wrong bool, format string, args ...any) {
	l.problems = append(l.problems, Problem{tag, wrong, fmt.Sprintf(format, args...)})
}

func (l *linter) wrong(tag, format string, args ...any)  { l.add(tag, true, format, args...) }
func (l *linter) advise(tag, format string, args ...any) { l.add(tag, false, format, args...) }

func (l *linter) record(r *Record, text string) {
	if len(text) > 255 {
		l.advise("", "%d octets do not fit one string of a TXT record; it has to be published as several", len(text))
	}
	_, rest, _ := strings.Cut(text, ";")
	place := 1
	for spec := range strings.SplitSeq(rest, ";") {
		if trim(spec) == "" {
			continue
		}
		place++
		l.tag(spec, place)
	}
	l.policies(r)
	if _, ok := l.tags["rua"]; !ok {
		l.advise("rua", "absent, so that no aggregate reports come")
	}
	if fo, ok := l.tags["fo"]; ok && len(r.FailureReports) == 0 {
		l.wrong("fo", "%q is ignored without ruf", fo)
	}
	if r.PSD == PSDYes && len(r.FailureReports) > 0 {
		l.wrong("ruf", "no failure reports are made for a public suffix domain (psd=y, RFC 9991 §2)")
	}
}

func (l *linter) tag(spec string, place int) {
	name, value, ok := strings.Cut(spec, "=")
	name, value = strings.ToLower(trim(name)), trim(value)
	switch {
	case !ok:
		l.wrong("", "%q is no tag: it lacks an =", trim(spec))
		return
	case name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < 'a' || r > 'z' }):
		l.wrong("", "%q is no name of a tag", name)
		return
	case value == "":
		l.wrong(name, "has no value")
		return
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r > '~' }):
		l.wrong(name, "has characters that are not printable ASCII")
	}
	if _, again := l.tags[name]; again {
		l.wrong(name, "stands there again; the first one counts")
		return
	}
	l.tags[name] = value
	low := strings.ToLower(value)
	oneOf := func(values ...string) {
		for _, v := range values {
			if v == low {
				return
			}
		}
		l.wrong(name, "%q is none of %s", value, strings.Join(values, ", "))
	}
	switch name {
	case "v":
		l.wrong(name, "stands there again; the first one counts")
	case "p":
		oneOf("none", "quarantine", "reject")
		if place != 2 {
			l.advise(name, "receivers that follow RFC 7489 want it right behind v")
		}
	case "sp", "np":
		oneOf("none", "quarantine", "reject")
	case "adkim", "aspf":
		oneOf("r", "s")
	case "psd":
		oneOf("y", "n", "u")
	case "t":
		oneOf("y", "n")
	case "fo":
		l.failureOptions(value)
	case "rua", "ruf":
		l.uris(name, value)
	case "pct":
		switch value {
		case "100":
			l.advise(name, "removed by RFC 9989; 100 was the default, leave it out")
		case "0":
			l.advise(name, "removed by RFC 9989; t=y is what pct=0 meant")
		default:
			l.advise(name, "removed by RFC 9989: the policy applies to all messages")
		}
	case "rf", "ri":
		l.advise(name, "removed by RFC 9989; it has no effect")
	default:
		l.advise(name, "unknown, and ignored")
	}
}

func (l *linter) failureOptions(value string) {
	r := Record{}
	r.failureOptions(strings.ToLower(value))
	if r.FailureOptions == nil {
		l.wrong("fo", "%q is not a list of 0, 1, d and s, each once and not both 0 and 1, with : between them", value)
	}
}

func (l *linter) uris(tag, value string) {
	for u := range strings.SplitSeq(value, ",") {
		u = trim(u)
		u, _, size := strings.Cut(u, "!")
		if size {
			l.advise(tag, "the size limit behind %s was removed by RFC 9989 and is ignored", u)
		}
		if !isURI(u) {
			l.wrong(tag, "%q is not a URI; an address needs mailto: before it", u)
			continue
		}
		if _, err := Mailbox(u); errors.Is(err, ErrScheme) {
			l.advise(tag, "few receivers know the scheme of %s, all must know mailto:", u)
		} else if err != nil {
			l.wrong(tag, "%s has no address", u)
		}
	}
}

func (l *linter) policies(r *Record) {
	_, present := l.tags["p"]
	switch {
	case r.Broken && len(r.AggregateReports) == 0:
		l.wrong("", "without a valid p, and valid sp and np if any, and without a URI in rua, receivers ignore the record")
	case r.Broken:
		l.wrong("", "without a valid p, and valid sp and np if any, receivers take it for p=none")
	case r.Subdomain.strictness() > 0 && r.Subdomain.strictness() < r.Policy.strictness():
		l.advise("sp", "%s is weaker than p=%s: anybody can write in the name of a subdomain", r.Subdomain, r.Policy)
	}
	if !present {
		l.advise("p", "absent")
	}
	if r.Testing && r.Policy == NoPolicy && r.Subdomain.strictness() <= 1 && r.NonExistent.strictness() <= 1 {
		l.advise("t", "y has no effect on p=none")
	}
	if !r.Broken {
		weakest := r.Policy
		if r.Subdomain.strictness() > 0 {
			weakest = r.Subdomain
		}
		if r.NonExistent.strictness() > 0 && r.NonExistent.strictness() < weakest.strictness() {
			l.advise("np", "%s is weaker than what existing subdomains have", r.NonExistent)
		}
	}
}

// What is wrong with a reporting URI.
var (
	// ErrScheme says that it is not a mailto: URI; RFC 9989 §4.7 wants those
	// of unknown schemes ignored.
	ErrScheme = errors.New("dmarc: not a mailto: URI")
	ErrURI    = errors.New("dmarc: URI without an address")
)

// Mailbox returns the address of a mailto: URI of rua or ruf. The error is
// ErrScheme or ErrURI.
func Mailbox(uri string) (smtp.Address, error) {
	u, err := url.Parse(uri)
	switch {
	case err != nil:
		return smtp.Address{}, ErrURI
	case !strings.EqualFold(u.Scheme, "mailto"):
		return smtp.Address{}, ErrScheme
	}
	text, err := url.PathUnescape(u.Opaque)
	if err != nil {
		return smtp.Address{}, ErrURI
	}
	a, err := smtp.ParseAddress(text)
	if err != nil || a.Local == "" || a.Domain == "" {
		return smtp.Address{}, ErrURI
	}
	return a, nil
}
