package mbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/postrider/postrider/internal/spool"
	"github.com/postrider/postrider/mime"
)

// Writer writes an mbox, by adding to what is there.
type Writer struct {
	// Format is RD by default, or CL2.
	Format Format

	w   *bufio.Writer
	err error
}

// ErrHead says that a Head cannot be written.
var ErrHead = errors.New("mbox: head cannot be written")

// NewWriter returns a Writer to w. An mbox that is added to must end in an
// empty line, as all have that a Writer made.
func NewWriter(w io.Writer) *Writer { return &Writer{w: bufio.NewWriterSize(w, 64<<10)} }

// Add writes a message; r gives it. Line ends become LF, as all programs that
// know mbox expect it, a CR before one is taken for a part of it, and a last
// line without one gets one. In CL2 the message
// is read into memory or a temporary file first. After an error of the writer
// the file may end in the middle of a message, and every further Add fails;
// after one of r too, for the message cannot be taken back. An error that wraps
// [ErrHead] wrote nothing.
func (w *Writer) Add(h Head, r io.Reader) error {
	if w.err != nil {
		return w.err
	}
	from, err := fromLine(h)
	if err != nil {
		return err
	}
	extra, err := flagFields(h.Flags)
	if err != nil {
		return err
	}
	if w.Format > CL2 {
		return fmt.Errorf("mbox: format %d cannot be written", w.Format)
	}
	w.err = w.add(from, extra, r)
	return w.err
}

func (w *Writer) add(from, extra string, r io.Reader) error {
	br := bufio.NewReaderSize(r, 64<<10)
	block, more, err := readHeader(br)
	if err != nil {
		return err
	}
	if extra != "" || w.Format == CL2 {
		h := mime.ParseHeader(block)
		block = without(block, &h, w.Format == CL2)
	}
	long := len(block) >= maxHeader
	if long && w.Format == CL2 {
		return fmt.Errorf("mbox: header of more than %d octets", maxHeader)
	}
	end := headerLen(block)
	w.w.WriteString(from)
	l := liner{w: w.w, quote: true, bol: true}
	if long {
		w.w.WriteString(extra) // its end was not seen
		extra = ""
	}
	l.write(block[:end])
	if extra != "" || w.Format == CL2 {
		l.endLine()
	}
	w.w.WriteString(extra)
	if w.Format == CL2 {
		var body spool.Spool
		defer body.Close()
		sw := bufio.NewWriter(&body)
		bl := liner{w: sw, bol: true}
		if err := bl.copy(br, more); err != nil {
			return err
		}
		if err := sw.Flush(); err != nil {
			return err
		}
		fmt.Fprintf(w.w, "Content-Length: %d\n\n", body.Size())
		if _, err := io.Copy(w.w, io.NewSectionReader(&body, 0, body.Size())); err != nil {
			return err
		}
		if body.Size() > 0 && !bl.bol {
			w.w.WriteByte('\n')
		}
	} else {
		l.write(block[end:])
		if err := l.copy(br, more); err != nil {
			return err
		}
		l.endLine()
	}
	w.w.WriteByte('\n')
	return w.w.Flush()
}

// readHeader reads the header with its empty line, or the first maxHeader
// octets; more says whether anything may follow.
func readHeader(br *bufio.Reader) (block []byte, more bool, err error) {
	bol := true
	for len(block) < maxHeader {
		b, err := br.ReadSlice('\n')
		block = append(block, b...)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if err == io.EOF {
				return block, false, nil
			}
			return nil, false, err
		}
		if bol && len(bytes.TrimRight(b, "\r\n")) == 0 {
			return block, true, nil
		}
		bol = err == nil
	}
	return block, true, nil
}

// liner writes lines with LF ends, quoted or not.
type liner struct {
	w     *bufio.Writer
	quote bool
	bol   bool
	cr    bool // a CR that may belong to a line end is held back
}

// write takes any part of a text. A part at the beginning of a line must hold
// enough of it to see a quoted From_, or the whole.
func (l *liner) write(b []byte) {
	for len(b) > 0 {
		line := b
		i := bytes.IndexByte(b, '\n')
		if i >= 0 {
			line = b[:i+1]
		}
		b = b[len(line):]
		if l.cr {
			if line[0] != '\n' {
				l.w.WriteByte('\r')
			}
			l.cr = false
		}
		if l.quote && l.bol && quoted(line) {
			l.w.WriteByte('>')
		}
		if l.bol = i >= 0; l.bol {
			l.w.Write(bytes.TrimSuffix(line[:len(line)-1], []byte("\r")))
			l.w.WriteByte('\n')
		} else {
			l.cr = line[len(line)-1] == '\r'
			l.w.Write(bytes.TrimSuffix(line, []byte("\r")))
		}
	}
}

// copy takes all of br.
func (l *liner) copy(br *bufio.Reader, more bool) error {
	for more {
		b, err := br.ReadSlice('\n')
		l.write(b)
		if err == nil || errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != io.EOF {
			return err
		}
		break
	}
	if l.cr {
		l.w.WriteByte('\r')
		l.cr = false
	}
	return nil
}

func (l *liner) endLine() {
	if !l.bol {
		l.w.WriteByte('\n')
		l.bol, l.cr = true, false
	}
}

func fromLine(h Head) (string, error) {
	from := h.From
	if from == "" || from == "<>" {
		from = "MAILER-DAEMON"
	}
	t := h.Date
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	line := "From " + from + " " + t.UTC().Format("Mon Jan _2 15:04:05 2006")
	if s, ok := parseSeparator([]byte(line)); !ok || strings.ContainsFunc(from, func(r rune) bool { return r < ' ' || r == 0x7f }) ||
		len(line) > 900 || s.from != from && from != "MAILER-DAEMON" && from != "-" {
		return "", fmt.Errorf("%w: sender %q", ErrHead, h.From)
	}
	return line + "\n", nil
}

func flagFields(flags []string) (string, error) {
	letters := map[string]string{}
	var keywords []string
next:
	for _, f := range flags {
		for _, s := range statusFlags {
			if strings.EqualFold(f, s.flag) {
				if !strings.Contains(letters[s.field], string(s.letter)) {
					letters[s.field] += string(s.letter)
				}
				continue next
			}
		}
		if f == "" || strings.ContainsFunc(f, func(r rune) bool { return r <= ' ' || r >= 0x7f }) || len(f) > 200 {
			return "", fmt.Errorf("%w: flag %q", ErrHead, f)
		}
		keywords = append(keywords, f)
	}
	var b strings.Builder
	for _, name := range []string{"Status", "X-Status"} {
		if letters[name] != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, letters[name])
		}
	}
	if len(keywords) > 0 {
		b.WriteString("X-Keywords:")
		for _, k := range keywords {
			b.WriteString("\n " + k)
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}
