package mime

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/bits"
)

// traits are what decides on a transfer encoding, found by looking once.
type traits struct {
	octets, eight, escapes int
	longest, line          int  // octets of a line without its end
	nul                    bool // there is a NUL
	returns                int  // CR that are no part of a line end
	lines, pairs           int  // line ends, and those of them that are CR LF
	from                   bool // a line begins with "From ", perhaps
	last                   byte
	head                   []byte   // what a line with "--" begins with, until it is long enough
	like                   []string // what lines have after "--" that may be a boundary of ours
}

// What scan learns of octets in passing.
const (
	sawNUL = 1 << 63
	sawCR  = 1 << 62
	// scanBlock keeps the counts below these.
	scanBlock = 1 << 28
)

// escapeWeight is what an octet adds to the count of escapes, and of octets
// above 127 in the upper half.
var escapeWeight = func() (t [256]uint64) {
	for c := range t {
		if c >= 0x7f || c == '=' || c < ' ' && c != '\t' && c != '\r' && c != '\n' {
			t[c] = 1
		}
		if c >= 0x80 {
			t[c] |= 1 << 32
		}
	}
	t[0] |= sawNUL
	t['\r'] |= sawCR
	return t
}()

const lowBits, highBits = 0x0101010101010101, 0x8080808080808080

// plainWord reports whether none of eight octets has a weight; a false no is
// possible.
func plainWord(x uint64) bool {
	eq := x ^ '='*lowBits
	return (x|(x-' '*lowBits)|(x+lowBits)|(eq-lowBits)&^eq)&highBits == 0
}

func (t *traits) scan(b []byte) {
	if len(b) == 0 {
		return
	}
	for len(b) > scanBlock {
		t.scan(b[:scanBlock])
		b = b[scanBlock:]
	}
	t.octets += len(b)
	t.begin(b)
	var sum, saw uint64
	start := 0 // of the line in b
	last := t.last
	end := func(i int) {
		line := t.line + i - start
		if i > start {
			last = b[i-1]
		}
		t.lines++
		if last == '\r' {
			t.returns--
			t.pairs++
			line--
		}
		last = '\n'
		t.longest = max(t.longest, line)
		t.line, start = 0, i+1
		t.begin(b[start:])
	}
	i := 0
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		if plainWord(x) {
			continue
		}
		w0, w1, w2, w3 := escapeWeight[byte(x)], escapeWeight[byte(x>>8)], escapeWeight[byte(x>>16)], escapeWeight[byte(x>>24)]
		w4, w5, w6, w7 := escapeWeight[byte(x>>32)], escapeWeight[byte(x>>40)], escapeWeight[byte(x>>48)], escapeWeight[byte(x>>56)]
		sum += w0 + w1 + w2 + w3 + w4 + w5 + w6 + w7
		saw |= w0 | w1 | w2 | w3 | w4 | w5 | w6 | w7
		// Octets that are LF have their high bit set here, and a few others.
		lf := x ^ '\n'*lowBits
		for m := (lf - lowBits) &^ lf & highBits; m != 0; m &= m - 1 {
			if k := i + bits.TrailingZeros64(m)>>3; b[k] == '\n' {
				end(k)
			}
		}
	}
	for ; i < len(b); i++ {
		sum += escapeWeight[b[i]]
		saw |= escapeWeight[b[i]]
		if b[i] == '\n' {
			end(i)
		}
	}
	t.line += len(b) - start
	t.longest = max(t.longest, t.line)
	t.last = b[len(b)-1]
	t.escapes += int(sum & (1<<32 - 1))
	t.eight += int(sum >> 32 & (1<<30 - 1))
	t.nul = t.nul || saw&sawNUL != 0
	if saw&sawCR != 0 {
		t.returns += bytes.Count(b, crlf[:1])
	}
}

// begin looks at the beginning of a line, or at what goes on with it.
func (t *traits) begin(b []byte) {
	switch {
	case len(b) == 0:
	case t.line == 0:
		t.from = t.from || b[0] == 'F' && maybeFrom(b)
		if t.head = t.head[:0]; b[0] == '-' {
			t.delimiter(b)
		}
	case len(t.head) > 0:
		t.delimiter(b)
	}
}

