package imapwire

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postrider/postrider/imap"
)

// isAtomChar is RFC 9051's ATOM-CHAR, which leaves out "]"; see isAString.
func isAtomChar(c byte) bool {
	return c > ' ' && c < 0x7f && !strings.ContainsRune(`(){%*"\]`, rune(c))
}

func isAStringChar(c byte) bool { return isAtomChar(c) || c == ']' }
func isListChar(c byte) bool    { return isAStringChar(c) || c == '%' || c == '*' }
func isTagChar(c byte) bool     { return isAStringChar(c) && c != '+' }
func isLabelChar(c byte) bool   { return isAtomChar(c) && c != '[' }
func isDigit(c byte) bool       { return c >= '0' && c <= '9' }
func isSetChar(c byte) bool     { return isDigit(c) || c == ':' || c == '*' || c == ',' }

// while takes octets as long as f holds; the result is valid until the next
// call.
func (d *Decoder) while(f func(byte) bool) []byte {
	d.scratch = d.scratch[:0]
	for {
		if d.err != nil {
			return nil
		}
		if _, ok := d.peek(); !ok {
			return nil
		}
		buf, _ := d.r.Peek(d.r.Buffered())
		n := 0
		for n < len(buf) && f(buf[n]) {
			n++
		}
		d.scratch = append(d.scratch, buf[:n]...)
		more := n == len(buf)
		d.r.Discard(n)
		if d.line += n; d.line > d.maxLine() {
			d.FailWith(ErrLineTooLong)
			return nil
		}
		if !more {
			return d.scratch
		}
	}
}

func (d *Decoder) word(f func(byte) bool, s *string) bool {
	if b, ok := d.peek(); !ok || !f(b) {
		return false
	}
	w := d.while(f)
	if d.err != nil {
		return false
	}
	*s = string(w)
	return true
}

// Atom takes an atom.
func (d *Decoder) Atom(s *string) bool { return d.word(isAtomChar, s) }

// ExpectAtom takes an atom or fails.
func (d *Decoder) ExpectAtom(s *string) bool { return d.Atom(s) || d.Fail("expected an atom") }

// Keyword takes an atom and turns it to upper case: command names and data
// items.
func (d *Decoder) Keyword(s *string) bool {
	if !d.Atom(s) {
		return false
	}
	*s = upper(*s)
	return true
}

// ExpectKeyword takes a keyword or fails.
func (d *Decoder) ExpectKeyword(s *string) bool { return d.Keyword(s) || d.Fail("expected a name") }

// Label is Keyword without "[": the name of a fetch item.
func (d *Decoder) Label(s *string) bool {
	if !d.word(isLabelChar, s) {
		return false
	}
	*s = upper(*s)
	return true
}

// ExpectLabel takes a label or fails.
func (d *Decoder) ExpectLabel(s *string) bool { return d.Label(s) || d.Fail("expected an item name") }

func upper(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= 'a' && c <= 'z' {
			return asciiUpper(s)
		}
	}
	return s
}

func asciiUpper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'a' && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// Tag takes a command's tag.
func (d *Decoder) Tag(s *string) bool { return d.word(isTagChar, s) }

// ExpectTag takes a tag or fails.
func (d *Decoder) ExpectTag(s *string) bool { return d.Tag(s) || d.Fail("expected a tag") }

// Number takes a 32-bit number.
func (d *Decoder) Number(n *uint32) bool {
	var v int64
	if !d.Number64(&v) {
		return false
	}
	if v > 1<<32-1 {
		return d.Fail("number out of range")
	}
	*n = uint32(v)
	return true
}

// ExpectNumber takes a number or fails.
func (d *Decoder) ExpectNumber(n *uint32) bool { return d.Number(n) || d.Fail("expected a number") }

