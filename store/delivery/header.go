package delivery

import (
	"bytes"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/smtp"
)

// maxHeader is the longest header that is taken, in octets. It is held in
// memory until its end, so that a forged field can be left out as a whole.
const maxHeader = 1 << 20

// headerFilter holds a message's header back until its end, then gives it out
// without the Authentication-Results fields that claim to be ours.
type headerFilter struct {
	ids      []string // our authserv-ids
	buf      []byte
	line     int // where the last line in buf begins
	done     bool
	received int // Received fields, once done
}

// write takes the next octets of the message. Once the header ends it returns
// the header to keep and the rest of b, and nothing is to be written any more.
func (f *headerFilter) write(b []byte) (header, rest []byte, err error) {
	from := len(f.buf)
	buf := b // which most often has all of it
	if from > 0 {
		f.buf = append(f.buf, b...)
		buf = f.buf
	}
	for {
		i := bytes.IndexByte(buf[max(f.line, from):], '\n')
		if i < 0 {
			break
		}
		end := max(f.line, from) + i + 1
		if empty(buf[f.line:end]) {
			f.buf = buf[:end:end]
			return f.close(), b[end-from:], nil
		}
		f.line = end
	}
	if len(buf) > maxHeader {
		return nil, nil, &smtp.Error{Code: 552, Enhanced: smtp.EnhancedCode{5, 3, 4}, Scope: smtp.ScopeMessage, Text: "Message header is too long"}
	}
	if from == 0 {
		f.buf = bytes.Clone(b)
	}
	return nil, nil, nil
}

// close ends the header where it is and returns what to keep of it.
func (f *headerFilter) close() []byte {
	if f.done {
		return nil
	}
	f.done = true
	b := f.buf
	var kept []byte // buf may be the caller's: what is left of it is new
	start := 0      // b[start:i] is still to be kept
	for i := 0; i < len(b); {
		end := fieldEnd(b, i)
		name, value, ok := bytes.Cut(b[i:end], []byte{':'})
		name = bytes.TrimRight(name, " \t")
		switch {
		case !ok:
		case bytes.EqualFold(name, []byte("Received")):
			f.received++
		case bytes.EqualFold(name, []byte(auth.FieldName)) && auth.Claims(unfold(value), f.ids...):
			kept = append(kept, b[start:i]...)
			start = end
		}
		i = end
	}
	f.buf = nil
	if start == 0 {
		return b
	}
	return append(kept, b[start:]...)
}

// fieldEnd returns where the field that begins at i ends: before the next line
// that does not begin with white space.
func fieldEnd(b []byte, i int) int {
	for {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return len(b)
		}
		i += n + 1
		if i == len(b) || b[i] != ' ' && b[i] != '\t' {
			return i
		}
	}
}

func empty(line []byte) bool {
	return len(line) == 1 || len(line) == 2 && line[0] == '\r'
}

func unfold(value []byte) string {
	value = bytes.ReplaceAll(value, []byte("\r\n"), nil)
	return string(bytes.TrimSpace(bytes.ReplaceAll(value, []byte("\n"), nil)))
}
