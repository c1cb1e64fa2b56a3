package mime

import (
	"strings"
)

// structureFields are what the structure of a part is read from, found in one pass.
type structureFields struct {
	contentType, disposition, encoding, id, description, md5, location, language string
	date, subject, sender, inReplyTo, messageID                                  string
	from, replyTo, to, cc, bcc                                                   joined
	have                                                                         uint32
	typeAt, dispositionAt                                                        uint32 // where they begin
	odd                                                                          uint32 // of have: had to be guessed at
	full                                                                         uint32 // of have: more parameters than wanted
}

// paramsOf are the parameters of a field, and the text that they are of.
type paramsOf struct {
	text      string
	params    map[string]string
	odd, full bool
}

// joined is the value of all fields of one name.
type joined struct {
	first string
	all   []byte // with the others, when there are any
}

func (j *joined) add(h *Header, s span) {
	v := unfold(h.value(s))
	switch {
	case j.first == "":
		j.first = v
		return
	case j.all == nil:
		j.all = []byte(j.first)
	}
	j.all = append(append(j.all, ", "...), v...)
}

func (j *joined) String() string {
	if j.all != nil {
		return string(j.all)
	}
	return j.first
}

const (
	haveType = 1 << iota
	haveDisposition
	haveEncoding
	haveID
	haveDescription
	haveMD5
	haveLocation
	haveLanguage
	haveDate
	haveSubject
	haveSender
	haveInReplyTo
	haveMessageID
)

// collect finds the fields; of those that may stand once the first counts,
// address fields are put together.
func (f *structureFields) collect(h *Header) {
	for _, s := range h.fields {
		if s.junk() {
			continue
		}
		name := h.name(s)
		var to *string
		var bit uint32
		switch len(name) {
		case 2:
			switch {
			case equalFold(name, "to"):
				f.to.add(h, s)
			case equalFold(name, "cc"):
				f.cc.add(h, s)
			}
		case 3:
			if equalFold(name, "bcc") {
				f.bcc.add(h, s)
			}
		case 4:
			switch {
			case equalFold(name, "from"):
				f.from.add(h, s)
			case equalFold(name, "date"):
				to, bit = &f.date, haveDate
			}
		case 6:
			if equalFold(name, "sender") {
				to, bit = &f.sender, haveSender
			}
		case 7:
			if equalFold(name, "subject") {
				to, bit = &f.subject, haveSubject
			}
		case 8:
			if equalFold(name, "reply-to") {
				f.replyTo.add(h, s)
			}
		case 10:
			switch {
			case equalFold(name, "message-id"):
				to, bit = &f.messageID, haveMessageID
			case equalFold(name, "content-id"):
				to, bit = &f.id, haveID
			}
		case 11:
			switch {
			case equalFold(name, "in-reply-to"):
				to, bit = &f.inReplyTo, haveInReplyTo
			case equalFold(name, "content-md5"):
				to, bit = &f.md5, haveMD5
			}
		case 12:
			if equalFold(name, "content-type") {
				to, bit = &f.contentType, haveType
			}
		case 16:
			switch {
			case equalFold(name, "content-language"):
				to, bit = &f.language, haveLanguage
			case equalFold(name, "content-location"):
				to, bit = &f.location, haveLocation
			}
		case 19:
			switch {
			case equalFold(name, "content-disposition"):
				to, bit = &f.disposition, haveDisposition
			case equalFold(name, "content-description"):
				to, bit = &f.description, haveDescription
			}
		case 25:
			if equalFold(name, "content-transfer-encoding") {
				to, bit = &f.encoding, haveEncoding
			}
		}
		if to != nil && f.have&bit == 0 {
			f.have |= bit
			switch bit {
			case haveType:
				f.typeAt = s.start
			case haveDisposition:
				f.dispositionAt = s.start
			}
			*to = unfold(h.value(s))
		}
	}
}

