package mime

import "strings"

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
