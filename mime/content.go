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

func (p *planner) file(file File, inline bool) (*node, error) {
	mediaType := file.Type
	if mediaType == "" {
		mediaType = typeByName(file.Name)
	}
	mt, params := parseParams(mediaType)
	main, sub, _ := strings.Cut(lower(mt), "/")
	if !isToken(main) || !isToken(sub) || main == "multipart" {
		return nil, messageError("file %q has the type %q", file.Name, mediaType)
	}
	n := &node{body: source{data: file.Data, open: file.Open}, encoding: "base64"}
	if main == "message" && file.once {
		main, sub, params = "application", "octet-stream", nil // it cannot be looked through first
	}
	if main == "message" {
		// RFC 2046 §5.2 allows these no encoding that hides them.
		n.body.lines = true
		s, err := n.body.scan()
		if err != nil {
			return nil, err
		}
		if n.encoding = s.choose(false, p.allow); !identity(n.encoding) {
			n.body.lines, main, sub, params = false, "application", "octet-stream", nil
		}
		if err := p.use(n.encoding, &s); err != nil {
			return nil, err
		}
	} else if p.allow.Binary && !file.once {
		s, err := n.body.scan()
		if err != nil {
			return nil, err
		}
		n.encoding = "binary"
		if err := p.use(n.encoding, &s); err != nil {
			return nil, err
		}
	}
	f := folder{utf8: p.allow.UTF8}
	f.begin("Content-Type")
	f.word("", main+"/"+sub)
	for _, k := range sortedKeys(params) {
		if !isToken(k) || k == "name" {
			continue
		}
		f.param(k, params[k])
	}
	if file.Name != "" {
		f.nameParam(file.Name)
	}
	f.end()
	f.begin("Content-Disposition")
	if inline {
		f.word("", "inline")
	} else {
		f.word("", "attachment")
	}
	if file.Name != "" {
		f.param("filename", file.Name)
	}
	f.end()
	id := file.ContentID
	if id == "" && inline {
		if id = file.Name; id == "" {
			return nil, messageError("Inline file without ContentID and Name")
		}
	}
	if id != "" {
		f.begin("Content-ID")
		f.messageID("", id)
		f.end()
	}
	if f.err != nil {
		return nil, f.err
	}
	n.header = f.dst
	n.addEncoding()
	return n, nil
}

// nameParam writes the name parameter of Content-Type for readers that do not
// know RFC 2231 or Content-Disposition: as encoded words, which they expect
// there, although RFC 2047 §5 has no place for them in it.
func (f *folder) nameParam(name string) {
	if f.utf8 {
		f.param("name", name)
		return
	}
	for i := 0; i < len(name); i++ {
		if name[i] < ' ' || name[i] >= 0x7f {
			f.dst = append(f.dst, ';')
			f.col++
			words := appendWords([]byte(`name="`), name, 0)
			f.words(" ", string(append(words, '"')))
			return
		}
	}
	f.param("name", name)
}

// typeByName knows the common endings of file names; the tables of operating
// systems differ and would make messages differ.
func typeByName(name string) string {
	i := strings.LastIndexByte(name, '.')
	if i >= 0 {
		switch lower(name[i+1:]) {
		case "txt", "log":
			return "text/plain"
		case "htm", "html":
			return "text/html"
		case "css":
			return "text/css"
		case "csv":
			return "text/csv"
		case "md":
			return "text/markdown"
		case "ics":
			return "text/calendar"
		case "vcf":
			return "text/vcard"
		case "xml":
			return "application/xml"
		case "json":
			return "application/json"
		case "pdf":
			return "application/pdf"
		case "zip":
			return "application/zip"
		case "gz":
			return "application/gzip"
		case "doc":
			return "application/msword"
		case "xls":
			return "application/vnd.ms-excel"
		case "ppt":
			return "application/vnd.ms-powerpoint"
		case "docx":
			return "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
		case "xlsx":
			return "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
		case "pptx":
			return "application/vnd.openxmlformats-officedocument.presentationml.presentation"
		case "odt":
			return "application/vnd.oasis.opendocument.text"
		case "ods":
			return "application/vnd.oasis.opendocument.spreadsheet"
		case "png":
			return "image/png"
		case "jpg", "jpeg":
			return "image/jpeg"
		case "gif":
			return "image/gif"
		case "webp":
			return "image/webp"
		case "svg":
			return "image/svg+xml"
		case "mp3":
			return "audio/mpeg"
		case "wav":
			return "audio/wav"
		case "mp4":
			return "video/mp4"
		case "eml":
			return "message/rfc822"
		}
	}
	return "application/octet-stream"
}
