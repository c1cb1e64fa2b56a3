package mime

import (
	"bytes"
	"encoding/base64"
	"io"
	"slices"
)

// decoder reads encoded octets in blocks and decodes them where they lie: what
// comes out is never longer than what was taken in.
type decoder struct {
	r    io.Reader
	body io.SectionReader // r, when it is of a message
	size int64            // of what is to be decoded at most, 0 = not known
	seen int64            // of it
	qp   bool             // quoted-printable, else base64
	quad base64Decoder

	buf     []byte
	from, n int    // buf[from:n] is not decoded yet
	out     []byte // decoded and not read yet
	err     error
}

const (
	decoderBlock = 16 << 10
	// Up to three octets of base64 come out of a quad that was begun in the
	// block before: what is read lies so much behind what is written.
	decoderLead = 4
	// Whole words are written, of which the end does not count.
	decoderSlack = 24
)

func (d *decoder) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for len(d.out) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		d.fill()
	}
	n := copy(b, d.out)
	d.out = d.out[n:]
	return n, nil
}

// WriteTo saves io.Copy a buffer.
func (d *decoder) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		if len(d.out) > 0 {
			n, err := w.Write(d.out)
			d.out = d.out[n:]
			total += int64(n)
			if err != nil {
				return total, err
			}
		}
		if d.err == io.EOF {
			return total, nil
		}
		if d.err != nil {
			return total, d.err
		}
		d.fill()
	}
}

func (d *decoder) fill() {
	if d.buf == nil {
		n := decoderBlock
		if d.size > 0 && d.size < decoderBlock {
			n = int(d.size) + 1 // it never gets full
		}
		d.buf = make([]byte, decoderLead+n+decoderSlack)
		d.from, d.n = decoderLead, decoderLead
	}
	d.n = decoderLead + copy(d.buf[decoderLead:], d.buf[d.from:d.n])
	n, err := io.ReadAtLeast(d.r, d.buf[d.n:len(d.buf)-decoderSlack], 1)
	d.n += n
	d.seen += int64(n)
	if err == io.ErrUnexpectedEOF || err == nil && d.seen == d.size {
		err = io.EOF
	}
	d.err = err
	dst, src := d.buf[:0], d.buf[decoderLead:d.n]
	if d.qp {
		var used int
		d.out, used = decodeQuotedPrintable(dst, src, err != nil)
		d.from = decoderLead + used
		return
	}
	d.out, d.from = d.quad.decode(dst, src), d.n
	if err != nil {
		d.out = d.quad.flush(d.out)
	}
}

// NewBase64Reader decodes base64 (RFC 2045 §6.8). Characters that are not of
// its alphabet are skipped and padding may be missing. Errors are r's only.
func NewBase64Reader(r io.Reader) io.Reader { return &decoder{r: r} }

// NewQuotedPrintableReader decodes quoted-printable (RFC 2045 §6.7). What is
// no escape stays as it is; white space at the end of a line goes. Errors are
// r's only.
func NewQuotedPrintableReader(r io.Reader) io.Reader { return &decoder{r: r, qp: true} }

// decodeQuotedPrintable decodes whole lines, and of a line that does not end
// in src what cannot change any more. dst may lie before src in the same memory.
func decodeQuotedPrintable(dst, src []byte, atEOF bool) ([]byte, int) {
	i := 0
	for i < len(src) {
		j := bytes.IndexByte(src[i:], '\n')
		if j < 0 {
			if !atEOF && (i > 0 || len(src) < decoderBlock) {
				return dst, i
			}
			rest := src[i:]
			if !atEOF {
				// A very long line: hold back what may be white space or an
				// escape at its end.
				k := len(rest)
				for k > 0 && len(rest)-k < decoderBlock/2 && (rest[k-1] == ' ' || rest[k-1] == '\t' || rest[k-1] == '\r') {
					k--
				}
				if e := bytes.LastIndexByte(rest[max(0, k-3):k], '='); e >= 0 {
					k = max(0, k-3) + e
				}
				return appendQuotedLine(dst, rest[:k]), i + k
			}
			rest = bytes.TrimRight(rest, " \t")
			if n := len(rest); n > 0 && rest[n-1] == '=' {
				rest = rest[:n-1]
			}
			return appendQuotedLine(dst, rest), len(src)
		}
		line := src[i : i+j]
		i += j + 1
		eol := src[i-1 : i]
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line, eol = line[:n-1], src[i-2:i]
		}
		for n := len(line); n > 0 && (line[n-1] == ' ' || line[n-1] == '\t'); n-- {
			line = line[:n-1]
		}
		if n := len(line); n > 0 && line[n-1] == '=' {
			dst = appendQuotedLine(dst, line[:n-1])
			continue
		}
		dst = append(appendQuotedLine(dst, line), eol...)
	}
	return dst, i
}

