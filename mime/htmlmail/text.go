package htmlmail

import (
	"bufio"
	"io"
	"strconv"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// WriteText writes what people read in HTML, which is UTF-8, as plain text:
// paragraphs with an empty line between them, items of lists with a mark,
// quotations with "> ", pictures as their alternative text. It fits
// [mime.Reading.HTML]. Nothing is refused; the error is w's or r's.
func WriteText(w io.Writer, r io.Reader) error { return write(w, r, false) }

// Alternative returns HTML as plain text as [WriteText] does, and the
// addresses of links after their text: for the Text of a message that has
// HTML.
func Alternative(html string) string {
	var b strings.Builder
	_ = write(&b, strings.NewReader(html), true) // neither can fail
	return b.String()
}

// maxToken bounds a tag or comment; a text that is longer comes in pieces.
const maxToken = 1 << 20

func write(w io.Writer, r io.Reader, links bool) error {
	in := &errReader{r: r}
	z := html.NewTokenizer(in)
	z.SetMaxBuf(maxToken)
	t := text{w: bufio.NewWriter(w), links: links}
	for {
		switch z.Next() {
		case html.ErrorToken:
			if z.Err() == html.ErrBufferExceeded {
				// Something endless: nobody can read on from here.
				t.end()
				return t.w.Flush()
			}
			t.end()
			if err := t.w.Flush(); err != nil {
				return err
			}
			return in.err
		case html.TextToken:
			t.text(z.Text())
		case html.StartTagToken, html.SelfClosingTagToken:
			name, more := z.TagName()
			t.start(z, atom.Lookup(name), more)
		case html.EndTagToken:
			name, _ := z.TagName()
			t.close(atom.Lookup(name))
		}
	}
}

// errReader remembers an error that is not the end.
type errReader struct {
	r   io.Reader
	err error
}

func (e *errReader) Read(b []byte) (int, error) {
	n, err := e.r.Read(b)
	if err != nil && err != io.EOF {
		e.err = err
	}
	return n, err
}

// maxNesting bounds lists and quotations that are marked.
const maxNesting = 50

// text lays out what is read.
type text struct {
	w     *bufio.Writer
	links bool

	begun bool // something was written
	lines int  // line ends to write before the next text
	space bool // white space to write before it
	col   int  // characters were written to the line

	hidden atom.Atom // what is in it is not shown
	pre    int
	quote  int
	gap    int   // the least quote since the last text, for the empty line
	lists  []int // of each list the next number, 0 = a mark
	href   string
	label  strings.Builder // text of the link
}

func (t *text) need(lines int) { t.lines, t.space = max(t.lines, lines), false }

// put writes text that has no white space to collapse.
func (t *text) put(s string) {
	if s == "" {
		return
	}
	if t.begun {
		for n := range min(t.lines, 2) {
			if n > 0 {
				t.w.WriteString(strings.TrimRight(strings.Repeat("> ", t.gap), " "))
			}
			t.w.WriteByte('\n')
			t.col = 0
		}
	}
	if t.col == 0 {
		t.w.WriteString(strings.Repeat("> ", t.quote))
	} else if t.space {
		t.w.WriteByte(' ')
		if t.href != "" {
			t.label.WriteByte(' ')
		}
	}
	t.begun, t.lines, t.space, t.gap = true, 0, false, t.quote
	t.w.WriteString(s)
	t.col++
	if t.href != "" && t.label.Len() < 1000 {
		t.label.WriteString(s)
	}
}

func (t *text) text(b []byte) {
	if t.hidden != 0 {
		return
	}
	s := strings.ToValidUTF8(string(b), "\ufffd")
	if t.pre > 0 {
		for line := range strings.Lines(s) {
			if body := strings.TrimRight(line, "\r\n"); body != "" {
				t.put(visible(body))
			}
			if strings.HasSuffix(line, "\n") {
				if t.lines == 0 || t.lines == 1 {
					t.lines++
				}
			}
		}
		return
	}
	for s != "" {
		i := strings.IndexFunc(s, isSpace)
		if i < 0 {
			t.put(visible(s))
			return
		}
		t.put(visible(s[:i]))
		t.space = true
		s = strings.TrimLeftFunc(s[i:], isSpace)
	}
}

func isSpace(r rune) bool {
	return r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == '\f' || r == '\u00a0'
}

// visible removes control characters, and those that mailings stuff their
// previews with.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '\u00ad', '\u034f', '\u200b', '\u200c', '\u2060', '\ufeff', 0x7f:
			return -1
		}
		if r < ' ' && r != '\t' {
			return -1
		}
		return r
	}, s)
}

