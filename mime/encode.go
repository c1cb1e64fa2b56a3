package mime

import "encoding/binary"

// base64Pairs gives the two characters for 12 bits, as they lie in memory.
var base64Pairs = func() (t [1 << 12]uint16) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := range t {
		t[i] = uint16(alphabet[i>>6]) | uint16(alphabet[i&63])<<8
	}
	return t
}()

const (
	base64Line = 76                 // RFC 2045 §6.8
	base64Raw  = base64Line / 4 * 3 // octets of a line
)

// base64Encoder writes lines of 76 characters.
type base64Encoder struct {
	out  *output
	held [base64Raw]byte
	n    int
}

func (e *base64Encoder) write(b []byte) {
	if e.n > 0 {
		n := copy(e.held[e.n:], b)
		e.n += n
		b = b[n:]
		if e.n < base64Raw {
			return
		}
		e.line(e.held[:])
		e.n = 0
	}
	for len(b) >= base64Raw {
		e.line(b[:base64Raw])
		b = b[base64Raw:]
	}
	e.n = copy(e.held[:], b)
}

func (e *base64Encoder) line(b []byte) {
	o := e.out
	o.room()
	n := len(o.b)
	o.b = o.b[:n+base64Line+2]
	dst := o.b[n : n+base64Line+2 : n+base64Line+2]
	b = b[:base64Raw:base64Raw]
	for i, j := 0, 0; i <= base64Raw-3 && j <= base64Line-4; i, j = i+3, j+4 {
		s := b[i : i+3 : i+3]
		v := uint32(s[0])<<16 | uint32(s[1])<<8 | uint32(s[2])
		binary.LittleEndian.PutUint32(dst[j:j+4:j+4], uint32(base64Pairs[v>>12])|uint32(base64Pairs[v&0xfff])<<16)
	}
	dst[base64Line], dst[base64Line+1] = '\r', '\n'
}

func (e *base64Encoder) close() {
	if e.n > 0 {
		e.out.room()
		e.out.b = stdBase64.AppendEncode(e.out.b, e.held[:e.n])
		e.out.b = append(e.out.b, '\r', '\n')
		e.n = 0
	}
}

// quotedEncoder writes quoted-printable (RFC 2045 §6.7). "From " and "." at
// the beginning of a line are escaped, so that nothing on the way changes
// them (RFC 2049 §3).
type quotedEncoder struct {
	out    *output
	col    int
	space  byte // white space that is not written yet, 0 = none
	binary bool // line ends are octets like others
}

// quotedLine is what a line may have before the "=" of a soft line break.
const quotedLine = 75

// quotedPlain tells which octets may stand as they are anywhere.
var quotedPlain = func() (t [256]bool) {
	for c := '!'; c <= '~'; c++ {
		t[c] = c != '='
	}
	return t
}()

func (e *quotedEncoder) write(b []byte) {
	for i := 0; i < len(b); {
		c := b[i]
		switch {
		case quotedPlain[c]:
			e.flushSpace(false)
			if e.col >= quotedLine {
				e.soft()
			}
			if e.col == 0 && (c == '.' || c == 'F' && maybeFrom(b[i:])) {
				e.escape(c)
				i++
				continue
			}
			n := i + 1
			for most := min(len(b), i+quotedLine-e.col); n < most && quotedPlain[b[n]]; n++ {
			}
			e.out.room()
			e.out.b = append(e.out.b, b[i:n]...)
			e.col += n - i
			i = n
			continue
		case c == ' ' || c == '\t':
			e.flushSpace(false)
			e.space = c
		case e.binary:
			e.flushSpace(false)
			e.escape(c)
		case c == '\r': // lineEnds gives it with LF only
		case c == '\n':
			e.flushSpace(true)
			e.out.room()
			e.out.b = append(e.out.b, '\r', '\n')
			e.col = 0
		default:
			e.flushSpace(false)
			e.escape(c)
		}
		i++
	}
}

func maybeFrom(b []byte) bool {
	const from = "From "
	n := min(len(b), len(from))
	return string(b[:n]) == from[:n]
}

// flushSpace writes white space that was held back; at the end of a line it
// is escaped.
func (e *quotedEncoder) flushSpace(end bool) {
	c := e.space
	if c == 0 {
		return
	}
	e.space = 0
	if end {
		e.escape(c)
		return
	}
	if e.col >= quotedLine {
		e.soft()
	}
	e.out.room()
	e.out.b = append(e.out.b, c)
	e.col++
}

func (e *quotedEncoder) escape(c byte) {
	if e.col+3 > quotedLine {
		e.soft()
	}
	e.out.room()
	e.out.b = append(e.out.b, '=', upperHex[c>>4], upperHex[c&15])
	e.col += 3
}

func (e *quotedEncoder) soft() {
	e.out.room()
	e.out.b = append(e.out.b, '=', '\r', '\n')
	e.col = 0
}

func (e *quotedEncoder) close() {
	e.flushSpace(true)
	if e.col > 0 {
		e.soft() // what follows is no part of the content
	}
}
