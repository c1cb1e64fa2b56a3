package mime

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/postrider/postrider/smtp"
)

// ErrAddress says that a text holds no address, or none that mail can be sent
// to.
var ErrAddress = errors.New("mime: not an address")

// Address is a mailbox as a header shows it (RFC 5322 §3.4): a display name
// and the address.
type Address struct {
	Name string // decoded; "" = none
	smtp.Address
}

// ParseAddress reads one mailbox. The error wraps [ErrAddress].
func ParseAddress(s string) (Address, error) {
	list, err := ParseAddressList(s)
	if err != nil {
		return Address{}, err
	}
	if len(list) != 1 {
		return Address{}, addressError(s)
	}
	return list[0], nil
}

// ParseAddressList reads an address list in the syntax of RFC 5322 §3.4 and
// the obsolete one of §4.4, with RFC 2047 and RFC 6532, and leniently. The
// members of groups are in the list, without the name of the group. What can
// be read is returned also when the error is not nil; it then wraps
// [ErrAddress] and speaks of the first that could not.
func ParseAddressList(s string) ([]Address, error) {
	return appendAddresses(nil, unfold(s))
}

func appendAddresses(list []Address, s string) ([]Address, error) {
	var first error
	for {
		m, rest, ok := plainMailbox(s)
		if !ok {
			break
		}
		a, ok := m.address()
		if !ok {
			break
		}
		list = append(list, a)
		if s = rest; s == "" {
			return list, nil
		}
	}
	p := addrScanner{s: s}
	for {
		m, ok := p.next()
		if !ok {
			return list, first
		}
		if m.kind != isMailbox {
			continue
		}
		a, ok := m.address()
		if !ok {
			if first == nil {
				first = addressError(m.text)
			}
			continue
		}
		list = append(list, a)
	}
}

func addressError(s string) error {
	if len(s) > 80 {
		s = s[:80]
	}
	return fmt.Errorf("%w: %q", ErrAddress, s)
}

// address decodes m; false when it is none.
func (m *mailbox) address() (Address, bool) {
	if m.bad || m.domain == "" {
		return Address{}, false
	}
	d, ok := plainDomain(m.domain)
	if !ok {
		var err error
		if d, err = smtp.ParseDomain(m.domain); err != nil {
			return Address{}, false
		}
	}
	a := Address{m.name, smtp.Address{Local: toUTF8(m.local), Domain: d}}
	for i := 0; i < len(a.Local); i++ {
		if a.Local[i] < ' ' || a.Local[i] == 0x7f {
			return Address{}, false
		}
	}
	if a.Name == "" {
		a.Name = m.comment
	}
	a.Name = DecodeText(a.Name)
	return a, true
}

// plainDomain returns s in lower case when it is a plain ASCII name, which
// needs no IDNA.
func plainDomain(s string) (string, bool) {
	if len(s) > 253 || strings.Contains(s, "--") {
		return "", false // perhaps an A-label
	}
	last := byte('.')
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9':
		case c == '-' && last != '.':
		case c == '.' && last != '.' && last != '-':
		default:
			return "", false
		}
		last = c
	}
	if last == '-' || last == '.' {
		return "", false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) > 63 {
			return "", false
		}
	}
	return lower(s), true
}

// String returns a as a header has it: the name as a phrase, quoted or as
// encoded words (RFC 2047) where it must be, and the address between angle
// brackets; the address alone without a name.
func (a Address) String() string {
	return string(a.appendTo(nil, 0, false))
}

// appendTo writes a after col columns of a line; encoded words are made to
// fit what is left of it. With raw the name is not encoded.
func (a Address) appendTo(dst []byte, col int, raw bool) []byte {
	if a.Name == "" {
		return append(dst, a.Address.String()...)
	}
	dst = appendPhrase(dst, a.Name, col, raw)
	dst = append(dst, ' ')
	return append(dst, a.Path()...)
}

// appendPhrase writes a display name: as atoms, a quoted string or encoded
// words.
func appendPhrase(dst []byte, name string, col int, raw bool) []byte {
	atoms, quotable := true, true
	raw = raw && utf8.ValidString(name)
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c >= 0x80 && raw:
		case c >= 0x80 || c < ' ' || c == 0x7f:
			return appendWords(dst, name, col)
		case c == ' ':
			atoms = atoms && i > 0 && i < len(name)-1 && name[i-1] != ' '
		case !isAtomByte(c):
			atoms = false
		}
	}
	// What looks like an encoded word must not be read as one.
	quotable = !strings.Contains(name, "=?")
	switch {
	case !quotable:
		return appendWords(dst, name, col)
	case atoms:
		return append(dst, name...)
	}
	return appendQuoted(dst, name)
}

func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, s[i])
	}
	return append(dst, '"')
}

// isAtomByte reports atext of RFC 5322 §3.2.3 in ASCII.
func isAtomByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}
