package mime

import (
	"bytes"
	"io"
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
		i := bytes.IndexByte(line, '=')
		if i < 0 {
			return append(dst, line...)
		}
		dst = append(dst, line[:i]...)
		line = line[i:]
		if len(line) > 2 && hexValue[line[1]] < 16 && hexValue[line[2]] < 16 {
			dst = append(dst, hexValue[line[1]]<<4|hexValue[line[2]])
			line = line[3:]
			continue
		}
		dst = append(dst, '=')
		line = line[1:]
	}
}
