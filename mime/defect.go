package mime

import (
	"bytes"
	"cmp"
	"io"
	"slices"
)

// Defect is something wrong that was put up with.
type Defect struct {
	Offset int64 // in the message
	Kind   DefectKind
	Text   string // for people
}

func (d Defect) String() string { return d.Text }

// DefectKind says what a [Defect] is about.
type DefectKind uint8

// The kinds of defects. Those of a body are found by [Part.Check] alone.
const (
	// DefectLimit: a limit of [Limits] was reached; what lies beyond was not
	// looked into.
	DefectLimit DefectKind = iota + 1
	// DefectHeaderLine: a line in a header is no field.
	DefectHeaderLine
	// DefectHeaderOctets: a header has octets that are no UTF-8 (RFC 6532).
	DefectHeaderOctets
	// DefectEmptyLine: the empty line between header and body is missing.
	DefectEmptyLine
	// DefectContentField: Content-Type or Content-Disposition has no type,
	// or parameters that had to be guessed at.
	DefectContentField
	// DefectBoundary: a multipart has no boundary, no delimiter or part, or
	// text behind its last delimiter.
	DefectBoundary
	// DefectTruncated: a multipart lacks its last delimiter.
	DefectTruncated
	// DefectEncoding: the transfer encoding is unknown, or may not be where
	// it is; of a body, it has octets that its encoding does not allow.
	DefectEncoding
	// DefectLineEnd: a line ends in a bare LF, or a CR stands alone.
	DefectLineEnd
	// DefectLineLength: a line has more than 998 octets.
	DefectLineLength
	// DefectNUL: there is a NUL.
	DefectNUL
	// DefectCharset: a text is not of its charset, or nobody knows that.
	DefectCharset
)

// Check looks through the bodies of p and of all parts in it for what
// [Parse], which does not look into bodies, cannot tell: octets that the
// transfer encoding does not allow, bare LF and CR, lines that are too long,
// NUL, text that is not of its charset. It returns the first defect of each
// kind in each part, in the order of the message. r is the message that was
// parsed; the error is r's.
func (p *Part) Check(r io.ReaderAt) ([]Defect, error) {
	var found []Defect
	for q := range p.All() {
		if q.Message != nil || q.IsMultipart() && q.Parts != nil {
			continue
		}
		c := bodyCheck{part: q, pos: q.BodyOffset, binary: q.Encoding == "binary", prev: '\n'}
		if _, err := io.Copy(&c, q.Raw(r)); err != nil {
			return found, err
		}
		c.end()
		if q.Type == "text" {
			if err := c.charset(r); err != nil {
				return found, err
			}
		}
		found = append(found, c.found...)
		if len(found) > maxDefects {
			found = found[:maxDefects]
			break
		}
	}
	slices.SortStableFunc(found, func(a, b Defect) int { return cmp.Compare(a.Offset, b.Offset) })
	return found, nil
}

// bodyCheck looks at the octets of one body.
type bodyCheck struct {
	part   *Part
	found  []Defect
	seen   [DefectCharset + 1]bool
	binary bool
	pos    int64
	prev   byte
	line   int  // octets of the line so far
	eight  bool // there were octets above 127
	quads  int  // characters of base64
	padded bool
	escape int // 1 after "=" of quoted-printable, 2 after its first digit or white space
}

func (c *bodyCheck) defect(kind DefectKind, offset int64, text string) {
	if !c.seen[kind] {
		c.seen[kind] = true
		c.found = append(c.found, Defect{offset, kind, text})
	}
}

func (c *bodyCheck) Write(b []byte) (int, error) {
	encoding := c.part.Encoding
	for i, x := range b {
		at := c.pos + int64(i)
		if !c.binary {
			switch {
			case x == '\n' && c.prev != '\r':
				c.defect(DefectLineEnd, at, "bare LF in a body")
			case c.prev == '\r' && x != '\n':
				c.defect(DefectLineEnd, at-1, "CR without LF in a body")
			case x == 0:
				c.defect(DefectNUL, at, "NUL in a body")
			}
			if x == '\n' {
				c.line = 0
			} else if c.line++; c.line > lineLimit && x != '\r' {
				c.defect(DefectLineLength, at, "line of more than 998 octets in a body")
			}
		}
		if x >= 0x80 {
			if c.eight = true; encoding != "8bit" && !c.binary {
				c.defect(DefectEncoding, at, "8-bit octets in a body in "+encoding)
			}
		}
		switch encoding {
		case "base64":
			switch {
			case base64Value[x] < 64:
				if c.quads++; c.padded {
					c.defect(DefectEncoding, at, "base64 goes on after its padding")
				}
			case x == '=':
				c.padded = true
			case x != '\r' && x != '\n' && x != ' ' && x != '\t':
				c.defect(DefectEncoding, at, "character that is not of base64")
			}
		case "quoted-printable":
			white := x == ' ' || x == '\t' || x == '\r'
			switch {
			case c.escape == 0:
				if x == '=' {
					c.escape = 1
				}
			case x == '\n':
				c.escape = 0
			case c.escape == 1 && white, c.escape == 2 && white && (c.prev == ' ' || c.prev == '\t'):
				c.escape = 2 // before the end of the line, it must be
			case hexValue[x] < 16 && (c.escape == 1 || hexValue[c.prev] < 16):
				c.escape = (c.escape + 1) % 3
			default:
				c.defect(DefectEncoding, at, "\"=\" without two digits in quoted-printable")
				c.escape = 0
			}
		}
		c.prev = x
	}
	c.pos += int64(len(b))
	return len(b), nil
}

func (c *bodyCheck) end() {
	if c.prev == '\r' && !c.binary && c.part.Size > 0 {
		c.defect(DefectLineEnd, c.pos-1, "CR without LF in a body")
	}
	if c.part.Encoding == "base64" && c.quads%4 == 1 {
		c.defect(DefectEncoding, c.pos, "base64 ends within a character")
	}
}

// charset tells whether the text is of its charset.
func (c *bodyCheck) charset(r io.ReaderAt) error {
	name := charsetName(c.part.Params["charset"])
	if charsetDecoder(name) == nil {
		c.defect(DefectCharset, c.part.HeaderOffset, "charset that nobody knows")
		return nil
	}
	find := "\ufffd"
	body := c.part.Text(r)
	if undeclared(name) {
		find, body = "", c.part.Decoded(r)
	}
	buf := make([]byte, 32<<10)
	n := 0
	for {
		k, err := body.Read(buf[n:])
		n += k
		if find != "" && bytes.Contains(buf[:n], []byte(find)) {
			c.defect(DefectCharset, c.part.BodyOffset, "text that is not of its charset")
			return nil
		}
		if find == "" {
			for _, x := range buf[:n] {
				if x >= 0x80 {
					c.defect(DefectCharset, c.part.BodyOffset, "8-bit text without a charset")
					return nil
				}
			}
		}
		n = copy(buf, buf[max(0, n-2):n])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
