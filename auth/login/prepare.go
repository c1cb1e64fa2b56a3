package login

import (
	"errors"
	"fmt"
	"net/netip"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"
)

// PrepareUser returns the form of a user name that look-ups use, RFC 8265's
// UsernameCaseMapped: lower case, width-mapped, NFC. Names without it (empty,
// with spaces or control characters, not UTF-8) are an error. Use it when
// accounts are made, so that Lookup finds them.
func PrepareUser(name string) (string, error) {
	if plainName(name) {
		return name, nil
	}
	if !utf8.ValidString(name) {
		return "", errors.New("login: user name: not UTF-8")
	}
	s, err := precis.UsernameCaseMapped.String(name)
	if err != nil {
		return "", fmt.Errorf("login: user name: %w", err)
	}
	return s, nil
}

// plainName reports whether preparing would change nothing: the usual case.
func plainName(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return s != ""
}

// preparePassword applies RFC 8265's OpaqueString.
func preparePassword(pass string) (string, error) {
	if !utf8.ValidString(pass) { // precis would put U+FFFD in its place
		return "", fmt.Errorf("%w: not UTF-8", ErrPassword)
	}
	s, err := precis.OpaqueString.String(pass)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrPassword, err)
	}
	return s, nil
}

// addrKey is what failures of a peer are counted under; "" = not at all.
func addrKey(c *Conn) string {
	if c == nil || !c.Remote.IsValid() {
		return ""
	}
	a := c.Remote.Addr().Unmap().WithZone("")
	if a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().String()
	}
	return a.String()
}
