package mbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/mime"
)

// Head is what an mbox keeps of a message beside its octets.
type Head struct {
	// From is the reverse-path without angle brackets; "" = the null one,
	// written as MAILER-DAEMON.
	From string
	// Date is when it was delivered; zero = not told, written as the
	// beginning of 1970. The format has seconds and no time zone.
	Date time.Time
	// Flags are IMAP flags (\Seen, \Answered, \Flagged, \Draft, \Deleted) and
	// keywords, kept in the fields Status, X-Status and X-Keywords. A Reader
	// takes those fields off the message.
	Flags []string
}

// Message is one message of a Reader. It can be read until the next one is
// asked for.
type Message struct {
	Head
	r    *Reader
	out  []byte // to be given to who reads
	err  error  // after out
	cr   bool   // the last octet from the file was CR
	bol  bool   // at the beginning of a line
	held bool   // an empty line that may belong to the next From_ line
	raw  int64  // octets left by Content-Length; -1 = look for a From_ line
	keep bool   // do not unquote
	buf  []byte
}

// Reader reads an mbox.
type Reader struct {
	// Format is Auto by default.
	Format Format

	br   *bufio.Reader
	at   io.ReaderAt // nil = cannot look ahead
	off  int64       // octets consumed, from the beginning of at
	next []byte      // a From_ line that was read already
	last *Message    // may not have been read to its end
	done bool
}

// NewReader returns a Reader of r. If r is an [io.ReaderAt] and an
// [io.Seeker], as files are, Content-Length is checked before it is believed;
// of other readers it is believed only when Format says CL or CL2.
func NewReader(r io.Reader) *Reader {
	rd := &Reader{br: bufio.NewReaderSize(r, 64<<10)}
	if s, ok := r.(io.Seeker); ok {
		if at, ok := r.(io.ReaderAt); ok {
			if off, err := s.Seek(0, io.SeekCurrent); err == nil { // not a pipe
				rd.at, rd.off = at, off
			}
		}
	}
	return rd
}

// line returns the next line or part of a long one, with its line end. It is
// valid until the next call.
func (r *Reader) line() ([]byte, error) {
	b, err := r.br.ReadSlice('\n')
	r.off += int64(len(b))
	if errors.Is(err, bufio.ErrBufferFull) || len(b) > 0 && err == io.EOF {
		err = nil
	}
	return b, err
}

// Messages yields the messages in the order of the file. Each is read to its
// end, if that was not done, before the next one. The error, always the last
// thing that is yielded, wraps [ErrFormat] or is that of the reader.
func (r *Reader) Messages() iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		for !r.done {
			m, err := r.message()
			if err == io.EOF {
				return
			}
			if err != nil {
				r.done = true
				yield(nil, err)
				return
			}
			if !yield(m, nil) {
				return
			}
		}
	}
}

// message reads a From_ line and the header; io.EOF = there is no more.
func (r *Reader) message() (*Message, error) {
	if m := r.last; m != nil {
		for m.err == nil {
			m.fill()
		}
		m.out, r.last = nil, nil
		if m.err != io.EOF && m.err != io.ErrUnexpectedEOF {
			return nil, m.err
		}
	}
	line := r.next
	for line == nil {
		start := r.off
		b, err := r.line()
		if err != nil {
			r.done = true
			return nil, err
		}
		switch {
		case len(bytes.TrimRight(b, "\r\n")) == 0: // empty lines before the first
		case bytes.HasPrefix(b, []byte("From ")):
			line = bytes.TrimRight(b, "\r\n")
		default:
			return nil, fmt.Errorf("%w at octet %d", ErrFormat, start)
		}
	}
	s, _ := parseSeparator(line)
	r.next = nil
	m := &Message{Head: Head{From: s.from, Date: s.date}, r: r, bol: true, raw: -1, keep: r.Format == CL2}
	r.last = m
	m.header()
	return m, nil
}

// header reads the header, since it says where the message ends.
func (m *Message) header() {
	r := m.r
	var block []byte
	bol := true
	for len(block) < maxHeader {
		b, err := r.line()
		if err != nil {
			m.finish(err)
			break
		}
		if bol && m.separates(b) {
			m.finish(io.EOF)
			break
		}
		if bol && quoted(b) && b[0] == '>' {
			b = b[1:]
		}
		block = append(block, b...)
		full := bol
		bol = b[len(b)-1] == '\n'
		if full && len(bytes.TrimRight(b, "\r\n")) == 0 {
			m.body(block)
			return
		}
	}
	m.bol = bol
	m.Flags, block = takeFlags(block, false)
	m.emit(block)
}

// body prepares for the body; block is the header with its empty line.
func (m *Message) body(block []byte) {
	if m.r.Format != RD {
		h := mime.ParseHeader(block)
		n, err := strconv.ParseInt(strings.TrimSpace(h.Get("Content-Length")), 10, 64)
		if err == nil && n >= 0 && m.r.believe(n) {
			m.raw, m.keep = n, m.r.Format != CL
		}
	}
	m.Flags, block = takeFlags(block, m.raw >= 0)
	m.emit(block)
}

