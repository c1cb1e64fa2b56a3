package mime

import (
	"bytes"
	"strings"
)

// match returns the innermost open frame whose delimiter the line is, -1 for
// none.
func (p *Parser) match(line []byte) (frame int, closing bool) {
	if len(line) < 3 || line[0] != '-' || line[1] != '-' {
		return -1, false
	}
	end := len(line)
	for end > 2 && (line[end-1] == ' ' || line[end-1] == '\t' || line[end-1] == '\r') {
		end--
	}
	line = line[2:end]
	last := closingBoundary(line)
	if p.index != nil {
		if i, ok := p.index[string(line)]; ok {
			return i, false
		}
		if i, ok := p.index[string(last)]; ok {
			return i, true
		}
		return p.matchOdd(line)
	}
	for i := len(p.stack) - 1; i >= 0; i-- {
		b := p.stack[i].boundary
		if b == "" {
			continue
		}
		if len(b) == len(line) && b == string(line) {
			return i, false
		}
		if len(b) == len(last) && b == string(last) {
			return i, true
		}
	}
	return p.matchOdd(line)
}

// matchOdd is match for a close-delimiter with text behind it, such as
// "--b-->": what follows is no part of the last part's body (RFC 2046 §5.1.1
// asks only for the beginning of the line). line is without its first "--".
func (p *Parser) matchOdd(line []byte) (frame int, closing bool) {
	const times = 4
	for i, n := 0, 0; n < times; n++ {
		j := bytes.Index(line[i:], dashes)
		if j < 0 {
			break
		}
		i += j
		if at := p.frameOf(line[:i]); at >= 0 {
			p.behind = true
			return at, true
		}
		i++
	}
	return -1, false
}

var dashes = []byte("--")

// frameOf returns the innermost open frame with a boundary, or -1.
func (p *Parser) frameOf(boundary []byte) int {
	if p.index != nil {
		if i, ok := p.index[string(boundary)]; ok {
			return i
		}
		return -1
	}
	for i := len(p.stack) - 1; i >= 0; i-- {
		if b := p.stack[i].boundary; b != "" && b == string(boundary) {
			return i
		}
	}
	return -1
}

// closingBoundary returns the boundary when line, without the "--" before it,
// is a close-delimiter; else nil.
func closingBoundary(line []byte) []byte {
	if n := len(line) - 2; n > 0 && line[n] == '-' && line[n+1] == '-' {
		return line[:n]
	}
	return nil
}

// beginsOwnParts reports whether a line in a header is the first delimiter of
// the multipart that the header announces: the empty line is missing. It
// looks only a few times in each header, so that its cost is bounded.
func (p *Parser) beginsOwnParts(line []byte) bool {
	const times = 4
	if p.looked == times {
		return false
	}
	p.looked++
	h := newHeader(p.header)
	mt, params := parseParams(h.Get("Content-Type"))
	if len(mt) < 10 || !equalFold(mt[:10], "multipart/") || params["boundary"] == "" {
		return false
	}
	return string(bytes.TrimRight(line[2:], " \t\r")) == strings.TrimRight(params["boundary"], " \t")
}

// indexDepth is how many frames are looked through one by one for each line
// that begins with "--"; with more of them there is an index.
const indexDepth = 16

// activate gives the innermost frame its boundary.
func (p *Parser) activate(boundary string) {
	p.active++
	i := len(p.stack) - 1
	p.stack[i].boundary, p.stack[i].hidden = boundary, -1
	switch {
	case p.index != nil:
		p.addIndex(i)
	case len(p.stack) > indexDepth:
		p.index = make(map[string]int)
		for i := range p.stack {
			if p.stack[i].boundary != "" {
				p.addIndex(i)
			}
		}
	}
}

func (p *Parser) addIndex(i int) {
	f := &p.stack[i]
	if outer, ok := p.index[f.boundary]; ok {
		f.hidden = outer
	}
	p.index[f.boundary] = i
}

// deactivate takes the boundary of a frame away; those of the frames within
// it are gone already.
func (p *Parser) deactivate(f *frame) {
	p.active--
	if p.index != nil {
		delete(p.index, f.boundary)
		if f.hidden >= 0 {
			p.index[f.boundary] = f.hidden
		}
	}
	f.boundary = ""
}

