package spf

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/postrider/postrider/auth"
)

// Kind is what a Problem is about.
type Kind string

// The kinds of problems. Lint finds those up to TooManyVoids, Survey the next
// four as well, and Flatten Dynamic only.
const (
	Malformed       Kind = "malformed"        // no record, or no term of one
	UnknownModifier Kind = "unknown-modifier" // has no effect
	WeakAll         Kind = "weak-all"         // +all and ?all
	NoEnd           Kind = "no-end"           // neither all nor redirect
	Unreachable     Kind = "unreachable"      // behind all, or redirect beside it
	Discouraged     Kind = "discouraged"      // ptr and the macro p
	Duplicate       Kind = "duplicate"        // there twice, or within another network
	Network         Kind = "network"          // very wide, private, or with host bits
	TooLong         Kind = "too-long"         // for one string, or for one DNS message
	TooManyLookups  Kind = "too-many-lookups" // over the limit of RFC 7208 §4.6.4
	TooManyVoids    Kind = "too-many-voids"   // over the limit of lookups without an answer, or perhaps
	NoAnswer        Kind = "no-answer"        // a name that has nothing
	Loop            Kind = "loop"             // an include or redirect that leads back
	NoRecord        Kind = "no-record"        // an include or redirect without exactly one valid record
	LookupFailed    Kind = "lookup-failed"    // not known now, or past the bounds of a Survey
	Dynamic         Kind = "dynamic"          // depends on the message
)

// Problem is what Lint, Survey or Flatten have to say about a record.
type Problem struct {
	Kind   Kind
	Domain string // whose record it is; "" after Lint
	Term   string // as written, "" = the record as a whole
	// Wrong says that RFC 7208 does not allow it, or that receivers will not
	// do what the record seems to ask for; otherwise it is advice.
	Wrong bool
	Text  string
}

// String returns the problem as one line.
func (p Problem) String() string {
	s := "advice: "
	if p.Wrong {
		s = "wrong: "
	}
	if p.Domain != "" {
		s += p.Domain + ": "
	}
	if p.Term != "" {
		s += p.Term + ": "
	}
	return s + p.Text
}

// maxProblems bounds what is said about one record, maxCompared how many of
// its networks are held against each other.
const (
	maxProblems = 100
	maxCompared = 256
)

// Lint says what is wrong with the text of a record, or could be better, in
// the order of the text. It asks no DNS: see Checker.Survey.
func Lint(text string) []Problem {
	l := linter{seen: make(map[string]string)}
	l.record(text)
	return l.problems
}

type linter struct {
	problems []Problem
	seen     map[string]string // normal form to term
	networks []Mechanism
	all      string // the term, "" = not yet
	lookups  int
	dynamic  int // terms that find nothing for most messages
}

func (l *linter) add(kind Kind, term string, wrong bool, format string, args ...any) {
	if len(l.problems) < maxProblems {
		if len(term) > 100 {
			term = term[:100] + "…"
		}
		l.problems = append(l.problems, Problem{Kind: kind, Term: term, Wrong: wrong, Text: fmt.Sprintf(format, args...)})
	}
}

func (l *linter) wrong(kind Kind, term, format string, args ...any) {
	l.add(kind, term, true, format, args...)
}

func (l *linter) advise(kind Kind, term, format string, args ...any) {
	l.add(kind, term, false, format, args...)
}

// The length that RFC 7208 §3.4 recommends at most, so that the answer fits
// 512 octets, and that of one string of a TXT record.
const (
	goodLength   = 450
	stringLength = 255
)