// describe fills in p from its fields.
func (f *structureFields) describe(p *Part, digest bool, params int, before *paramsOf) {
	p.Type, p.Subtype = "text", "plain"
	if digest {
		p.Type, p.Subtype = "message", "rfc822"
	}
	if f.have&haveType != 0 {
		scan := paramScanner{s: f.contentType}
		mt := scan.main()
		if rest := scan.s[scan.i:]; rest != "" {
			// The parts of a message often have the same: one map does.
			if rest != before.text {
				*before = paramsOf{text: rest, params: scan.params(params)}
				before.odd, before.full = scan.odd, scan.full
			}
			p.Params, scan.odd, scan.full = before.params, before.odd, before.full
		}
		f.note(haveType, &scan)
		t, sub, _ := strings.Cut(mt, "/")
		if t != "" && sub != "" {
			p.Type, p.Subtype = lower(t), lower(sub)
		} else {
			f.odd |= haveType
			p.Type, p.Subtype = "text", "plain"
		}
	}
	if f.have&haveDisposition != 0 {
		scan := paramScanner{s: f.disposition}
		p.Disposition, p.DispositionParams = scan.parse(params)
		p.Disposition = lower(p.Disposition)
		f.note(haveDisposition, &scan)
		if p.Disposition == "" {
			f.odd |= haveDisposition
		}
	}
	p.Encoding = "7bit"
	if f.have&haveEncoding != 0 {
		p.Encoding = encodingName(f.encoding)
		if !knownEncoding(p.Encoding) && p.Type != "multipart" && p.Type != "message" {
			p.Type, p.Subtype = "application", "octet-stream"
		}
	}
	p.ID, p.Description, p.MD5, p.Location = f.id, f.description, f.md5, f.location
	if f.have&haveLanguage != 0 {
		for tag := range strings.SplitSeq(f.language, ",") {
			if tag = strings.TrimSpace(tag); tag != "" {
				p.Language = append(p.Language, tag)
			}
		}
	}
}

func (f *structureFields) note(bit uint32, scan *paramScanner) {
	if scan.odd {
		f.odd |= bit
	}
	if scan.full {
		f.full |= bit
	}
}

// fieldDefects tells what was noted.
func (p *Parser) fieldDefects(part *Part, f *structureFields) {
	if (f.odd|f.full)&(haveType|haveDisposition) == 0 {
		return
	}
	for _, c := range [...]struct {
		bit, at uint32
		name    string
	}{{haveType, f.typeAt, "Content-Type"}, {haveDisposition, f.dispositionAt, "Content-Disposition"}} {
		if f.odd&c.bit != 0 {
			p.defect(part, part.HeaderOffset+int64(c.at), DefectContentField, c.name+" cannot be read as it stands")
		}
		if f.full&c.bit != 0 {
			p.defect(part, part.HeaderOffset+int64(c.at), DefectLimit, c.name+" has too many parameters: the rest was not read")
		}
	}
}

// encodingName reads a Content-Transfer-Encoding; common misspellings and
// nonsense that mean "as it is" are made what they mean.
func encodingName(s string) string {
	p := paramScanner{s: s}
	s = lower(p.main()) // without white space: "8 bit" is one word
	if n, rest := number(s); n > 0 && (rest == "bit" || rest == "bits" || rest == "-bit") && n != 7 {
		return "8bit"
	}
	switch s {
	case "", "7-bit", "7bits", "none":
		return "7bit"
	case "utf-8", "utf8", "us-ascii", "iso-8859-1":
		return "8bit"
	case "quotedprintable", "quoted-printables", "q":
		return "quoted-printable"
	case "base-64", "b":
		return "base64"
	case "uuencode", "uue", "x-uue":
		return uuencode
	}
	return s
}

func knownEncoding(s string) bool {
	switch s {
	case "7bit", "8bit", "binary", "base64", "quoted-printable", uuencode:
		return true
	}
	return false
}

// identity reports whether the body stands as it is.
func identity(encoding string) bool {
	return encoding == "7bit" || encoding == "8bit" || encoding == "binary"
}