// Number64 takes a 63-bit number.
func (d *Decoder) Number64(n *int64) bool {
	if b, ok := d.peek(); !ok || !isDigit(b) {
		return false
	}
	w := d.while(isDigit)
	if d.err != nil {
		return false
	}
	var v int64
	for _, c := range w {
		if v > (1<<63-1-9)/10 {
			return d.Fail("number out of range")
		}
		v = v*10 + int64(c-'0')
	}
	*n = v
	return true
}

// ExpectNumber64 takes a 63-bit number or fails.
func (d *Decoder) ExpectNumber64(n *int64) bool { return d.Number64(n) || d.Fail("expected a number") }

// Quoted takes a quoted string. Bare CR, LF and NUL in it are errors, and so
// is what is neither US-ASCII nor valid UTF-8.
func (d *Decoder) Quoted(s *string) bool {
	if !d.Special('"') {
		return false
	}
	var out []byte
	for {
		part := d.while(func(c byte) bool { return c != '"' && c != '\\' && c != '\r' && c != '\n' && c != 0 })
		if d.err != nil {
			return false
		}
		out = append(out, part...)
		switch {
		case d.Special('"'):
			if !utf8.Valid(out) {
				return d.Fail("quoted string is not UTF-8")
			}
			*s = string(out)
			return true
		case d.Special('\\'):
			b, ok := d.peek()
			if !ok || b != '"' && b != '\\' {
				return d.Fail("bad escape in quoted string")
			}
			out = append(out, b)
			if !d.take() {
				return false
			}
		default:
			return d.Fail("unterminated quoted string")
		}
	}
}

// String takes a quoted string or a literal.
func (d *Decoder) String(s *string) bool {
	if d.Next('"') {
		return d.Quoted(s)
	}
	if !d.Next('{') && !d.Next('~') {
		return false
	}
	return d.literalString(s)
}

// ExpectString takes a string or fails.
func (d *Decoder) ExpectString(s *string) bool { return d.String(s) || d.Fail("expected a string") }

// AString takes an atom-like word or a string.
func (d *Decoder) AString(s *string) bool { return d.word(isAStringChar, s) || d.String(s) }

// ExpectAString takes an astring or fails.
func (d *Decoder) ExpectAString(s *string) bool { return d.AString(s) || d.Fail("expected a string") }

// NString takes a string or NIL; notNil says which.
func (d *Decoder) NString(s *string, notNil *bool) bool {
	if d.String(s) {
		*notNil = true
		return true
	}
	var w string
	if !d.Atom(&w) {
		return false
	}
	if upper(w) != "NIL" {
		return d.Fail("expected a string or NIL")
	}
	*s, *notNil = "", false
	return true
}

// ExpectNString takes a string or NIL, or fails.
func (d *Decoder) ExpectNString(s *string) bool {
	var notNil bool
	return d.NString(s, &notNil) || d.Fail("expected a string or NIL")
}

// Mailbox takes a mailbox name and turns it to UTF-8; INBOX in any case
// becomes "INBOX".
func (d *Decoder) Mailbox(s *string) bool {
	var raw string
	if !d.AString(&raw) {
		return false
	}
	return d.mailboxName(raw, s)
}

// ExpectMailbox takes a mailbox name or fails.
func (d *Decoder) ExpectMailbox(s *string) bool {
	return d.Mailbox(s) || d.Fail("expected a mailbox name")
}

// ListMailbox takes a mailbox name or pattern of LIST.
func (d *Decoder) ListMailbox(s *string) bool {
	var raw string
	if !d.word(isListChar, &raw) && !d.String(&raw) {
		return false
	}
	return d.mailboxName(raw, s)
}

// ExpectListMailbox takes a name or pattern, or fails.
func (d *Decoder) ExpectListMailbox(s *string) bool {
	return d.ListMailbox(s) || d.Fail("expected a mailbox name or pattern")
}

func (d *Decoder) mailboxName(raw string, s *string) bool {
	switch {
	case !utf8.ValidString(raw):
		return d.Fail("mailbox name is not UTF-8")
	case len(raw) == 5 && upper(raw) == "INBOX":
		raw = "INBOX"
	case !d.UTF8:
		// A raw UTF-8 or otherwise malformed name is taken as it is: many
		// clients send them, and it can name no other mailbox.
		if u, err := imap.DecodeUTF7(raw); err == nil {
			raw = u
		}
	}
	*s = raw
	return true
}

