package milter

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// field is one header field, with its line ends.
type field struct {
	name string // as it is written; "" = a line that is no field
	raw  []byte
}

// maxHeader bounds a header, in octets.
const maxHeader = 1 << 20

var errHeader = errors.New("milter: header too large")

// readHeader reads a header up to its empty line; size is where the body
// begins, and sep the empty line's octets, none when there is no body.
func readHeader(r *bufio.Reader) (fields []field, size int64, sep []byte, err error) {
	for {
		line, err := readLine(r)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, nil, err
		}
		size += int64(len(line))
		if size > maxHeader {
			return nil, 0, nil, errHeader
		}
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return fields, size, line, nil
		}
		if (line[0] == ' ' || line[0] == '\t') && len(fields) > 0 {
			f := &fields[len(fields)-1]
			f.raw = append(f.raw, line...)
		} else {
			name, _, ok := bytes.Cut(line, []byte{':'})
			f := field{raw: line}
			if ok {
				f.name = string(bytes.TrimRight(name, " \t"))
			}
			if strings.ContainsAny(f.name, " \t") || !ok {
				// The body begins without an empty line: mail like that
				// exists, and filters would see no such field either.
				f.name = ""
			}
			fields = append(fields, f)
		}
		if err != nil {
			return fields, size, nil, nil
		}
	}
}

// readLine returns a line with its end, in memory of its own.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
		if len(line) > maxHeader {
			return nil, errHeader
		}
	}
}

// value is what a filter gets: everything behind the colon, LF line ends,
// and the first space left out unless the filter wants it.
func (f *field) value(leading bool) []byte {
	_, v, _ := bytes.Cut(f.raw, []byte{':'})
	v = bytes.ReplaceAll(bytes.TrimRight(v, "\r\n"), []byte("\r\n"), []byte("\n"))
	if !leading {
		v = bytes.TrimPrefix(v, []byte(" "))
	}
	return v
}

// newField makes a field of what a filter gave: whatever its line ends are,
// it stays one field.
func newField(name, value string, leading bool) (field, bool) {
	if name == "" || len(name) > 200 || len(value) > maxHeader {
		return field{}, false
	}
	for i := 0; i < len(name); i++ {
		if name[i] <= ' ' || name[i] == ':' || name[i] >= 0x7f {
			return field{}, false
		}
	}
	raw := append([]byte(name), ':')
	if !leading {
		raw = append(raw, ' ')
	}
	value = strings.ReplaceAll(value, "\r\n", "\n")
	value = strings.Trim(strings.ReplaceAll(value, "\r", "\n"), "\n")
	for i, line := range strings.Split(value, "\n") {
		if i > 0 {
			if strings.TrimSpace(line) == "" {
				continue // a line of nothing but space ends a header elsewhere
			}
			raw = append(raw, '\r', '\n')
			if line[0] != ' ' && line[0] != '\t' {
				raw = append(raw, '\t')
			}
		}
		raw = append(raw, strings.ReplaceAll(line, "\x00", "")...)
	}
	return field{name: name, raw: append(raw, '\r', '\n')}, true
}

// find returns the place of the n-th field of a name, counted from 1, -1 if
// there is none.
func find(fields []field, name string, n int) int {
	for i := range fields {
		if strings.EqualFold(fields[i].name, name) {
			if n--; n <= 0 {
				return i
			}
		}
	}
	return -1
}
