package mime

import "strings"

// mailbox is one element of an address list as it stands, before any
// decoding.
type mailbox struct {
	kind    mailboxKind
	name    string // phrase; quotes removed, encoded words as they stand
	comment string // the last comment, the display name of "addr (name)"
	route   string // "@a,@b" as it stood in <@a,@b:local@domain>, without white space
	local   string // without quotes
	domain  string // without white space and comments
	text    string // what was read, for errors
	bad     bool   // no local part
}

type mailboxKind uint8

const (
	isMailbox mailboxKind = iota
	isGroupStart
	isGroupEnd
)

// addrScanner walks over an unfolded address list (RFC 5322 §3.4 and §4.4).
// It takes anything: what cannot be an address becomes a bad mailbox. Time is
// linear and memory bounded by the text.
type addrScanner struct {
	s       string
	i       int
	inGroup bool
	noQuote bool // no quote from here on has a closing one
	done    bool
}

// token kinds of the scanner
const (
	tokEnd     = 0
	tokAtom    = 'a'
	tokQuoted  = '"'
	tokComment = '('
	tokLiteral = '['
	// any other token is its own character: < > , ; : @
)

// token reads one token; space tells whether white space came before it.
func (p *addrScanner) token() (kind byte, text string, space bool) {
	s, i := p.s, p.i
	for i < len(s) && (s[i] == ' ' || s[i] == '\t' || s[i] == '\r' || s[i] == '\n') {
		i++
		space = true
	}
	if i >= len(s) {
		p.i = i
		return tokEnd, "", space
	}
	start := i
	switch c := s[i]; c {
	case '<', '>', ',', ';', ':', '@':
		p.i = i + 1
		return c, s[i : i+1], space
	case '"':
		end := -1
		if !p.noQuote {
			end = quotedEnd(s[i:])
		}
		if end < 0 {
			// No closing quote: the quote is a character of the phrase.
			p.noQuote = true
			break
		}
		p.i = i + end
		return tokQuoted, unquote(s[i+1 : i+end-1]), space
	case '(':
		end := commentEnd(s[i:])
		if end < 0 {
			p.i = len(s)
			return tokComment, unquote(s[i+1:]), space
		}
		p.i = i + end
		return tokComment, unquote(s[i+1 : i+end-1]), space
	case '[':
		if end := strings.IndexAny(s[i:], "]<>,"); end > 0 && s[i+end] == ']' {
			p.i = i + end + 1
			return tokLiteral, s[i : i+end+1], space
		}
	}
	i++
	for i < len(s) {
		switch c := s[i]; c {
		case ' ', '\t', '\r', '\n', '<', '>', ',', ';', ':', '@', '(', '"':
			// An encoded word may have these although it must not
			// (RFC 2047 §5 (3)): it is taken as a whole.
			if strings.HasPrefix(s[start:], "=?") {
				if end := encodedWordEnd(s[start:]); end > i-start {
					i = start + end
					continue
				}
			}
			p.i = i
			return tokAtom, s[start:i], space
		}
		i++
	}
	p.i = i
	return tokAtom, s[start:i], space
}

// next returns the next element; false at the end.
func (p *addrScanner) next() (mailbox, bool) {
	for !p.done {
		m, ok := p.element()
		if ok {
			return m, true
		}
	}
	return mailbox{}, false
}

// element reads up to a separator. It returns false for an empty element.
func (p *addrScanner) element() (mailbox, bool) {
	var wordBuf, domBuf, comBuf [6]word
	words, dom, comments := wordBuf[:0], domBuf[:0], comBuf[:0]
	var m mailbox
	begin := p.i
	at := false    // "@" was seen outside <>
	angle := false // <> was seen
	empty := true
	flush := func() (mailbox, bool) {
		m.text = strings.Trim(p.s[begin:p.i], " \t\r\n,;")
		m.comment = phrase(comments)
		switch {
		case angle:
			m.name = phrase(words)
		case at:
			rest, local := cutLocal(words)
			m.name, m.local, m.domain = phrase(rest), local, concat(dom)
		case len(words) == 1:
			m.local = words[0].text
		default:
			m.name = phrase(words)
		}
		m.bad = m.local == ""
		return m, !empty
	}
	for {
		before := p.i
		kind, text, space := p.token()
		switch kind {
		case tokEnd:
			if !p.inGroup || !empty {
				p.done = !p.inGroup
				return flush()
			}
			p.inGroup, p.done = false, true // a group without its ";"
			return mailbox{kind: isGroupEnd}, true
		case ',':
			return flush()
		case ';':
			if p.inGroup && empty {
				p.inGroup = false
				return mailbox{kind: isGroupEnd}, true
			}
			if p.inGroup {
				p.i = before // the end of the group is the next element
			}
			// Outside a group it separates, as some mailers have it.
			return flush()
		case ':':
			if !p.inGroup && !at && !angle {
				if name := phrase(words); name != "" {
					p.inGroup = true
					return mailbox{kind: isGroupStart, name: name}, true
				}
			}
			if !angle && !at {
				words = append(words, word{text, space, false})
			}
		case tokComment:
			comments = append(comments, word{text, true, false})
		case '<':
			empty = false
			if angle {
				continue
			}
			if at {
				// phil@example.com <phil@example.com>
				rest, local := cutLocal(words)
				words = append(rest, word{local + "@" + concat(dom), true, false})
				at = false
			}
			angle = true
			comments = p.angle(&m, comments)
		case '>':
		case '@':
			empty = false
			switch {
			case angle:
			case at:
				// a@b@c: the last one divides.
				words = append(words, word{"@" + concat(dom), false, false})
				dom = dom[:0]
			default:
				at = true
			}
		default:
			empty = false
			w := word{text, space, kind == tokQuoted}
			switch {
			case angle:
				// Text after <> is no part of an address.
			case !at:
				words = append(words, w)
			case space && len(dom) > 0 && !strings.HasSuffix(dom[len(dom)-1].text, ".") && !strings.HasPrefix(text, "."):
				// Two addresses with only white space between them.
				p.i = before
				return flush()
			default:
				dom = append(dom, w)
			}
		}
	}
}

