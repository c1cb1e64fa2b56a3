package mime

import (
	"encoding/binary"
	"errors"
)

// ErrSummary says that a summary is damaged or of a format that is not known:
// parse the message again.
var ErrSummary = errors.New("mime: not a summary")

const (
	summaryVersion = 2
	// summaryDepth bounds the nesting of a summary that is read.
	summaryDepth = 10_000
)

// InSummary reports whether [Part.Summary] keeps the fields of that name in
// the header of the root: Date, Subject, From, Sender, Reply-To, To, Cc, Bcc,
// In-Reply-To, Message-ID, References and all that begin with "Content-".
func InSummary(name string) bool {
	switch len(name) {
	case 2, 3, 4, 6, 7, 8, 10, 11:
		switch lower(name) {
		case "to", "cc", "bcc", "from", "date", "sender", "subject", "reply-to",
			"references", "message-id", "in-reply-to":
			return true
		}
	}
	return len(name) > 8 && equalFold(name[:8], "content-")
}

// Summary encodes the structure of a message compactly, for a store to keep
// beside it: all that FETCH ENVELOPE and BODYSTRUCTURE answer with. p is the
// root. Of headers only that of the root is kept, with the fields of
// [InSummary] as they stand; defects are not.
func (p *Part) Summary() []byte {
	b := make([]byte, 0, 512)
	b = append(b, summaryVersion)
	n := 0
	kept := func(s span) bool { return !s.junk() && InSummary(p.Header.name(s)) }
	for _, s := range p.Header.fields {
		if kept(s) {
			n += int(s.end - s.start)
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	for _, s := range p.Header.fields {
		if kept(s) {
			b = append(b, p.Header.raw[s.start:s.end]...)
		}
	}
	return p.appendSummary(b, true)
}

// What follows the common part of a summary.
const (
	sumParams = 1 << iota
	sumDisposition
	sumStrings // ID, Description, MD5, Location
	sumLanguage
	sumParts
	sumMessage
	sumEnvelope     // written out
	sumOwnEnvelope  // made of the fields that are kept
	summaryMinBytes = 6
)

func (p *Part) appendSummary(b []byte, root bool) []byte {
	var flags byte
	if p.Params != nil {
		flags |= sumParams
	}
	if p.Disposition != "" || p.DispositionParams != nil {
		flags |= sumDisposition
	}
	if p.ID != "" || p.Description != "" || p.MD5 != "" || p.Location != "" {
		flags |= sumStrings
	}
	if p.Language != nil {
		flags |= sumLanguage
	}
	if p.Parts != nil {
		flags |= sumParts
	}
	if p.Message != nil {
		flags |= sumMessage
	}
	if p.Envelope != nil {
		flags |= sumEnvelope
		if root {
			flags ^= sumEnvelope | sumOwnEnvelope
		}
	}
	b = append(b, flags)
	b = appendString(b, p.Type)
	b = appendString(b, p.Subtype)
	b = appendString(b, p.Encoding)
	b = binary.AppendVarint(b, p.HeaderOffset)
	b = binary.AppendVarint(b, p.BodyOffset-p.HeaderOffset)
	b = binary.AppendVarint(b, p.Size)
	b = binary.AppendVarint(b, p.Lines)
	if flags&sumParams != 0 {
		b = appendMap(b, p.Params)
	}
	if flags&sumDisposition != 0 {
		b = appendString(b, p.Disposition)
		b = appendMap(b, p.DispositionParams)
	}
	if flags&sumStrings != 0 {
		b = appendString(b, p.ID)
		b = appendString(b, p.Description)
		b = appendString(b, p.MD5)
		b = appendString(b, p.Location)
	}
	if flags&sumLanguage != 0 {
		b = binary.AppendUvarint(b, uint64(len(p.Language)))
		for _, l := range p.Language {
			b = appendString(b, l)
		}
	}
	if flags&sumEnvelope != 0 {
		b = p.Envelope.appendSummary(b)
	}
	if flags&sumParts != 0 {
		b = binary.AppendUvarint(b, uint64(len(p.Parts)))
		for _, c := range p.Parts {
			b = c.appendSummary(b, false)
		}
	}
	if flags&sumMessage != 0 {
		b = p.Message.appendSummary(b, false)
	}
	return b
}

func (e *Envelope) appendSummary(b []byte) []byte {
	for _, s := range [...]string{e.Date, e.Subject, e.InReplyTo, e.MessageID} {
		b = appendString(b, s)
	}
	for _, l := range e.lists() {
		b = binary.AppendUvarint(b, uint64(len(*l)))
		for _, a := range *l {
			b = appendString(b, a.Name)
			b = appendString(b, a.Route)
			b = appendString(b, a.Mailbox)
			b = appendString(b, a.Host)
		}
	}
	return b
}

func (e *Envelope) lists() [6]*[]EnvelopeAddress {
	return [...]*[]EnvelopeAddress{&e.From, &e.Sender, &e.ReplyTo, &e.To, &e.Cc, &e.Bcc}
}

// commonStrings are written as one octet. They may only be added to, at the
// end, as long as summaryVersion stays.
var commonStrings = [...]string{
	"", "text", "plain", "html", "multipart", "mixed", "alternative", "related",
	"application", "octet-stream", "pdf", "image", "jpeg", "png", "gif",
	"message", "rfc822", "7bit", "8bit", "binary", "base64", "quoted-printable",
	"attachment", "inline", "charset", "boundary", "name", "filename", "utf-8",
	"us-ascii", "iso-8859-1", "format", "flowed", "report", "delivery-status",
	"signed", "pkcs7-signature", "calendar", "size", "type", "UTF-8",
}

// appendString writes a string: its number among the common ones, or its
// length after those numbers and the octets.
func appendString(b []byte, s string) []byte {
	if len(s) <= len("quoted-printable") {
		for i, c := range commonStrings {
			if s == c {
				return append(b, byte(i))
			}
		}
	}
	b = binary.AppendUvarint(b, uint64(len(s))+64)
	return append(b, s...)
}

func appendMap(b []byte, m map[string]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(m)))
	if len(m) == 1 {
		for k, v := range m {
			return appendString(appendString(b, k), v)
		}
	}
	for _, k := range sortedKeys(m) {
		b = appendString(appendString(b, k), m[k])
	}
	return b
}