// NumSet takes a sequence set.
func (d *Decoder) NumSet(s *imap.NumSet) bool {
	if b, ok := d.peek(); !ok || !isDigit(b) && b != '*' {
		return false
	}
	w := d.while(isSetChar)
	if d.err != nil {
		return false
	}
	set, err := imap.ParseNumSet(string(w))
	if err != nil {
		return d.Fail("malformed number set")
	}
	*s = set
	return true
}

// ExpectNumSet takes a sequence set or fails.
func (d *Decoder) ExpectNumSet(s *imap.NumSet) bool {
	return d.NumSet(s) || d.Fail("expected a number set")
}

// ExpectMessageSet takes a sequence set or "$", or fails.
func (d *Decoder) ExpectMessageSet(s *imap.MessageSet) bool {
	if d.Special('$') {
		s.Saved = true
		return true
	}
	return d.ExpectNumSet(&s.Nums)
}

// Flag takes a flag, a keyword or "\*".
func (d *Decoder) Flag(f *imap.Flag) bool {
	var s string
	if d.Special('\\') {
		if d.Special('*') {
			*f = imap.FlagAny
			return true
		}
		if !d.ExpectAtom(&s) {
			return false
		}
		*f = imap.Flag(`\` + s)
		return true
	}
	if !d.Atom(&s) {
		return false
	}
	*f = imap.Flag(s)
	return true
}

// ExpectFlag takes a flag or fails.
func (d *Decoder) ExpectFlag(f *imap.Flag) bool { return d.Flag(f) || d.Fail("expected a flag") }

// maxDepth bounds the nesting of lists.
const maxDepth = 100

// List takes a parenthesised list with single spaces between its elements;
// f takes one element and is not called for "()".
func (d *Decoder) List(f func() bool) bool {
	if !d.Special('(') {
		return false
	}
	if d.depth++; d.depth > maxDepth {
		return d.Fail("nested too deeply")
	}
	defer func() { d.depth-- }()
	if d.Special(')') {
		return true
	}
	for {
		if !f() {
			return d.Fail("malformed list")
		}
		if d.Special(')') {
			return true
		}
		if !d.ExpectSP() {
			return false
		}
	}
}

// ExpectList takes a list or fails.
func (d *Decoder) ExpectList(f func() bool) bool { return d.List(f) || d.Fail("expected a list") }

// Text takes the rest of the line, without its end; it may be empty.
func (d *Decoder) Text(s *string) bool {
	w := d.while(func(c byte) bool { return c != '\r' && c != '\n' })
	if d.err != nil {
		return false
	}
	*s = string(w)
	return true
}

// DateTimeLayout is RFC 9051's date-time in time.Format's terms.
const DateTimeLayout = "_2-Jan-2006 15:04:05 -0700"

// ExpectDateTime takes a quoted date-time or fails.
func (d *Decoder) ExpectDateTime(t *time.Time) bool {
	var s string
	if !d.Quoted(&s) {
		return d.Fail("expected a date-time")
	}
	// Both "_2" and a leading zero are to be taken.
	v, err := time.Parse(DateTimeLayout, s)
	if err != nil || len(s) != len(DateTimeLayout) {
		return d.Fail("malformed date-time")
	}
	*t = v
	return true
}

// ExpectDate takes a date such as 1-Feb-1994, quoted or not, or fails.
func (d *Decoder) ExpectDate(t *time.Time) bool {
	var s string
	if !d.Atom(&s) && !d.Quoted(&s) {
		return d.Fail("expected a date")
	}
	v, err := time.Parse("2-Jan-2006", strings.TrimPrefix(s, "0"))
	if err != nil {
		return d.Fail("malformed date")
	}
	*t = v
	return true
}
