package imaptest

import "strings"

// value is one argument of a response.
type value struct {
	kind kind
	text string
	list []value
}

type kind uint8

const (
	text kind = iota // an atom, quoted string or literal: they are equal if their text is
	null             // NIL
	list             // ( … )
	code             // [ … ] of a status response
)

// statusWords begin responses that end with text for people.
var statusWords = [...]string{"ok", "no", "bad", "bye", "preauth"}

func isStatus(word string) bool {
	for _, w := range statusWords {
		if strings.EqualFold(w, word) {
			return true
		}
	}
	return false
}

// parseResponse parses what stands behind "* ".
func parseResponse(parts []part) []value {
	p := &valueParser{parts: parts}
	p.spaces()
	if b, lit := p.peek(); b == 0 || lit {
		return nil
	}
	first := p.value()
	if first.kind == text && isStatus(first.text) {
		return append([]value{first}, p.status()...)
	}
	return append([]value{first}, p.values(0)...)
}

// parseStatusText parses what stands behind OK, NO or BAD.
func parseStatusText(parts []part) []value { return (&valueParser{parts: parts}).status() }

type valueParser struct {
	parts []part
	at    int
	depth int
}

// peek returns the next octet, or that a literal is next; 0 at the end.
func (p *valueParser) peek() (b byte, literal bool) {
	for len(p.parts) > 0 {
		if p.parts[0].literal {
			return 0, true
		}
		if p.at < len(p.parts[0].text) {
			return p.parts[0].text[p.at], false
		}
		p.parts, p.at = p.parts[1:], 0
	}
	return 0, false
}

func (p *valueParser) spaces() {
	for {
		if b, _ := p.peek(); b != ' ' {
			return
		}
		p.at++
	}
}

// status parses "[code] text".
func (p *valueParser) status() []value {
	var out []value
	p.spaces()
	if b, _ := p.peek(); b == '[' {
		p.at++
		out = append(out, value{kind: code, list: p.values(']')})
	}
	p.spaces()
	if b, lit := p.peek(); b != 0 && !lit {
		out = append(out, value{text: p.parts[0].text[p.at:]})
	}
	return out
}

// values parses up to end, or to the end of all.
func (p *valueParser) values(end byte) []value {
	out := []value{}
	for {
		p.spaces()
		b, lit := p.peek()
		switch {
		case b == 0 && !lit:
			return out
		case b == end && !lit && end != 0:
			p.at++
			return out
		case (b == ')' || b == ']') && !lit || p.depth > 200:
			p.at++ // one too many
			continue
		}
		out = append(out, p.value())
	}
}

func (p *valueParser) value() value {
	b, lit := p.peek()
	switch {
	case lit:
		v := value{text: p.parts[0].text}
		p.parts, p.at = p.parts[1:], 0
		return v
	case b == '(':
		p.at++
		p.depth++
		defer func() { p.depth-- }()
		return value{kind: list, list: p.values(')')}
	case b == '"':
		return value{text: p.quoted()}
	}
	s := p.atom()
	if strings.EqualFold(s, "NIL") {
		return value{kind: null, text: s}
	}
	return value{text: s}
}

func (p *valueParser) quoted() string {
	p.at++
	var s strings.Builder
	for {
		b, _ := p.peek()
		if b == 0 {
			return s.String()
		}
		p.at++
		switch b {
		case '"':
			return s.String()
		case '\\':
			if b, _ = p.peek(); b != 0 {
				p.at++
			}
		}
		s.WriteByte(b)
	}
}

// atom takes anything up to a space or parenthesis, but the whole of
// BODY[HEADER.FIELDS (SUBJECT)].
func (p *valueParser) atom() string {
	var s strings.Builder
	inside := false
	for {
		b, lit := p.peek()
		if b == 0 && !lit || lit {
			return s.String()
		}
		switch {
		case inside:
			inside = b != ']'
			if b == '"' { // a field name may be quoted or not
				p.at++
				continue
			}
		case b == '[' && s.Len() > 0:
			inside = true
		case b == ' ' || b == '(' || b == ')' || b == ']':
			return s.String()
		}
		s.WriteByte(b)
		p.at++
	}
}

// String gives v as a script would have it.
func (v value) String() string {
	switch v.kind {
	case list, code:
		parts := make([]string, len(v.list))
		for i, x := range v.list {
			parts[i] = x.String()
		}
		if v.kind == code {
			return "[" + strings.Join(parts, " ") + "]"
		}
		return "(" + strings.Join(parts, " ") + ")"
	}
	return v.text
}
