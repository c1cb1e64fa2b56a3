package imapserver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/internal/spool"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/store"
)

// message is one message while it is looked into: its structure comes from
// the Summary, and the body is opened only when that is not enough.
type message struct {
	s *session
	store.Message
	part   *mime.Part // from root
	parsed bool       // part is of the body: its headers are whole
	blob   store.Blob
}

func (m *message) close() {
	if m.blob != nil {
		m.blob.Close()
		m.blob = nil
	}
}

// body opens the message's octets.
func (m *message) body() (store.Body, error) {
	if m.Body != nil {
		return m.Body, nil
	}
	b, err := m.s.acc.Open(m.s.ctx, m.Message)
	if err != nil {
		return nil, err
	}
	m.blob, m.Body = b, b
	return b, nil
}

// root returns the structure.
func (m *message) root() (*mime.Part, error) {
	if m.part != nil {
		return m.part, nil
	}
	if len(m.Summary) > 0 {
		if p, err := mime.DecodeSummary(m.Summary); err == nil {
			m.part = p
			return p, nil
		}
	}
	return m.parse()
}

// parse reads the structure from the body, and has the store keep a Summary
// of it if it can.
func (m *message) parse() (*mime.Part, error) {
	if m.parsed {
		return m.part, nil
	}
	b, err := m.body()
	if err != nil {
		return nil, err
	}
	p, err := mime.Parse(b, b.Size(), mime.Limits{})
	if err != nil {
		return nil, fmt.Errorf("imapserver: reading message %d: %w", m.UID, err)
	}
	if m.part == nil {
		if w, ok := m.s.acc.(store.SummaryWriter); ok && !m.s.box.readOnly {
			// A cache: when it cannot be kept, the next one parses again.
			if err := w.WriteSummary(m.s.ctx, m.Message, p.Summary()); err != nil {
				m.s.log.Debug("summary not kept", "error", err)
			}
		}
	}
	m.part, m.parsed = p, true
	return p, nil
}

// content is what a section holds: nothing (NIL), some octets, or a range of
// a body.
type content struct {
	exists bool
	binary bool // may hold NUL: literal8
	data   []byte
	src    io.ReaderAt
	off, n int64
	tmp    *spool.Spool
}

func (c *content) close() {
	if c.tmp != nil {
		c.tmp.Close()
		c.tmp = nil
	}
}

func bytesContent(b []byte) content { return content{exists: true, data: b, n: int64(len(b))} }

// cut applies a partial: what lies beyond the end is empty.
func (c *content) cut(p *imap.Partial) {
	if p == nil || !c.exists {
		return
	}
	off := min(p.Offset, c.n)
	n := min(p.Count, c.n-off)
	if c.src != nil {
		c.off += off
	} else {
		c.data = c.data[off : off+n]
	}
	c.n = n
}

// summaryFields are the fields that the Summary keeps of a root's header.
var summaryFields = [...]string{"date", "subject", "from", "sender", "reply-to", "to", "cc", "bcc", "in-reply-to", "message-id", "references"}

func inSummary(field string) bool {
	f := strings.ToLower(field)
	return slices.Contains(summaryFields[:], f) || strings.HasPrefix(f, "content-")
}

// fromSummary tells whether the Summary is enough to answer sec.
func fromSummary(sec *imap.Section) bool {
	if sec.Kind != imap.SectionFields || len(sec.Part) > 0 {
		return false
	}
	for _, f := range sec.Fields {
		if !inSummary(f) {
			return false
		}
	}
	return true
}

// section prepares the answer to sec.
func (m *message) section(sec *imap.Section) (content, error) {
	c, err := m.wholeSection(sec)
	if err == nil {
		c.cut(sec.Partial)
	}
	return c, err
}

func (m *message) wholeSection(sec *imap.Section) (content, error) {
	if len(sec.Part) == 0 && sec.Kind == imap.SectionAll {
		b, err := m.body()
		if err != nil {
			return content{}, err
		}
		return content{exists: true, src: b, n: b.Size()}, nil
	}
	root, err := m.root()
	if err != nil {
		return content{}, err
	}
	p, whole := root, root // part, and the message whose HEADER and TEXT are meant
	if len(sec.Part) > 0 {
		if p = findPart(root, sec.Part); p == nil {
			return content{}, nil
		}
		whole = p.Message
	}
	if sec.Binary {
		return m.decoded(p)
	}
	if fromSummary(sec) {
		return bytesContent(filterFields(&root.Header, sec)), nil
	}
	b, err := m.body()
	if err != nil {
		return content{}, err
	}
	switch sec.Kind {
	case imap.SectionAll:
		return content{exists: true, src: b, off: p.BodyOffset, n: p.Size}, nil
	case imap.SectionMIME:
		return content{exists: true, src: b, off: p.HeaderOffset, n: p.BodyOffset - p.HeaderOffset}, nil
	}
	if whole == nil {
		return content{}, nil
	}
	switch sec.Kind {
	case imap.SectionHeader:
		return content{exists: true, src: b, off: whole.HeaderOffset, n: whole.BodyOffset - whole.HeaderOffset}, nil
	case imap.SectionText:
		return content{exists: true, src: b, off: whole.BodyOffset, n: whole.Size}, nil
	}
	h, err := readHeader(b, whole)
	if err != nil {
		return content{}, err
	}
	return bytesContent(filterFields(&h, sec)), nil
}

