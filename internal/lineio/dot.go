package lineio

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// DotReader reads a message that ends with CRLF.CRLF, dot-stuffing removed
// (RFC 5321 §4.5.2). It yields io.EOF only after that end; a connection that
// ends before gives io.ErrUnexpectedEOF. Only CRLF.CRLF ends a message: a
// bare CR, a bare LF or a NUL is noted in Bad, and the caller refuses the
// message when it has been read to its end.
type DotReader struct {
	r *Reader
	// MaxLine is the longest line in octets, CRLF included; 0 = no limit.
	MaxLine int
	// Bad is the first violation: ErrBareCR, ErrBareLF, ErrNUL or ErrTooLong.
	Bad  error
	eof  bool
	bol  bool // at the beginning of a line
	cr   bool // the last octet given out was a CR
	line int  // length of the current line
	err  error
}

// NewDotReader returns a DotReader on r, which stays in step after io.EOF.
func NewDotReader(r *Reader, maxLine int) *DotReader {
	return &DotReader{r: r, MaxLine: maxLine, bol: true}
}

// Read implements io.Reader.
func (d *DotReader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && d.err == nil {
		if n > 0 && d.r.Buffered() == 0 {
			return n, nil // never block with something to give
		}
		if d.bol {
			if done := d.begin(); done {
				break
			}
		}
		// What is buffered of this line, at least one octet.
		if _, err := d.r.Peek(1); err != nil {
			d.fail(err)
			break
		}
		chunk, _ := d.r.Peek(min(d.r.Buffered(), len(p)-n))
		if i := bytes.IndexByte(chunk, '\n'); i >= 0 {
			chunk = chunk[:i+1]
		}
		d.inspect(chunk)
		n += copy(p[n:], chunk)
		d.r.Discard(len(chunk))
	}
	if n > 0 {
		return n, nil
	}
	if d.err == nil && len(p) == 0 {
		return 0, nil
	}
	return 0, d.err
}

// begin handles a dot at the beginning of a line.
func (d *DotReader) begin() (done bool) {
	b, err := d.r.Peek(1)
	if err != nil {
		d.fail(err)
		return true
	}
	if b[0] != '.' {
		return false
	}
	b, err = d.r.Peek(3)
	if len(b) == 3 && b[1] == '\r' && b[2] == '\n' {
		d.r.Discard(3)
		d.err = io.EOF
		return true
	}
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) && len(b) < 2 {
		d.fail(err)
		return true
	}
	d.r.Discard(1) // stuffed dot
	d.bol = false
	return false
}

func (d *DotReader) inspect(chunk []byte) {
	d.bol = false
	for i, c := range chunk {
		if d.cr && c != '\n' {
			d.bad(ErrBareCR)
		}
		switch c {
		case '\n':
			if !d.cr {
				d.bad(ErrBareLF)
			} else {
				d.bol = i == len(chunk)-1
			}
			d.cr = false
			if d.MaxLine > 0 && d.line+1 > d.MaxLine {
				d.bad(ErrTooLong)
			}
			d.line = -1
		case 0:
			d.bad(ErrNUL)
			d.cr = false
		default:
			d.cr = c == '\r'
		}
		d.line++
	}
	if d.MaxLine > 0 && d.line > d.MaxLine {
		d.bad(ErrTooLong)
	}
}

func (d *DotReader) bad(err error) {
	if d.Bad == nil {
		d.Bad = err
	}
}

func (d *DotReader) fail(err error) {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	d.err = err
}

// DotWriter writes a message with dot-stuffing. Close writes the end,
// CRLF.CRLF, and adds a CRLF before it when the message had none.
type DotWriter struct {
	w   *bufio.Writer
	bol bool
	cr  bool
}

// NewDotWriter returns a DotWriter on w; it does not flush w.
func NewDotWriter(w *bufio.Writer) *DotWriter { return &DotWriter{w: w, bol: true} }

// Write implements io.Writer. A line end that is not CRLF is made one, since
// the receiver would refuse it.
func (d *DotWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if d.bol && !d.cr && p[0] == '.' {
			d.w.WriteByte('.')
		}
		i := bytes.IndexAny(p, "\r\n")
		if i != 0 && d.cr { // a bare CR came before
			d.w.WriteString("\r\n")
			d.cr, d.bol = false, true
			continue
		}
		if i < 0 {
			d.bol = false
			if _, err := d.w.Write(p); err != nil {
				return 0, err
			}
			break
		}
		if i > 0 {
			d.bol = false
			d.w.Write(p[:i])
			p = p[i:]
			continue
		}
		if p[0] == '\r' {
			if d.cr {
				d.w.WriteString("\r\n")
			}
			d.cr = true
		} else {
			if _, err := d.w.WriteString("\r\n"); err != nil {
				return 0, err
			}
			d.cr, d.bol = false, true
		}
		p = p[1:]
	}
	return n, nil
}

// Close ends the message. It does not flush or close the writer below.
func (d *DotWriter) Close() error {
	if d.cr || !d.bol {
		d.w.WriteString("\r\n")
	}
	_, err := d.w.WriteString(".\r\n")
	return err
}