// angle reads what follows "<" into m: an addr-spec, before it perhaps the
// source route of RFC 5322 §4.4.
func (p *addrScanner) angle(m *mailbox, comments []word) []word {
	var localBuf, domBuf [6]word
	local, dom := localBuf[:0], domBuf[:0]
	var route []byte
	at := false
	for {
		kind, text, space := p.token()
		switch {
		case kind == tokEnd || kind == '>':
			m.local, m.domain = concat(local), concat(dom)
			m.route = string(route)
			return comments
		case kind == tokComment:
			comments = append(comments, word{text, true, false})
		case kind == '@':
			if at && len(local) > 0 {
				local = append(local, word{text: "@" + concat(dom)})
			}
			at, dom = true, dom[:0]
		case at && len(local) == 0 && (kind == ':' || kind == ','):
			// The end of one hop of a route.
			if len(dom) > 0 {
				if len(route) > 0 {
					route = append(route, ',')
				}
				route = append(route, '@')
				for _, w := range dom {
					route = append(route, w.text...)
				}
			}
			at, dom = false, dom[:0]
		case at:
			dom = append(dom, word{text, space, kind == tokQuoted})
		default:
			local = append(local, word{text, space, kind == tokQuoted})
		}
	}
}

// phraseByte tells what plainMailbox takes outside of quotes: what a token of
// the scanner may have anywhere.
var phraseByte = func() (t [256]bool) {
	for c := range t {
		t[c] = c > ' ' && c != 0x7f && strings.IndexByte(`<>,;:@("[)\]`, byte(c)) < 0
	}
	return t
}()

// plainMailbox reads the first mailbox of a list when it is as almost all are
// (name and address between angle brackets, or the address alone), as the
// scanner would, only faster. rest is what follows its comma.
func plainMailbox(s string) (m mailbox, rest string, ok bool) {
	i := 0
	for i < len(s) && s[i] == ' ' {
		i++
	}
	start, at := i, -1
	if i < len(s) && s[i] == '"' {
		n := strings.IndexByte(s[i+1:], '"')
		if n < 0 {
			return m, "", false
		}
		m.name = s[i+1 : i+1+n]
		if strings.IndexByte(m.name, '\\') >= 0 {
			return m, "", false
		}
		i += n + 2
		for i < len(s) && s[i] == ' ' {
			i++
		}
		if i == len(s) || s[i] != '<' {
			return m, "", false
		}
	} else {
		for i < len(s) && (phraseByte[s[i]] || s[i] == ' ' && i > start && s[i-1] != ' ') {
			i++
		}
		if i == len(s) {
			return m, "", false
		}
		switch s[i] {
		case '<':
			m.name = s[start:i]
			if n := len(m.name); n > 0 && m.name[n-1] == ' ' {
				m.name = m.name[:n-1]
			}
		case '@':
			at = start
		default:
			return m, "", false
		}
	}
	end := byte(',')
	if at < 0 {
		i++
		at, end = i, '>'
		for i < len(s) && phraseByte[s[i]] {
			i++
		}
		if i == len(s) || s[i] != '@' {
			return m, "", false
		}
	}
	m.local = s[at:i]
	i++
	host := i
	for i < len(s) && (s[i] >= 'a' && s[i] <= 'z' || s[i] == '.' || s[i] == '-' || s[i] >= '0' && s[i] <= '9' || s[i] >= 'A' && s[i] <= 'Z') {
		i++
	}
	m.domain = s[host:i]
	if end == '>' {
		if i == len(s) || s[i] != '>' {
			return m, "", false
		}
		i++
	}
	for i < len(s) && s[i] == ' ' {
		i++
	}
	if i < len(s) && s[i] != ',' || m.local == "" || m.domain == "" || strings.IndexByte(m.local, ' ') >= 0 {
		return m, "", false
	}
	return m, s[min(i+1, len(s)):], true
}

// word is one token of a phrase, local part or domain.
type word struct {
	text   string
	space  bool // white space came before it
	quoted bool
}

// phrase joins words as they stood, runs of white space as one space.
func phrase(w []word) string {
	if len(w) == 1 {
		return w[0].text
	}
	var b strings.Builder
	for i, t := range w {
		if i > 0 && t.space {
			b.WriteByte(' ')
		}
		b.WriteString(t.text)
	}
	return b.String()
}

// concat joins words without the white space between them.
func concat(w []word) string {
	if len(w) == 1 {
		return w[0].text
	}
	var b strings.Builder
	for _, t := range w {
		b.WriteString(t.text)
	}
	return b.String()
}

// cutLocal divides what stood before "@" into words and the local part, whose
// dots may have white space around them (RFC 5322 §4.4).
func cutLocal(w []word) ([]word, string) {
	i := len(w) - 1
	for i > 0 && (!w[i].space || !w[i].quoted && strings.HasPrefix(w[i].text, ".") || !w[i-1].quoted && strings.HasSuffix(w[i-1].text, ".")) {
		i--
	}
	if i < 0 {
		return w, ""
	}
	return w[:i], concat(w[i:])
}

// quotedEnd returns the length of the quoted string that s begins with, -1
// when it does not end.
func quotedEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// commentEnd returns the length of the comment that s begins with, nested
// ones included, -1 when it does not end.
func commentEnd(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// unquote removes the backslashes of quoted pairs.
func unquote(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}
