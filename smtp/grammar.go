package smtp

import (
	"net/netip"
	"strings"
	"unicode/utf8"
)

// parseMailbox reads a Mailbox of RFC 5321 §4.1.2 (RFC 6531 §3.3 widens it to
// UTF-8) from the beginning of s and returns what follows it.
func parseMailbox(s string) (Address, string, error) {
	var a Address
	rest := s
	if strings.HasPrefix(s, `"`) {
		var b strings.Builder
		i := 1
		for ; ; i++ {
			if i >= len(s) {
				return Address{}, s, ErrAddress
			}
			c := s[i]
			if c == '"' {
				break
			}
			if c == '\\' {
				i++
				if i >= len(s) {
					return Address{}, s, ErrAddress
				}
				c = s[i]
			}
			if c < 0x20 || c == 0x7f {
				return Address{}, s, ErrAddress
			}
			b.WriteByte(c)
		}
		a.Local, rest = b.String(), s[i+1:]
	} else {
		i := 0
		for i < len(s) && (isAtext(s[i]) || s[i] == '.') {
			i++
		}
		a.Local, rest = s[:i], s[i:]
		if !isDotString(a.Local) {
			return Address{}, s, ErrAddress
		}
	}
	// RFC 5321 §4.5.3.1.1 names 64 octets; longer ones exist (VERP, SRS), so
	// the limit here only bounds the cost.
	if len(a.Local) > 256 || !utf8.ValidString(a.Local) {
		return Address{}, s, ErrAddress
	}
	if !strings.HasPrefix(rest, "@") {
		if strings.EqualFold(a.Local, "postmaster") {
			return a, rest, nil
		}
		return Address{}, s, ErrAddress
	}
	rest = rest[1:]
	var end int
	if strings.HasPrefix(rest, "[") {
		end = strings.IndexByte(rest, ']') + 1
		if end == 0 {
			return Address{}, s, ErrAddress
		}
	} else {
		end = strings.IndexAny(rest, "> \t")
		if end < 0 {
			end = len(rest)
		}
	}
	d, err := ParseDomain(rest[:end])
	if err != nil {
		return Address{}, s, err
	}
	a.Domain = d
	return a, rest[end:], nil
}

// skipRoute reads the A-d-l of RFC 5321 §4.1.2, "@one,@two:", and returns
// what follows it.
func skipRoute(s string) (string, error) {
	for {
		end := strings.IndexAny(s, ",:>\" \t")
		if end < 2 || s[0] != '@' {
			return s, ErrAddress
		}
		if _, err := ParseDomain(s[1:end]); err != nil {
			return s, err
		}
		sep := s[end]
		s = s[end+1:]
		switch sep {
		case ':':
			return s, nil
		case ',':
		default:
			return s, ErrAddress
		}
	}
}

// isPlainDomain reports a domain that is already in the form that ParseDomain
// returns: the common case, without idna's cost.
func isPlainDomain(s string) bool {
	if len(s) > 255 || !isLDH(s) || strings.Contains(s, "xn--") {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] >= 'A' && s[i] <= 'Z' {
			return false
		}
	}
	return true
}

func isAtext(c byte) bool {
	return c >= 0x80 || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func isDotString(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !isAtext(s[i]) && s[i] != '.' {
			return false
		}
	}
	return true
}

func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
	return b.String()
}

// isLDH reports labels of letters, digits, hyphens inside, and underscores
// anywhere: RFC 5321 has no underscore, but hosts that send mail do.
func isLDH(s string) bool {
	label := 0 // length of the current label
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '.':
			if label == 0 || label > 63 || s[i-1] == '-' {
				return false
			}
			label = 0
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_':
			label++
		case c == '-' && label > 0:
			label++
		default:
			return false
		}
	}
	return label > 0 && label <= 63 && s[len(s)-1] != '-'
}

func parseLiteral(s string) (string, error) {
	if len(s) < 3 || s[len(s)-1] != ']' {
		return "", ErrAddress
	}
	in := s[1 : len(s)-1]
	if len(in) > 5 && strings.EqualFold(in[:5], "IPv6:") {
		ip, err := netip.ParseAddr(in[5:])
		if err != nil || !ip.Is6() || ip.Zone() != "" {
			return "", ErrAddress
		}
		return "[IPv6:" + ip.String() + "]", nil
	}
	ip, err := netip.ParseAddr(in)
	if err != nil || !ip.Is4() {
		return "", ErrAddress
	}
	return "[" + ip.String() + "]", nil
}