// DecodeSummary reads what [Part.Summary] wrote; the error is [ErrSummary].
// It is safe with octets from anywhere: cost and memory are in proportion to
// their number.
func DecodeSummary(b []byte) (*Part, error) {
	if len(b) == 0 || b[0] != summaryVersion {
		return nil, ErrSummary
	}
	d := summaryReader{s: string(b[1:])}
	header := d.take(d.uvarint())
	h := newHeader([]byte(header))
	p := d.part(&h, 0)
	if d.bad || d.s != "" {
		return nil, ErrSummary
	}
	p.Header = h
	return p, nil
}

// summaryReader reads from s; the first mistake sets bad, and all that
// follows is empty.
type summaryReader struct {
	s   string
	bad bool
}

func (d *summaryReader) fail() {
	d.bad, d.s = true, ""
}

func (d *summaryReader) uvarint() uint64 {
	var v uint64
	for i := 0; i < len(d.s) && i < binary.MaxVarintLen64; i++ {
		c := d.s[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			d.s = d.s[i+1:]
			return v
		}
	}
	d.fail()
	return 0
}

func (d *summaryReader) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// offset reads a number that is not negative.
func (d *summaryReader) offset() int64 {
	n := d.varint()
	if n < 0 || n > 1<<60 {
		d.fail()
		return 0
	}
	return n
}

func (d *summaryReader) take(n uint64) string {
	if n > uint64(len(d.s)) {
		d.fail()
		return ""
	}
	s := d.s[:n]
	d.s = d.s[n:]
	return s
}

func (d *summaryReader) string() string {
	n := d.uvarint()
	if n < uint64(len(commonStrings)) {
		return commonStrings[n]
	}
	if n < 64 {
		d.fail()
		return ""
	}
	return d.take(n - 64)
}

// count reads how many things follow that take at least size octets each.
func (d *summaryReader) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.s)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *summaryReader) params() map[string]string {
	n := d.count(2)
	if n == 0 {
		return nil
	}
	m := make(map[string]string, n)
	for range n {
		k := d.string()
		m[k] = d.string()
	}
	return m
}

func (d *summaryReader) part(header *Header, depth int) *Part {
	p := &Part{}
	if d.s == "" || depth > summaryDepth {
		d.fail()
		return p
	}
	flags := d.s[0]
	d.s = d.s[1:]
	p.Type = d.string()
	p.Subtype = d.string()
	p.Encoding = d.string()
	p.HeaderOffset = d.offset()
	p.BodyOffset = p.HeaderOffset + d.offset()
	p.Size = d.offset()
	p.Lines = d.offset()
	if flags&sumParams != 0 {
		p.Params = d.params()
	}
	if flags&sumDisposition != 0 {
		p.Disposition = d.string()
		p.DispositionParams = d.params()
	}
	if flags&sumStrings != 0 {
		p.ID = d.string()
		p.Description = d.string()
		p.MD5 = d.string()
		p.Location = d.string()
	}
	if flags&sumLanguage != 0 {
		n := d.count(1)
		p.Language = make([]string, 0, n)
		for range n {
			p.Language = append(p.Language, d.string())
		}
	}
	switch {
	case flags&sumOwnEnvelope != 0 && header != nil:
		var f structureFields
		f.collect(header)
		p.Envelope = f.envelope()
	case flags&sumOwnEnvelope != 0 || flags&sumEnvelope != 0 && header != nil:
		d.fail()
	case flags&sumEnvelope != 0:
		p.Envelope = d.envelope()
	}
	if flags&sumParts != 0 {
		n := d.count(summaryMinBytes)
		p.Parts = make([]*Part, 0, n)
		for range n {
			p.Parts = append(p.Parts, d.part(nil, depth+1))
		}
	}
	if flags&sumMessage != 0 && !d.bad {
		p.Message = d.part(nil, depth+1)
	}
	return p
}

func (d *summaryReader) envelope() *Envelope {
	e := &Envelope{Date: d.string(), Subject: d.string(), InReplyTo: d.string(), MessageID: d.string()}
	for _, l := range e.lists() {
		n := d.count(4)
		if n == 0 {
			continue
		}
		*l = make([]EnvelopeAddress, n)
		for i := range *l {
			(*l)[i] = EnvelopeAddress{d.string(), d.string(), d.string(), d.string()}
		}
	}
	return e
}
