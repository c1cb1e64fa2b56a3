package mime

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/transform"
)

// Reading says how text is read. The zero Reading reads as [Part.Text] and
// [DecodeText] do, with the charsets of golang.org/x/text and without
// guessing; its fields are the seams for more, so that nobody links what they
// did not ask for.
type Reading struct {
	// Charset reads charsets that are not built in; nil = there are no
	// others. Its shape is that of CharsetReader in the standard library's
	// mime.WordDecoder and encoding/xml.
	Charset func(charset string, r io.Reader) (io.Reader, error)
	// Detect names the charset of a text from what it begins with, ""
	// when it cannot tell; nil = none is detected. It is asked when the
	// declared charset (which may be "") cannot be right. The package
	// mime/detect has one.
	Detect func(text []byte, declared string) string
	// HTML writes what people read in HTML, which is UTF-8, as plain text;
	// nil = HTML has no plain text. The package mime/htmlmail has one.
	HTML func(w io.Writer, html io.Reader) error
}

// detectBytes is how much of a text is looked at.
const detectBytes = 8 << 10

// Text returns the body of p in UTF-8 as [Part.Text] does. r is the message
// that was parsed.
func (d Reading) Text(p *Part, r io.ReaderAt) io.Reader {
	return d.TextFrom(p, p.Decoded(r))
}

// TextFrom is Text for a body that was decoded already, see [Stream.Decoded].
func (d Reading) TextFrom(p *Part, decoded io.Reader) io.Reader {
	name := charsetName(p.Params["charset"])
	if d.Charset == nil && d.Detect == nil {
		return p.text(decoded)
	}
	b := bufio.NewReaderSize(decoded, detectBytes)
	if d.Detect != nil {
		sample, err := b.Peek(detectBytes)
		name = d.detect(sample, name, err == nil)
	}
	return d.read(name, b)
}

// read turns r into UTF-8.
func (d Reading) read(name string, r io.Reader) io.Reader {
	t := charsetDecoder(name)
	if t == nil && d.Charset != nil {
		if u, err := d.Charset(name, r); err == nil && u != nil {
			return u
		}
	}
	if t == nil {
		t = guess{}
	}
	return toUTF8Reader(r, t)
}

// detect returns the charset that sample is in; cut says that it is only the
// beginning of the text.
func (d Reading) detect(sample []byte, declared string, cut bool) string {
	if d.plausible(sample, declared, cut) {
		return declared
	}
	if validUTF8(sample, cut) {
		return "utf-8"
	}
	if found := charsetName(d.Detect(sample, declared)); found != "" && found != declared {
		if charsetDecoder(found) != nil && d.plausible(sample, found, cut) || charsetDecoder(found) == nil && d.Charset != nil {
			return found
		}
	}
	if undeclared(declared) {
		return ""
	}
	return declared
}

// validUTF8 is utf8.Valid but for a character that was cut off at the end.
func validUTF8(b []byte, cut bool) bool {
	if cut {
		for i := 0; i < 3 && len(b) > 0 && !utf8.FullRune(b[max(0, len(b)-i-1):]); i++ {
			if b[len(b)-i-1] >= 0xc0 {
				b = b[:len(b)-i-1]
				break
			}
		}
	}
	return utf8.Valid(b)
}

// plausible reports whether a text may be of a charset.
func (d Reading) plausible(sample []byte, name string, cut bool) bool {
	eight, wide := 0, 0
	for i := 0; i < len(sample); i++ {
		if sample[i] >= 0x80 {
			eight++
			if sample[i] >= 0xc0 {
				wide++
			}
		}
	}
	t := charsetDecoder(name)
	switch {
	case undeclared(name):
		return eight == 0
	case name == "utf-8" || name == "utf8":
		return validUTF8(sample, cut)
	case t == nil:
		return d.Charset != nil // who knows
	case eight == 0:
		return true
	}
	out, _, _ := transform.Bytes(t, sample)
	if cut && len(out) > 3 {
		out = bytes.TrimSuffix(out, []byte("\ufffd"))
	}
	if bytes.Contains(out, []byte("\ufffd")) {
		return false
	}
	// A text that happens to be UTF-8 is: in a charset of one octet each it
	// would be characters that never stand together.
	single := utf8.RuneCount(out) >= len(sample)-1
	return !single || wide < 2 || !validUTF8(sample, cut)
}

