package mime

import (
	"bytes"
	"io"
)

// Limits bound what a parser keeps of one message; 0 = default, negative = no
// limit. What lies beyond a limit is not lost: it stays in the body of the
// part in which the limit was reached, which gets a [Defect].
type Limits struct {
	// HeaderBytes is the most text of headers that is kept, those of all
	// parts together, in octets; the default is 2 MiB.
	HeaderBytes int
	// Depth is how deep multiparts and messages may be nested; the default
	// is 250.
	Depth int
	// Parts is the number of parts and messages; the default is 10,000.
	Parts int
	// Fields is the number of header fields, those of all parts together;
	// the default is 50,000.
	Fields int
	// Params is the number of parameters of a Content-Type or
	// Content-Disposition; the default is 1,000.
	Params int
}

func limit(n, def int) int {
	switch {
	case n == 0:
		return def
	case n < 0:
		return int(^uint(0) >> 1)
	}
	return n
}

// maxDelimiter is the most of a line that is looked at for a delimiter or the
// name of a field. RFC 2046 allows boundaries of 70 characters.
const maxDelimiter = 1024

// maxDefects bounds the defects of a message that are told.
const maxDefects = 1000

// Parse reads the structure of a message of that size. It refuses none: what
// is wrong becomes a Defect. The error is r's; the Part is then what was read
// up to there.
func Parse(r io.ReaderAt, size int64, l Limits) (*Part, error) {
	p := Parser{Limits: l}
	buf := make([]byte, min(max(size, 1), 32<<10))
	for off := int64(0); off < size; {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		p.Write(buf[:n])
		off += int64(n)
		if err == io.EOF && off < size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && err != io.EOF {
			return p.Close(), err
		}
	}
	return p.Close(), nil
}

// ParseBytes is [Parse] for a message in memory.
func ParseBytes(b []byte, l Limits) *Part {
	p := Parser{Limits: l}
	p.Write(b)
	return p.Close()
}

// Parser is [Parse] as an io.Writer, for one pass with other consumers of the
// message. The zero Parser is ready; it reads one message. How the message is
// cut into writes makes no difference.
//
// A header ends at the first empty line, before a first line that is no field,
// and before the first delimiter of the multipart that it announces; other
// lines that are no field stay in it. A delimiter is a line of
// "--" and the boundary of an open multipart and nothing else but white space,
// so that a boundary may begin with another; or of these and "--" again at the
// last one, where text behind it is passed over.
type Parser struct {
	Limits Limits

	begun    bool
	root     *Part
	stack    []frame        // what is open, from the root inwards
	active   int            // frames whose boundary may still come
	index    map[string]int // their boundaries, when there are many
	inHeader bool           // of the innermost frame
	midLine  bool           // the next octet does not begin a line
	full     bool           // the limit of parts was reached: all is body from here
	parts    int
	defects  int

	pos   int64   // of the next octet that consume sees
	lines int64   // line ends before pos
	prev  [2]byte // the two octets before pos
	held  []byte  // the beginning of a line that cannot be told yet

	header []byte // what is kept of the header that is being read
	block  []byte // all of it, once its end is known
	first  bool   // no line of that header was seen yet
	looked int    // how often its own boundary was looked for
	cut    bool   // some of it was not kept
	behind bool   // the delimiter found has text behind it
	kept   int    // octets of all headers
	fields int    // lines and fields of all headers
	arena  headerArena
	slab   []Part   // the next parts come from here
	ends   []uint32 // of the lines of a header that comes in one piece
	params paramsOf // of the part before

	// What an ordinary message needs lies here.
	firstFrames [4]frame
	firstEnds   [48]uint32

	watched bool // by a Stream, for which there are
	events  []event
}

// frame is an open part.
type frame struct {
	part     *Part
	boundary string // of a multipart whose parts may go on; else ""
	hidden   int    // the frame further out with the same boundary, or -1
	closed   bool   // the close-delimiter was seen
	digest   bool
	lines    int64 // line ends before the body
}