// delimiter gathers the beginning of a line that may be a delimiter.
func (t *traits) delimiter(b []byte) {
	const size = len("--") + boundarySize
	t.head = append(t.head, b[:min(len(b), size-len(t.head))]...)
	if n := min(len(t.head), 4); string(t.head[:n]) != ("--" + boundaryMark)[:n] || bytes.IndexByte(t.head, '\n') >= 0 {
		t.head = t.head[:0]
		return
	}
	if len(t.head) == size {
		if len(t.like) <= maxTaken {
			t.like = append(t.like, string(t.head[2:]))
		}
		t.head = t.head[:0]
	}
}

// fits reports whether the content may go as it is under an encoding.
func (t *traits) fits(encoding string) bool {
	return !t.nul && t.returns == 0 && t.longest <= lineLimit && (encoding == "8bit" || t.eight == 0)
}

// choose returns the encoding. Text that a relay or a mailbox might change
// ("From " at the beginning of a line) is encoded even when it fits.
func (t *traits) choose(text bool, allow Allow) string {
	switch {
	case !text && t.fits("7bit"):
		return "7bit"
	case !text && t.fits("8bit"):
		return "8bit"
	case t.fits("7bit") && !t.from:
		return "7bit"
	case text && allow.EightBit && t.fits("8bit") && !t.from:
		return "8bit"
	case allow.Binary && (!text || !t.from):
		return "binary"
	case t.octets+2*t.escapes <= (t.octets+2)/3*4+8:
		return "quoted-printable"
	}
	return "base64"
}

// ends tells what the line ends of content in memory are, where they are all
// of one kind.
func (t *traits) ends() endKind {
	switch {
	case t.returns > 0:
		return mixedEnds
	case t.pairs == 0:
		return lfEnds
	case t.pairs == t.lines:
		return crlfEnds
	}
	return mixedEnds
}

type endKind uint8

const (
	mixedEnds endKind = iota
	lfEnds
	crlfEnds
)

// scan looks through the content once.
func (s *source) scan() (traits, error) {
	var t traits
	err := s.each(func(b []byte) error {
		t.scan(b)
		return nil
	})
	return t, err
}

// each hands out the content in blocks.
func (s *source) each(f func(b []byte) error) error {
	if s.open == nil {
		return f(s.data)
	}
	r, err := s.open()
	if err != nil {
		return err
	}
	buf := make([]byte, 12<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := f(buf[:n]); err != nil {
				r.Close()
				return err
			}
		}
		if err == io.EOF {
			return r.Close()
		}
		if err != nil {
			r.Close()
			return err
		}
	}
}

// output gathers what is written; the first error stays.
type output struct {
	w   io.Writer
	b   []byte
	n   int64
	err error
}

const outputBlock = 8 << 10

func (o *output) add(b []byte) {
	if o.b == nil {
		o.b = make([]byte, 0, outputBlock+1024)
	}
	for len(o.b)+len(b) > outputBlock {
		n := max(outputBlock-len(o.b), 0)
		o.b = append(o.b, b[:n]...)
		b = b[n:]
		o.flush()
	}
	o.b = append(o.b, b...)
}

// text adds lines, which end as ends says, with CR LF; so does the last.
func (o *output) text(b []byte, ends endKind) {
	for ends == lfEnds && len(b) > 0 {
		if o.b == nil || len(b) > outputBlock-len(o.b) {
			o.flush()
		}
		if o.b == nil {
			o.b = make([]byte, 0, outputBlock+1024)
		}
		buf := o.b
		for len(b) > 0 {
			i := bytes.IndexByte(b, '\n')
			if i < 0 {
				i = len(b)
			}
			if len(buf)+i+2 > cap(buf) {
				break
			}
			buf = append(append(buf, b[:i]...), '\r', '\n')
			b = b[min(i+1, len(b)):]
		}
		stuck := len(buf) == len(o.b)
		o.b = buf
		if stuck { // a line longer than the buffer
			i := bytes.IndexByte(b, '\n')
			if i < 0 {
				i = len(b)
			}
			o.add(b[:i])
			o.add(crlf)
			b = b[min(i+1, len(b)):]
		}
	}
	if len(b) > 0 {
		o.add(b)
		if b[len(b)-1] != '\n' {
			o.add(crlf)
		}
	}
}

