package mime

import (
	"bytes"
	"strings"
)

const contentDepth = 100

// content makes a node of the caller's own part.
func (p *planner) content(c Content, depth int) (*node, error) {
	if depth > contentDepth {
		return nil, messageError("Content is nested too deep")
	}
	n := &node{}
	if c.Entity != nil {
		if c.Body != nil || c.Parts != nil || c.Header.Len() > 0 {
			return nil, messageError("Content has Entity and more")
		}
		n.entity, n.body.open = true, c.Entity
		s, err := n.body.scan()
		if err != nil {
			return nil, err
		}
		switch {
		case s.nul || s.longest > lineLimit:
			p.eight.binary = true
		case s.eight > 0:
			p.eight.body = true
		}
		return n, p.use("7bit", &s)
	}
	for f := range c.Header.Fields() {
		if len(f.Name) < 8 || !equalFold(f.Name[:8], "content-") {
			return nil, messageError("Content has the field %q", f.Name)
		}
		if equalFold(f.Name, "Content-Transfer-Encoding") || c.Parts != nil && equalFold(f.Name, "Content-Type") {
			continue
		}
		var err error
		if n.header, err = appendRaw(n.header, f); err != nil {
			return nil, err
		}
	}
	mediaType := c.Header.Get("Content-Type")
	mt, params := parseParams(mediaType)
	mt = lower(mt)
	if c.Parts != nil {
		if c.Body != nil {
			return nil, messageError("Content has both Body and Parts")
		}
		if mt == "" {
			mt = "multipart/mixed"
		}
		if !strings.HasPrefix(mt, "multipart/") || !isToken(mt[len("multipart/"):]) {
			return nil, messageError("Content with Parts has the type %q", mt)
		}
		var parts []*node
		for _, c := range c.Parts {
			part, err := p.content(c, depth+1)
			if err != nil {
				return nil, err
			}
			parts = append(parts, part)
		}
		var list []string
		for _, k := range sortedKeys(params) {
			if k != "boundary" && isToken(k) {
				list = append(list, k, params[k])
			}
		}
		m, err := p.multipart(mt, list, parts)
		if err != nil {
			return nil, err
		}
		m.header = append(m.header, n.header...)
		return m, nil
	}
	main, _, _ := strings.Cut(mt, "/")
	if main == "multipart" {
		return nil, messageError("Content of the type %q without Parts", mt)
	}
	if mt == "" {
		main = "text"
		n.header = append([]byte("Content-Type: text/plain; charset=utf-8\r\n"), n.header...)
	}
	n.body = source{open: c.Body, lines: main == "text" || main == "message"}
	encoding := lower(c.Header.Get("Content-Transfer-Encoding"))
	switch encoding {
	case "", "7bit", "8bit":
		s, err := n.body.scan()
		if err != nil {
			return nil, err
		}
		chosen := s.choose(main == "text", p.allow)
		switch {
		case encoding == "" && main == "message" && !identity(chosen):
			return nil, messageError("content of the type %q must be encoded but may not be (RFC 2046 §5.2)", mt)
		case encoding == "" && main != "text" && main != "message":
			encoding = "base64"
			if p.allow.Binary {
				encoding = "binary"
			}
		case encoding == "":
			encoding = chosen
		case !s.fits(encoding):
			return nil, messageError("content of the type %q does not fit its encoding %s", mt, encoding)
		}
		if err := p.use(encoding, &s); err != nil {
			return nil, err
		}
	case "base64", "quoted-printable":
	default:
		return nil, messageError("content has the transfer encoding %q", encoding)
	}
	n.encoding = encoding
	n.addEncoding()
	return n, nil
}

// appendRaw writes a field as it stands, with CRLF line ends.
func appendRaw(dst []byte, f Field) ([]byte, error) {
	if bytes.IndexByte(f.Raw, 0) >= 0 {
		return nil, ErrInjection
	}
	for line := range bytes.Lines(f.Raw) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) > lineLimit {
			return nil, ErrLineLength
		}
		if bytes.IndexByte(line, '\r') >= 0 {
			return nil, ErrInjection
		}
		dst = append(append(dst, line...), "\r\n"...)
	}
	return dst, nil
}