func (p *Parser) begin() {
	p.begun = true
	p.stack, p.ends = p.firstFrames[:0], p.firstEnds[:0]
	p.open(nil)
	p.root = p.stack[0].part
}

// Write takes the next octets of the message. It never fails.
func (p *Parser) Write(b []byte) (int, error) {
	if !p.begun {
		p.begin()
	}
	size := len(b)
	for len(p.held) > 0 && len(b) > 0 {
		// Add the rest of the line, or enough to know it.
		n := min(len(b), maxDelimiter-len(p.held))
		if i := bytes.IndexByte(b[:n], '\n'); i >= 0 {
			n = i + 1
		}
		p.held = append(p.held, b[:n]...)
		b = b[n:]
		used := p.consume(p.held)
		p.held = p.held[:copy(p.held, p.held[used:])]
	}
	if len(b) > 0 {
		used := p.consume(b)
		p.held = append(p.held, b[used:]...)
	}
	return size, nil
}

// Close ends the message and returns its structure. Close again returns the
// same.
func (p *Parser) Close() *Part {
	if !p.begun {
		p.begin()
	}
	if len(p.stack) == 0 {
		return p.root
	}
	if b := p.held; len(b) > 0 {
		p.held = nil
		p.last(b)
	}
	p.keepLast(nil)
	p.closeFrames(0, p.pos, 0)
	p.held, p.header, p.stack = nil, nil, nil
	p.arena, p.slab, p.params = headerArena{}, nil, paramsOf{}
	return p.root
}

// last takes the beginning of a line after which nothing came.
func (p *Parser) last(b []byte) {
	i, closing := -1, false
	if p.active > 0 && !p.full && b[0] == '-' {
		i, closing = p.match(b)
	}
	switch {
	case i >= 0:
		if p.inHeader {
			p.keepLast(nil)
		}
		p.delimiter(i, closing, p.pos, p.eol(b, 0), p.pos+int64(len(b)))
	case p.inHeader && p.first:
		p.keepLast(nil)
		p.endHeader(p.pos, true)
	case p.inHeader:
		p.keep(b)
	}
	p.pos += int64(len(b))
}

// eol returns the length of the line end before b[i], which begins a line.
func (p *Parser) eol(b []byte, i int) int64 {
	var a, z byte
	switch i {
	case 0:
		a, z = p.prev[0], p.prev[1]
	case 1:
		a, z = p.prev[1], b[0]
	default:
		a, z = b[i-2], b[i-1]
	}
	switch {
	case z != '\n':
		return 0
	case a == '\r':
		return 2
	}
	return 1
}

// consume takes octets and returns how many; it leaves only the beginning of
// a line that it needs to see more of, and nothing of a line that is whole or
// at least maxDelimiter long.
func (p *Parser) consume(b []byte) int {
	i := 0
	stuck := false
	for i < len(b) && !stuck {
		switch {
		case p.inHeader:
			i, stuck = p.inHeaderLines(b, i)
		case p.active == 0 || p.full:
			p.lines += int64(bytes.Count(b[i:], newline))
			i = len(b)
			p.midLine = b[i-1] != '\n'
		default:
			i, stuck = p.inBodyLines(b, i)
		}
	}
	switch {
	case i >= 2:
		p.prev = [2]byte{b[i-2], b[i-1]}
	case i == 1:
		p.prev = [2]byte{p.prev[1], b[0]}
	}
	p.pos += int64(i)
	return i
}

var newline = []byte{'\n'}

