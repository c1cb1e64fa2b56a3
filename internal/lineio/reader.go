// Package lineio reads and writes the CRLF lines that SMTP, POP3 and IMAP are
// made of, with bounded memory and without accepting any other line end.
package lineio

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

var (
	// ErrTooLong: the line was over the limit. It has been read to its end
	// and thrown away, so the next ReadLine is in step.
	ErrTooLong = errors.New("line too long")
	// ErrBareCR and ErrBareLF: a CR without LF, an LF without CR. The line
	// has been read to its LF.
	ErrBareCR = errors.New("bare CR in line")
	ErrBareLF = errors.New("bare LF in line")
	// ErrNUL: an octet of value zero, which no text protocol allows.
	ErrNUL = errors.New("NUL in line")
	// ErrEndless: no end of the line came in SkipLimit octets. The reader is
	// out of step, and the caller closes the connection. It is also an
	// io.ErrUnexpectedEOF.
	ErrEndless = fmt.Errorf("line without end: %w", io.ErrUnexpectedEOF)
)

// Reader reads CRLF lines from a connection.
type Reader struct {
	*bufio.Reader
	buf []byte // a line longer than the buffer
}

// SkipLimit is how much of an overlong line is read away before the reader
// gives up with ErrEndless.
const SkipLimit = 1 << 20

// NewReader returns a Reader with a buffer of size octets.
func NewReader(r io.Reader, size int) *Reader {
	return &Reader{Reader: bufio.NewReaderSize(r, size)}
}

// ReadLine returns the next line without its CRLF; limit is its longest
// length in octets, CRLF included. The slice is valid until the next read.
// io.EOF means that the peer closed between lines, io.ErrUnexpectedEOF
// within one.
func (r *Reader) ReadLine(limit int) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		r.buf = append(r.buf[:0], line...)
		for errors.Is(err, bufio.ErrBufferFull) && len(r.buf) <= limit {
			line, err = r.ReadSlice('\n')
			r.buf = append(r.buf, line...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			return nil, r.skip(len(r.buf))
		}
		line = r.buf
	}
	if err != nil {
		if errors.Is(err, io.EOF) && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	if len(line) > limit {
		return nil, ErrTooLong
	}
	return check(line)
}

func (r *Reader) skip(n int) error {
	for n < SkipLimit {
		line, err := r.ReadSlice('\n')
		n += len(line)
		if err == nil {
			return ErrTooLong
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return ErrEndless
}

func check(line []byte) ([]byte, error) {
	n := len(line) - 1
	if n == 0 || line[n-1] != '\r' {
		return nil, ErrBareLF
	}
	line = line[:n-1]
	for _, c := range line {
		if c == '\r' {
			return nil, ErrBareCR
		}
		if c == 0 {
			return nil, ErrNUL
		}
	}
	return line, nil
}
