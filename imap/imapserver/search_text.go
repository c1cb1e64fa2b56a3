package imapserver

import (
	"bytes"

	"github.com/postrider/postrider/mime/searchtext"
)

// needle is a text to be found, case folded.
type needle []byte

func newNeedle(s string) needle { return searchtext.AppendFolded(nil, []byte(s)) }

func (n needle) empty() bool { return len(n) == 0 }

// in tells whether s contains the needle.
func (n needle) in(s string) bool {
	return bytes.Contains(searchtext.AppendFolded(make([]byte, 0, len(s)), []byte(s)), n)
}

// finder looks for several needles in texts that go by.
type finder struct {
	needles []needle
	found   []bool
	left    int // not found yet
	folded  []byte
	longest int
	folder  searchtext.Folder
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
func (f *finder) next() {
	f.folded = f.folder.End(f.folded[:0])[:0]
}

// write looks at more of the text.
func (f *finder) write(p []byte) {
	if f.left == 0 {
		return
	}
	keep := min(len(f.folded), max(f.longest-1, 0))
	f.folded = f.folded[:copy(f.folded, f.folded[len(f.folded)-keep:])]
	f.folded = f.folder.Append(f.folded, p)
	for i, n := range f.needles {
		if !f.found[i] && bytes.Contains(f.folded, n) {
			f.found[i] = true
			f.left--
		}
	}
}

// scanner goes through the readable text of messages, one after the other:
// body needles have to be in the body, text needles in header or body.
type scanner struct {
	searchtext.Scanner
	body, text *finder
	inBody     bool
}

func newScanner(body, text []needle) *scanner {
	return &scanner{body: newFinder(body), text: newFinder(text)}
}

// in tells whether m has all of it.
func (s *scanner) in(m *message) (bool, error) {
	s.body.reset()
	s.text.reset()
	root, err := m.root()
	if err != nil {
		return false, err
	}
	s.Header = m.header
	if err := s.Scan(root, lazyBody{m}, s); err != nil {
		return false, err
	}
	return !s.Wants(true), nil
}

// Wants implements searchtext.Visitor.
func (s *scanner) Wants(inBody bool) bool {
	return s.text.left > 0 || inBody && s.body.left > 0
}

// Begin implements searchtext.Visitor.
func (s *scanner) Begin(inBody bool) {
	s.text.next()
	s.body.next()
	s.inBody = inBody
}

// Write implements searchtext.Visitor.
func (s *scanner) Write(p []byte) {
	s.text.write(p)
	if s.inBody {
		s.body.write(p)
	}
}

// lazyBody opens the message when it is read.
type lazyBody struct{ m *message }

func (l lazyBody) ReadAt(p []byte, off int64) (int, error) {
	b, err := l.m.body()
	if err != nil {
		return 0, err
	}
	return b.ReadAt(p, off)
}