func (l *linter) record(text string) {
	if !isRecord(text) {
		l.wrong(Malformed, "", "it does not begin with v=spf1 and a space, so it is no SPF record")
		return
	}
	switch n := len(text); {
	case n > goodLength:
		l.advise(TooLong, "", "%d octets; above %d the answer may not fit a DNS message of 512 octets (RFC 7208 §3.4)", n, goodLength)
	case n > stringLength:
		l.advise(TooLong, "", "%d octets do not fit one string of a TXT record; it has to be published as several", n)
	}
	var r Record
	redirect := ""
	for term := range strings.SplitSeq(text[len(version):], " ") {
		if term == "" {
			continue
		}
		mechanisms, modifiers := len(r.Mechanisms), len(r.Modifiers)
		if r.term(term) != nil {
			l.malformed(&r, term)
			continue
		}
		switch {
		case len(r.Mechanisms) > mechanisms:
			l.mechanism(&r.Mechanisms[mechanisms])
		case len(r.Modifiers) > modifiers:
			l.unknown(r.Modifiers[modifiers], term)
		default:
			if strings.EqualFold(term[:len("exp")], "exp") {
				l.macros(r.Exp, term)
			} else {
				redirect = term
				l.macros(r.Redirect, term)
			}
		}
	}
	switch {
	case redirect != "" && l.all != "":
		l.wrong(Unreachable, redirect, "is ignored beside %s (RFC 7208 §6.1)", l.all)
	case redirect != "":
		l.lookup(redirect)
	case l.all == "" && len(r.Mechanisms) > 0:
		l.advise(NoEnd, "", "ends without all or redirect, which means ?all")
	case l.all == "":
		l.advise(NoEnd, "", "says nothing at all; v=spf1 -all says that the domain sends no mail")
	}
	if l.dynamic > maxVoid {
		l.advise(TooManyVoids, "", "%d names depend on the message; where more than %d of them have nothing the result is permerror", l.dynamic, maxVoid)
	}
}

// malformed names the mistake where it is a known one.
func (l *linter) malformed(r *Record, term string) {
	bare := strings.TrimLeft(term, "+-~?")
	end := strings.IndexAny(bare, ":/=")
	if end < 0 {
		end = len(bare)
	}
	name, arg := strings.ToLower(bare[:end]), bare[end:]
	arg = strings.TrimLeft(arg, ":=")
	host, _, _ := strings.Cut(arg, "/")
	ip, err := netip.ParseAddr(host)
	isIP := err == nil
	trimmed := strings.TrimRight(term, ",;.")
	switch {
	case strings.ContainsFunc(term, func(c rune) bool { return c < ' ' || c > '~' }):
		l.wrong(Malformed, term, "has characters that are not printable ASCII; only spaces are between terms")
	case name == "redirect" && r.Redirect != "" || name == "exp" && r.Exp != "":
		l.wrong(Malformed, term, "is there twice, which is permerror (RFC 7208 §6)")
	case name == "ip" || name == "ipv4" || name == "ipv6":
		l.wrong(Malformed, term, "the mechanisms are called ip4 and ip6")
	case name == "ip4" && isIP && ip.Is6():
		l.wrong(Malformed, term, "the address is IPv6: ip6")
	case name == "ip6" && isIP && ip.Is4():
		l.wrong(Malformed, term, "the address is IPv4: ip4")
	case isIP && (name == "a" || name == "mx" || name == "include" || name == "ptr" || name == "exists" || name == "redirect"):
		l.wrong(Malformed, term, "wants a name; an address belongs into ip4 or ip6")
	case (name == "include" || name == "exists" || name == "redirect" || name == "exp" || name == "ip4" || name == "ip6") && arg == "":
		l.wrong(Malformed, term, "lacks what it is about")
	case trimmed != term && trimmed != "" && new(Record).term(trimmed) == nil:
		l.wrong(Malformed, term, "ends with a sign that does not belong there")
	case mechanismName(name) == "" && arg == "" && end == len(bare):
		l.wrong(Malformed, term, "is no mechanism of SPF; receivers answer permerror")
	default:
		l.wrong(Malformed, term, "is no valid term; receivers answer permerror")
	}
}

