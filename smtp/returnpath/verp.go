package returnpath

import (
	"errors"
	"fmt"
	"strings"

	"github.com/postrider/postrider/smtp"
)

// ErrNotOurs: an address was not made here: another form, another secret, or
// changed on its way. Mail to it is nobody's.
var ErrNotOurs = errors.New("returnpath: address was not made here")

// ErrExpired: an address was made here, too long ago.
var ErrExpired = errors.New("returnpath: address has expired")

// ErrTooLong: the address that would be made is longer than RFC 5321 §4.5.3.1
// allows.
var ErrTooLong = errors.New("returnpath: address would be too long")

const maxLocal, maxDomain = 64, 255

// VERP makes variable envelope return paths: "bounces+ann=example.org@ours"
// for what is sent from "bounces@ours" to "ann@example.org".
type VERP struct {
	// Delimiter stands between the local part and the recipient; 0 = '+'.
	Delimiter byte
}

func (v VERP) delimiter() string {
	if v.Delimiter == 0 {
		return "+"
	}
	return string(rune(v.Delimiter))
}

// Encode puts rcpt into base. The local part may come to be longer than the
// 64 octets of RFC 5321 §4.5.3.1.1, which servers take in practice: check with
// Fits where that matters.
func (v VERP) Encode(base, rcpt smtp.Address) smtp.Address {
	base.Local += v.delimiter() + escape(rcpt.Local) + "=" + rcpt.Domain
	return base
}

// Decode finds the recipient that Encode put into a, which must have been made
// from base.
func (v VERP) Decode(base, a smtp.Address) (smtp.Address, error) {
	rest, ok := cutPrefixFold(a.Local, base.Local+v.delimiter())
	i := strings.LastIndexByte(rest, '=')
	if !ok || i < 0 || a.Domain != base.Domain {
		return smtp.Address{}, fmt.Errorf("%w: %s", ErrNotOurs, a)
	}
	local, ok := unescape(rest[:i])
	if !ok {
		return smtp.Address{}, fmt.Errorf("%w: %s", ErrNotOurs, a)
	}
	rcpt, err := smtp.ParseAddress(smtp.Address{Local: local, Domain: rest[i+1:]}.String())
	if err != nil {
		return smtp.Address{}, fmt.Errorf("%w: %w", ErrNotOurs, err)
	}
	return rcpt, nil
}

// Fits reports whether a keeps to the lengths of RFC 5321 §4.5.3.1.
func Fits(a smtp.Address) bool {
	return len(a.Local) <= maxLocal && len(a.Domain) <= maxDomain
}

// cutPrefixFold is strings.CutPrefix for ASCII letters in any case: hosts on
// the way back may change them.
func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

const hexDigits = "0123456789ABCDEF"

// escape hides what would need quotes, or would be taken for a delimiter on
// the way back, as "%" and two hexadecimal digits.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c == '%' || c == '=' || c <= ' ' || c == 0x7f || strings.IndexByte("()<>[]:;@\\,\"", c) >= 0 ||
			c == '.' && (i == 0 || i == len(s)-1 || s[i-1] == '.') {
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

func unescape(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		hi, lo := strings.IndexByte(hexDigits, upper(s[i+1])), strings.IndexByte(hexDigits, upper(s[i+2]))
		if hi < 0 || lo < 0 {
			return "", false
		}
		b.WriteByte(byte(hi<<4 | lo))
		i += 2
	}
	return b.String(), true
}

func upper(c byte) byte {
	if c >= 'a' && c <= 'z' {
		return c - 32
	}
	return c
}