// open begins a part in the innermost frame, the root without one.
func (p *Parser) open(parent *Part) *Part {
	p.parts++
	if len(p.slab) == cap(p.slab) {
		p.slab = make([]Part, 0, min(max(1, 2*cap(p.slab)), 64))
	}
	p.slab = p.slab[:len(p.slab)+1]
	part := &p.slab[len(p.slab)-1]
	part.HeaderOffset = p.pos
	p.stack = append(p.stack, frame{part: part, digest: parent != nil && parent.Type == "multipart" && parent.Subtype == "digest"})
	p.header = p.header[:0]
	p.inHeader, p.first, p.cut, p.midLine, p.looked = true, true, false, false, 0
	return part
}

// delimiter takes the delimiter line of the frame k, which begins at the
// offset at after a line end of eol octets; what follows it begins at next.
func (p *Parser) delimiter(k int, closing bool, at, eol, next int64) {
	p.closeFrames(k+1, at, eol)
	p.midLine = false
	f := &p.stack[k]
	if closing {
		if p.behind {
			p.behind = false
			p.defect(f.part, at, DefectBoundary, "text behind the last delimiter")
		}
		p.deactivate(f)
		f.closed = true
		return
	}
	if p.parts >= limit(p.Limits.Parts, 10_000) {
		p.full = true
		p.defect(f.part, at, DefectLimit, "too many parts: the rest was not looked into")
		return
	}
	part := p.open(f.part)
	part.HeaderOffset = next
	f = &p.stack[k]
	if f.part.Parts == nil {
		f.part.Parts = make([]*Part, 0, 2)
	}
	f.part.Parts = append(f.part.Parts, part)
}

// closeFrames ends all frames from k on before a line that begins at the
// offset at, after a line end of eol octets that is no part of their bodies.
func (p *Parser) closeFrames(k int, at, eol int64) {
	if p.inHeader && len(p.stack) > k {
		p.endHeaderAt(at)
	}
	for i := len(p.stack) - 1; i >= k; i-- {
		f := &p.stack[i]
		end, lines := at-eol, p.lines
		if eol > 0 {
			lines--
		}
		if end < f.part.BodyOffset {
			end, lines = f.part.BodyOffset, f.lines
		}
		f.part.Size = end - f.part.BodyOffset
		f.part.Lines = lines - f.lines
		p.tell(event{part: f.part, ended: true})
		if f.boundary != "" {
			p.deactivate(f)
			if len(f.part.Parts) == 0 {
				p.defect(f.part, f.part.BodyOffset, DefectBoundary, "multipart without a delimiter")
			} else {
				p.defect(f.part, end, DefectTruncated, "multipart without its last delimiter")
			}
		} else if f.closed && len(f.part.Parts) == 0 {
			p.defect(f.part, f.part.BodyOffset, DefectBoundary, "multipart without parts")
		}
	}
	p.stack = p.stack[:k]
}

// keep adds to the header that is being read, up to the limit.
func (p *Parser) keep(b []byte) {
	p.header = append(p.header, p.within(b)...)
}

// keepLast adds the last of the header. A header that came in one piece is
// not copied for it: block is good until Write returns.
func (p *Parser) keepLast(b []byte) {
	b = p.within(b)
	if len(p.header) > 0 {
		p.header = append(p.header, b...)
		b = p.header
		p.ends = p.ends[:0]
	}
	p.block = b
}

// within returns what of b may be kept.
func (p *Parser) within(b []byte) []byte {
	if room := limit(p.Limits.HeaderBytes, 2<<20) - p.kept; len(b) > room {
		b = b[:max(room, 0)]
		p.cut = true
	}
	p.kept += len(b)
	return b
}

// endHeaderAt ends a header without an empty line, for a part that has no
// body: the message or the multipart around it ended.
func (p *Parser) endHeaderAt(at int64) {
	f := &p.stack[len(p.stack)-1]
	p.finishHeader(f, at)
	p.tell(event{part: f.part, leaf: true})
	if len(f.part.Header.raw) > 0 {
		p.defect(f.part, at, DefectEmptyLine, "header without the empty line at its end")
	}
}