func (o *output) string(s string) {
	if o.b == nil {
		o.b = make([]byte, 0, outputBlock+1024)
	}
	o.b = append(o.b, s...)
}

// room makes sure that a line can be added to b.
func (o *output) room() {
	if len(o.b) > outputBlock-lineLimit {
		o.flush()
	}
}

func (o *output) flush() {
	if o.err == nil && len(o.b) > 0 {
		var n int
		n, o.err = o.w.Write(o.b)
		o.n += int64(n)
	}
	o.b = o.b[:0]
}

func (o *output) finish() (int64, error) {
	o.flush()
	return o.n, o.err
}

func (n *node) write(o *output) {
	if n.entity {
		if err := n.body.each(func(b []byte) error {
			o.add(b)
			return o.err
		}); o.err == nil {
			o.err = err
		}
		return
	}
	if o.b == nil && n.boundary == "" && n.direct() {
		// The whole message, if it is not a large one.
		o.b = make([]byte, 0, min(len(n.header)+len(n.body.data)+n.body.count+4, outputBlock+1024))
	}
	o.add(n.header)
	o.string("\r\n")
	if n.boundary == "" {
		n.writeBody(o)
		return
	}
	for i, part := range n.parts {
		if i > 0 {
			o.string("\r\n")
		}
		o.string("--" + n.boundary + "\r\n")
		part.write(o)
	}
	o.string("\r\n--" + n.boundary + "--\r\n")
}

// direct reports whether the body is text in memory that is written as it is
// but for its line ends.
func (n *node) direct() bool {
	return n.body.ends != mixedEnds && n.body.lines && identity(n.encoding)
}

func (n *node) writeBody(o *output) {
	if o.err != nil {
		return
	}
	if n.direct() {
		o.text(n.body.data, n.body.ends)
		return
	}
	var enc interface {
		write(b []byte)
		close()
	}
	switch n.encoding {
	case "base64":
		enc = &base64Encoder{out: o}
	case "quoted-printable":
		enc = &quotedEncoder{out: o, binary: !n.body.lines}
	default:
		enc = plainEncoder{o}
	}
	var lines *lineEnds
	if n.body.lines {
		lines = &lineEnds{next: enc.write}
	}
	err := n.body.each(func(b []byte) error {
		if lines != nil {
			lines.write(b)
		} else {
			enc.write(b)
		}
		return o.err
	})
	if o.err == nil {
		o.err = err
	}
	if lines != nil {
		lines.close()
	}
	enc.close()
}

// lineEnds makes CR LF of every LF and lone CR, and ends the last line.
type lineEnds struct {
	next func(b []byte)
	cr   bool // a CR came last and is not written yet
	open bool // the last line has no end yet
}

func (l *lineEnds) write(b []byte) {
	if l.cr && len(b) > 0 {
		l.cr = false
		l.end()
		if b[0] == '\n' {
			b = b[1:]
		}
	}
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		line := b
		if i >= 0 {
			line = b[:i]
		}
		for {
			j := bytes.IndexByte(line, '\r')
			if j < 0 {
				break
			}
			l.text(line[:j])
			if line = line[j+1:]; len(line) > 0 {
				l.end() // a lone CR
			} else if i < 0 {
				l.cr = true
				return
			}
		}
		l.text(line)
		if i < 0 {
			return
		}
		l.end()
		b = b[i+1:]
	}
}

func (l *lineEnds) text(b []byte) {
	if len(b) > 0 {
		l.next(b)
		l.open = true
	}
}

func (l *lineEnds) end() {
	l.next(crlf)
	l.open = false
}

func (l *lineEnds) close() {
	if l.cr || l.open {
		l.end()
	}
}

var crlf = []byte("\r\n")

type plainEncoder struct{ out *output }

func (e plainEncoder) write(b []byte) { e.out.add(b) }
func (e plainEncoder) close()         {}
