package imapserver

import (
	"maps"
	"slices"
	"strings"

	"github.com/postrider/postrider/mime"
)

// writeEnvelope writes an ENVELOPE (RFC 9051 §7.5.2).
func (s *session) writeEnvelope(e *mime.Envelope) {
	if e == nil {
		e = &mime.Envelope{}
	}
	enc := s.enc
	enc.Special('(')
	s.nstring(e.Date)
	enc.SP()
	s.nstring(e.Subject)
	for _, list := range [...][]mime.EnvelopeAddress{e.From, e.Sender, e.ReplyTo, e.To, e.Cc, e.Bcc} {
		enc.SP()
		s.writeAddresses(list)
	}
	enc.SP()
	s.nstring(e.InReplyTo)
	enc.SP()
	s.nstring(e.MessageID)
	enc.Special(')')
}

func (s *session) writeAddresses(list []mime.EnvelopeAddress) {
	if len(list) == 0 {
		s.enc.Nil()
		return
	}
	s.enc.Special('(')
	for _, a := range list {
		s.enc.Special('(')
		s.nstring(a.Name)
		s.enc.SP()
		s.nstring(a.Route)
		s.enc.SP()
		s.nstring(a.Mailbox)
		s.enc.SP()
		s.nstring(a.Host)
		s.enc.Special(')')
	}
	s.enc.Special(')')
}

// nstring writes a value of a header: without NUL, which no string can hold.
func (s *session) nstring(v string) {
	if strings.IndexByte(v, 0) >= 0 {
		v = strings.ReplaceAll(v, "\x00", "")
	}
	s.enc.NString(v)
}

func (s *session) str(v string) {
	if strings.IndexByte(v, 0) >= 0 {
		v = strings.ReplaceAll(v, "\x00", "")
	}
	s.enc.String(v)
}

// writeStructure writes BODY, or with ext BODYSTRUCTURE (RFC 9051 §7.5.2).
func (s *session) writeStructure(p *mime.Part, ext bool) {
	enc := s.enc
	enc.Special('(')
	if p.IsMultipart() {
		for _, c := range p.Parts {
			s.writeStructure(c, ext)
		}
		if len(p.Parts) == 0 {
			// The syntax wants one; without delimiters the body is just text.
			enc.Atom(`("text" "plain" NIL NIL NIL "7bit" 0 0)`)
		}
		enc.SP()
		s.str(p.Subtype)
		if ext {
			enc.SP()
			s.writeParams(p.Params)
			s.writeExtension(p)
		}
		enc.Special(')')
		return
	}
	typ, subtype := p.Type, p.Subtype
	nested := typ == "message" && (subtype == "rfc822" || subtype == "global")
	if nested && p.Message == nil {
		// It was not looked into (it is encoded, or nested too deeply), and
		// the syntax of message/rfc822 needs what is inside.
		typ, subtype, nested = "application", "octet-stream", false
	}
	s.str(typ)
	enc.SP()
	s.str(subtype)
	enc.SP()
	s.writeParams(p.Params)
	enc.SP()
	s.nstring(p.ID)
	enc.SP()
	s.nstring(p.Description)
	enc.SP()
	s.str(p.Encoding)
	enc.SP().Number(uint64(p.Size))
	if nested {
		enc.SP()
		s.writeEnvelope(p.Message.Envelope)
		enc.SP()
		s.writeStructure(p.Message, ext)
	}
	if nested || typ == "text" {
		enc.SP().Number(uint64(p.Lines))
	}
	if ext {
		enc.SP()
		s.nstring(p.MD5)
		s.writeExtension(p)
	}
	enc.Special(')')
}

// writeExtension writes disposition, language and location.
func (s *session) writeExtension(p *mime.Part) {
	enc := s.enc
	enc.SP()
	if p.Disposition == "" {
		enc.Nil()
	} else {
		enc.Special('(')
		s.str(p.Disposition)
		enc.SP()
		s.writeParams(p.DispositionParams)
		enc.Special(')')
	}
	enc.SP()
	switch len(p.Language) {
	case 0:
		enc.Nil()
	case 1:
		s.str(p.Language[0])
	default:
		enc.List(len(p.Language), func(i int) { s.str(p.Language[i]) })
	}
	enc.SP()
	s.nstring(p.Location)
}

// writeParams writes parameters, sorted by name.
func (s *session) writeParams(params map[string]string) {
	if len(params) == 0 {
		s.enc.Nil()
		return
	}
	s.enc.Special('(')
	if len(params) == 1 {
		for k, v := range params {
			s.str(k)
			s.enc.SP()
			s.str(v)
		}
	} else {
		for i, k := range slices.Sorted(maps.Keys(params)) {
			if i > 0 {
				s.enc.SP()
			}
			s.str(k)
			s.enc.SP()
			s.str(params[k])
		}
	}
	s.enc.Special(')')
}