func appendQuotedLine(dst, line []byte) []byte {
	for {
		// Escapes stand together, two or three for a character.
		for len(line) > 2 && line[0] == '=' {
			hi, lo := hexValue[line[1]], hexValue[line[2]]
			if hi|lo >= 16 {
				break
			}
			dst = append(dst, hi<<4|lo)
			line = line[3:]
		}
		if len(line) == 0 {
			return dst
		}
		i := bytes.IndexByte(line[1:], '=')
		if i < 0 {
			return append(dst, line...)
		}
		dst = append(dst, line[:i+1]...)
		line = line[i+1:]
	}
}

var stdBase64 = base64.StdEncoding

// base64Value gives what a character stands for; 64 and more is none.
var base64Value = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := range len(alphabet) {
		t[alphabet[i]] = byte(i)
	}
	return t
}()

// base64Quad gives the value of a character in each place of a quad, shifted
// to where it goes; invalidQuad for what is none.
var base64Quad = func() (t [4][256]uint32) {
	for place := range t {
		for c := range t[place] {
			t[place][c] = invalidQuad
			if v := base64Value[c]; v < 64 {
				t[place][c] = uint32(v) << (18 - 6*place)
			}
		}
	}
	return t
}()

const invalidQuad = 1 << 31

// hexValue gives what a hexadecimal digit stands for; 16 and more is none.
var hexValue = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range 10 {
		t['0'+i] = byte(i)
	}
	for i := range 6 {
		t['a'+i], t['A'+i] = byte(10+i), byte(10+i)
	}
	return t
}()

// base64Decoder decodes the base64 of RFC 2045 §6.8: characters that are not
// of the alphabet are skipped, padding may be missing, and after padding a
// new piece may begin, as in encodings that were put one after another.
type base64Decoder struct {
	bits uint32 // of the quad begun
	n    int    // characters of it
}

// decode appends what src holds to dst, which may lie before src in the same
// memory, by decoderLead at least.
func (d *base64Decoder) decode(dst, src []byte) []byte {
	for len(src) > 0 {
		if d.n == 0 {
			var used int
			dst, used = decodeQuads(dst, src)
			src = src[used:]
			if len(src) == 0 {
				break
			}
		}
		c := src[0]
		src = src[1:]
		if v := base64Value[c]; v < 64 {
			d.bits = d.bits<<6 | uint32(v)
			if d.n++; d.n == 4 {
				dst = append(dst, byte(d.bits>>16), byte(d.bits>>8), byte(d.bits))
				d.bits, d.n = 0, 0
			}
		} else if c == '=' {
			dst = d.flush(dst)
		}
	}
	return dst
}

// flush ends a quad that is not full: 2 characters hold an octet, 3 hold two.
func (d *base64Decoder) flush(dst []byte) []byte {
	switch d.n {
	case 2:
		dst = append(dst, byte(d.bits>>4))
	case 3:
		dst = append(dst, byte(d.bits>>10), byte(d.bits>>2))
	}
	d.bits, d.n = 0, 0
	return dst
}

// decodeQuads decodes whole quads, and line ends between them, up to the
// first thing that is neither. It returns how much of src it used.
func decodeQuads(dst, src []byte) ([]byte, int) {
	n := len(dst)
	dst = slices.Grow(dst, len(src)/4*3+8)
	out := dst[n:cap(dst)]
	t0, t1, t2, t3 := &base64Quad[0], &base64Quad[1], &base64Quad[2], &base64Quad[3]
	i, o := 0, 0
	for {
		for len(src)-i >= 8 && len(out)-o >= 8 {
			s := src[i : i+8 : i+8]
			a := t0[s[0]] | t1[s[1]] | t2[s[2]] | t3[s[3]]
			b := t0[s[4]] | t1[s[5]] | t2[s[6]] | t3[s[7]]
			if (a|b)&invalidQuad != 0 {
				break
			}
			v := uint64(a)<<40 | uint64(b)<<16
			w := out[o : o+8 : o+8]
			w[0], w[1], w[2], w[3] = byte(v>>56), byte(v>>48), byte(v>>40), byte(v>>32)
			w[4], w[5], w[6], w[7] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
			i, o = i+8, o+6
		}
		if len(src)-i >= 4 && len(out)-o >= 3 {
			if a := t0[src[i]] | t1[src[i+1]] | t2[src[i+2]] | t3[src[i+3]]; a&invalidQuad == 0 {
				out[o], out[o+1], out[o+2] = byte(a>>16), byte(a>>8), byte(a)
				i, o = i+4, o+3
			}
		}
		switch {
		case len(src)-i >= 2 && src[i] == '\r' && src[i+1] == '\n':
			i += 2
		case len(src)-i >= 1 && src[i] == '\n':
			i++
		default:
			return dst[:n+o], i
		}
	}
}