// Envelope is what IMAP calls ENVELOPE (RFC 9051 §7.5.2): the values as they
// stand, unfolded but not decoded; "" and nil where the field is absent or
// empty. From, ReplyTo, To … are made of all fields of their name, up to
// 20,000 addresses each; Sender and ReplyTo are those of From when their own
// field has no address in it.
type Envelope struct {
	Date, Subject, InReplyTo, MessageID string
	From, Sender, ReplyTo, To, Cc, Bcc  []EnvelopeAddress
}

// EnvelopeAddress is one address. Route is its obsolete source route, "@a,@b"
// of <@a,@b:user@host> (RFC 5322 §4.4), "" for almost every one. Host "" begins a group (Mailbox is its
// name) or ends it (Mailbox is "" too). Mailbox is without quotes, Name too
// but with its encoded words. A mailbox without a host has the Host
// "MISSING_DOMAIN", a host without a mailbox the Mailbox "MISSING_MAILBOX".
type EnvelopeAddress struct{ Name, Route, Mailbox, Host string }

// maxEnvelope bounds the addresses of one list: a header of a few octets each
// would make a structure many times its size.
const maxEnvelope = 20_000

const (
	missingDomain  = "MISSING_DOMAIN"
	missingMailbox = "MISSING_MAILBOX"
)

func (f *structureFields) envelope() *Envelope {
	// Most have few addresses: they lie beside it.
	few := &struct {
		Envelope
		list [4]EnvelopeAddress
	}{}
	e := &few.Envelope
	*e = Envelope{
		Date:      f.date,
		Subject:   f.subject,
		InReplyTo: f.inReplyTo,
		MessageID: f.messageID,
	}
	lists := [...]string{f.from.String(), f.sender, f.replyTo.String(), f.to.String(), f.cc.String(), f.bcc.String()}
	n := 0
	for _, s := range lists {
		n += strings.Count(s, "@") // about one for each address
	}
	var all []EnvelopeAddress
	if n <= len(few.list) {
		all = few.list[:0:n]
	} else {
		all = make([]EnvelopeAddress, 0, min(n, 64))
	}
	for i, to := range e.lists() {
		if lists[i] == "" {
			continue
		}
		start := len(all)
		// A list that does not fit goes elsewhere; those before it stay.
		all = appendEnvelope(all[start:], lists[i])
		if len(all) > 0 {
			*to = all[:len(all):len(all)]
		}
	}
	if len(e.Sender) == 0 {
		e.Sender = e.From
	}
	if len(e.ReplyTo) == 0 {
		e.ReplyTo = e.From
	}
	return e
}

func appendEnvelope(list []EnvelopeAddress, s string) []EnvelopeAddress {
	for {
		m, rest, ok := plainMailbox(s)
		if !ok {
			break
		}
		list = append(list, EnvelopeAddress{Name: m.name, Mailbox: m.local, Host: m.domain})
		if s = rest; s == "" {
			return list
		}
	}
	p := addrScanner{s: s}
	for {
		m, ok := p.next()
		if !ok {
			return list
		}
		if len(list) >= maxEnvelope && m.kind != isGroupEnd {
			if p.inGroup && m.kind == isMailbox {
				continue // on to the end of the group
			}
			return list
		}
		switch m.kind {
		case isGroupStart:
			list = append(list, EnvelopeAddress{Mailbox: m.name})
		case isGroupEnd:
			list = append(list, EnvelopeAddress{})
		default:
			a := EnvelopeAddress{m.name, m.route, m.local, m.domain}
			if a.Name == "" {
				a.Name = m.comment
			}
			if a.Name == "" && a.Mailbox == "" && a.Host == "" {
				continue
			}
			if a.Host == "" {
				a.Host = missingDomain
			}
			if a.Mailbox == "" {
				a.Mailbox = missingMailbox
			}
			list = append(list, a)
		}
	}
}