// DecodeText decodes an unstructured value as the function [DecodeText] does.
func (d Reading) DecodeText(s string) string {
	if d.Charset == nil && d.Detect == nil {
		return DecodeText(s)
	}
	all := func(name string, b []byte) (string, bool) {
		name = charsetName(name)
		if d.Detect != nil {
			name = d.detect(b, name, false)
		}
		out, err := io.ReadAll(d.read(name, bytes.NewReader(b)))
		return string(out), err == nil
	}
	return decodeText(s, all, func(s string) string {
		if utf8.ValidString(s) {
			return s
		}
		t, _ := all("", []byte(s))
		return t
	})
}

// Plain returns what people read in p, in UTF-8: the text of plain text, with
// the soft line breaks of format=flowed gone, and that of HTML without its
// markup. It is empty when p is neither, or is HTML and the field HTML is
// nil. r is the message that was parsed.
func (d Reading) Plain(p *Part, r io.ReaderAt) io.Reader {
	switch {
	case p.Type != "text" || p.Subtype == "html" && d.HTML == nil:
		return strings.NewReader("")
	case p.Subtype == "html":
		return &lazyText{open: func() (io.Reader, error) {
			var b bytes.Buffer
			err := d.HTML(&b, d.Text(p, r))
			return &b, err
		}}
	case p.Subtype == "plain" && equalFold(p.Params["format"], "flowed"):
		return NewFlowedReader(d.Text(p, r), equalFold(p.Params["delsp"], "yes"))
	}
	return d.Text(p, r)
}

// lazyText opens a text when it is first read.
type lazyText struct {
	open func() (io.Reader, error)
	r    io.Reader
	err  error
}

func (l *lazyText) Read(b []byte) (int, error) {
	if l.r == nil {
		if l.r, l.err = l.open(); l.r == nil {
			l.r = strings.NewReader("")
		}
	}
	n, err := l.r.Read(b)
	if err == io.EOF && l.err != nil {
		err = l.err
	}
	return n, err
}

// PreviewLength is what Preview gives at most: RFC 8970 §3.1 asks for 200
// characters and no more than 256.
const PreviewLength = 200

// previewBytes is how much of a body is read for a preview.
const previewBytes = 64 << 10

// Preview returns the beginning of what people read in a message, on one line
// (RFC 8970): of its text bodies, without quoted lines, the signature and
// rows of punctuation where that leaves anything. "" means that there is no
// text. root is what was parsed from r; errors are r's.
func (d Reading) Preview(root *Part, r io.ReaderAt) (string, error) {
	for _, p := range root.Bodies().Text {
		if p.Type != "text" {
			continue
		}
		limited := d
		if d.HTML != nil {
			limited.HTML = func(w io.Writer, html io.Reader) error {
				return d.HTML(w, io.LimitReader(html, 4*previewBytes))
			}
		}
		b, err := io.ReadAll(io.LimitReader(limited.Plain(p, r), previewBytes))
		if err != nil {
			return "", err
		}
		if s := previewOf(string(b)); s != "" {
			return s, nil
		}
	}
	return "", nil
}

// previewOf picks the words of a preview.
func previewOf(s string) string {
	s = strings.ToValidUTF8(s, "")
	var all, new shortText
	done := false
	for line := range strings.Lines(s) {
		text := strings.TrimRight(line, "\r\n")
		all.add(text)
		switch {
		case done || new.full:
		case text == "-- " || text == "--":
			done = true
		case strings.HasPrefix(text, ">"), strings.Trim(text, " \t-=_*#~+.|") == "":
		default:
			new.add(text)
		}
	}
	if new.b.Len() == 0 {
		return all.b.String()
	}
	return new.b.String()
}

// shortText gathers words up to PreviewLength characters.
type shortText struct {
	b    strings.Builder
	n    int
	full bool
}

func (t *shortText) add(line string) {
	for w := range strings.FieldsSeq(line) {
		if t.full {
			return
		}
		sep := 0
		if t.n > 0 {
			sep = 1
		}
		n := utf8.RuneCountInString(w)
		if t.n+sep+n > PreviewLength {
			t.full = true
			if room := PreviewLength - t.n - sep; t.n == 0 || room > 40 {
				w = string([]rune(w)[:room])
			} else {
				return
			}
			n = PreviewLength - t.n - sep
		}
		if sep > 0 {
			t.b.WriteByte(' ')
		}
		t.b.WriteString(strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return -1
			}
			return r
		}, w))
		t.n += sep + n
	}
}
