package imapserver

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/searchtext"
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
	// What was read once, for the next section or search key.
	headers []wholeHeader
	split   []splitHeader
}

type wholeHeader struct {
	of *mime.Part
	h  *mime.Header
}

type splitHeader struct {
	of     *mime.Header
	fields []field
}

// field is a field of a header as it stands.
type field struct {
	name string
	raw  []byte
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
		if w, ok := store.As[store.SummaryWriter](m.s.acc); ok && !m.s.box.readOnly {
			// A cache: when it cannot be kept, the next one parses again.
			if err := w.WriteSummary(m.s.ctx, m.Message, p.Summary()); err != nil {
				m.s.log.Debug("summary not kept", "error", err)
			}
		}
	}
	m.part, m.parsed = p, true
	return p, nil
}

// content is what a section holds: nothing (NIL), or n octets from off on of
// a body, of some fields of a header, or of a decoded part. The latter are made
// when they are written: only their size is known before, so that no number of
// sections takes memory.
type content struct {
	exists bool
	binary bool // may hold NUL: literal8
	off, n int64
	src    store.Body
	header []field // those of them that sec names
	sec    *imap.Section
	part   *mime.Part // decoded, of src
}

// cut applies a partial: what lies beyond the end is empty.
func (c *content) cut(p *imap.Partial) {
	if p == nil || !c.exists {
		return
	}
	off := min(p.Offset, c.n)
	c.off += off
	c.n = min(p.Count, c.n-off)
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
		return m.fieldsContent(&root.Header, sec), nil
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
	h, err := m.header(whole)
	if err != nil {
		return content{}, err
	}
	return m.fieldsContent(h, sec), nil
}

// header reads the whole header of p: a Summary has only some of it.
func (m *message) header(p *mime.Part) (*mime.Header, error) {
	for _, w := range m.headers {
		if w.of == p {
			return w.h, nil
		}
	}
	b, err := m.body()
	if err != nil {
		return nil, err
	}
	h, err := searchtext.ReadHeader(p, b)
	if err != nil {
		return nil, fmt.Errorf("imapserver: message %d: %w", m.UID, err)
	}
	m.headers = append(m.headers, wholeHeader{p, h})
	return h, nil
}

// fieldsContent is the fields of h that sec asks for, as they stand, and the
// empty line.
func (m *message) fieldsContent(h *mime.Header, sec *imap.Section) content {
	c := content{exists: true, header: m.fields(h), sec: sec}
	for f := range c.fields {
		c.n += int64(len(f))
	}
	return c
}

// fields splits h.
func (m *message) fields(h *mime.Header) []field {
	for _, s := range m.split {
		if s.of == h {
			return s.fields
		}
	}
	// FETCH hands the memory of the message before on.
	n := len(m.split)
	m.split = slices.Grow(m.split, 1)[:n+1]
	s := &m.split[n]
	s.of, s.fields = h, s.fields[:0]
	for f := range h.Fields() {
		s.fields = append(s.fields, field{f.Name, f.Raw})
	}
	return s.fields
}

var crlf = []byte("\r\n")

// fields yields the octets of the fields, and of the empty line.
func (c *content) fields(yield func([]byte) bool) {
	for _, f := range c.header {
		named := false
		for _, n := range c.sec.Fields {
			named = named || len(n) == len(f.name) && strings.EqualFold(n, f.name)
		}
		if named != (c.sec.Kind == imap.SectionFields) {
			continue
		}
		if !yield(f.raw) || !bytes.HasSuffix(f.raw, crlf[1:]) && !yield(crlf) {
			return
		}
	}
	yield(crlf)
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
	var d measure
	if err := d.read(p.Decoded(b)); err != nil {
		return content{}, err
	}
	return content{exists: true, src: b, part: p, n: d.size, binary: d.nul}, nil
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
	var d measure
	err = d.read(p.Decoded(b))
	return d.size, err
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
	switch p.Encoding {
	case "base64", "quoted-printable", "x-uuencode":
		return nil
	}
	return no(imap.CodeUnknownCTE, "The transfer encoding is not known")
}

// measure learns size and nature of what it reads.
type measure struct {
	size int64
	nul  bool
}

func (d *measure) read(r io.Reader) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := r.Read(*buf)
		d.size += int64(n)
		d.nul = d.nul || bytes.IndexByte((*buf)[:n], 0) >= 0
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// writeContent writes a section's content as a literal, or NIL.
func (s *session) writeContent(c *content) error {
	if !c.exists {
		s.enc.Nil()
		return nil
	}
	s.enc.Literal(c.n, c.binary)
	var err error
	switch {
	case c.sec != nil:
		s.writeFields(c)
	case c.part != nil:
		r := c.part.Decoded(c.src)
		if _, err = io.CopyN(io.Discard, r, c.off); err == nil {
			err = s.writeFrom(c, func(b []byte, _ int64) (int, error) { return io.ReadFull(r, b) })
		}
	default:
		err = s.writeFrom(c, func(b []byte, done int64) (int, error) { return c.src.ReadAt(b, c.off+done) })
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		// The octets announced cannot be given: no way back.
		s.log.Error("message could not be read", "user", s.id.User, "error", err)
		return fatalf("imapserver: reading a message: %w", err)
	}
	if err := s.enc.Err(); err != nil {
		return &fatalError{err}
	}
	return nil
}

// writeFrom writes c.n octets that read fills in; done were read before.
func (s *session) writeFrom(c *content, read func(b []byte, done int64) (int, error)) error {
	for done := int64(0); done < c.n && s.enc.Err() == nil; {
		b := s.enc.AppendBuffer(writerSize / 4)
		b = b[:min(int64(cap(b)), c.n-done)]
		if n, err := read(b, done); n < len(b) {
			return cmp.Or(err, io.EOF)
		}
		if !c.binary {
			hideNUL(b)
		}
		s.enc.Raw(b)
		done += int64(len(b))
	}
	return nil
}

// writeFields writes the fields of a header, cut to what is asked for.
func (s *session) writeFields(c *content) {
	skip, left := c.off, c.n
	for f := range c.fields {
		k := min(skip, int64(len(f)))
		skip -= k
		f = f[k:]
		f = f[:min(left, int64(len(f)))]
		left -= int64(len(f))
		if bytes.IndexByte(f, 0) >= 0 {
			f = bytes.Clone(f)
			hideNUL(f)
		}
		s.enc.Raw(f)
		if left == 0 {
			return
		}
	}
}

// hideNUL puts 0x80 in the place of NUL, which no literal may hold (RFC 9051
// §9, char8): a store that is filled by others than this server may have it.
func hideNUL(b []byte) {
	for {
		i := bytes.IndexByte(b, 0)
		if i < 0 {
			return
		}
		b[i] = 0x80
		b = b[i+1:]
	}
}
