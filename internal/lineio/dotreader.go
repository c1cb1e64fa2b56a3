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
	// Bad is a violation met so far: ErrBareCR, ErrBareLF, ErrNUL or
	// ErrTooLong.
	Bad  error
	bol  bool // at the beginning of a line, after a true CRLF
	cr   bool // the last octet given out was a CR
	line int  // octets of the current line given out
	err  error
}

// NewDotReader returns a DotReader on r, which stays in step after io.EOF.
func NewDotReader(r *Reader, maxLine int) *DotReader {
	d := new(DotReader)
	d.Reset(r, maxLine)
	return d
}

// Reset makes d as new, for the next message.
func (d *DotReader) Reset(r *Reader, maxLine int) {
	*d = DotReader{r: r, MaxLine: maxLine, bol: true}
}

// Read implements io.Reader. It does not block once it has something to give.
func (d *DotReader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && (n == 0 || d.r.Buffered() > 0) {
		chunk, err := d.Next(len(p) - n)
		if err != nil {
			if n > 0 {
				break // err is kept for the next call
			}
			return 0, err
		}
		n += copy(p[n:], chunk)
	}
	return n, nil
}

// Next returns some more octets of the message, at most limit when that is
// above 0, as a part of the reader's own buffer: they are valid until the
// next call, and never empty without an error.
func (d *DotReader) Next(limit int) ([]byte, error) {
	if d.err == nil && d.bol {
		d.begin()
	}
	if d.err != nil {
		return nil, d.err
	}
	if d.r.Buffered() == 0 {
		if _, err := d.r.Peek(1); err != nil {
			return nil, d.fail(err)
		}
	}
	n := d.r.Buffered()
	if limit > 0 {
		n = min(n, limit)
	}
	buf, _ := d.r.Peek(n)
	run := d.scan(buf)
	d.r.Discard(len(run))
	return run, nil
}

// Skip reads the rest of the message away and returns its length. It gives
// up with ErrTooLong when that is more than limit octets; limit 0 = none.
func (d *DotReader) Skip(limit int64) (n int64, err error) {
	for {
		b, err := d.Next(0)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if n += int64(len(b)); limit > 0 && n > limit {
			return n, ErrTooLong
		}
	}
}

// begin handles a dot at the beginning of a line: the end of the message, or
// one octet that is not part of it.
func (d *DotReader) begin() {
	b, err := d.r.Peek(1)
	if err != nil {
		d.fail(err)
		return
	}
	if b[0] != '.' {
		return
	}
	b, err = d.r.Peek(3)
	if len(b) == 3 && b[1] == '\r' && b[2] == '\n' {
		d.r.Discard(3)
		d.err = io.EOF
		return
	}
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		d.fail(err)
		return
	}
	d.r.Discard(1)
	d.bol = false
}

// scan returns the longest prefix of buf, which is not empty, that is message
// text as it stands, and notes what is wrong in it. It stops after a line
// when the next one begins with a dot, or would begin behind buf.
func (d *DotReader) scan(buf []byte) []byte {
	wasCR := d.cr
	i, ends := 0, 0
	d.bol = false
	for i < len(buf) {
		j := bytes.IndexByte(buf[i:], '\n')
		if j < 0 {
			d.line += len(buf) - i
			i = len(buf)
			break
		}
		lf := i + j
		d.line += j + 1
		if d.MaxLine > 0 && d.line > d.MaxLine {
			d.bad(ErrTooLong)
		}
		d.line = 0
		i = lf + 1
		switch {
		case lf == 0 && wasCR:
		case lf > 0 && buf[lf-1] == '\r':
			ends++
		default:
			d.bad(ErrBareLF)
			continue
		}
		if i == len(buf) || buf[i] == '.' {
			d.bol = true
			break
		}
	}
	if d.MaxLine > 0 && d.line > d.MaxLine {
		d.bad(ErrTooLong)
	}
	run := buf[:i]
	d.cr = run[len(run)-1] == '\r'
	// Each CR of the run stands before an LF, or is its last octet, exactly
	// if their numbers agree: two fast passes over the run, none by octet.
	crs := bytes.Count(run, []byte{'\r'})
	if d.cr {
		crs--
	}
	if crs != ends || wasCR && run[0] != '\n' {
		d.bad(ErrBareCR)
	}
	if bytes.IndexByte(run, 0) >= 0 {
		d.bad(ErrNUL)
	}
	return run
}

func (d *DotReader) bad(err error) {
	if d.Bad == nil {
		d.Bad = err
	}
}

func (d *DotReader) fail(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	d.err = err
	return err
}
