package mime

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"unsafe"
)

// node is a part as it is going to be written.
type node struct {
	header   []byte // with CRLF, without the empty line
	boundary string
	parts    []*node
	body     source
	encoding string
	content  int  // where the Content-* fields begin in the header of the root
	entity   bool // the body has the header
}

// eightBit tells where octets above 127 are going to be.
type eightBit struct{ header, body, binary bool }

// planner makes the nodes of a message.
type planner struct {
	seed       string // for boundaries
	allow      Allow
	taken      map[string]bool // what lines of bodies have that look like a boundary
	boundaries int
	eight      eightBit
}

func messageError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMessage, fmt.Sprintf(format, args...))
}

// plan checks everything and decides everything; writing is then only that.
func (m *Message) plan() (*node, eightBit, error) {
	p := planner{allow: m.Allow}
	p.allow.EightBit = p.allow.EightBit || p.allow.Binary
	h, err := m.appendHeader(make([]byte, 0, 1024))
	if err != nil {
		return nil, p.eight, err
	}
	p.seed = m.MessageID
	root, err := m.content(&p)
	if err != nil {
		return nil, p.eight, err
	}
	h = append(h, "MIME-Version: 1.0\r\n"...)
	root.content = len(h)
	root.header = append(h, root.header...)
	for _, c := range root.header {
		if c >= 0x80 {
			p.eight.header = true
			break
		}
	}
	return root, p.eight, nil
}

func (m *Message) content(p *planner) (*node, error) {
	if len(m.Parts) > 0 {
		if m.Text != "" || m.HTML != "" || m.Calendar != nil || len(m.Inline) > 0 || len(m.Attachments) > 0 {
			return nil, messageError("Parts stands beside Text, HTML, Calendar, Inline or Attachments")
		}
		if len(m.Parts) == 1 {
			return p.content(m.Parts[0], 0)
		}
		return p.content(Content{Parts: m.Parts}, 0)
	}
	var text []*node
	if m.Text != "" || m.HTML == "" && m.Calendar == nil && len(m.Attachments) == 0 {
		subtype, s := "plain; charset=utf-8", m.Text
		if m.Flowed {
			subtype, s = subtype+"; format=flowed", flow(s)
		}
		n, err := p.text(subtype, s)
		if err != nil {
			return nil, err
		}
		text = append(text, n)
	}
	switch {
	case m.HTML != "":
		n, err := p.text("html; charset=utf-8", m.HTML)
		if err != nil {
			return nil, err
		}
		if len(m.Inline) > 0 {
			related := []*node{n}
			for _, f := range m.Inline {
				n, err := p.file(f, true)
				if err != nil {
					return nil, err
				}
				related = append(related, n)
			}
			if n, err = p.multipart("multipart/related", []string{"type", "text/html"}, related); err != nil {
				return nil, err
			}
		}
		text = append(text, n)
	case len(m.Inline) > 0:
		return nil, messageError("Inline files without HTML")
	}
	if m.Calendar != nil {
		n, err := p.calendar(m.Calendar)
		if err != nil {
			return nil, err
		}
		text = append(text, n)
	}
	if len(text) > 1 {
		n, err := p.multipart("multipart/alternative", nil, text)
		if err != nil {
			return nil, err
		}
		text = []*node{n}
	}
	for _, f := range m.Attachments {
		n, err := p.file(f, false)
		if err != nil {
			return nil, err
		}
		text = append(text, n)
	}
	if len(m.Attachments) == 0 {
		return text[0], nil
	}
	return p.multipart("multipart/mixed", nil, text)
}

const (
	boundaryMark = "=_"
	boundarySize = len(boundaryMark) + 30
)

// boundary returns a new one. It has "=_" in it, which neither base64 nor
// quoted-printable ever gives (RFC 2045 §6.7), and is none of those that
// stand in content that is not encoded, whoever made that knew the seed.
func (p *planner) boundary() string {
	for {
		p.boundaries++
		sum := sha256.Sum256([]byte(strconv.Itoa(p.boundaries) + " " + p.seed))
		if b := boundaryMark + hex.EncodeToString(sum[:15]); !p.taken[b] {
			return b
		}
	}
}

// maxTaken bounds the lines that look like a boundary.
const maxTaken = 100_000

// use notes how content goes that was looked through.
func (p *planner) use(encoding string, t *traits) error {
	p.eight.body = p.eight.body || encoding == "8bit"
	p.eight.binary = p.eight.binary || encoding == "binary"
	if !identity(encoding) {
		return nil
	}
	for _, b := range t.like {
		if p.taken == nil {
			p.taken = make(map[string]bool)
		}
		p.taken[b] = true
	}
	if len(p.taken) > maxTaken {
		return messageError("content has too many lines that look like a delimiter")
	}
	return nil
}

func (p *planner) multipart(mediaType string, params []string, parts []*node) (*node, error) {
	n := &node{boundary: p.boundary(), parts: parts}
	f := folder{utf8: p.allow.UTF8}
	f.begin("Content-Type")
	f.word("", mediaType)
	for i := 0; i+1 < len(params); i += 2 {
		f.param(params[i], params[i+1])
	}
	f.param("boundary", n.boundary)
	f.end()
	n.header = f.dst
	return n, f.err
}

func (p *planner) text(subtype, s string) (*node, error) {
	n := &node{body: source{data: unsafe.Slice(unsafe.StringData(s), len(s)), lines: true}}
	t, err := n.body.scan()
	if err != nil {
		return nil, err
	}
	n.body.ends, n.body.count = t.ends(), t.lines
	n.encoding = t.choose(true, p.allow)
	n.header = append(make([]byte, 0, 128), "Content-Type: text/"...)
	n.header = append(append(n.header, subtype...), "\r\n"...)
	n.addEncoding()
	return n, p.use(n.encoding, &t)
}

func (p *planner) calendar(c *Calendar) (*node, error) {
	method := c.Method
	for line := range bytes.Lines(c.Data) {
		if len(line) < 7 || !equalFold(string(line[:7]), "METHOD:") {
			continue
		}
		m := string(bytes.TrimSpace(line[7:]))
		if method == "" {
			method = m
		}
		if !equalFold(method, m) {
			return nil, messageError("calendar of the method %q has the method %q", method, m)
		}
		break
	}
	if !isToken(method) || len(method) > 40 {
		return nil, messageError("calendar with the method %q", method)
	}
	return p.text("calendar; charset=utf-8; method="+method, unsafe.String(unsafe.SliceData(c.Data), len(c.Data)))
}

func (n *node) addEncoding() {
	n.header = append(n.header, "Content-Transfer-Encoding: "...)
	n.header = append(append(n.header, n.encoding...), "\r\n"...)
}

// source is where the content of a leaf comes from.
type source struct {
	data  []byte
	open  func() (io.ReadCloser, error)
	lines bool // line ends become CRLF
	ends  endKind
	count int // of the line ends, when ends tells their kind
}
