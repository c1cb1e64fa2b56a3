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
				return a, s, errAddress
			}
			c := s[i]
			if c == '"' {
				break
			}
			if c == '\\' {
				i++
				if i >= len(s) {
					return a, s, errAddress
				}
				c = s[i]
			}
			if c < 0x20 || c == 0x7f {
				return a, s, errAddress
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
			return a, s, errAddress
		}
	}
	// RFC 5321 §4.5.3.1.1 names 64 octets; longer ones exist (VERP, SRS), so
	// the limit here only bounds the cost.
	if len(a.Local) > 256 || !utf8.ValidString(a.Local) {
		return a, s, errAddress
	}
	if !strings.HasPrefix(rest, "@") {
		if strings.EqualFold(a.Local, "postmaster") {
			return a, rest, nil
		}
		return a, s, errAddress
	}
	rest = rest[1:]
	var end int
	if strings.HasPrefix(rest, "[") {
		end = strings.IndexByte(rest, ']') + 1
		if end == 0 {
			return a, s, errAddress
		}
	} else {
		end = strings.IndexAny(rest, "> \t")
		if end < 0 {
			end = len(rest)
		}
	}
	d, err := ParseDomain(rest[:end])
	if err != nil {
		return a, s, err
	}
	a.Domain = d
	return a, rest[end:], nil
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

func isLDH(s string) bool {
	for _, label := range strings.Split(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := 0; i < len(label); i++ {
			c := label[i]
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

func parseLiteral(s string) (string, error) {
	if len(s) < 3 || s[len(s)-1] != ']' {
		return "", errAddress
	}
	in := s[1 : len(s)-1]
	if len(in) > 5 && strings.EqualFold(in[:5], "IPv6:") {
		ip, err := netip.ParseAddr(in[5:])
		if err != nil || !ip.Is6() || ip.Zone() != "" {
			return "", errAddress
		}
		return "[IPv6:" + ip.String() + "]", nil
	}
	ip, err := netip.ParseAddr(in)
	if err != nil || !ip.Is4() {
		return "", errAddress
	}
	return "[" + ip.String() + "]", nil
}
