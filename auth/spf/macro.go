package spf

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// validMacro reports whether s is a macro-string (RFC 7208 §7.1). The letters
// c, r and t belong into an explanation only; explain says that they may be there.
func validMacro(s string, explain bool) bool {
	for i := 0; i < len(s); {
		if s[i] != '%' {
			if s[i] < 0x21 || s[i] > 0x7e {
				return false
			}
			i++
			continue
		}
		_, n, ok := parseMacro(s[i:], explain)
		if !ok {
			return false
		}
		i += n
	}
	return true
}

// validDomainSpec reports whether s is a domain-spec: a macro-string that ends
// in a macro or in a top label that is no number (RFC 7208 §7.1).
func validDomainSpec(s string) bool {
	if !validMacro(s, false) {
		return false
	}
	if s == "" {
		return false
	}
	// The last macro, if any, and what comes after it.
	tail := s
	for i := strings.IndexByte(tail, '%'); i >= 0; i = strings.IndexByte(tail, '%') {
		_, n, _ := parseMacro(tail[i:], false)
		tail = tail[i+n:]
		if tail == "" {
			return true
		}
	}
	tail = strings.TrimSuffix(tail, ".")
	dot := strings.LastIndexByte(tail, '.')
	return dot >= 0 && validTopLabel(tail[dot+1:])
}

func validTopLabel(s string) bool {
	alpha := false
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		switch {
		case c >= 'a' && c <= 'z':
			alpha = true
		case s[i] >= '0' && s[i] <= '9':
		case s[i] == '-' && i > 0 && i < len(s)-1:
			alpha = true // what has a hyphen inside is no number either
		default:
			return false
		}
	}
	return alpha
}

// macro is one macro-expand.
type macro struct {
	letter  byte // lower case, or '%', '_', '-'
	upper   bool // the expansion is URL-escaped
	digits  int  // how many parts to keep from the right; 0 = all
	reverse bool
	delims  string // "" = "."
}

// delimiters are those of RFC 7208 §7.1.
const delimiters = ".-+,/_="

// parseMacro parses the macro-expand that s begins with and returns its length.
func parseMacro(s string, explain bool) (m macro, n int, ok bool) {
	if len(s) < 2 {
		return m, 0, false
	}
	switch s[1] {
	case '%', '_', '-':
		m.letter = s[1]
		return m, 2, true
	case '{':
	default:
		return m, 0, false
	}
	end := strings.IndexByte(s, '}')
	if end < 3 {
		return m, 0, false
	}
	m.letter = s[2] | 0x20
	m.upper = s[2] != m.letter
	allowed := "slodiphv"
	if explain {
		allowed = "slodiphvcrt"
	}
	if strings.IndexByte(allowed, m.letter) < 0 {
		return m, 0, false
	}
	rest := s[3:end]
	i := 0
	for i < len(rest) && rest[i] >= '0' && rest[i] <= '9' {
		i++
	}
	if i > 0 {
		digits := strings.TrimLeft(rest[:i], "0")
		switch {
		case digits == "":
			return m, 0, false
		case len(digits) > 6:
			m.digits = 1 << 20 // more than there can be parts
		default:
			m.digits, _ = strconv.Atoi(digits)
		}
	}
	rest = rest[i:]
	if rest != "" && rest[0]|0x20 == 'r' {
		m.reverse, rest = true, rest[1:]
	}
	if strings.Trim(rest, delimiters) != "" {
		return m, 0, false
	}
	if m.delims = rest; len(rest) > len(delimiters) {
		// Some are there several times.
		m.delims = ""
		for _, d := range delimiters {
			if strings.ContainsRune(rest, d) {
				m.delims += string(d)
			}
		}
	}
	return m, end + 1, true
}

// maxExpansion bounds what macros may expand to, maxWork the octets of the
// values that they are made from; a name has 253 octets, and an explanation
// has to fit a reply.
const (
	maxExpansion = 4096
	maxWork      = 1 << 16
)

// expand expands the macros of s, which is valid. It reports whether the
// result is complete.
func (e *eval) expand(s, domain string, explanation bool) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	b := make([]byte, 0, 128)
	work := 0
	for i := 0; i < len(s); {
		if len(b) > maxExpansion || work > maxWork {
			return string(b[:min(len(b), maxExpansion)]), false
		}
		if s[i] != '%' {
			b = append(b, s[i])
			i++
			continue
		}
		m, n, ok := parseMacro(s[i:], explanation)
		if !ok {
			break
		}
		i += n
		switch m.letter {
		case '%':
			b = append(b, '%')
		case '_':
			b = append(b, ' ')
		case '-':
			b = append(b, "%20"...)
		default:
			v := e.macroValue(m.letter, domain)
			if work += len(v); work > maxWork {
				continue
			}
			v = m.transform(v)
			if m.upper {
				b = appendEscaped(b, v)
			} else {
				b = append(b, v...)
			}
		}
	}
	return string(b[:min(len(b), maxExpansion)]), len(b) <= maxExpansion && work <= maxWork
}

func (e *eval) macroValue(letter byte, domain string) string {
	switch letter {
	case 's':
		return e.local + "@" + e.domain
	case 'l':
		return e.local
	case 'o':
		return e.domain
	case 'd':
		return domain
	case 'i':
		return dottedIP(e.ip)
	case 'p':
		return e.validatedName(domain)
	case 'v':
		if e.ip.Is4() {
			return "in-addr"
		}
		return "ip6"
	case 'h':
		return e.hello
	case 'c':
		return e.ip.String()
	case 'r':
		if e.receiver == "" {
			return "unknown"
		}
		return e.receiver
	case 't':
		return strconv.FormatInt(time.Now().Unix(), 10)
	}
	return ""
}

// dottedIP is what %{i} stands for: an IPv6 address is written as nibbles, in
// upper case because the RFC 7208 test suite has it so.
func dottedIP(ip netip.Addr) string {
	if ip.Is4() {
		return ip.String()
	}
	const digits = "0123456789ABCDEF"
	a := ip.As16()
	b := make([]byte, 0, 63)
	for i, c := range a {
		if i > 0 {
			b = append(b, '.')
		}
		b = append(b, digits[c>>4], '.', digits[c&15])
	}
	return string(b)
}

// transform splits, reverses, cuts and joins (RFC 7208 §7.3).
func (m *macro) transform(v string) string {
	if m.digits == 0 && !m.reverse && m.delims == "" {
		return v
	}
	delims := m.delims
	if delims == "" {
		delims = "."
	}
	var parts []string
	for {
		i := strings.IndexAny(v, delims)
		if i < 0 {
			break
		}
		parts = append(parts, v[:i])
		v = v[i+1:]
	}
	parts = append(parts, v)
	if m.reverse {
		slices.Reverse(parts)
	}
	if m.digits > 0 && m.digits < len(parts) {
		parts = parts[len(parts)-m.digits:]
	}
	return strings.Join(parts, ".")
}

// appendEscaped appends v with all but the unreserved characters of RFC 3986
// escaped.
func appendEscaped(b []byte, v string) []byte {
	const digits = "0123456789ABCDEF"
	for i := 0; i < len(v); i++ {
		c := v[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b = append(b, c)
			continue
		}
		b = append(b, '%', digits[c>>4], digits[c&15])
	}
	return b
}
