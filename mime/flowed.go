package mime

import (
	"bufio"
	"io"
	"strings"
	"unicode/utf8"
)

// NewFlowedReader reads text in format=flowed (RFC 3676) as paragraphs of one
// line each: soft line breaks and space-stuffing are gone, lines of one depth
// of quoting are joined and begin with that many ">" and a space. delsp is
// whether the DelSp parameter is yes. Line ends become LF. Errors are r's.
func NewFlowedReader(r io.Reader, delsp bool) io.Reader {
	return &flowedReader{r: bufio.NewReaderSize(r, 4096), delsp: delsp}
}

type flowedReader struct {
	r     *bufio.Reader
	delsp bool
	out   []byte
	pos   int
	open  bool // the last line ended in a soft break
	depth int  // of it
	err   error
}

func (f *flowedReader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for f.pos == len(f.out) {
		if f.err != nil {
			return 0, f.err
		}
		f.line()
	}
	n := copy(b, f.out[f.pos:])
	f.pos += n
	return n, nil
}

// line reads one line and puts what it gives into out.
func (f *flowedReader) line() {
	f.out, f.pos = f.out[:0], 0
	line, err := f.r.ReadString('\n')
	if f.err = err; line == "" {
		if f.open {
			f.open = false
			f.out = append(f.out, '\n')
		}
		return
	}
	end := strings.HasSuffix(line, "\n")
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	depth := 0
	for depth < len(line) && line[depth] == '>' {
		depth++
	}
	line = strings.TrimPrefix(line[depth:], " ")
	signature := line == "-- "
	if f.open && (depth != f.depth || signature) {
		// RFC 3676 §4.5: what is quoted in another way ends the paragraph.
		f.out = append(f.out, '\n')
		f.open = false
	}
	if !f.open && depth > 0 {
		f.out = append(append(f.out, strings.Repeat(">", depth)...), ' ')
	}
	soft := strings.HasSuffix(line, " ") && !signature && end
	if soft && f.delsp {
		line = line[:len(line)-1]
	}
	f.out = append(f.out, line...)
	f.open, f.depth = soft, depth
	if !soft && end {
		f.out = append(f.out, '\n')
	}
}

// flowColumns is where flowed text is wrapped (RFC 3676 §4.2).
const flowColumns = 76

// flow writes text in format=flowed: its lines are paragraphs, which are
// wrapped; lines that begin with ">" are quotations and stay so.
func flow(s string) string {
	var b strings.Builder
	b.Grow(len(s) + len(s)/32)
	for line := range strings.Lines(s) {
		eol := ""
		if strings.HasSuffix(line, "\n") {
			line, eol = line[:len(line)-1], "\n"
		}
		line = strings.TrimSuffix(line, "\r")
		if line == "-- " {
			b.WriteString(line + eol)
			continue
		}
		line = strings.TrimRight(line, " ")
		depth := 0
		for depth < len(line) && line[depth] == '>' {
			depth++
		}
		quote := line[:depth]
		if line = line[depth:]; depth > 0 {
			line = strings.TrimPrefix(line, " ")
			quote += " "
		}
		for {
			stuff := ""
			if depth == 0 && (strings.HasPrefix(line, " ") || strings.HasPrefix(line, ">") || strings.HasPrefix(line, "From ")) {
				stuff = " "
			}
			n := wrapAt(line, flowColumns-len(quote)-len(stuff))
			b.WriteString(quote + stuff + line[:n])
			if line = line[n:]; line == "" {
				break
			}
			b.WriteString("\n")
		}
		b.WriteString(eol)
	}
	return b.String()
}

// wrapAt returns where to break line, behind a space: the last one before so
// many columns, else the first one.
func wrapAt(line string, columns int) int {
	if len(line) <= columns {
		return len(line)
	}
	col, last := 0, -1
	for i := 0; i < len(line); {
		_, size := utf8.DecodeRuneInString(line[i:])
		if line[i] == ' ' && i+1 < len(line) && line[i+1] != ' ' && col > 0 {
			last = i + 1
		}
		i += size
		if col++; col >= columns && last > 0 {
			return last
		}
	}
	return len(line)
}
