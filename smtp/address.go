package smtp

import (
	"errors"
	"strings"

	"golang.org/x/net/idna"
)

// Address is a mailbox as the envelope knows it (RFC 5321 §4.1.2). It is
// comparable; the zero Address is the null reverse-path, <>.
type Address struct {
	// Local is the local part without quoting: `a b`, not `"a b"`. It is
	// kept as the sender wrote it; only the receiving host may fold case.
	Local string
	// Domain is an A-label domain in lower case without a final dot, or an
	// address literal such as [192.0.2.1] or [IPv6:2001:db8::1]. It is empty
	// in the zero Address and in the bare <Postmaster> of RFC 5321 §4.5.1.
	Domain string
}

// IsZero reports whether a is the null reverse-path.
func (a Address) IsZero() bool { return a == Address{} }

// ASCII reports whether a can be sent to a hop without SMTPUTF8 (RFC 6531).
func (a Address) ASCII() bool {
	for i := 0; i < len(a.Local); i++ {
		if a.Local[i] >= 0x80 {
			return false
		}
	}
	return true
}

// String returns local@domain with the local part quoted where RFC 5321
// needs it, and "" for the zero Address.
func (a Address) String() string {
	if a.IsZero() {
		return ""
	}
	local := a.Local
	if !isDotString(local) {
		local = quote(local)
	}
	if a.Domain == "" {
		return local
	}
	return local + "@" + a.Domain
}

// Path returns the address between angle brackets, "<>" for the zero Address.
func (a Address) Path() string { return "<" + a.String() + ">" }

var errAddress = errors.New("smtp: malformed address")

// ParseAddress parses local@domain, with or without angle brackets. The
// domain may be a U-label (it becomes an A-label) or an address literal.
// "" and "<>" give the zero Address.
func ParseAddress(s string) (Address, error) {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "<") && strings.HasSuffix(s, ">") && len(s) > 1 {
		s = s[1 : len(s)-1]
	}
	if s == "" {
		return Address{}, nil
	}
	a, rest, err := parseMailbox(s)
	if err != nil {
		return Address{}, err
	}
	if rest != "" {
		return Address{}, errAddress
	}
	return a, nil
}

// ParseDomain returns the A-label form of a domain in lower case without a
// final dot (RFC 5890), or a normalised address literal.
func ParseDomain(s string) (string, error) {
	if strings.HasPrefix(s, "[") {
		return parseLiteral(s)
	}
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 1024 {
		return "", errAddress
	}
	a, err := idna.Lookup.ToASCII(s)
	if err != nil {
		// The Lookup profile refuses the underscore that real hosts use.
		if !isLDH(s) {
			return "", errAddress
		}
		a = strings.ToLower(s)
	}
	if len(a) > 255 {
		return "", errAddress
	}
	return a, nil
}
