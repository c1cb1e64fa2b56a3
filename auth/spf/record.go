package spf

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/postrider/postrider/auth"
)

// What makes the result of a check a permanent or a temporary error. The
// errors of this package wrap them.
var (
	ErrSyntax   = errors.New("spf: syntax error")
	ErrMultiple = errors.New("spf: more than one record")
	ErrNoRecord = errors.New("spf: included domain has no record")
	ErrLimit    = errors.New("spf: too many DNS lookups")
	ErrVoid     = errors.New("spf: too many DNS lookups without an answer")
	ErrLookup   = errors.New("spf: DNS lookup failed")
)

// Record is a parsed SPF record (RFC 7208 §4.6).
type Record struct {
	Mechanisms []Mechanism
	// Redirect and Exp are the domain-specs of these modifiers, "" = absent.
	Redirect, Exp string
	// Modifiers are those that this package does not know.
	Modifiers []Modifier
}

// Mechanism is one directive of a record.
type Mechanism struct {
	// Result is what a match means: Pass, Fail, SoftFail or Neutral.
	Result auth.Result
	// Name is all, include, a, mx, ptr, ip4, ip6 or exists.
	Name string
	// Domain is the domain-spec with its macros; "" = not given, which means
	// the current domain.
	Domain string
	// Network of ip4 and ip6.
	Network netip.Prefix
	// Bits4 and Bits6 are the prefix lengths of a and mx, 32 and 128 when
	// not given.
	Bits4, Bits6 int

	text string // as the record has it
}

// Modifier is a name=value of a record.
type Modifier struct{ Name, Value string }

// String returns the mechanism as a record has it, in normal form: an
// explicit qualifier only where it is not "+".
func (m *Mechanism) String() string {
	var room [64]byte
	b := m.append(room[:0])
	if string(b) == m.text {
		return m.text
	}
	return string(b)
}

func (m *Mechanism) append(b []byte) []byte {
	switch m.Result {
	case auth.Fail:
		b = append(b, '-')
	case auth.SoftFail:
		b = append(b, '~')
	case auth.Neutral:
		b = append(b, '?')
	}
	b = append(b, m.Name...)
	if m.Domain != "" {
		b = append(append(b, ':'), m.Domain...)
	}
	switch m.Name {
	case "ip4", "ip6":
		b = m.Network.Addr().AppendTo(append(b, ':'))
		if !m.Network.IsSingleIP() {
			b = strconv.AppendInt(append(b, '/'), int64(m.Network.Bits()), 10)
		}
	case "a", "mx":
		if m.Bits4 != 32 {
			b = strconv.AppendInt(append(b, '/'), int64(m.Bits4), 10)
		}
		if m.Bits6 != 128 {
			b = strconv.AppendInt(append(b, "//"...), int64(m.Bits6), 10)
		}
	}
	return b
}

// String returns the record in normal form: mechanisms before modifiers.
func (r *Record) String() string {
	var b strings.Builder
	b.WriteString("v=spf1")
	for i := range r.Mechanisms {
		b.WriteString(" " + r.Mechanisms[i].String())
	}
	if r.Redirect != "" {
		b.WriteString(" redirect=" + r.Redirect)
	}
	if r.Exp != "" {
		b.WriteString(" exp=" + r.Exp)
	}
	for _, m := range r.Modifiers {
		b.WriteString(" " + m.Name + "=" + m.Value)
	}
	return b.String()
}

// Strings returns what String does, cut into the strings of at most 255 octets
// that a TXT record is made of (RFC 7208 §3.3).
func (r *Record) Strings() []string {
	var out []string
	for text := r.String(); text != ""; {
		n := min(len(text), stringLength)
		out = append(out, text[:n])
		text = text[n:]
	}
	return out
}

const version = "v=spf1"

// isRecord reports whether a TXT record is an SPF record (RFC 7208 §4.5).
func isRecord(txt string) bool {
	return len(txt) >= len(version) && strings.EqualFold(txt[:len(version)], version) &&
		(len(txt) == len(version) || txt[len(version)] == ' ')
}

// ParseRecord parses the text of a record. All of it is checked (RFC 7208
// §4.6); errors wrap ErrSyntax.
func ParseRecord(txt string) (*Record, error) {
	r := new(Record)
	if err := r.parse(txt); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Record) parse(txt string) error {
	if !isRecord(txt) {
		return fmt.Errorf("%w: not an SPF record", ErrSyntax)
	}
	for term, rest := nextTerm(txt[len(version):]); term != ""; term, rest = nextTerm(rest) {
		if err := r.term(term); err != nil {
			return err
		}
	}
	return nil
}