// maxHeader bounds the header that is taken into memory; the parser keeps no
// more of one either.
const maxHeader = 2 << 20

// readHeader reads the whole header of p: a Summary has only some of it.
func readHeader(b io.ReaderAt, p *mime.Part) (mime.Header, error) {
	n := min(p.BodyOffset-p.HeaderOffset, maxHeader)
	block := make([]byte, n)
	if k, err := b.ReadAt(block, p.HeaderOffset); int64(k) < n {
		return mime.Header{}, fmt.Errorf("imapserver: reading a header: %w", err)
	}
	return mime.ParseHeader(block), nil
}

// filterFields returns the fields that sec asks for, as they stand, and the
// empty line.
func filterFields(h *mime.Header, sec *imap.Section) []byte {
	var b bytes.Buffer
	for f := range h.Fields() {
		named := slices.ContainsFunc(sec.Fields, func(n string) bool { return strings.EqualFold(n, f.Name) })
		if named == (sec.Kind == imap.SectionFields) {
			b.Write(f.Raw)
			if !bytes.HasSuffix(f.Raw, []byte("\n")) {
				b.WriteString("\r\n")
			}
		}
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// findPart finds a part by its number (RFC 9051 §6.4.5.1), nil if there is
// none. A message that is no multipart has one part, its body.
func findPart(root *mime.Part, number []int) *mime.Part {
	msg, p := root, root
	bodyOnly := false // p is msg again, as its part 1
	for i, n := range number {
		if i > 0 {
			switch {
			case p.Message != nil:
				msg, p, bodyOnly = p.Message, p.Message, false
			case bodyOnly || !p.IsMultipart():
				return nil
			}
		}
		switch {
		case p.IsMultipart():
			if n > len(p.Parts) {
				return nil
			}
			p = p.Parts[n-1]
			bodyOnly = false
		case p == msg && n == 1:
			bodyOnly = true
		default:
			return nil
		}
	}
	return p
}

// decoded is BINARY[part]: without transfer encoding.
func (m *message) decoded(p *mime.Part) (content, error) {
	b, err := m.body()
	if err != nil {
		return content{}, err
	}
	if identity(p) {
		return content{exists: true, src: b, off: p.BodyOffset, n: p.Size, binary: p.Encoding == "binary"}, nil
	}
	if err := knownEncoding(p); err != nil {
		return content{}, err
	}
	// Its size has to be known before its octets go out.
	tmp := new(spool.Spool)
	nul := &nulFinder{w: tmp}
	buf := buffers.Get().(*[]byte)
	_, err = io.CopyBuffer(nul, struct{ io.Reader }{p.Decoded(b)}, *buf)
	buffers.Put(buf)
	if err != nil {
		tmp.Close()
		return content{}, err
	}
	return content{exists: true, src: tmp, n: tmp.Size(), binary: nul.found, tmp: tmp}, nil
}

// binarySize is BINARY.SIZE[part].
func (m *message) binarySize(number []int) (int64, error) {
	if len(number) == 0 {
		return m.Size, nil
	}
	root, err := m.root()
	if err != nil {
		return 0, err
	}
	p := findPart(root, number)
	if p == nil {
		return 0, no(imap.CodeNonExistent, "No such part")
	}
	if identity(p) {
		return p.Size, nil
	}
	if err := knownEncoding(p); err != nil {
		return 0, err
	}
	b, err := m.body()
	if err != nil {
		return 0, err
	}
	return io.Copy(io.Discard, p.Decoded(b))
}

// identity tells whether the body of p stands as it is.
func identity(p *mime.Part) bool {
	switch p.Encoding {
	case "7bit", "8bit", "binary", "":
		return true
	}
	return p.IsMultipart() || p.Message != nil
}

func knownEncoding(p *mime.Part) error {
	if p.Encoding == "base64" || p.Encoding == "quoted-printable" {
		return nil
	}
	return no(imap.CodeUnknownCTE, "The transfer encoding is not known")
}

type nulFinder struct {
	w     io.Writer
	found bool
}

func (f *nulFinder) Write(p []byte) (int, error) {
	f.found = f.found || bytes.IndexByte(p, 0) >= 0
	return f.w.Write(p)
}

// writeContent writes a section's content as a literal, or NIL.
func (s *session) writeContent(c *content) error {
	if !c.exists {
		s.enc.Nil()
		return nil
	}
	w := s.enc.Literal(c.n, c.binary)
	if c.src == nil {
		w.Write(c.data)
		return s.enc.Err()
	}
	for off, left := c.off, c.n; left > 0; {
		b := s.enc.AppendBuffer(writerSize / 4)
		b = b[:min(int64(cap(b)), left)]
		n, err := c.src.ReadAt(b, off)
		if int64(n) < int64(len(b)) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			// The octets announced cannot be given: no way back.
			s.log.Error("message could not be read", "user", s.id.User, "error", err)
			return fatalf("imapserver: reading a message: %w", err)
		}
		s.enc.Raw(b)
		if err := s.enc.Err(); err != nil {
			return &fatalError{err}
		}
		off += int64(n)
		left -= int64(n)
	}
	return s.enc.Err()
}