// inBodyLines looks for a delimiter from b[i] on.
func (p *Parser) inBodyLines(b []byte, i int) (next int, stuck bool) {
	lines := int64(0)
	mid := p.midLine
	for i < len(b) {
		if b[i] == '-' && !mid {
			if i+1 == len(b) {
				stuck = true
				break
			}
			if b[i+1] == '-' {
				rest := b[i:min(len(b), i+maxDelimiter)]
				j := bytes.IndexByte(rest, '\n')
				if j < 0 && len(rest) < maxDelimiter {
					stuck = true
					break
				}
				if j >= 0 {
					if k, closing := p.match(rest[:j]); k >= 0 {
						p.lines += lines
						at := p.pos + int64(i)
						i += j + 1
						p.delimiter(k, closing, at, p.eol(b, i-j-1), p.pos+int64(i))
						p.lines++
						return i, false
					}
				}
			}
		}
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			i, mid = len(b), true
			break
		}
		mid = false
		lines++
		i += j + 1
	}
	p.lines += lines
	p.midLine = mid
	return i, stuck
}

// inHeaderLines reads lines of a header from b[i] on.
func (p *Parser) inHeaderLines(b []byte, i int) (next int, stuck bool) {
	from := i // of what is not kept yet
	p.ends = p.ends[:0]
	for i < len(b) {
		if !p.midLine {
			rest := b[i:min(len(b), i+maxDelimiter)]
			switch c := rest[0]; {
			case c == '\n' || c == '\r':
				if c == '\r' && len(rest) == 1 {
					p.keep(b[from:i])
					return i, true
				}
				if c == '\r' && rest[1] != '\n' {
					break
				}
				p.keepLast(b[from:i])
				p.lines++
				if i++; c == '\r' {
					i++
				}
				p.endHeader(p.pos+int64(i), false)
				return i, false
			case c == '-' && !p.full:
				j := bytes.IndexByte(rest, '\n')
				if j < 0 && len(rest) < maxDelimiter && (len(rest) == 1 || rest[1] == '-') {
					p.keep(b[from:i])
					return i, true
				}
				if j < 0 {
					break
				}
				if len(rest) > 2 && rest[1] == '-' && !p.first {
					p.keep(b[from:i])
					from = i
					if p.beginsOwnParts(rest[:j]) {
						p.keepLast(nil)
						p.endHeader(p.pos+int64(i), true)
						return i, false
					}
				}
				if k, closing := p.match(rest[:j]); k >= 0 {
					p.keepLast(b[from:i])
					at := p.pos + int64(i)
					i += j + 1
					p.delimiter(k, closing, at, p.eol(b, i-j-1), p.pos+int64(i))
					p.lines++
					return i, false
				}
			}
			if p.first {
				field, known := beginsField(rest)
				if !known && len(rest) < maxDelimiter {
					return i, true
				}
				if !field {
					p.keepLast(nil)
					p.endHeader(p.pos+int64(i), true)
					return i, false
				}
				p.first = false
			}
		}
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			p.midLine = true
			p.keep(b[from:])
			return len(b), false
		}
		p.midLine = false
		p.lines++
		i += j + 1
		p.ends = append(p.ends, uint32(i-from))
	}
	p.keep(b[from:i])
	return i, false
}

// beginsField reports whether the first line of a header is one: a field, the
// separator line of an mbox file, or the rest of a field whose beginning is
// lost. It is not known before enough of the line is there.
func beginsField(b []byte) (field, known bool) {
	const quoted = ">From "
	for _, from := range [...]string{quoted, quoted[1:]} {
		if n := min(len(b), len(from)); string(b[:n]) == from[:n] && b[0] != '\n' {
			if n == len(from) {
				return true, true
			}
			return false, false
		}
	}
	i := 0
	if b[0] == ' ' || b[0] == '\t' {
		for i < len(b) && (b[i] == ' ' || b[i] == '\t') {
			i++
		}
	}
	start := i
	for i < len(b) && isNameByte(b[i]) {
		i++
	}
	name := i > start
	for name && i < len(b) && (b[i] == ' ' || b[i] == '\t') {
		i++
	}
	if i == len(b) {
		return false, false
	}
	return name && b[i] == ':', true
}
