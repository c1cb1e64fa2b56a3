package dkim

import (
	"bytes"
	"errors"
	"strings"
)

// Limits of what is kept of one message. Real headers stay far below.
const (
	maxHeader = 1 << 20 // octets of the header
	maxFields = 4096    // fields of the header
)

// ErrHeader is the error of a message whose header has more than 1 MiB or
// 4,096 fields: it is neither signed nor verified.
var ErrHeader = errors.New("dkim: header too large")

// headerBlock gathers a header until the empty line that ends it.
type headerBlock struct {
	buf   []byte
	line  int  // where the current line begins in buf
	done  bool // the empty line was seen
	large bool
}

// write takes what belongs to the header and returns the rest of p, nil as
// long as the header goes on.
func (h *headerBlock) write(p []byte) (body []byte) {
	if h.large {
		return nil
	}
	if len(h.buf) == 0 && !bytes.HasPrefix(p, []byte(crlf)) {
		// Usually the whole header comes in the first piece.
		if i := bytes.Index(p, []byte("\r\n\r\n")); i >= 0 && i < maxHeader {
			h.buf = append(make([]byte, 0, i+2), p[:i+2]...)
			h.done = true
			return p[i+4:]
		}
	}
	for len(p) > 0 {
		n := bytes.IndexByte(p, '\n') + 1
		end := n > 0
		if !end {
			n = len(p)
		}
		if len(h.buf)+n > maxHeader {
			h.large, h.buf = true, nil
			return nil
		}
		h.buf = append(h.buf, p[:n]...)
		p = p[n:]
		if end && bytes.HasSuffix(h.buf[h.line:], []byte(crlf)) {
			if len(h.buf)-h.line == len(crlf) {
				h.buf = h.buf[:h.line]
				h.done = true
				return p
			}
			h.line = len(h.buf)
		}
	}
	return nil
}

// field is one field within a header block: block[start:end] is all of it,
// block[start:name] its name.
type field struct{ start, name, end int }

// splitFields finds the fields of a block. Lines that are no field are passed
// over.
func splitFields(block []byte) ([]field, error) {
	fields := make([]field, 0, min(maxFields, 8+len(block)/64))
	for pos := 0; pos < len(block); {
		end := lineEnd(block, pos)
		for end < len(block) && (block[end] == ' ' || block[end] == '\t') {
			end = lineEnd(block, end)
		}
		line := block[pos:end]
		colon := bytes.IndexByte(line, ':')
		name := len(bytes.TrimRight(line[:max(colon, 0)], " \t"))
		if name > 0 && line[0] != ' ' && line[0] != '\t' {
			if len(fields) == maxFields {
				return nil, ErrHeader
			}
			fields = append(fields, field{pos, pos + name, end})
		}
		pos = end
	}
	return fields, nil
}

// lineEnd returns where the line that begins at pos ends, behind its CRLF.
func lineEnd(block []byte, pos int) int {
	for i := pos; ; {
		n := bytes.IndexByte(block[i:], '\n')
		if n < 0 {
			return len(block)
		}
		i += n + 1
		if i-2 >= pos && block[i-2] == '\r' {
			return i
		}
	}
}

// is reports whether f has that name; case does not matter.
func (f field) is(block []byte, name string) bool {
	return f.name-f.start == len(name) && strings.EqualFold(string(block[f.start:f.name]), name)
}

// selectFields appends to dst the canonical form of the fields that h names,
// from the bottom up for a name given several times, and of none where there
// is no further one (RFC 6376 §5.4.2). used has a flag per field and is
// changed.
func selectFields(dst, block []byte, fields []field, used []bool, h []string, c Canonicalization) []byte {
	for _, name := range h {
		for i := len(fields) - 1; i >= 0; i-- {
			if !used[i] && fields[i].is(block, name) {
				used[i] = true
				dst = appendHeader(dst, block[fields[i].start:fields[i].end], c)
				break
			}
		}
	}
	return dst
}
