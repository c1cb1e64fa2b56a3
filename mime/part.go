package mime

import "strings"

// Part is one node of a parsed message. Offsets are octets from the beginning
// of the message that was parsed. Nothing in it is decoded but parameters.
type Part struct {
	// Type and Subtype are in lower case. They are text/plain when
	// Content-Type is absent or cannot be read (RFC 2045 §5.2),
	// message/rfc822 when it is absent in a multipart/digest, and
	// application/octet-stream when Encoding is none of RFC 2045 (§6.4).
	Type, Subtype string
	// Params are those of Content-Type: names in lower case, values decoded
	// (RFC 2231, also RFC 2047), nil when there are none. Parts with the same
	// share them: they are not to be changed.
	Params map[string]string
	// Disposition is in lower case, "" when absent (RFC 2183).
	Disposition       string
	DispositionParams map[string]string
	// ID, Description, MD5 and Location are the Content-* fields of these
	// names as they stand, unfolded; ID has its angle brackets.
	ID, Description, MD5, Location string
	// Encoding is Content-Transfer-Encoding in lower case, "7bit" when
	// absent.
	Encoding string
	Language []string // the tags of Content-Language (RFC 3282)
	Header   Header

	// HeaderOffset and BodyOffset are where header and body begin; between
	// them lie the header and its empty line. Size is that of the body as
	// it stands, without the line end before a delimiter (RFC 2046 §5.1.1).
	HeaderOffset, BodyOffset, Size int64
	// Lines is the number of line ends in the body as it stands.
	Lines int64

	// Parts are those of a multipart in order. A multipart may have none:
	// when no delimiter is in it, or a limit was reached.
	Parts []*Part
	// Message is what a message/rfc822 or message/global holds, nil when it
	// was not looked into: it has a transfer encoding that hides it, or a
	// limit was reached. Nested opens it then.
	Message *Part
	// Envelope is set where a message begins: in the root and in every
	// Message.
	Envelope *Envelope
	// Defects are what is wrong with this part itself.
	Defects []Defect
}

// IsMultipart reports whether p is of a multipart type; it may have no parts
// all the same.
func (p *Part) IsMultipart() bool { return p.Type == "multipart" }

// FileName returns the name to save p under: the filename parameter of
// Content-Disposition, else the name parameter of Content-Type, as its last
// element without directories and control characters; "" when there is none.
// The names as they were given are in the parameters.
func (p *Part) FileName() string {
	name := p.DispositionParams["filename"]
	if name == "" {
		name = p.Params["name"]
	}
	if i := strings.LastIndexAny(name, `/\`); i >= 0 {
		name = name[i+1:]
	}
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, name)
	name = strings.TrimSpace(name)
	if name == "." || name == ".." {
		return ""
	}
	return name
}
