package auth

import (
	"errors"
	"strconv"
	"strings"
)

// ErrSyntax is what Parse returns, wrapped, for a field that RFC 8601 §2.2
// does not allow.
var ErrSyntax = errors.New("auth: malformed Authentication-Results")

// maxResults bounds what one hostile field can make Parse allocate.
const maxResults = 200

// Parse parses the value of an Authentication-Results field: what follows the
// colon, folded or not. It is as strict as RFC 8601 §2.2 about structure, and
// takes property values as they are found in practice (unquoted base64, IPv6
// addresses). Methods, results and property names come back in lower case. A
// comment straight behind a result is kept, others are dropped.
func Parse(value string) (*AuthenticationResults, error) {
	p := parser{s: value}
	a := new(AuthenticationResults)
	if err := p.head(a); err != nil {
		return nil, err
	}
	for !p.end() {
		if !p.take(';') {
			return nil, p.fail("expected a semicolon")
		}
		p.cfws()
		if p.end() {
			break // a final semicolon is often seen
		}
		if len(a.Results) == maxResults {
			return nil, p.fail("too many results")
		}
		m, none, err := p.result()
		if err != nil {
			return nil, err
		}
		if none {
			if len(a.Results) > 0 || !p.end() {
				return nil, p.fail(`"none" beside results`)
			}
			break
		}
		a.Results = append(a.Results, m)
	}
	return a, nil
}

// Claims reports whether an Authentication-Results field with that value, in
// a message from outside, has to be removed before one's own field is added
// (RFC 8601 §5): it names one of ids, the authserv-ids of one's own site. Where
// its authserv-id cannot be told, it is enough that the value has one of ids
// anywhere: others write such fields too. Case does not matter.
func Claims(value string, ids ...string) bool {
	p := parser{s: value}
	var a AuthenticationResults
	if err := p.head(&a); err != nil {
		for _, id := range ids {
			if strings.Contains(strings.ToLower(value), strings.ToLower(strings.TrimSuffix(id, "."))) {
				return true
			}
		}
		return false
	}
	for _, id := range ids {
		if strings.EqualFold(strings.TrimSuffix(a.AuthServID, "."), strings.TrimSuffix(id, ".")) {
			return true
		}
	}
	return false
}

type parser struct {
	s       string
	i       int
	comment string // the comment that cfws saw last
}

func (p *parser) fail(what string) error {
	return &syntaxError{what: what, at: p.i}
}

type syntaxError struct {
	what string
	at   int
}

func (e *syntaxError) Error() string {
	return ErrSyntax.Error() + ": " + e.what + " at octet " + strconv.Itoa(e.at)
}

func (e *syntaxError) Unwrap() error { return ErrSyntax }

func (p *parser) end() bool { return p.i >= len(p.s) }

func (p *parser) take(c byte) bool {
	if p.i < len(p.s) && p.s[p.i] == c {
		p.i++
		return true
	}
	return false
}

// cfws skips white space, line ends and nested comments (RFC 5322 §3.2.2). A
// comment that does not end swallows the rest. It reports whether it moved.
func (p *parser) cfws() bool {
	from := p.i
	p.comment = ""
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\r', '\n':
			p.i++
		case '(':
			p.readComment()
		default:
			return p.i > from
		}
	}
	return p.i > from
}

func (p *parser) readComment() {
	var b strings.Builder
	depth := 0
	for ; p.i < len(p.s); p.i++ {
		c := p.s[p.i]
		switch {
		case c == '(':
			depth++
			if depth == 1 {
				continue
			}
		case c == ')':
			depth--
			if depth == 0 {
				p.i++
				p.comment = strings.Join(strings.Fields(b.String()), " ")
				return
			}
		case c == '\\' && p.i+1 < len(p.s):
			p.i++
			c = p.s[p.i]
		}
		b.WriteByte(c)
	}
}

// head reads authserv-id and version, and stops at the first semicolon.
func (p *parser) head(a *AuthenticationResults) error {
	p.cfws()
	id, ok := p.value()
	if !ok || id == "" {
		return p.fail("expected an authserv-id")
	}
	a.AuthServID = id
	p.cfws()
	if from := p.i; p.digits() {
		v, err := strconv.Atoi(p.s[from:p.i])
		if err != nil || v != 1 {
			return p.fail("unknown version")
		}
		a.Version = v
		p.cfws()
	}
	if p.end() || p.s[p.i] != ';' {
		return p.fail("expected a semicolon")
	}
	return nil
}

