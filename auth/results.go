package auth

import (
	"strconv"
	"strings"
)

// FieldName is the name of the header field that this package speaks of.
const FieldName = "Authentication-Results"

// AuthenticationResults is the content of one Authentication-Results field
// (RFC 8601 §2.2).
type AuthenticationResults struct {
	// AuthServID names the host or site that did the checks (RFC 8601 §2.5).
	// Only fields with an identifier of one's own site are to be trusted.
	AuthServID string
	// Version of the field's syntax; 0 = not given, which means 1.
	Version int
	// Results in order. None at all is written as "none".
	Results []MethodResult
}

// MethodResult is what one method found.
type MethodResult struct {
	Method  string // lower case: "spf", "dkim", "dmarc", "iprev", "auth" …
	Version int    // of the method; 0 = not given, which means 1
	Result  Result
	Reason  string // free text, "" = none
	Props   []Property
	// Comment is written in parentheses behind the result, and read from
	// there; "" = none.
	Comment string
}

// Property is one property of the message or the session that a method went
// by, such as smtp.mailfrom or header.d (RFC 8601 §2.3).
type Property struct{ Type, Name, Value string }

// Prop returns the value of the first property of that type and name, "" when
// there is none.
func (m *MethodResult) Prop(typ, name string) string {
	for i := range m.Props {
		if m.Props[i].Type == typ && m.Props[i].Name == name {
			return m.Props[i].Value
		}
	}
	return ""
}

// String returns the whole field, folded, with its name and the final CRLF,
// ready to be put in front of a message.
func (a *AuthenticationResults) String() string { return string(a.AppendTo(nil)) }

// foldAt is the line length that folding aims for (RFC 5322 §2.1.1).
const foldAt = 78

// AppendTo appends what String returns to b. Whatever the values hold, the
// result is one well-formed field: control characters become spaces, and what
// is no token is quoted. Lines are folded between words at 78 octets; one word
// longer than that stays on a line of its own, and is cut at 400 octets.
func (a *AuthenticationResults) AppendTo(b []byte) []byte {
	w := folder{b: b, line: len(b)}
	w.word(FieldName + ":")
	id := a.AuthServID
	if id == "" {
		id = "localhost"
	}
	last := quoteValue(id)
	if a.Version > 0 {
		w.word(" " + last)
		last = strconv.Itoa(a.Version)
	}
	w.word(" " + last + ";")
	if len(a.Results) == 0 {
		w.word(" none")
	}
	for i := range a.Results {
		m := &a.Results[i]
		if i > 0 {
			w.b = append(w.b, ';')
		}
		if len(a.Results) > 1 || i > 0 {
			w.fold()
		}
		s := keyword(m.Method)
		if m.Version > 0 {
			s += "/" + strconv.Itoa(m.Version)
		}
		w.word(" " + s + "=" + keyword(string(m.Result)))
		if m.Comment != "" {
			w.comment(m.Comment)
		}
		if m.Reason != "" {
			w.word(" reason=" + quoteValue(m.Reason))
		}
		for _, p := range m.Props {
			w.word(" " + keyword(p.Type) + "." + keyword(p.Name) + "=" + quotePvalue(p.Value))
		}
	}
	return append(w.b, '\r', '\n')
}

// folder appends words and breaks the line before a word that would not fit.
type folder struct {
	b    []byte
	line int // index in b where the current line begins
}

// word appends s, whose leading space is where the line may be broken.
func (w *folder) word(s string) {
	if len(s) > 1 && s[0] == ' ' && len(w.b)-w.line+len(s) > foldAt {
		w.fold()
	}
	w.b = append(w.b, s...)
}

// fold begins a new line unless one has just begun. The white space that a
// continuation line needs is that of the word that follows.
func (w *folder) fold() {
	if len(w.b) == w.line {
		return
	}
	w.b = append(w.b, '\r', '\n')
	w.line = len(w.b)
}

// comment writes s in parentheses; white space alone is no comment, because a
// reader would find nothing in it.
func (w *folder) comment(s string) {
	s = strings.TrimSpace(clean(s))
	if s == "" {
		return
	}
	s = "(" + escapeComment(s) + ")"
	for word := range strings.FieldsSeq(s) {
		w.word(" " + word)
	}
}

// escapeComment quotes what would end or nest a comment.
func escapeComment(s string) string {
	return strings.NewReplacer(`\`, `\\`, `(`, `\(`, `)`, `\)`).Replace(s)
}

// maxValue and maxKeyword bound one value and one keyword so that no line
// passes the 998 octets of RFC 5322, even when each octet has to be quoted.
const (
	maxValue   = 400
	maxKeyword = 60
)

// clean makes a value safe for a header: no control characters, bounded, and
// valid UTF-8.
func clean(s string) string {
	ok := len(s) <= maxValue
	for i := 0; ok && i < len(s); i++ {
		ok = s[i] >= 0x20 && s[i] < 0x7f
	}
	if ok {
		return s
	}
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxValue {
		s = strings.ToValidUTF8(s[:maxValue], "")
	}
	return s
}

// keyword makes s a Keyword of RFC 5321 (letters, digits and hyphens) by
// leaving out what cannot be in one.
func keyword(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x80 && isKeywordChar(byte(r)) {
			return r
		}
		return -1
	}, s)
	if s == "" {
		return "unknown"
	}
	return s[:min(len(s), maxKeyword)]
}

func isKeywordChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// isTokenChar is token of RFC 2045 §5.1, widened to UTF-8 (RFC 6532).
func isTokenChar(c byte) bool {
	if c >= 0x80 {
		return true
	}
	return c > 0x20 && c != 0x7f && strings.IndexByte(`()<>@,;:\"/[]?=`, c) < 0
}

// quoteValue returns s as a value of RFC 2045 §5.1: a token, or quoted.
func quoteValue(s string) string {
	s = clean(s)
	plain := s != ""
	for i := 0; plain && i < len(s); i++ {
		plain = isTokenChar(s[i])
	}
	if plain {
		return s
	}
	return quote(s)
}

// quotePvalue is quoteValue that leaves local@domain as it is.
func quotePvalue(s string) string {
	s = clean(s)
	local, domain, found := strings.Cut(s, "@")
	if found && domain != "" && isDotAtom(local, true) && isDotAtom(domain, false) {
		return s
	}
	return quoteValue(s)
}

func isDotAtom(s string, emptyOK bool) bool {
	if s == "" {
		return emptyOK
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		// "=" and "/" may be in a local part; a reader of pvalue must expect them.
		if !isTokenChar(c) && c != '=' && c != '/' && c != '?' {
			return false
		}
	}
	return true
}

func quote(s string) string {
	b := make([]byte, 0, len(s)+2)
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return string(append(b, '"'))
}
