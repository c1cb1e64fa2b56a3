package mime

import (
	"bufio"
	"bytes"
	"io"
	"iter"
	"strconv"
	"strings"
)

// uuencode is what Part.Encoding says for it, as most mailers spelled it.
const uuencode = "x-uuencode"

// UUFile is a file in uuencode within a text.
type UUFile struct {
	Name string
	Mode uint32    // of Unix, as it was given
	Body io.Reader // decoded; good until the next file is asked for
}

// UUFiles yields the files in uuencode that stand in a text, as mail had them
// before MIME. Only a line "begin", mode and name with a line of uuencode
// after it begins one. The error, with an empty UUFile, is r's.
func UUFiles(r io.Reader) iter.Seq2[UUFile, error] {
	return func(yield func(UUFile, error) bool) {
		u := &uuReader{r: bufio.NewReaderSize(r, 4096)}
		for {
			f, err := u.next(true)
			if err == io.EOF {
				return
			}
			if !yield(f, err) || err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, u); err != nil {
				yield(UUFile{}, err)
				return
			}
		}
	}
}

// NewUUReader decodes the first file in uuencode; text before it and after it
// is skipped. Damage is put up with. Errors are r's only.
func NewUUReader(r io.Reader) io.Reader {
	return &uuReader{r: bufio.NewReaderSize(r, 4096), find: true}
}

type uuReader struct {
	r    *bufio.Reader
	find bool // the beginning was not looked for yet
	in   bool // within a file
	out  []byte
	pos  int
	buf  [64]byte
	err  error
}

// next goes on to the beginning of a file.
func (u *uuReader) next(sure bool) (UUFile, error) {
	for {
		line, err := u.line()
		if err != nil {
			return UUFile{}, err
		}
		f, ok := beginsUU(line)
		if !ok {
			continue
		}
		if peek, _ := u.r.Peek(80); sure && !isUULine(peek) {
			continue
		}
		u.in, u.out, u.pos = true, nil, 0
		f.Body = u
		return f, nil
	}
}

// line returns the next line without its end, or the beginning of a long one.
func (u *uuReader) line() ([]byte, error) {
	line, err := u.r.ReadSlice('\n')
	for skip := err; skip == bufio.ErrBufferFull; {
		line = bytes.Clone(line)
		_, skip = u.r.ReadSlice('\n')
		err = nil
	}
	if len(line) == 0 && err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

func beginsUU(line []byte) (UUFile, bool) {
	rest, ok := strings.CutPrefix(string(line), "begin ")
	if !ok {
		return UUFile{}, false
	}
	mode, name, ok := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(mode, 8, 16)
	if name = strings.TrimSpace(name); !ok || err != nil || len(mode) < 3 || name == "" {
		return UUFile{}, false
	}
	return UUFile{Name: toUTF8(name), Mode: uint32(n)}, true
}

// isUULine reports whether b begins with a line of uuencode; its last spaces
// may be gone.
func isUULine(b []byte) bool {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[:i]
	}
	b = bytes.TrimRight(b, "\r")
	if len(b) == 0 || b[0] < ' ' || b[0] > '`' {
		return false
	}
	want := (int(b[0]-' ')&63+2)/3*4 + 1
	for _, c := range b {
		if c < ' ' || c > '`' {
			return false
		}
	}
	return len(b) <= want+2 && (len(b) >= want || len(b) >= want-8 && b[0] != '`')
}

func (u *uuReader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if u.find {
		u.find = false
		if _, err := u.next(false); err != nil {
			u.err = err
		}
	}
	for u.pos == len(u.out) {
		if u.err != nil {
			return 0, u.err
		}
		if !u.in {
			return 0, io.EOF
		}
		line, err := u.line()
		if err != nil {
			u.err, u.in = err, false
			continue
		}
		if len(line) == 0 || string(line) == "`" || string(line) == " " {
			continue // the last line of data has none, and "end" follows
		}
		if string(bytes.TrimRight(line, " \t")) == "end" {
			u.in = false
			continue
		}
		u.decode(line)
	}
	n := copy(b, u.out[u.pos:])
	u.pos += n
	return n, nil
}

// decode takes a line: the number of its octets, then four characters for
// each three of them.
func (u *uuReader) decode(line []byte) {
	u.out, u.pos = u.buf[:0], 0
	if line[0] < ' ' || line[0] > '`' {
		return
	}
	n := int(line[0]-' ') & 63
	line = line[1:]
	for len(u.out) < n {
		var q [4]byte // what is missing were spaces
		for i := range q {
			if i < len(line) && line[i] > ' ' && line[i] <= '`' {
				q[i] = (line[i] - ' ') & 63
			}
		}
		line = line[min(4, len(line)):]
		u.out = append(u.out, q[0]<<2|q[1]>>4, q[1]<<4|q[2]>>2, q[2]<<6|q[3])
	}
	u.out = u.out[:n]
}
