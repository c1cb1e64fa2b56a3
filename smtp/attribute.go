package smtp

import "strings"

// Attribute is one of what XCLIENT and XFORWARD say of the client that a
// trusted proxy or filter speaks for: NAME, ADDR, PORT, PROTO, HELO, LOGIN,
// DESTADDR, DESTPORT, IDENT, SOURCE.
type Attribute struct{ Name, Value string }

// The values of an Attribute that say that there is none: for good, or
// because a lookup failed for the moment.
const (
	AttributeUnavailable = "[UNAVAILABLE]"
	AttributeTempUnavail = "[TEMPUNAVAIL]"
)

// ParseAttributes reads the arguments of XCLIENT or XFORWARD: names with
// values in xtext, separated by spaces. Names come back in upper case, and a
// value with control characters, which would end up in logs and headers, is
// malformed.
func ParseAttributes(s string) ([]Attribute, error) {
	var list []Attribute
	for item := range strings.FieldsSeq(s) {
		name, value, ok := strings.Cut(item, "=")
		value, err := DecodeXText(value)
		if !ok || name == "" || err != nil || len(value) > 255 || len(list) == 32 {
			return nil, ErrParameter
		}
		for i := 0; i < len(name); i++ {
			if !isAlpha(name[i]) {
				return nil, ErrParameter
			}
		}
		for i := 0; i < len(value); i++ {
			if value[i] < ' ' || value[i] == 0x7f {
				return nil, ErrParameter
			}
		}
		list = append(list, Attribute{strings.ToUpper(name), value})
	}
	if len(list) == 0 {
		return nil, ErrParameter
	}
	return list, nil
}

// FormatAttributes is the inverse of ParseAttributes.
func FormatAttributes(list []Attribute) string {
	var b strings.Builder
	for i, a := range list {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(a.Name)
		b.WriteByte('=')
		b.WriteString(EncodeXText(a.Value))
	}
	return b.String()
}
