package imapwire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
)

// Errors that a Decoder keeps beside those of its reader.
var (
	// ErrLineTooLong: more than MaxLine octets outside literals.
	ErrLineTooLong = errors.New("imap: line too long")
	// ErrLiteralTooBig: a literal over the limit in force.
	ErrLiteralTooBig = errors.New("imap: literal too big")
)

// SyntaxError says what was expected.
type SyntaxError struct{ Text string }

// Error implements error.
func (e *SyntaxError) Error() string { return "imap: " + e.Text }

// Defaults of a Decoder's limits, in octets.
const (
	DefaultMaxLine    = 64 << 10
	DefaultMaxLiteral = 1 << 20
)

// maxScratch is how much memory a Decoder keeps between commands.
const maxScratch = 1 << 10

// Decoder reads commands or responses. Set its fields before the first call.
type Decoder struct {
	// MaxLine bounds the octets of one command or response outside its
	// literals; 0 = DefaultMaxLine, negative = no limit.
	MaxLine int
	// MaxLiteral bounds the sum of the literals of one command or response
	// that are taken into memory as strings; 0 = DefaultMaxLiteral, negative =
	// no limit.
	MaxLiteral int64
	// Continue, when not nil, is called before a synchronising literal is
	// read: a server sends its continuation request there. An error refuses
	// the literal.
	Continue func(l *Literal) error
	// UTF8 lets quoted strings hold UTF-8 and mailbox names be UTF-8; without
	// it mailbox names are modified UTF-7 (invalid ones stand for themselves).
	UTF8 bool

	r       *bufio.Reader
	err     error
	line    int   // octets of this line outside literals
	inMem   int64 // octets of literals in memory
	scratch []byte
	open    *Literal // literal that has not been read to its end
	refused bool     // a synchronising literal was refused: the line is over
	ended   bool     // CRLF was taken
	depth   int
}

// NewDecoder returns a Decoder on r.
func NewDecoder(r *bufio.Reader) *Decoder { return &Decoder{r: r} }

// Reset makes d read from r with its limits as they are: after STARTTLS.
func (d *Decoder) Reset(r *bufio.Reader) {
	d.r = r
	d.Begin()
}

// Begin starts the next command or response: the sticky error and the counts
// are cleared.
func (d *Decoder) Begin() {
	if cap(d.scratch) > maxScratch {
		d.scratch = nil // a long word was read: idle connections keep little
	}
	d.err, d.line, d.inMem, d.open, d.refused, d.ended, d.depth = nil, 0, 0, nil, false, false, 0
}

// Err returns the first error.
func (d *Decoder) Err() error { return d.err }

// Buffered returns how many octets can be read without blocking.
func (d *Decoder) Buffered() int { return d.r.Buffered() }

// Fail makes a SyntaxError the sticky error and returns false.
func (d *Decoder) Fail(format string, args ...any) bool {
	if d.err == nil {
		d.err = &SyntaxError{fmt.Sprintf(format, args...)}
	}
	return false
}

// FailWith makes err the sticky error and returns false.
func (d *Decoder) FailWith(err error) bool {
	if d.err == nil {
		if err == io.EOF && d.line > 0 {
			err = io.ErrUnexpectedEOF
		}
		d.err = err
	}
	return false
}

// peek returns the next octet without taking it.
func (d *Decoder) peek() (byte, bool) {
	if d.err != nil {
		return 0, false
	}
	if d.open != nil {
		panic("imapwire: literal not read to its end")
	}
	b, err := d.r.Peek(1)
	if err != nil {
		return 0, d.FailWith(err)
	}
	return b[0], true
}

// take takes the octet that peek returned.
func (d *Decoder) take() bool {
	d.r.Discard(1)
	if d.line++; d.line > d.maxLine() {
		return d.FailWith(ErrLineTooLong)
	}
	return true
}

