package imapserver

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/postrider/postrider/mime"
)

// needle is a text to be found, case folded.
type needle []byte

func newNeedle(s string) needle { return appendFolded(nil, []byte(s)) }

func (n needle) empty() bool { return len(n) == 0 }

// in tells whether s contains the needle.
func (n needle) in(s string) bool {
	return bytes.Contains(appendFolded(make([]byte, 0, len(s)), []byte(s)), n)
}

// appendFolded appends s with the case of letters taken away.
func appendFolded(dst, s []byte) []byte {
	for len(s) > 0 {
		n := 0
		dst = slices.Grow(dst, len(s))
		ascii := dst[len(dst) : len(dst)+len(s)]
		for n < len(s) && s[n] < utf8.RuneSelf {
			ascii[n] = lowerASCII[s[n]]
			n++
		}
		dst, s = dst[:len(dst)+n], s[n:]
		if len(s) > 0 {
			r, size := utf8.DecodeRune(s)
			dst = utf8.AppendRune(dst, unicode.ToLower(unicode.ToUpper(r)))
			s = s[size:]
		}
	}
	return dst
}

var lowerASCII = func() (t [utf8.RuneSelf]byte) {
	for c := range t {
		t[c] = byte(c)
		if 'A' <= c && c <= 'Z' {
			t[c] += 'a' - 'A'
		}
	}
	return t
}()

// finder looks for several needles in texts that go by.
type finder struct {
	needles []needle
	found   []bool
	left    int // not found yet
	folded  []byte
	longest int
	rest    [utf8.UTFMax]byte // the beginning of a rune
	nrest   int
}

func newFinder(needles []needle) *finder {
	f := &finder{needles: needles, found: make([]bool, len(needles))}
	for _, n := range needles {
		f.longest = max(f.longest, len(n))
	}
	return f
}

// reset begins another message.
func (f *finder) reset() {
	f.next()
	f.left = 0
	for i, n := range f.needles {
		if f.found[i] = n.empty(); !f.found[i] {
			f.left++
		}
	}
}

// next begins another text: nothing is found across its beginning.
func (f *finder) next() { f.folded, f.nrest = f.folded[:0], 0 }

// Write looks at more of the text; it fails with io.EOF when all is found.
func (f *finder) Write(p []byte) (int, error) {
	size := len(p)
	if f.left == 0 {
		return 0, io.EOF
	}
	keep := min(len(f.folded), max(f.longest-1, 0))
	f.folded = f.folded[:copy(f.folded, f.folded[len(f.folded)-keep:])]
	for f.nrest > 0 && len(p) > 0 {
		f.rest[f.nrest] = p[0]
		f.nrest++
		p = p[1:]
		if utf8.FullRune(f.rest[:f.nrest]) {
			f.folded = appendFolded(f.folded, f.rest[:f.nrest])
			f.nrest = 0
		}
	}
	end := len(p)
	for back := 1; back < utf8.UTFMax && back <= len(p); back++ {
		if c := p[len(p)-back]; utf8.RuneStart(c) {
			if !utf8.FullRune(p[len(p)-back:]) {
				end = len(p) - back
			}
			break
		}
	}
	f.folded = appendFolded(f.folded, p[:end])
	f.nrest += copy(f.rest[f.nrest:], p[end:])
	for i, n := range f.needles {
		if !f.found[i] && bytes.Contains(f.folded, n) {
			f.found[i] = true
			f.left--
		}
	}
	return size, nil
}

// scanner goes through the readable text of messages, one after the other:
// body needles have to be in the body, text needles in header or body.
type scanner struct {
	m          *message
	body, text *finder
}

func newScanner(body, text []needle) *scanner {
	return &scanner{body: newFinder(body), text: newFinder(text)}
}

// in tells whether m has all of it.
func (s *scanner) in(m *message) (bool, error) {
	s.m = m
	s.body.reset()
	s.text.reset()
	root, err := m.root()
	if err != nil {
		return false, err
	}
	if s.text.left > 0 {
		if err := s.partHeader(root, false); err != nil {
			return false, err
		}
	}
	if err := s.part(root); err != nil {
		return false, err
	}
	return s.done(), nil
}

func (s *scanner) done() bool { return s.body.left == 0 && s.text.left == 0 }

// header looks through decoded fields; those of an attached message are part
// of the body.
func (s *scanner) header(h *mime.Header, inBody bool) {
	for f := range h.Fields() {
		s.next()
		s.write([]byte(f.Name+": "+mime.DecodeText(f.Value)), inBody)
	}
}

func (s *scanner) next() {
	s.text.next()
	s.body.next()
}

func (s *scanner) write(p []byte, inBody bool) {
	if s.text.left > 0 {
		s.text.Write(p)
	}
	if inBody && s.body.left > 0 {
		s.body.Write(p)
	}
}

func (s *scanner) part(p *mime.Part) error {
	if s.done() {
		return nil
	}
	for _, c := range p.Parts {
		if err := s.partHeader(c, false); err != nil {
			return err
		}
		if err := s.part(c); err != nil {
			return err
		}
	}
	if p.Message != nil {
		if err := s.partHeader(p.Message, true); err != nil {
			return err
		}
		return s.part(p.Message)
	}
	if p.Type != "text" || s.done() {
		return nil
	}
	b, err := s.m.body()
	if err != nil {
		return err
	}
	if asciiCompatible(p.Params["charset"]) {
		plain, err := s.read(p.Decoded(b), true)
		if plain || err != nil {
			return err
		}
	}
	_, err = s.read(p.Text(b), false)
	return err
}

// read looks through r. With ascii it stops, and returns false, where
// something else comes: then it takes a charset to read it.
func (s *scanner) read(r io.Reader, ascii bool) (bool, error) {
	s.next()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for !s.done() {
		n, err := r.Read(*buf)
		if ascii && !isASCII((*buf)[:n]) {
			return false, nil
		}
		s.write((*buf)[:n], true)
		if err == io.EOF {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// asciiCompatible tells whether octets below 0x80 are US-ASCII in a charset.
// Those that it does not know are decoded in any case.
func asciiCompatible(charset string) bool {
	c := strings.ToLower(charset)
	return c == "" || c == "us-ascii" || c == "utf-8" || strings.HasPrefix(c, "iso-8859-") || strings.HasPrefix(c, "windows-125")
}

func isASCII(p []byte) bool {
	for len(p) >= 8 {
		if binary.LittleEndian.Uint64(p)&0x8080808080808080 != 0 {
			return false
		}
		p = p[8:]
	}
	for _, c := range p {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// partHeader looks through the header of a part.
func (s *scanner) partHeader(p *mime.Part, inBody bool) error {
	if !inBody && s.text.left == 0 {
		return nil
	}
	h, err := s.m.header(p)
	if err != nil {
		return err
	}
	s.header(h, inBody)
	return nil
}