// believe reports whether a body of n octets may be here.
func (r *Reader) believe(n int64) bool {
	if r.at == nil {
		return r.Format == CL || r.Format == CL2
	}
	if n > 1<<62 {
		return false
	}
	var buf [1024]byte
	if n > 0 {
		// The last octet is there.
		if k, _ := r.at.ReadAt(buf[:1], r.off+n-1); k == 0 {
			return false
		}
	}
	k, err := r.at.ReadAt(buf[:], r.off+n)
	b := buf[:k]
	for range 2 {
		b = bytes.TrimPrefix(bytes.TrimPrefix(b, []byte("\r")), []byte("\n"))
	}
	if len(b) == 0 {
		return err == io.EOF
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	_, ok := parseSeparator(bytes.TrimRight(line, "\r"))
	return ok
}

// separates reports whether b, at the beginning of a line, is a From_ line,
// and keeps it for the next message then.
func (m *Message) separates(b []byte) bool {
	if !bytes.HasPrefix(b, []byte("From ")) || b[len(b)-1] != '\n' && len(b) > 1000 {
		return false
	}
	line := bytes.TrimRight(b, "\r\n")
	if _, ok := parseSeparator(line); !ok {
		return false
	}
	m.r.next = bytes.Clone(line)
	return true
}

func (m *Message) finish(err error) {
	if m.err == nil {
		m.err = err
	}
}

// emit gives b to who reads, with CRLF line ends.
func (m *Message) emit(b []byte) {
	m.buf = m.buf[:0]
	m.put(b)
}

// put adds b to what emit gave.
func (m *Message) put(b []byte) {
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			m.buf = append(m.buf, b...)
			m.cr = b[len(b)-1] == '\r'
			break
		}
		m.buf = append(m.buf, b[:i]...)
		if i > 0 {
			m.cr = b[i-1] == '\r'
		}
		if !m.cr {
			m.buf = append(m.buf, '\r')
		}
		m.buf = append(m.buf, '\n')
		m.cr = false
		b = b[i+1:]
	}
	m.out = m.buf
}

// Read gives the message with CRLF line ends and without the quoting of the
// format. A message that ends before its Content-Length does gives
// [io.ErrUnexpectedEOF].
func (m *Message) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(m.out) == 0 {
		if m.err != nil {
			return 0, m.err
		}
		m.fill()
	}
	n := copy(p, m.out)
	m.out = m.out[n:]
	return n, nil
}

// fill makes some of the body ready, or sets err.
func (m *Message) fill() {
	if m.raw > 0 {
		m.fillRaw()
		return
	}
	b, err := m.r.line()
	if err != nil {
		// An empty line at the end of the file is of the format.
		m.finish(err)
		return
	}
	whole := m.bol
	m.bol = b[len(b)-1] == '\n'
	if whole {
		if m.separates(b) {
			m.finish(io.EOF)
			return
		}
		if len(bytes.TrimRight(b, "\r\n")) == 0 && m.bol {
			if m.held {
				m.emit([]byte("\n"))
			}
			m.held = true
			return
		}
		if !m.keep && b[0] == '>' && quoted(b) {
			b = b[1:]
		}
	}
	if m.held {
		m.held = false
		m.emit([]byte("\n"))
		m.put(b)
		return
	}
	m.emit(b)
}

// fillRaw gives what Content-Length says, line by line: in CL it is quoted.
func (m *Message) fillRaw() {
	peek, err := m.r.br.Peek(1)
	if len(peek) == 0 {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		m.finish(err)
		return
	}
	n := min(int64(m.r.br.Buffered()), m.raw)
	b, _ := m.r.br.Peek(int(n))
	if !m.keep {
		// CL: a line at a time, so that its quoting is seen.
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[:i+1]
		} else if n < m.raw && m.bol {
			// Make sure that ">>From " is whole.
			if more, _ := m.r.br.Peek(int(min(m.raw, 4096))); len(more) > len(b) {
				b = more
				if i := bytes.IndexByte(b, '\n'); i >= 0 {
					b = b[:i+1]
				}
			}
		}
	}
	used := len(b)
	whole := m.bol
	m.bol = b[len(b)-1] == '\n'
	if whole && !m.keep && b[0] == '>' && quoted(b) {
		b = b[1:]
	}
	m.emit(b)
	m.r.br.Discard(used)
	m.r.off += int64(used)
	if m.raw -= int64(used); m.raw == 0 {
		m.after()
	}
}

// after looks for the From_ line that follows a body of a known length.
func (m *Message) after() {
	for {
		b, err := m.r.line()
		if err != nil {
			m.finish(err)
			return
		}
		if len(bytes.TrimRight(b, "\r\n")) == 0 {
			m.bol = true
			continue
		}
		if m.separates(b) {
			m.finish(io.EOF)
			return
		}
		// Content-Length was too small. What was skipped were line ends.
		m.raw = -1
		m.bol = b[len(b)-1] == '\n'
		m.put(b)
		return
	}
}