// finishHeader makes what the header says of the innermost frame.
func (p *Parser) finishHeader(f *frame, body int64) {
	part := f.part
	p.inHeader = false
	part.BodyOffset = body
	f.lines = p.lines
	if p.cut {
		p.block = p.block[:bytes.LastIndexByte(p.block, '\n')+1]
		p.defect(part, part.HeaderOffset+int64(len(p.block)), DefectLimit, "header too long: the rest was not read")
	}
	h := &part.Header
	p.arena.header(h, p.block, p.ends)
	p.block = nil
	if room := limit(p.Limits.Fields, 50_000) - p.fields; len(h.fields) > room {
		at := h.fields[room].start
		p.defect(part, part.HeaderOffset+int64(at), DefectLimit, "too many header fields: the rest was not read")
		*h = newHeader(h.raw[:at])
	}
	p.fields += len(h.fields)
	bare := false
	for _, s := range h.fields {
		if s.junk() {
			p.defect(part, part.HeaderOffset+int64(s.start), DefectHeaderLine, "header line without a field name and colon")
		}
		if end := s.end; !bare && end > 1 && h.raw[end-1] == '\n' && h.raw[end-2] != '\r' {
			bare = true
			p.defect(part, part.HeaderOffset+int64(end-1), DefectLineEnd, "bare LF in a header")
		}
	}
	if at := invalidUTF8(h.text); at >= 0 {
		p.defect(part, part.HeaderOffset+int64(at), DefectHeaderOctets, "octets in a header that are no UTF-8")
	}
	var fields structureFields
	fields.collect(h)
	fields.describe(part, f.digest, limit(p.Limits.Params, 1000), &p.params)
	p.fieldDefects(part, &fields)
	if len(p.stack) == 1 || p.stack[len(p.stack)-2].part.Message == part {
		part.Envelope = fields.envelope()
	}
}

// endHeader ends a header; its body, or what it holds, begins at the offset
// body. With odd there was no empty line but text.
func (p *Parser) endHeader(body int64, odd bool) {
	f := &p.stack[len(p.stack)-1]
	p.finishHeader(f, body)
	part := f.part
	p.midLine = false
	if odd {
		p.defect(part, body, DefectEmptyLine, "body without the empty line before it")
	}
	at := len(p.events)
	p.tell(event{part: part, leaf: true})
	multipart := part.Type == "multipart"
	message := part.Type == "message" && (part.Subtype == "rfc822" || part.Subtype == "global")
	switch {
	case !multipart && !message:
		if !knownEncoding(part.Encoding) {
			p.defect(part, part.HeaderOffset, DefectEncoding, "unknown transfer encoding")
		}
		return
	case len(p.stack) >= limit(p.Limits.Depth, 250):
		p.defect(part, body, DefectLimit, "nested too deep: not looked into")
		return
	case multipart:
		b := strings.TrimRight(part.Params["boundary"], " \t")
		switch {
		case b == "" || len(b) > maxDelimiter-16:
			p.defect(part, part.HeaderOffset, DefectBoundary, "multipart without a usable boundary")
			return
		case !identity(part.Encoding):
			p.defect(part, part.HeaderOffset, DefectEncoding, "multipart with a transfer encoding")
		}
		p.activate(b)
		if p.watched {
			p.events[at].leaf = false
		}
	case !identity(part.Encoding):
		p.defect(part, part.HeaderOffset, DefectEncoding, "message with a transfer encoding: not looked into")
	case p.full || p.parts >= limit(p.Limits.Parts, 10_000):
		p.defect(part, body, DefectLimit, "too many parts: the rest was not looked into")
	default:
		message := p.open(nil)
		message.HeaderOffset = body
		part.Message = message
		if p.watched {
			p.events[at].leaf = false
		}
	}
}

func (p *Parser) defect(part *Part, offset int64, kind DefectKind, text string) {
	if p.defects++; p.defects <= maxDefects {
		part.Defects = append(part.Defects, Defect{offset, kind, text})
	}
}

// event is told to a Stream: a header was read, or a part has ended.
type event struct {
	part  *Part
	ended bool
	leaf  bool // its body is its own, not that of parts or a message in it
}

func (p *Parser) tell(e event) {
	if p.watched {
		p.events = append(p.events, e)
	}
}