// nextTerm cuts the first term off; "" when there is none.
func nextTerm(s string) (term, rest string) {
	s = strings.TrimLeft(s, " ")
	if i := strings.IndexByte(s, ' '); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// cutModifier splits a term that is a modifier.
func cutModifier(term string) (name, value string, ok bool) {
	end := strings.IndexAny(term, ":/=")
	if end < 0 || term[end] != '=' {
		return "", "", false
	}
	return term[:end], term[end+1:], true
}

func syntax(term string) error { return fmt.Errorf("%w: %.100q", ErrSyntax, term) }

func (r *Record) term(term string) error {
	if name, value, ok := cutModifier(term); ok {
		return r.modifier(name, value)
	}
	m, ok := parseMechanism(term)
	if !ok {
		return syntax(term)
	}
	r.Mechanisms = append(r.Mechanisms, m)
	return nil
}

func parseMechanism(term string) (m Mechanism, ok bool) {
	m = Mechanism{Result: auth.Pass, Bits4: 32, Bits6: 128, text: term}
	rest := term
	switch rest[0] {
	case '+':
		rest = rest[1:]
	case '-':
		m.Result, rest = auth.Fail, rest[1:]
	case '~':
		m.Result, rest = auth.SoftFail, rest[1:]
	case '?':
		m.Result, rest = auth.Neutral, rest[1:]
	}
	name, arg := rest, ""
	if i := strings.IndexAny(rest, ":/"); i >= 0 {
		name, arg = rest[:i], rest[i:]
	}
	switch m.Name = mechanismName(name); m.Name {
	case "all":
		ok = arg == ""
	case "include", "exists":
		ok = m.domain(arg, true)
	case "ptr":
		ok = m.domain(arg, false)
	case "a", "mx":
		if arg, ok = m.cidr(arg); ok {
			ok = m.domain(arg, false)
		}
	case "ip4":
		ok = m.network(arg, true)
	case "ip6":
		ok = m.network(arg, false)
	}
	return m, ok
}

// asks reports whether the mechanism needs the DNS (RFC 7208 §4.6.4).
func (m *Mechanism) asks() bool {
	switch m.Name {
	case "all", "ip4", "ip6":
		return false
	}
	return true
}

// mechanismName returns the lower-case name of a known mechanism, else "".
func mechanismName(s string) string {
	for _, name := range [...]string{"all", "include", "a", "mx", "ip4", "ip6", "exists", "ptr"} {
		if strings.EqualFold(s, name) {
			return name
		}
	}
	return ""
}

func (r *Record) modifier(name, value string) error {
	if !isKey(name) {
		return syntax(name + "=" + value)
	}
	var field *string
	switch {
	case strings.EqualFold(name, "redirect"):
		field = &r.Redirect
	case strings.EqualFold(name, "exp"):
		field = &r.Exp
	default:
		if !validMacro(value, true) {
			return syntax(name + "=" + value)
		}
		r.Modifiers = append(r.Modifiers, Modifier{name, value})
		return nil
	}
	// RFC 7208 §6: each at most once.
	if *field != "" || !validDomainSpec(value) {
		return syntax(name + "=" + value)
	}
	*field = value
	return nil
}

// domain takes ":domain-spec".
func (m *Mechanism) domain(arg string, required bool) bool {
	if arg == "" {
		return !required
	}
	m.Domain = arg[1:]
	return arg[0] == ':' && validDomainSpec(m.Domain)
}

// cidr takes a dual-cidr-length from the end of arg and returns what is before
// it (RFC 7208 §5.6).
func (m *Mechanism) cidr(arg string) (string, bool) {
	// A slash that no digits follow is part of the domain-spec.
	if i := strings.LastIndex(arg, "//"); i >= 0 && isDigits(arg[i+2:]) {
		n, ok := prefixLength(arg[i+2:], 128)
		if !ok {
			return "", false
		}
		m.Bits6, arg = n, arg[:i]
	}
	if i := strings.LastIndexByte(arg, '/'); i >= 0 && isDigits(arg[i+1:]) {
		n, ok := prefixLength(arg[i+1:], 32)
		if !ok {
			return "", false
		}
		m.Bits4, arg = n, arg[:i]
	}
	return arg, true
}

func isDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }

func prefixLength(s string, most int) (int, bool) {
	if s == "" || len(s) > 3 || !isDigits(s) || s[0] == '0' && s != "0" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n <= most
}

func (m *Mechanism) network(arg string, four bool) bool {
	if len(arg) < 2 || arg[0] != ':' {
		return false
	}
	host, length, cut := strings.Cut(arg[1:], "/")
	a, err := netip.ParseAddr(host)
	if err != nil || a.Is4() != four || a.Zone() != "" {
		return false
	}
	n := a.BitLen()
	if cut {
		var ok bool
		if n, ok = prefixLength(length, n); !ok {
			return false
		}
	}
	m.Network = netip.PrefixFrom(a, n)
	return true
}