// block returns how many line ends stand around an element.
func block(a atom.Atom) int {
	switch a {
	case atom.P, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Blockquote,
		atom.Pre, atom.Table, atom.Dl, atom.Figure:
		return 2
	case atom.Div, atom.Tr, atom.Li, atom.Ul, atom.Ol, atom.Dt, atom.Dd, atom.Section, atom.Article,
		atom.Header, atom.Footer, atom.Main, atom.Nav, atom.Aside, atom.Form, atom.Center,
		atom.Address, atom.Body, atom.Caption, atom.Hr, atom.Br, atom.Option, atom.Fieldset:
		return 1
	}
	return 0
}

func hides(a atom.Atom) bool {
	switch a {
	case atom.Script, atom.Style, atom.Title, atom.Template, atom.Object, atom.Svg, atom.Textarea, atom.Select, atom.Iframe, atom.Noframes, atom.Noembed:
		return true
	}
	return false
}

func (t *text) start(z *html.Tokenizer, a atom.Atom, more bool) {
	if t.hidden != 0 {
		return
	}
	if hides(a) {
		t.hidden = a
		return
	}
	if a == atom.Br {
		t.lines, t.space = min(t.lines+1, 2), false
		return
	}
	lines := block(a)
	if (a == atom.Ul || a == atom.Ol) && len(t.lists) == 0 {
		lines = 2
	}
	if lines > 0 {
		t.need(lines)
	}
	attr := func(want string) string {
		for more {
			var k, v []byte
			if k, v, more = z.TagAttr(); string(k) == want {
				return strings.Join(strings.Fields(strings.ToValidUTF8(string(v), "")), " ")
			}
		}
		return ""
	}
	switch a {
	case atom.Blockquote:
		t.quote = min(t.quote+1, maxNesting)
	case atom.Pre:
		t.pre++
	case atom.Ul, atom.Ol:
		if n := 0; len(t.lists) < maxNesting {
			if a == atom.Ol {
				n = 1
			}
			t.lists = append(t.lists, n)
		}
	case atom.Li:
		mark := "-"
		if n := len(t.lists); n > 0 {
			if t.lists[n-1] > 0 {
				mark = strconv.Itoa(t.lists[n-1]) + "."
				t.lists[n-1]++
			}
			mark = strings.Repeat("  ", n-1) + mark
		}
		t.put(mark)
		t.space = true
	case atom.Td, atom.Th:
		t.space = true
	case atom.Hr:
		t.put("---")
		t.need(1)
	case atom.Img:
		t.put(attr("alt"))
	case atom.A:
		if t.href = ""; t.links {
			t.label.Reset()
			t.href = attr("href")
		}
	}
}

func (t *text) close(a atom.Atom) {
	if t.hidden != 0 {
		if a == t.hidden {
			t.hidden = 0
		}
		return
	}
	switch a {
	case atom.Br:
		t.need(1)
		return
	case atom.Blockquote:
		t.need(2)
		t.quote = max(t.quote-1, 0)
		t.gap = min(t.gap, t.quote)
		return
	case atom.Pre:
		t.pre = max(t.pre-1, 0)
	case atom.Ul, atom.Ol:
		if n := len(t.lists); n > 0 {
			t.lists = t.lists[:n-1]
		}
		if len(t.lists) == 0 {
			t.need(2)
		}
	case atom.A:
		href, label := t.href, strings.TrimSpace(t.label.String())
		t.href = ""
		scheme, rest, ok := strings.Cut(href, ":")
		if !ok || strings.EqualFold(scheme, "javascript") || strings.HasPrefix(href, "#") {
			return
		}
		if label == href || label == rest || label == strings.TrimSuffix(strings.TrimPrefix(rest, "//"), "/") {
			return
		}
		t.space = t.space || label != ""
		t.put("<" + href + ">")
		return
	}
	if n := block(a); n > 0 && a != atom.Hr {
		t.need(n)
	}
}

func (t *text) end() {
	if t.begun {
		t.w.WriteByte('\n')
	}
}
