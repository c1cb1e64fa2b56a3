package mime

import (
	"bytes"
	"io"
	"strings"
)

// Edit changes a message that was parsed. What is not changed is written
// octet for octet as it was received, so that signatures of other parts stay
// good:
//
//	e := mime.Edit{Root: root, Message: r}
//	e.Header(root).Set("Subject", "[list] "+subject)
//	e.Replace(part, mime.Content{Body: footer})
//	e.WriteTo(w)
//
// Root must be what [Parse] or a [Parser] gave for Message; a summary does
// not do. Neither is changed. When more than one of the changes concerns the
// same part, the last one counts, but for headers, which are changed where
// the part stays.
type Edit struct {
	Root    *Part
	Message io.ReaderAt
	Allow   Allow // what new content may use

	headers  map[*Part]*Header
	contents map[*Part]*Content // nil = removed
	added    map[*Part][]Content
}

// Header returns the header of a part for changing: its fields that are left
// alone stay as they are.
func (e *Edit) Header(p *Part) *Header {
	if h := e.headers[p]; h != nil {
		return h
	}
	if e.headers == nil {
		e.headers = make(map[*Part]*Header)
	}
	h := p.Header
	e.headers[p] = &h
	return &h
}

// Replace puts c in the place of a part with its header and all that is in
// it. Of a message, that is Root or the Message of a part, it replaces the
// body and the Content-* fields.
func (e *Edit) Replace(p *Part, c Content) { e.put(p, &c) }

// Remove takes a part out of its multipart, which must keep another.
func (e *Edit) Remove(p *Part) { e.put(p, nil) }

func (e *Edit) put(p *Part, c *Content) {
	if e.contents == nil {
		e.contents = make(map[*Part]*Content)
	}
	e.contents[p] = c
}

// Append adds parts at the end of a multipart that has a part already.
func (e *Edit) Append(multipart *Part, c ...Content) {
	if e.added == nil {
		e.added = make(map[*Part][]Content)
	}
	e.added[multipart] = append(e.added[multipart], c...)
}

// WriteTo writes the message as it is changed. The error is w's, that of
// Message or of a Content, or wraps [ErrMessage], [ErrInjection] or
// [ErrLineLength], in which case nothing was written.
func (e *Edit) WriteTo(w io.Writer) (int64, error) {
	p := editPlan{e: e, planner: planner{seed: "edit " + e.Root.Header.text, allow: e.Allow}, at: e.Root.HeaderOffset}
	p.allow.EightBit = p.allow.EightBit || p.allow.Binary
	if err := p.part(e.Root, nil); err != nil {
		return 0, err
	}
	p.copyTo(e.Root.BodyOffset + e.Root.Size)
	for c := range e.contents {
		if !p.done[c] {
			return 0, messageError("a part to be replaced or removed is not in the message")
		}
	}
	for c := range e.added {
		if !p.done[c] {
			return 0, messageError("a part to append to is no multipart with parts in the message")
		}
	}
	out := output{w: w}
	for _, s := range p.pieces {
		if out.err != nil {
			break
		}
		s.write(e.Message, &out)
	}
	return out.finish()
}

// stretch is a range of the message, or something new.
type stretch struct {
	from, to int64
	text     []byte
	node     *node
}

func (s *stretch) write(r io.ReaderAt, o *output) {
	o.add(s.text)
	if s.node != nil {
		s.node.write(o)
	}
	if s.from == s.to || o.err != nil {
		return
	}
	o.flush()
	if o.err != nil {
		return
	}
	n, err := io.Copy(o.w, io.NewSectionReader(r, s.from, s.to-s.from))
	o.n += n
	if o.err = err; err == nil && n < s.to-s.from {
		o.err = io.ErrUnexpectedEOF
	}
}

// editPlan makes the pieces; at is what of the message comes next.
type editPlan struct {
	planner
	e      *Edit
	pieces []stretch
	at     int64
	done   map[*Part]bool
}

func (p *editPlan) copyTo(to int64) {
	if to > p.at {
		p.pieces = append(p.pieces, stretch{from: p.at, to: to})
		p.at = to
	}
}