func (d *Decoder) maxLine() int {
	switch {
	case d.MaxLine == 0:
		return DefaultMaxLine
	case d.MaxLine < 0:
		return math.MaxInt
	}
	return d.MaxLine
}

// Next tells whether c is the next octet, without taking it.
func (d *Decoder) Next(c byte) bool {
	b, ok := d.peek()
	return ok && b == c
}

// Special takes c.
func (d *Decoder) Special(c byte) bool { return d.Next(c) && d.take() }

// ExpectSpecial takes c or fails.
func (d *Decoder) ExpectSpecial(c byte) bool {
	return d.Special(c) || d.Fail("expected %q", c)
}

// SP takes one space.
func (d *Decoder) SP() bool { return d.Special(' ') }

// ExpectSP takes one space or fails.
func (d *Decoder) ExpectSP() bool { return d.SP() || d.Fail("expected a space") }

// CRLF takes the end of the line. A bare LF is taken for one.
func (d *Decoder) CRLF() bool {
	if d.Special('\n') {
		d.ended = true
		return true
	}
	if !d.Next('\r') {
		return false
	}
	b, err := d.r.Peek(2)
	if err != nil {
		return d.FailWith(err)
	}
	if b[1] != '\n' {
		return false
	}
	d.r.Discard(2)
	d.ended = true
	return true
}

// ExpectCRLF takes the end of the line or fails.
func (d *Decoder) ExpectCRLF() bool { return d.CRLF() || d.Fail("expected the end of the line") }

// Discard brings d to the end of the command after an error, so that the
// next one begins at its beginning: it skips the rest of the line, and of
// non-synchronising literals ({n+}) and the lines after them, at most max
// octets. It returns an error when that was not possible: the connection is
// out of step then. A line that was ended or refused already is left alone.
func (d *Decoder) Discard(max int64) error {
	if l := d.open; l != nil {
		d.open = nil
		if l.left > max {
			return ErrLiteralTooBig
		}
		n, err := io.CopyN(io.Discard, d.r, l.left)
		if err != nil {
			return err
		}
		max -= n
	}
	if d.ended || d.refused {
		return nil
	}
	var tail [32]byte // the end of the line read so far
	n := 0
	for {
		chunk, err := d.r.ReadSlice('\n')
		if max -= int64(len(chunk)); max < 0 {
			return ErrLineTooLong
		}
		if len(chunk) >= len(tail) {
			n = copy(tail[:], chunk[len(chunk)-len(tail):])
		} else {
			keep := min(n, len(tail)-len(chunk))
			copy(tail[:], tail[n-keep:n])
			n = keep + copy(tail[keep:], chunk)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return err
		}
		size, nonSync, ok := literalAtEnd(tail[:n])
		if !ok || !nonSync {
			d.ended = true
			return nil
		}
		if size > max {
			return ErrLiteralTooBig
		}
		if _, err := io.CopyN(io.Discard, d.r, size); err != nil {
			return err
		}
		max -= size
		n = 0
	}
}

// literalAtEnd finds "{n}" or "{n+}" before the line end of line.
func literalAtEnd(line []byte) (size int64, nonSync, ok bool) {
	i := len(line) - 1
	if i >= 0 && line[i] == '\n' {
		i--
	}
	if i >= 0 && line[i] == '\r' {
		i--
	}
	if i < 0 || line[i] != '}' {
		return 0, false, false
	}
	i--
	if i >= 0 && line[i] == '+' {
		nonSync = true
		i--
	}
	end := i + 1
	for i >= 0 && line[i] >= '0' && line[i] <= '9' {
		i--
	}
	if i < 0 || line[i] != '{' || i+1 == end || end-i > 20 {
		return 0, false, false
	}
	for _, c := range line[i+1 : end] {
		if size > (math.MaxInt64-9)/10 {
			return math.MaxInt64, nonSync, true
		}
		size = size*10 + int64(c-'0')
	}
	return size, nonSync, true
}
