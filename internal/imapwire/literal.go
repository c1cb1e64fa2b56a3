package imapwire

import (
	"errors"
	"io"
	"math"
)

// Literal is a literal being received. It is an io.Reader of its octets and
// must be read to its end before the Decoder is used again.
type Literal struct {
	Size    int64
	Binary  bool // ~{n} (RFC 3516 literal8)
	NonSync bool // {n+}: it comes whatever is answered

	d    *Decoder
	left int64
}

// Read implements io.Reader.
func (l *Literal) Read(p []byte) (int, error) {
	if l.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > l.left {
		p = p[:l.left]
	}
	n, err := l.d.r.Read(p)
	l.left -= int64(n)
	if l.left == 0 && l.d.open == l {
		l.d.open = nil
	}
	if err != nil && l.left > 0 {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		l.d.FailWith(err)
		return n, err
	}
	return n, nil
}

// Literal takes a literal's announcement and, unless accept refuses it, asks
// for its octets with Continue. accept may be nil; its error becomes the
// sticky error, and Discard keeps the connection in step whether the octets
// come or not. The caller reads the Literal to its end next.
func (d *Decoder) Literal(accept func(l *Literal) error) (*Literal, bool) {
	if !d.Next('{') && !d.Next('~') {
		return nil, false
	}
	l := &Literal{d: d, Binary: d.Special('~')}
	if !d.ExpectSpecial('{') {
		return nil, false
	}
	if !d.ExpectNumber64(&l.Size) {
		// What follows cannot be told from commands any more if it comes.
		d.open = &Literal{d: d, left: math.MaxInt64}
		return nil, false
	}
	l.NonSync = d.Special('+')
	if !d.ExpectSpecial('}') {
		return nil, false
	}
	if !d.ExpectCRLF() {
		return nil, false
	}
	d.ended = false // the command goes on after the literal
	l.left = l.Size
	if accept != nil {
		if err := accept(l); err != nil {
			d.refuse(l)
			return nil, d.FailWith(err)
		}
	}
	if !l.NonSync && d.Continue != nil {
		if err := d.Continue(l); err != nil {
			d.refuse(l)
			return nil, d.FailWith(err)
		}
	}
	if l.left > 0 {
		d.open = l
	}
	return l, true
}

// refuse notes what Discard has to do.
func (d *Decoder) refuse(l *Literal) {
	if l.NonSync || d.Continue == nil {
		d.open = l
	} else {
		d.refused = true
	}
}

// literalString takes a literal into memory.
func (d *Decoder) literalString(s *string) bool {
	l, ok := d.Literal(func(l *Literal) error {
		limit := d.MaxLiteral
		if limit == 0 {
			limit = DefaultMaxLiteral
		}
		if limit > 0 && (l.Size > limit || d.inMem+l.Size > limit) {
			return ErrLiteralTooBig
		}
		return nil
	})
	if !ok {
		return false
	}
	d.inMem += l.Size
	// The buffer grows with what arrives: an announcement costs nothing.
	var b []byte
	for l.left > 0 {
		n := min(l.left, 64<<10)
		at := len(b)
		b = append(b, make([]byte, n)...)
		if _, err := io.ReadFull(l, b[at:]); err != nil {
			return false
		}
	}
	if !l.Binary {
		for _, c := range b {
			if c == 0 {
				return d.Fail("NUL in a literal")
			}
		}
	}
	*s = string(b)
	return true
}