// part takes a part up to its end; boundaries are those of the multiparts
// around it.
func (p *editPlan) part(q *Part, boundaries []string) error {
	if p.done == nil {
		p.done = make(map[*Part]bool)
	}
	end := q.BodyOffset + q.Size
	c, changed := p.e.contents[q]
	if changed && c == nil {
		return messageError("a message cannot be removed, only a part of a multipart")
	}
	p.copyTo(q.HeaderOffset)
	if changed {
		p.done[q] = true
		var kept []byte
		if q.Envelope != nil {
			kept = p.messageFields(q)
		}
		p.at = end
		return p.add(*c, kept, boundaries, end)
	}
	if h := p.e.headers[q]; h != nil && h.text != q.Header.text {
		p.at += int64(len(q.Header.raw))
		raw := h.Bytes()
		if n := len(raw); n > 0 && raw[n-1] != '\n' && p.at < end {
			raw = append(raw, "\r\n"...)
		}
		if p.at == q.BodyOffset && len(raw) > 0 && q.Size > 0 {
			raw = append(raw, "\r\n"...) // there was no empty line
		}
		p.pieces = append(p.pieces, stretch{text: raw})
	}
	if q.Message != nil {
		if err := p.part(q.Message, boundaries); err != nil {
			return err
		}
	}
	if len(q.Parts) == 0 {
		p.copyTo(end)
		return nil
	}
	boundary := strings.TrimRight(q.Params["boundary"], " \t")
	inner := append(boundaries[:len(boundaries):len(boundaries)], boundary)
	last := -1 // the last that stays
	for i, s := range q.Parts {
		if c, ok := p.e.contents[s]; ok && c == nil {
			p.done[s] = true
		} else {
			last = i
		}
	}
	if last < 0 {
		return messageError("a multipart must keep a part")
	}
	for i, s := range q.Parts {
		removed := p.done[s]
		switch {
		case removed && i < last:
			p.copyTo(s.HeaderOffset)
			p.at = q.Parts[i+1].HeaderOffset // with the delimiter behind it
		case removed:
			p.at = max(p.at, s.BodyOffset+s.Size) // with the delimiter before it
		default:
			if err := p.part(s, inner); err != nil {
				return err
			}
		}
		if i == last {
			p.done[q] = true
			for _, c := range p.e.added[q] {
				p.pieces = append(p.pieces, stretch{text: []byte("\r\n--" + boundary + "\r\n")})
				if err := p.add(c, nil, inner, p.at); err != nil {
					return err
				}
			}
		}
	}
	p.copyTo(end)
	return nil
}

// messageFields returns the fields of a message that are not of its content.
func (p *editPlan) messageFields(q *Part) []byte {
	h := q.Header
	if c := p.e.headers[q]; c != nil {
		h = *c
	}
	var b []byte
	version := false
	for _, s := range h.fields {
		name := h.name(s)
		if !s.junk() && len(name) > 8 && equalFold(name[:8], "Content-") {
			continue
		}
		version = version || equalFold(name, "MIME-Version")
		b = append(b, h.raw[s.start:s.end]...)
	}
	if n := len(b); n > 0 && b[n-1] != '\n' {
		b = append(b, "\r\n"...)
	}
	if !version {
		b = append(b, "MIME-Version: 1.0\r\n"...)
	}
	return b
}

// add puts in new content, with fields before it; next is where the message
// goes on behind it.
func (p *editPlan) add(c Content, fields []byte, boundaries []string, next int64) error {
	n, err := p.content(c, 0)
	if err != nil {
		return err
	}
	check := delimiterCheck{boundaries: boundaries}
	out := output{w: &check}
	n.write(&out)
	if _, err := out.finish(); err != nil {
		return err
	}
	check.endLine()
	if check.found {
		return messageError("new content has a delimiter of the message in it")
	}
	p.pieces = append(p.pieces, stretch{text: fields}, stretch{node: n})
	if len(boundaries) == 0 {
		return nil
	}
	var b [1]byte
	if k, _ := p.e.Message.ReadAt(b[:], next); k == 1 && b[0] != '\r' && b[0] != '\n' && check.last != '\n' {
		p.pieces = append(p.pieces, stretch{text: crlf})
	}
	return nil
}

// delimiterCheck looks for delimiters in what is written to it.
type delimiterCheck struct {
	boundaries []string
	line       []byte // its beginning
	last       byte
	found      bool
}

func (d *delimiterCheck) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	d.last = b[len(b)-1]
	size := len(b)
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, newline)
		if room := maxDelimiter - len(d.line); room > 0 {
			d.line = append(d.line, line[:min(len(line), room)]...)
		}
		if b = rest; ok {
			d.endLine()
		}
	}
	return size, nil
}

func (d *delimiterCheck) endLine() {
	line := bytes.TrimRight(d.line, " \t\r")
	d.line = d.line[:0]
	if len(line) < 3 || line[0] != '-' || line[1] != '-' {
		return
	}
	for _, b := range d.boundaries {
		if string(line[2:]) == b || string(closingBoundary(line[2:])) == b {
			d.found = true
		}
	}
}
