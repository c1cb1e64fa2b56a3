package smtpserver

import (
	"bytes"

	"github.com/postrider/postrider/internal/lineio"
)

// LineEnds says what becomes of a CR or LF alone, and of a NUL, in a message.
// Whatever it is, only CRLF.CRLF ends the message, and a command line ends
// with CRLF and has none of them.
type LineEnds uint8

// What to do with bad line ends.
const (
	// LineEndsRefuse reads the message to its end and answers 554 5.6.0: no
	// two hosts can then disagree on where it ends.
	LineEndsRefuse LineEnds = iota
	// LineEndsFix makes a CRLF of each and drops each NUL. A signature over
	// the message may break.
	LineEndsFix
	// LineEndsAllow hands them to the session as they are. What passes them
	// on to a host that takes them for line ends smuggles messages.
	LineEndsAllow
)

// check notes what is wrong in b, the next octets of the text.
func (t *textCheck) check(b []byte, maxLine int) {
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		part := b
		if i >= 0 {
			part = b[:i+1]
		}
		t.line += len(part)
		if maxLine > 0 && t.line > maxLine {
			t.note(lineio.ErrTooLong)
		}
		text := part
		if i >= 0 {
			text = part[:i]
		}
		if t.cr && len(text) > 0 {
			t.note(lineio.ErrBareCR)
		}
		cr := t.cr
		if len(text) > 0 {
			cr = text[len(text)-1] == '\r'
			if k := bytes.IndexByte(text, '\r'); k >= 0 && k < len(text)-1 {
				t.note(lineio.ErrBareCR)
			}
			if bytes.IndexByte(text, 0) >= 0 {
				t.note(lineio.ErrNUL)
			}
		}
		t.cr = cr
		if i >= 0 {
			if !cr {
				t.note(lineio.ErrBareLF)
			}
			t.cr, t.line = false, 0
		}
		b = b[len(part):]
	}
}

// note keeps the first finding; a line that is too long stands above others,
// which may be allowed.
func (t *textCheck) note(err error) {
	if t.bad == nil || err == lineio.ErrTooLong {
		t.bad = err
	}
}

// end is called at the end of the text.
func (t *textCheck) end() {
	if t.cr {
		t.note(lineio.ErrBareCR)
	}
}

// fix appends b to dst with every line end made CRLF; cr says that a CR was
// the last octet before b, and is not written yet.
func fix(dst, b []byte, cr *bool) []byte {
	for _, ch := range b {
		if *cr {
			*cr = false
			dst = append(dst, '\r', '\n')
			if ch == '\n' {
				continue
			}
		}
		switch ch {
		case '\r':
			*cr = true
		case '\n':
			dst = append(dst, '\r', '\n')
		case 0:
		default:
			dst = append(dst, ch)
		}
	}
	return dst
}

// header counts the octets of a message's header; over is called for each b
// of the message until it has seen the empty line.
type header struct {
	size int64
	line int // octets of the current line without its CR
	done bool
}

func (h *header) over(b []byte, limit int64) bool {
	for len(b) > 0 && !h.done {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			h.size += int64(len(b))
			h.line += len(b)
			if b[len(b)-1] == '\r' {
				h.line--
			}
			break
		}
		n := i
		if i > 0 && b[i-1] == '\r' {
			n--
		}
		h.size += int64(i + 1)
		h.done = h.line+n == 0
		h.line = 0
		b = b[i+1:]
	}
	return h.size > limit
}
