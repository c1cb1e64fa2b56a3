package smtpserver

import (
	"crypto/tls"
	"net/netip"
	"strconv"
	"time"

	"github.com/postrider/postrider/smtp"
)

// Protocol returns the WITH keyword for Received (RFC 3848): SMTP, ESMTP,
// ESMTPS, ESMTPA, ESMTPSA, the UTF8 forms of RFC 6531, or LMTP…
func (c *Conn) Protocol() string {
	b := make([]byte, 0, 12)
	switch {
	case c.srv.LMTP && c.tx.utf8:
		b = append(b, "UTF8LMTP"...)
	case c.srv.LMTP:
		b = append(b, "LMTP"...)
	case c.tx.utf8:
		b = append(b, "UTF8SMTP"...)
	case c.extended:
		b = append(b, "ESMTP"...)
	default:
		b = append(b, "SMTP"...)
	}
	if c.extended {
		if c.tls != nil {
			b = append(b, 'S')
		}
		if c.loggedIn {
			b = append(b, 'A')
		}
	}
	return string(b)
}

// Received returns a Received field for this connection, folded and with its
// final CRLF (RFC 5321 §4.4). id and forAddr may be ""; what could not stand
// in the field is left out of them.
func (c *Conn) Received(id, forAddr string, at time.Time) []byte {
	b := make([]byte, 0, 320)
	b = append(b, "Received: from "...)
	b = c.appendFrom(b)
	if c.tls != nil {
		b = append(b, "\r\n\t(using "...)
		b = append(b, tls.VersionName(c.tls.Version)...)
		b = append(b, " with cipher "...)
		b = append(b, tls.CipherSuiteName(c.tls.CipherSuite)...)
		b = append(b, ')')
	}
	b = append(b, "\r\n\tby "...)
	b = append(b, c.srv.name...)
	if len(c.srv.name) > 48 {
		b = append(b, "\r\n\twith "...)
	} else {
		b = append(b, " with "...)
	}
	b = append(b, c.Protocol()...)
	if id = cleanID(id); id != "" {
		b = append(b, "\r\n\tid "...)
		b = append(b, id...)
	}
	if c.tx.priority != 0 { // RFC 6710 §4.1
		b = append(b, "\r\n\tpriority "...)
		b = strconv.AppendInt(b, int64(c.tx.priority), 10)
	}
	if a, err := smtp.ParseAddress(forAddr); err == nil && !a.IsZero() && (a.ASCII() || c.tx.utf8) {
		b = append(b, "\r\n\tfor "...)
		b = append(b, a.Path()...)
	}
	b = append(b, ";\r\n\t"...)
	b = at.AppendFormat(b, "Mon, 02 Jan 2006 15:04:05 -0700")
	return append(b, '\r', '\n')
}

// appendFrom appends the Extended-Domain of the peer: its name as it said it
// and its address as we saw it. A name that is no domain goes into a comment.
func (c *Conn) appendFrom(b []byte) []byte {
	literal := addressLiteral(c.remote.Addr())
	name, err := smtp.ParseDomain(c.hello)
	switch {
	case err == nil:
		b = append(b, name...)
		if literal != "" {
			if len(name) > 40 {
				b = append(b, "\r\n\t("...)
			} else {
				b = append(b, " ("...)
			}
			b = append(b, literal...)
			b = append(b, ')')
		}
		return b
	case literal != "":
		b = append(b, literal...)
	default:
		b = append(b, "unknown"...)
	}
	if c.hello != "" {
		b = append(b, "\r\n\t(HELO "...)
		b = appendComment(b, c.hello)
		b = append(b, ')')
	}
	return b
}

// appendComment appends s as the text of a comment (RFC 5322 §3.2.2), short
// enough for its line.
func appendComment(b []byte, s string) []byte {
	if len(s) > 64 {
		s = s[:64]
	}
	for i := 0; i < len(s); i++ {
		switch ch := s[i]; {
		case ch < ' ' || ch >= 0x7f:
			b = append(b, '?')
		case ch == '(' || ch == ')' || ch == '\\':
			b = append(b, '\\', ch)
		default:
			b = append(b, ch)
		}
	}
	return b
}

// cleanID keeps what an atom with dots may hold.
func cleanID(id string) string {
	ok := func(ch byte) bool {
		return ch >= 'a' && ch <= 'z' || ch >= 'A' && ch <= 'Z' || ch >= '0' && ch <= '9' || ch == '-' || ch == '_' || ch == '.'
	}
	clean := true
	for i := 0; i < len(id); i++ {
		clean = clean && ok(id[i])
	}
	if clean && len(id) <= 70 {
		return id
	}
	b := make([]byte, 0, 70)
	for i := 0; i < len(id) && len(b) < 70; i++ {
		if ok(id[i]) {
			b = append(b, id[i])
		}
	}
	return string(b)
}

func addressLiteral(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return ""
	case a.Is4():
		return "[" + a.String() + "]"
	}
	return "[IPv6:" + a.WithZone("").String() + "]"
}
