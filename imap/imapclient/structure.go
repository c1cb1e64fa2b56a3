package imapclient

import (
	"strings"

	"github.com/postrider/postrider/imap"
)

// envelope reads an ENVELOPE (RFC 9051 §7.5.2).
func (c *Client) envelope(e *imap.Envelope) bool {
	d := c.dec
	if !d.ExpectSpecial('(') || !d.ExpectNString(&e.Date) || !d.ExpectSP() || !d.ExpectNString(&e.Subject) {
		return false
	}
	for _, list := range []*[]imap.Address{&e.From, &e.Sender, &e.ReplyTo, &e.To, &e.Cc, &e.Bcc} {
		if !d.ExpectSP() || !c.addresses(list) {
			return false
		}
	}
	return d.ExpectSP() && d.ExpectNString(&e.InReplyTo) && d.ExpectSP() && d.ExpectNString(&e.MessageID) && d.ExpectSpecial(')')
}

// addresses reads NIL or a list of addresses without spaces between them.
func (c *Client) addresses(list *[]imap.Address) bool {
	d := c.dec
	if !d.Special('(') {
		return c.null()
	}
	for !d.Special(')') {
		var a imap.Address
		var route string
		if !d.ExpectSpecial('(') || !d.ExpectNString(&a.Name) || !d.ExpectSP() || !d.ExpectNString(&route) ||
			!d.ExpectSP() || !d.ExpectNString(&a.Mailbox) || !d.ExpectSP() || !d.ExpectNString(&a.Host) || !d.ExpectSpecial(')') {
			return false
		}
		d.SP() // some servers send it
		*list = append(*list, a)
	}
	return true
}

// null takes NIL or fails.
func (c *Client) null() bool {
	var s string
	return c.dec.Keyword(&s) && s == "NIL" || c.dec.Fail("expected NIL or a list")
}

// structure reads a BODY or BODYSTRUCTURE (RFC 9051 §7.5.2).
func (c *Client) structure(b *imap.BodyStructure, depth int) bool {
	d := c.dec
	if depth > maxDepth {
		return d.Fail("nested too deeply")
	}
	if !d.ExpectSpecial('(') {
		return false
	}
	if d.Next('(') {
		b.Type = "multipart"
		for d.Next('(') {
			part := new(imap.BodyStructure)
			if !c.structure(part, depth+1) {
				return false
			}
			b.Parts = append(b.Parts, part)
			d.SP() // some servers send it before the next part, all before the subtype
		}
		if !d.ExpectString(&b.Subtype) {
			return false
		}
		b.Subtype = strings.ToLower(b.Subtype)
		return c.extension(b, func() bool { return c.params(&b.Params) })
	}
	var size int64
	if !d.ExpectNString(&b.Type) || !d.ExpectSP() || !d.ExpectNString(&b.Subtype) || !d.ExpectSP() || !c.params(&b.Params) ||
		!d.ExpectSP() || !d.ExpectNString(&b.ID) || !d.ExpectSP() || !d.ExpectNString(&b.Description) ||
		!d.ExpectSP() || !d.ExpectNString(&b.Encoding) || !d.ExpectSP() || !d.ExpectNumber64(&size) {
		return false
	}
	b.Type, b.Subtype, b.Size = strings.ToLower(b.Type), strings.ToLower(b.Subtype), uint32(min(size, 1<<32-1))
	switch {
	case b.Type == "message" && (b.Subtype == "rfc822" || b.Subtype == "global"):
		b.Envelope, b.Message = new(imap.Envelope), new(imap.BodyStructure)
		if !d.ExpectSP() || !c.envelope(b.Envelope) || !d.ExpectSP() || !c.structure(b.Message, depth+1) ||
			!d.ExpectSP() || !d.ExpectNumber64(&b.Lines) {
			return false
		}
	case b.Type == "text":
		if !d.ExpectSP() || !d.ExpectNumber64(&b.Lines) {
			return false
		}
	}
	return c.extension(b, func() bool { return d.ExpectNString(&b.MD5) })
}

// extension reads the extension data, which begins with first, up to the
// closing parenthesis.
func (c *Client) extension(b *imap.BodyStructure, first func() bool) bool {
	d := c.dec
	steps := []func() bool{
		first,
		func() bool { return c.disposition(b) },
		func() bool { return c.languages(&b.Language) },
		func() bool { return d.ExpectNString(&b.Location) },
	}
	for i := 0; !d.Special(')'); i++ {
		if !d.ExpectSP() {
			return false
		}
		b.Extended = true
		if i < len(steps) {
			if !steps[i]() {
				return false
			}
		} else if !c.skipValue(0) {
			return false
		}
	}
	return true
}

// params reads NIL or a list of names and values.
func (c *Client) params(m *map[string]string) bool {
	d := c.dec
	if !d.Next('(') {
		return c.null()
	}
	return d.ExpectList(func() bool {
		var name, value string
		if !d.ExpectString(&name) || !d.ExpectSP() || !d.ExpectNString(&value) {
			return false
		}
		if *m == nil {
			*m = map[string]string{}
		}
		(*m)[strings.ToLower(name)] = value
		return true
	})
}

func (c *Client) disposition(b *imap.BodyStructure) bool {
	d := c.dec
	if !d.Special('(') {
		return c.null()
	}
	if !d.ExpectString(&b.Disposition) || !d.ExpectSP() || !c.params(&b.DispositionParams) {
		return false
	}
	b.Disposition = strings.ToLower(b.Disposition)
	return d.ExpectSpecial(')')
}

func (c *Client) languages(list *[]string) bool {
	d := c.dec
	if d.Next('(') {
		return d.ExpectList(func() bool {
			var s string
			if !d.ExpectString(&s) {
				return false
			}
			*list = append(*list, s)
			return true
		})
	}
	var s string
	var notNil bool
	if !d.NString(&s, &notNil) {
		return d.Fail("expected languages")
	}
	if notNil {
		*list = []string{s}
	}
	return true
}
