package smtp

import (
	"errors"
	"strings"
	"unicode/utf8"

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

// Valid reports whether a is an address that may stand in a command: one that
// ParsePath could have returned. Check it when the fields were filled in from
// elsewhere: a line end in them would end the command.
func (a Address) Valid() bool {
	if a.IsZero() {
		return true
	}
	b, rest, err := ParsePath(a.Path())
	return err == nil && rest == "" && a == b
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

// ErrAddress is what ParseAddress, ParsePath and ParseDomain return for text
// that is no address.
var ErrAddress = errors.New("smtp: malformed address")

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
		return Address{}, ErrAddress
	}
	return a, nil
}

// ParsePath reads a reverse-path or forward-path with its angle brackets
// from the beginning of s and returns what follows it, for the parameters of
// MAIL and RCPT (RFC 5321 §4.1.2). "<>" gives the zero Address. A source
// route is read and ignored, as RFC 5321 §4.1.1.3 says.
func ParsePath(s string) (a Address, rest string, err error) {
	if !strings.HasPrefix(s, "<") {
		return a, s, ErrAddress
	}
	in := s[1:]
	if strings.HasPrefix(in, ">") {
		return a, in[1:], nil
	}
	if strings.HasPrefix(in, "@") {
		if in, err = skipRoute(in); err != nil {
			return a, s, err
		}
	}
	a, rest, err = parseMailbox(in)
	if err != nil {
		return a, s, err
	}
	if !strings.HasPrefix(rest, ">") {
		return Address{}, s, ErrAddress
	}
	return a, rest[1:], nil
}

// ParseDomain returns the A-label form of a domain in lower case without a
// final dot (RFC 5890), or a normalised address literal.
func ParseDomain(s string) (string, error) {
	if strings.HasPrefix(s, "[") {
		return parseLiteral(s)
	}
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 1024 || !utf8.ValidString(s) {
		return "", ErrAddress
	}
	if isPlainDomain(s) {
		return s, nil
	}
	a, err := idna.Lookup.ToASCII(s)
	if err != nil {
		// The Lookup profile refuses the underscore that real hosts use.
		a = strings.ToLower(s)
	}
	// What the profile lets through need not be a host's name: empty labels.
	if len(a) > 255 || !isLDH(a) {
		return "", ErrAddress
	}
	return a, nil
}
