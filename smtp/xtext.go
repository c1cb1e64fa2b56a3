package smtp

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

var errXText = errors.New("smtp: malformed xtext")

const upperHex = "0123456789ABCDEF"

// EncodeXText returns s as xtext (RFC 3461 §4): octets outside "!" to "~",
// and "+" and "=", become +XX.
func EncodeXText(s string) string {
	n := 0
	for i := 0; i < len(s); i++ {
		if !isXChar(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*n)
	for i := 0; i < len(s); i++ {
		if c := s[i]; isXChar(c) {
			b = append(b, c)
		} else {
			b = append(b, '+', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(b)
}

// DecodeXText is the inverse of EncodeXText. What it decodes may hold any
// octet, control characters too: the caller decides what it can use.
func DecodeXText(s string) (string, error) {
	i := 0
	for i < len(s) && isXChar(s[i]) {
		i++
	}
	if i == len(s) {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	b = append(b, s[:i]...)
	for ; i < len(s); i++ {
		c := s[i]
		switch {
		case isXChar(c):
			b = append(b, c)
		case c == '+' && i+2 < len(s) && isUpperHex(s[i+1]) && isUpperHex(s[i+2]):
			b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
		default:
			return "", errXText
		}
	}
	return string(b), nil
}

// The address types of the ORCPT parameter (RFC 3461 §4.2, RFC 6533 §3).
const (
	AddressRFC822 = "rfc822"
	AddressUTF8   = "utf-8"
)

// OriginalRecipient returns the value of the ORCPT parameter, "" when o has
// none: xtext for every type but utf-8, whose text is written as it is when
// utf8 is set (the hop takes SMTPUTF8) and with \x{…} escapes otherwise.
func (o RcptOptions) OriginalRecipient(utf8 bool) string {
	if o.Original == "" {
		return ""
	}
	typ := o.OriginalType
	if typ == "" {
		typ = AddressRFC822
	}
	if strings.EqualFold(typ, AddressUTF8) {
		return typ + ";" + encodeUTF8Address(o.Original, utf8)
	}
	return typ + ";" + EncodeXText(o.Original)
}

// ParseOriginalRecipient splits and decodes the value of an ORCPT parameter,
// or of the Original-Recipient field written the same way. The type comes
// back in lower case.
func ParseOriginalRecipient(s string) (addressType, address string, err error) {
	typ, rest, ok := strings.Cut(s, ";")
	if !ok || typ == "" || rest == "" {
		return "", "", errXText
	}
	for i := 0; i < len(typ); i++ {
		if !isAtext(typ[i]) || typ[i] >= 0x80 {
			return "", "", errXText
		}
	}
	typ = strings.ToLower(typ)
	if typ == AddressUTF8 {
		rest, err = decodeUTF8Address(rest)
	} else {
		rest, err = DecodeXText(rest)
	}
	if err != nil {
		return "", "", err
	}
	// An address that carries line ends or other controls would be printed
	// into a notice one day.
	for i := 0; i < len(rest); i++ {
		if rest[i] < ' ' || rest[i] == 0x7f {
			return "", "", errXText
		}
	}
	return typ, rest, nil
}

// encodeUTF8Address writes utf-8-addr-unitext, or utf-8-addr-xtext when raw
// 8-bit text may not be used (RFC 6533 §3).
func encodeUTF8Address(s string, raw bool) string {
	var b strings.Builder
	for _, r := range s {
		if r < 0x80 && isXChar(byte(r)) && r != '\\' || r >= 0x80 && raw {
			b.WriteRune(r)
			continue
		}
		b.WriteString(`\x{`)
		h := strings.ToUpper(strconv.FormatUint(uint64(r), 16))
		if len(h) < 2 {
			h = "0" + h
		}
		b.WriteString(h)
		b.WriteByte('}')
	}
	return b.String()
}

// decodeUTF8Address reads either form. Software exists that wraps the 7-bit
// form in xtext once more, so a +XX is understood too.
func decodeUTF8Address(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '\\':
			end := strings.IndexByte(s[i:], '}')
			if end < 5 || end > 9 || s[i+1] != 'x' || s[i+2] != '{' {
				return "", errXText
			}
			v, err := strconv.ParseUint(s[i+3:i+end], 16, 32)
			if err != nil || !utf8.ValidRune(rune(v)) {
				return "", errXText
			}
			b.WriteRune(rune(v))
			i += end + 1
		case c == '+' && i+2 < len(s) && isUpperHex(s[i+1]) && isUpperHex(s[i+2]):
			b.WriteByte(unhex(s[i+1])<<4 | unhex(s[i+2]))
			i += 3
		case c >= 0x80 || isXChar(c):
			b.WriteByte(c)
			i++
		default:
			return "", errXText
		}
	}
	if !utf8.ValidString(b.String()) {
		return "", errXText
	}
	return b.String(), nil
}

func isXChar(c byte) bool { return c >= '!' && c <= '~' && c != '+' && c != '=' }

func isUpperHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'A' && c <= 'F' }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c - 'A' + 10
}
