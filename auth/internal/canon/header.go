package canon

import (
	"bytes"
	"errors"
	"strings"
)

// Limits of what is kept of one message. Real headers stay far below.
const (
	MaxHeader = 1 << 20 // octets of the header
	MaxFields = 4096    // fields of the header
)

// ErrHeader is the error of a message whose header has more than 1 MiB or
// 4,096 fields: it is neither signed nor verified.
var ErrHeader = errors.New("header too large")

// Block gathers a header until the empty line that ends it.
type Block struct {
	Buf   []byte
	line  int  // where the current line begins in buf
	Done  bool // the empty line was seen
	Large bool
}

// Write takes what belongs to the header and returns the rest of p, nil as
// long as the header goes on.
func (h *Block) Write(p []byte) (body []byte) {
	if h.Large {
		return nil
	}
	if len(h.Buf) == 0 && !bytes.HasPrefix(p, []byte(CRLF)) {
		// Usually the whole header comes in the first piece.
		if i := bytes.Index(p, []byte("\r\n\r\n")); i >= 0 && i < MaxHeader {
			h.Buf = append(make([]byte, 0, i+2), p[:i+2]...)
			h.Done = true
			return p[i+4:]
		}
	}
	for len(p) > 0 {
		n := bytes.IndexByte(p, '\n') + 1
		end := n > 0
		if !end {
			n = len(p)
		}
		if len(h.Buf)+n > MaxHeader {
			h.Large, h.Buf = true, nil
			return nil
		}
		h.Buf = append(h.Buf, p[:n]...)
		p = p[n:]
		if end && bytes.HasSuffix(h.Buf[h.line:], []byte(CRLF)) {
			if len(h.Buf)-h.line == len(CRLF) {
				h.Buf = h.Buf[:h.line]
				h.Done = true
				return p
			}
			h.line = len(h.Buf)
		}
	}
	return nil
}

// Field is one field within a header block: block[Start:End] is all of it,
// block[Start:Name] its name.
type Field struct{ Start, Name, End int }

// Split finds the fields of a block. Lines that are no field are passed
// over.
func Split(block []byte) ([]Field, error) {
	fields := make([]Field, 0, min(MaxFields, 8+len(block)/64))
	for pos := 0; pos < len(block); {
		end := lineEnd(block, pos)
		for end < len(block) && (block[end] == ' ' || block[end] == '\t') {
			end = lineEnd(block, end)
		}
		line := block[pos:end]
		colon := bytes.IndexByte(line, ':')
		name := len(bytes.TrimRight(line[:max(colon, 0)], " \t"))
		if name > 0 && line[0] != ' ' && line[0] != '\t' {
			if len(fields) == MaxFields {
				return nil, ErrHeader
			}
			fields = append(fields, Field{pos, pos + name, end})
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

// Is reports whether f has that name; case does not matter.
func (f Field) Is(block []byte, name string) bool {
	return f.Name-f.Start == len(name) && strings.EqualFold(string(block[f.Start:f.Name]), name)
}

// Select appends to dst the canonical form of the fields that h names,
// from the bottom up for a name given several times, and of none where there
// is no further one (RFC 6376 §5.4.2). used has a flag per field and is
// changed.
func Select(dst, block []byte, fields []Field, used []bool, h []string, relaxed bool) []byte {
	for _, name := range h {
		for i := len(fields) - 1; i >= 0; i-- {
			if !used[i] && fields[i].Is(block, name) {
				used[i] = true
				dst = AppendField(dst, block[fields[i].Start:fields[i].End], relaxed)
				break
			}
		}
	}
	return dst
}
