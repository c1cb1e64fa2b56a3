package imapserver

import (
	"github.com/postrider/postrider/imap"
)

// maxSections bounds the sections of one FETCH.
const maxSections = 200

// parseFetch takes the items of FETCH (RFC 9051 §6.4.5).
func (s *session) parseFetch(o *imap.FetchOptions) error {
	d := s.dec
	items := 0
	if d.List(func() bool { items++; return s.fetchItem(o, false) }) {
		if items == 0 {
			d.Fail("no item")
		}
	} else if d.Err() == nil {
		s.fetchItem(o, true)
	}
	d.ExpectCRLF()
	return d.Err()
}

// fetchItem takes one item; macros stand alone.
func (s *session) fetchItem(o *imap.FetchOptions, macro bool) bool {
	d := s.dec
	var item string
	if !d.ExpectLabel(&item) {
		return false
	}
	switch item {
	case "UID":
		o.UID = true
	case "FLAGS":
		o.Flags = true
	case "INTERNALDATE":
		o.InternalDate = true
	case "RFC822.SIZE":
		o.Size = true
	case "ENVELOPE":
		o.Envelope = true
	case "BODYSTRUCTURE":
		o.BodyStructure = true
	case "BODY":
		if !d.Next('[') {
			o.Body = true
			return d.Err() == nil
		}
		return s.fetchSection(o, imap.Section{})
	case "BODY.PEEK":
		return s.fetchSection(o, imap.Section{Peek: true})
	case "BINARY":
		return s.fetchSection(o, imap.Section{Binary: true})
	case "BINARY.PEEK":
		return s.fetchSection(o, imap.Section{Binary: true, Peek: true})
	case "BINARY.SIZE":
		var part []int
		if len(o.BinarySizes) == maxSections {
			return d.Fail("too many sections")
		}
		if !d.ExpectPart(&part) {
			return false
		}
		o.BinarySizes = append(o.BinarySizes, part)
	case "RFC822":
		return s.addSection(o, imap.Section{Old: item})
	case "RFC822.HEADER":
		return s.addSection(o, imap.Section{Old: item, Kind: imap.SectionHeader, Peek: true})
	case "RFC822.TEXT":
		return s.addSection(o, imap.Section{Old: item, Kind: imap.SectionText})
	case "ALL", "FAST", "FULL":
		if !macro {
			return d.Fail("a macro stands alone")
		}
		switch item {
		case "ALL":
			*o = imap.FetchAll()
		case "FAST":
			*o = imap.FetchFast()
		default:
			*o = imap.FetchFull()
		}
	default:
		return d.Fail("unknown fetch item")
	}
	return true
}

func (s *session) fetchSection(o *imap.FetchOptions, sec imap.Section) bool {
	return s.dec.ExpectSection(&sec, true) && s.addSection(o, sec)
}

func (s *session) addSection(o *imap.FetchOptions, sec imap.Section) bool {
	if len(o.Sections) == maxSections {
		return s.dec.Fail("too many sections")
	}
	o.Sections = append(o.Sections, sec)
	return true
}
