package imapwire

import (
	"math"
	"strconv"
	"strings"

	"github.com/postrider/postrider/imap"
)

// maxPartDepth bounds part numbers.
const maxPartDepth = 100

// ExpectSection takes what follows BODY, BODY.PEEK, BINARY or BINARY.PEEK,
// from "[" on, including <…>. With request a partial is <offset.count>, in a
// response <offset>. s.Binary says which syntax is meant.
func (d *Decoder) ExpectSection(s *imap.Section, request bool) bool {
	if !d.ExpectSpecial('[') {
		return false
	}
	if !d.sectionSpec(s) || !d.ExpectSpecial(']') {
		return d.Fail("malformed section")
	}
	if !d.Special('<') {
		return true
	}
	p := &imap.Partial{}
	if !d.ExpectNumber64(&p.Offset) {
		return false
	}
	if request {
		if !d.ExpectSpecial('.') || !d.ExpectNumber64(&p.Count) {
			return false
		}
		if p.Count == 0 {
			return d.Fail("partial of no octets")
		}
		if p.Offset > math.MaxInt64-p.Count {
			return d.Fail("partial out of range")
		}
	}
	s.Partial = p
	return d.ExpectSpecial('>')
}

// ExpectPart takes "[1.2]", of BINARY.SIZE.
func (d *Decoder) ExpectPart(part *[]int) bool {
	s := imap.Section{Binary: true}
	if !d.ExpectSpecial('[') || !d.sectionSpec(&s) || !d.ExpectSpecial(']') {
		return d.Fail("malformed section")
	}
	*part = s.Part
	return true
}

func (d *Decoder) sectionSpec(s *imap.Section) bool {
	if d.Next(']') {
		return true
	}
	var w string
	if !d.word(func(c byte) bool { return isLabelChar(c) }, &w) {
		return d.Fail("malformed section")
	}
	rest := upper(w)
	for rest != "" && isDigit(rest[0]) {
		num, after, more := strings.Cut(rest, ".")
		n, err := strconv.ParseUint(num, 10, 31)
		if err != nil || n == 0 || num[0] == '0' {
			return d.Fail("malformed part number")
		}
		if s.Part = append(s.Part, int(n)); len(s.Part) > maxPartDepth {
			return d.Fail("nested too deeply")
		}
		if rest = after; more && rest == "" {
			return d.Fail("malformed part number")
		}
	}
	s.Kind = imap.SectionKind(rest)
	if s.Binary && rest != "" {
		return d.Fail("malformed section")
	}
	switch s.Kind {
	case imap.SectionAll, imap.SectionHeader, imap.SectionText:
		return true
	case imap.SectionMIME:
		return len(s.Part) > 0 || d.Fail("MIME needs a part number")
	case imap.SectionFields, imap.SectionFieldsNot:
		n := 0
		if !d.ExpectSP() || !d.ExpectList(func() bool {
			var f string
			if !d.ExpectAString(&f) {
				return false
			}
			s.Fields = append(s.Fields, f)
			n++
			return true
		}) {
			return false
		}
		return n > 0 || d.Fail("empty list of header fields")
	}
	return d.Fail("unknown section")
}
