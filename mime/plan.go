package mime

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
)

// node is a part as it is going to be written.
type node struct {
	header   []byte // with CRLF, without the empty line
	boundary string
	parts    []*node
	body     source
	encoding string
}

// eightBit tells where octets above 127 are going to be.
type eightBit struct{ header, body bool }

// planner makes the nodes of a message.
type planner struct {
	seed       string // for boundaries
	boundaries int
	eight      eightBit
}

func messageError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMessage, fmt.Sprintf(format, args...))
}

// plan checks everything and decides everything; writing is then only that.
func (m *Message) plan() (*node, eightBit, error) {
	var p planner
	h, err := m.appendHeader(make([]byte, 0, 1024))
	if err != nil {
		return nil, p.eight, err
	}
	p.seed = m.MessageID
	root, err := m.content(&p)
	if err != nil {
		return nil, p.eight, err
	}
	root.header = append(append(h, "MIME-Version: 1.0\r\n"...), root.header...)
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
		if m.Text != "" || m.HTML != "" || len(m.Inline) > 0 || len(m.Attachments) > 0 {
			return nil, messageError("Parts stands beside Text, HTML, Inline or Attachments")
		}
		if len(m.Parts) == 1 {
			return p.content(m.Parts[0], 0)
		}
		return p.content(Content{Parts: m.Parts}, 0)
	}
	var text []*node
	if m.Text != "" || m.HTML == "" && len(m.Attachments) == 0 {
		n, err := p.text("plain", m.Text)
		if err != nil {
			return nil, err
		}
		text = append(text, n)
	}
	switch {
	case m.HTML != "":
		n, err := p.text("html", m.HTML)
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
	if len(text) == 2 {
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

// boundary returns a new one. It has "=_" in it, which neither base64 nor
// quoted-printable ever gives (RFC 2045 §6.7), and is random to the rest.
func (p *planner) boundary() string {
	p.boundaries++
	sum := sha256.Sum256([]byte(strconv.Itoa(p.boundaries) + " " + p.seed))
	return "=_" + hex.EncodeToString(sum[:15])
}

func (p *planner) multipart(mediaType string, params []string, parts []*node) (*node, error) {
	n := &node{boundary: p.boundary(), parts: parts}
	f := folder{}
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
	n := &node{body: source{data: []byte(s), lines: true}}
	t, err := n.body.scan()
	if err != nil {
		return nil, err
	}
	n.encoding = t.choose(true)
	n.header = append(n.header, "Content-Type: text/"+subtype+"; charset=utf-8\r\n"...)
	n.addEncoding()
	return n, nil
}

func (n *node) addEncoding() {
	n.header = append(n.header, "Content-Transfer-Encoding: "+n.encoding+"\r\n"...)
}

// source is where the content of a leaf comes from.
type source struct {
	data  []byte
	open  func() (io.ReadCloser, error)
	lines bool // line ends become CRLF
}
