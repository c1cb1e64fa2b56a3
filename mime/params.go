package mime

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// parseParams reads a value with parameters: "text/plain; charset=utf-8",
// "attachment; filename*=utf-8”%e2%82%ac" (RFC 2045 §5.1, RFC 2183,
// RFC 2231). Names are in lower case. It puts up with missing semicolons,
// unquoted values with spaces, stray text, encoded words in values. Of
// parameters given twice the first counts; the RFC 2231 form goes before the
// plain one.
func parseParams(s string) (main string, params map[string]string) {
	p := paramScanner{s: s}
	return p.parse(maxParams)
}

const maxParams = 1000

// parse reads at most so many parameters, and what stands before them.
func (p *paramScanner) parse(most int) (main string, params map[string]string) {
	main = p.main()
	return main, p.params(most)
}

// params reads at most so many parameters.
func (p *paramScanner) params(most int) (params map[string]string) {
	var pieces []piece
	for {
		name, value, ok := p.param()
		if !ok {
			break
		}
		if most--; most < 0 {
			p.full = true
			break
		}
		if strings.IndexByte(name, '*') >= 0 {
			if pc, ok := parsePiece(name, value); ok {
				pieces = append(pieces, pc)
			} else {
				p.odd = true
			}
			continue
		}
		if _, have := params[name]; have {
			p.odd = true
			continue
		}
		if params == nil {
			params = make(map[string]string, 2)
		}
		switch {
		case name == "boundary":
			// Compared octet by octet; never decoded.
		case strings.Contains(value, "=?"):
			value = DecodeText(value)
		default:
			value = toUTF8(value)
		}
		params[name] = value
	}
	if pieces != nil {
		if params == nil {
			params = make(map[string]string, 2)
		}
		joinPieces(params, pieces)
	}
	return params
}

type paramScanner struct {
	s    string
	i    int
	odd  bool // something had to be guessed at
	full bool // there were more parameters than wanted
}

// space skips white space and comments.
func (p *paramScanner) space() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\r', '\n':
			p.i++
		case '(':
			end := commentEnd(p.s[p.i:])
			if end < 0 {
				end = len(p.s) - p.i
			}
			p.i += end
		default:
			return
		}
	}
}

// main reads up to the parameters, without white space and comments.
func (p *paramScanner) main() string {
	var b []byte
	p.space()
	start := p.i
	simple := true
	for p.i < len(p.s) && p.s[p.i] != ';' {
		switch p.s[p.i] {
		case ' ', '\t', '\r', '\n', '(':
			end := p.i
			p.space()
			if p.i >= len(p.s) || p.s[p.i] == ';' || p.atName() {
				if simple {
					return p.s[start:end]
				}
				return string(b)
			}
			if simple {
				b, simple = append(b, p.s[start:end]...), false
			}
		default:
			if !simple {
				b = append(b, p.s[p.i])
			}
			p.i++
		}
	}
	if simple {
		return p.s[start:p.i]
	}
	return string(b)
}

// atName reports whether "name=" follows.
func (p *paramScanner) atName() bool {
	i := p.i
	for i < len(p.s) && isParamByte(p.s[i]) {
		i++
	}
	return i > p.i && i < len(p.s) && p.s[i] == '='
}

func isParamByte(c byte) bool {
	switch c {
	case ' ', '\t', '\r', '\n', '=', ';', '"', '(', ')', ',', '<', '>', '@', '?', '/':
		return false
	}
	return true
}

// param reads the next name and value; false at the end.
func (p *paramScanner) param() (name, value string, ok bool) {
	for {
		for p.space(); p.i < len(p.s) && p.s[p.i] == ';'; p.space() {
			p.i++
		}
		if p.i >= len(p.s) {
			return "", "", false
		}
		start := p.i
		for p.i < len(p.s) && isParamByte(p.s[p.i]) {
			p.i++
		}
		name = lower(p.s[start:p.i])
		p.space()
		if p.i >= len(p.s) {
			p.odd = true
			return "", "", false
		}
		if p.s[p.i] != '=' {
			p.odd = true
			if p.i == start {
				p.i++ // a stray character
			}
			continue
		}
		p.i++
		p.space()
		value = p.value()
		if name != "" {
			return name, value, true
		}
		p.odd = true
	}
}

func (p *paramScanner) value() string {
	if p.i < len(p.s) && p.s[p.i] == '"' {
		rest := p.s[p.i:]
		end := quotedEnd(rest)
		if end < 0 {
			p.i, p.odd = len(p.s), true
			return unquote(rest[1:])
		}
		p.i += end
		return unquote(rest[1 : end-1])
	}
	start := p.i
	for p.i < len(p.s) {
		switch c := p.s[p.i]; c {
		case ';':
			return p.s[start:p.i]
		case ' ', '\t', '\r', '\n':
			end := p.i
			p.space()
			if p.i >= len(p.s) || p.s[p.i] == ';' || p.atName() {
				return p.s[start:end]
			}
			p.odd = true // a value with spaces that should have been quoted
		case '=':
			if end := encodedWordEnd(p.s[p.i:]); end > 0 {
				p.i += end
			} else {
				p.i++
			}
		default:
			p.i++
		}
	}
	return p.s[start:p.i]
}