// unknown is about modifiers, among which many a misspelt mechanism ends up.
func (l *linter) unknown(m Modifier, term string) {
	name := strings.ToLower(m.Name)
	switch {
	case name == "v":
		l.wrong(UnknownModifier, term, "two records have been put into one; this is ignored")
	case mechanismName(name) != "":
		l.wrong(UnknownModifier, term, "is ignored: a mechanism has a colon, %s:%s", name, m.Value)
	case name == "ip" || name == "ipv4" || name == "ipv6":
		l.wrong(UnknownModifier, term, "is ignored: the mechanisms are ip4: and ip6:")
	default:
		l.advise(UnknownModifier, term, "is unknown, and ignored")
	}
}

// lookup counts a term that needs the DNS.
func (l *linter) lookup(term string) {
	if l.lookups++; l.lookups == maxLookups+1 {
		l.wrong(TooManyLookups, term, "is one more than the %d terms that may need the DNS; receivers answer permerror (RFC 7208 §4.6.4)", maxLookups)
	}
}

// macros warns of p, and counts what depends on the message.
func (l *linter) macros(spec, term string) (dynamic bool) {
	letters := macroLetters(spec)
	if strings.Contains(letters, "p") {
		l.advise(Discouraged, term, "the macro p is slow and unreliable, and should not be used (RFC 7208 §7.2)")
	}
	return strings.Trim(letters, "d") != ""
}

// macroLetters returns the letters of the macros of a valid domain-spec.
func macroLetters(spec string) string {
	var letters []byte
	for i := strings.IndexByte(spec, '%'); i >= 0; i = strings.IndexByte(spec, '%') {
		m, n, ok := parseMacro(spec[i:], true)
		if !ok {
			break
		}
		if m.letter >= 'a' && m.letter <= 'z' {
			letters = append(letters, m.letter)
		}
		spec = spec[i+n:]
	}
	return string(letters)
}

func (l *linter) mechanism(m *Mechanism) {
	if l.all != "" {
		l.wrong(Unreachable, m.text, "stands behind %s and is never looked at", l.all)
		return
	}
	normal := m.String()
	if first, again := l.seen[normal]; again {
		l.advise(Duplicate, m.text, "is there already, as %.100s", first)
	} else {
		l.seen[normal] = m.text
	}
	switch m.Name {
	case "all":
		l.all = m.text
		switch m.Result {
		case auth.Pass:
			l.advise(WeakAll, m.text, "lets anybody send in the name of the domain")
		case auth.Neutral:
			l.advise(WeakAll, m.text, "says nothing about anybody else; ~all or -all does")
		}
		return
	case "ip4", "ip6":
		l.network(m, normal)
		return
	case "ptr":
		l.advise(Discouraged, m.text, "is slow and unreliable, and should not be published (RFC 7208 §5.5)")
	case "a", "mx":
		if m.Result == auth.Pass && (m.Bits4 < wide4 || m.Bits6 < wide6) {
			l.advise(Network, m.text, "is very wide")
		}
	}
	l.lookup(m.text)
	if l.macros(m.Domain, m.text) && m.Name != "include" && m.Name != "ptr" {
		l.dynamic++
	}
}

// Nobody has networks as large as these.
const (
	wide4 = 8
	wide6 = 16
)

func (l *linter) network(m *Mechanism, normal string) {
	n := m.Network
	switch a := n.Addr(); {
	case n.Masked() != n:
		l.advise(Network, m.text, "the bits behind the prefix do not count: %s", n.Masked())
	case a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() && n.IsSingleIP() || a.Is4In6():
		l.advise(Network, m.text, "no mail comes over the Internet from such an address")
	case m.Result == auth.Pass && (a.Is4() && n.Bits() < wide4 || a.Is6() && n.Bits() < wide6):
		l.advise(Network, m.text, "is very wide")
	}
	for i := range l.networks {
		if o := &l.networks[i]; o.Network.Bits() <= n.Bits() && o.Network.Contains(n.Addr()) {
			if o.String() != normal { // that was told of
				l.advise(Duplicate, m.text, "lies within %s, which comes first", o.text)
			}
			return
		}
	}
	if len(l.networks) < maxCompared {
		l.networks = append(l.networks, *m)
	}
}
