package lineio

import (
	"bufio"
	"bytes"
)

// DotWriter writes a message with dot-stuffing (RFC 5321 §4.5.2). Close
// writes the end, CRLF.CRLF, and adds a CRLF before it when the message had
// none.
type DotWriter struct {
	w   *bufio.Writer
	bol bool // at the beginning of a line
	cr  bool // a CR is held back until it is known whether an LF follows
}

// NewDotWriter returns a DotWriter on w; it does not flush w.
func NewDotWriter(w *bufio.Writer) *DotWriter { return &DotWriter{w: w, bol: true} }

// Write implements io.Writer. A line end that is not CRLF is made one, since
// the receiver would refuse it.
func (d *DotWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if d.cr {
			d.cr = false
			if p[0] == '\n' {
				p = p[1:]
			}
			if err := d.end(); err != nil {
				return n - len(p), err
			}
			continue
		}
		if d.bol && p[0] == '.' {
			d.w.WriteByte('.')
			d.bol = false
		}
		if run, bol := cleanRun(p); run > 0 {
			if _, err := d.w.Write(p[:run]); err != nil {
				return n - len(p), err
			}
			p, d.bol = p[run:], bol
			continue
		}
		if p[0] == '\r' {
			d.cr = true
		} else if err := d.end(); err != nil {
			return n - len(p), err
		}
		p = p[1:]
	}
	return n, nil
}

func (d *DotWriter) end() error {
	d.bol = true
	_, err := d.w.WriteString("\r\n")
	return err
}

// cleanRun returns the length of the longest prefix of p that may be sent as
// it is, and whether that ends with a line: it stops before a bare CR or LF,
// a CR at the end of p, and a line that begins with a dot.
func cleanRun(p []byte) (n int, bol bool) {
	for n < len(p) {
		j := bytes.IndexByte(p[n:], '\n')
		line := p[n:]
		if j >= 0 {
			line = line[:j]
		}
		switch k := bytes.IndexByte(line, '\r'); {
		case k < 0 && j < 0:
			return len(p), false
		case k < 0:
			return n + j, false
		case k != j-1:
			return n + k, false
		}
		n += j + 1
		if n < len(p) && p[n] == '.' {
			break
		}
	}
	return n, true
}

// Close ends the message. It does not flush or close the writer below.
func (d *DotWriter) Close() error {
	if d.cr || !d.bol {
		d.w.WriteString("\r\n")
	}
	_, err := d.w.WriteString(".\r\n")
	return err
}