// piece is one section of a parameter of RFC 2231 §3.
type piece struct {
	name     string
	n        int
	extended bool
	value    string
}

func parsePiece(name, value string) (piece, bool) {
	pc := piece{value: value}
	var rest string
	pc.name, rest, _ = strings.Cut(name, "*")
	if rest == "" {
		pc.extended = true // name*=
		return pc, pc.name != ""
	}
	rest, pc.extended = strings.CutSuffix(rest, "*")
	n, err := strconv.ParseUint(rest, 10, 24)
	pc.n = int(n)
	return pc, err == nil && pc.name != ""
}

// joinPieces puts sections together, in the order of their numbers.
func joinPieces(params map[string]string, pieces []piece) {
	slices.SortStableFunc(pieces, func(a, b piece) int {
		if c := cmp.Compare(a.name, b.name); c != 0 {
			return c
		}
		return cmp.Compare(a.n, b.n)
	})
	for len(pieces) > 0 {
		n := 1
		for n < len(pieces) && pieces[n].name == pieces[0].name {
			n++
		}
		params[pieces[0].name] = joinValue(pieces[:n])
		pieces = pieces[n:]
	}
}

func joinValue(pieces []piece) string {
	charset := ""
	var out strings.Builder
	var octets []byte // of extended pieces: a character may be split among them
	flush := func() {
		if len(octets) == 0 {
			return
		}
		t, ok := decodeCharset(charset, octets)
		if !ok {
			t = toUTF8(string(octets))
		}
		out.WriteString(t)
		octets = octets[:0]
	}
	last := -1
	for i, pc := range pieces {
		if pc.n == last {
			continue // given twice
		}
		last = pc.n
		v := pc.value
		if !pc.extended {
			flush()
			out.WriteString(toUTF8(v))
			continue
		}
		if i == 0 {
			if cs, rest, ok := strings.Cut(v, "'"); ok {
				if _, text, ok := strings.Cut(rest, "'"); ok {
					charset, v = cs, text
				}
			}
		}
		octets = appendUnescaped(octets, v)
	}
	flush()
	return out.String()
}

func appendUnescaped(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && hexValue[s[i+1]] < 16 && hexValue[s[i+2]] < 16 {
			dst = append(dst, hexValue[s[i+1]]<<4|hexValue[s[i+2]])
			i += 2
			continue
		}
		dst = append(dst, s[i])
	}
	return dst
}

// param writes "; name=value" into a field: as a token, a quoted string, or
// in the form of RFC 2231 when value is not ASCII or too long for a line.
func (f *folder) param(name, value string) {
	f.dst = append(f.dst, ';')
	f.col++
	token, ascii := value != "", true
	raw := f.utf8 && utf8.ValidString(value)
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c >= 0x80 && raw:
			token = false
		case c >= 0x80 || c < ' ' || c == 0x7f:
			ascii = false
		case !isTokenByte(c):
			token = false
		}
	}
	switch {
	case ascii && len(name)+len(value) < 500 && token:
		f.word(" ", name+"="+value)
	case ascii && len(name)+len(value) < 500 && !strings.Contains(value, "=?"):
		f.word(" ", string(appendQuoted(append([]byte(name), '='), value)))
	default:
		f.extended(name, value)
	}
}

// extended writes the form of RFC 2231, in sections that fit a line.
func (f *folder) extended(name, value string) {
	value = strings.ToValidUTF8(value, "\ufffd")
	esc := make([]byte, 0, 3*len(value))
	for i := 0; i < len(value); i++ {
		if c := value[i]; isAttrByte(c) {
			esc = append(esc, c)
		} else {
			esc = append(esc, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	const charset = "utf-8''"
	if len(name)+len("*=")+len(charset)+len(esc) < foldColumns-2 {
		f.word(" ", name+"*="+charset+string(esc))
		return
	}
	prefix := charset
	for n := 0; n == 0 || len(esc) > 0; n++ {
		head := name + "*" + strconv.Itoa(n) + "*=" + prefix
		prefix = ""
		k := min(max(foldColumns-2-len(head), 12), len(esc))
		for back := 1; back <= 2 && k < len(esc); back++ {
			if k >= back && esc[k-back] == '%' {
				k -= back // not within an escape
				break
			}
		}
		if n > 0 {
			f.dst = append(f.dst, ';')
			f.col++
		}
		f.word(" ", head+string(esc[:k]))
		esc = esc[k:]
	}
}

// isTokenByte reports a character of a token of RFC 2045 §5.1.
func isTokenByte(c byte) bool {
	return c > ' ' && c < 0x7f && strings.IndexByte(`()<>@,;:\"/[]?=`, c) < 0
}

// isAttrByte reports attribute-char of RFC 2231 §7.
func isAttrByte(c byte) bool { return isTokenByte(c) && c != '*' && c != '\'' && c != '%' }

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