func (p *parser) digits() bool {
	from := p.i
	for p.i < len(p.s) && p.s[p.i] >= '0' && p.s[p.i] <= '9' {
		p.i++
	}
	return p.i > from
}

func (p *parser) keyword() string {
	from := p.i
	for p.i < len(p.s) && isKeywordChar(p.s[p.i]) {
		p.i++
	}
	return strings.ToLower(p.s[from:p.i])
}

// value reads a token or a quoted string.
func (p *parser) value() (string, bool) {
	if p.end() {
		return "", false
	}
	if p.s[p.i] == '"' {
		return p.quoted()
	}
	from := p.i
	for p.i < len(p.s) && isTokenChar(p.s[p.i]) {
		p.i++
	}
	return p.s[from:p.i], p.i > from
}

func (p *parser) quoted() (string, bool) {
	var b strings.Builder
	for p.i++; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; c {
		case '"':
			p.i++
			return b.String(), true
		case '\\':
			if p.i++; p.i < len(p.s) {
				b.WriteByte(p.s[p.i])
			}
		case '\r', '\n':
			// The line end of folding is not part of the string.
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// pvalue reads a property's value: a quoted string, or anything up to white
// space, a comment or a semicolon. A quoted local part may be followed by
// "@domain".
func (p *parser) pvalue() (string, bool) {
	var lead string
	if p.i < len(p.s) && p.s[p.i] == '"' {
		var ok bool
		if lead, ok = p.quoted(); !ok {
			return "", false
		}
		if p.end() || p.s[p.i] != '@' {
			return lead, true
		}
		lead = quote(lead)
	}
	from := p.i
	for p.i < len(p.s) && strings.IndexByte(" \t\r\n;(\"", p.s[p.i]) < 0 {
		p.i++
	}
	return lead + p.s[from:p.i], true
}

func (p *parser) result() (m MethodResult, none bool, err error) {
	m.Method = p.keyword()
	if m.Method == "" {
		return m, false, p.fail("expected a method")
	}
	p.cfws()
	if m.Method == "none" && (p.end() || p.s[p.i] == ';') {
		return m, true, nil
	}
	if p.take('/') {
		p.cfws()
		from := p.i
		if !p.digits() {
			return m, false, p.fail("expected a method version")
		}
		if m.Version, err = strconv.Atoi(p.s[from:p.i]); err != nil {
			return m, false, p.fail("method version too large")
		}
		p.cfws()
	}
	if !p.take('=') {
		return m, false, p.fail(`expected "="`)
	}
	p.cfws()
	m.Result = Result(p.keyword())
	if m.Result == "" {
		return m, false, p.fail("expected a result")
	}
	moved := p.cfws()
	m.Comment = p.comment
	for !p.end() && p.s[p.i] != ';' {
		if !moved {
			return m, false, p.fail("expected white space")
		}
		if err := p.property(&m); err != nil {
			return m, false, err
		}
		moved = p.cfws()
	}
	return m, false, nil
}

// property reads a reasonspec or a propspec.
func (p *parser) property(m *MethodResult) error {
	typ := p.keyword()
	if typ == "" {
		return p.fail("expected a property")
	}
	p.cfws()
	if typ == "reason" && p.take('=') {
		p.cfws()
		v, ok := p.value()
		if !ok {
			return p.fail("expected a reason")
		}
		m.Reason = v
		return nil
	}
	if !p.take('.') {
		return p.fail(`expected "."`)
	}
	p.cfws()
	name := p.keyword()
	p.cfws()
	if name == "" || !p.take('=') {
		return p.fail(`expected a property name and "="`)
	}
	p.cfws()
	v, ok := p.pvalue()
	if !ok {
		return p.fail("unterminated quoted string")
	}
	if len(m.Props) == maxResults {
		return p.fail("too many properties")
	}
	m.Props = append(m.Props, Property{typ, name, v})
	return nil
}
