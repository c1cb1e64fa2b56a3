package smtpserver

import (
	"slices"
	"strconv"
	"strings"

	"github.com/postrider/postrider/smtp"
)

// extensions are those whose parameters a session may meet.
type extensions struct {
	size, eightBit, utf8, dsn, starttls bool
	auth                                []string // mechanisms
}

func (c *Conn) ehlo(arg []byte) {
	if c.srv.LMTP {
		c.bad(500, "5.5.1", "This is LMTP: say LHLO")
		return
	}
	c.greeted(arg, true)
}

func (c *Conn) lhlo(arg []byte) {
	if !c.srv.LMTP {
		c.bad(500, "5.5.1", "This is not LMTP: say EHLO")
		return
	}
	c.greeted(arg, true)
}

func (c *Conn) helo(arg []byte) {
	if c.srv.LMTP {
		c.bad(500, "5.5.1", "This is LMTP: say LHLO")
		return
	}
	c.greeted(arg, false)
}

// greeted does EHLO, LHLO and HELO (RFC 5321 §4.1.1.1). A name that is no
// domain is not refused: many honest clients do not know theirs.
func (c *Conn) greeted(arg []byte, extended bool) {
	if len(arg) == 0 || len(arg) > 255 || !printable(arg) {
		c.bad(501, "5.5.4", "Say your name: one word of at most 255 characters")
		return
	}
	c.resetTransaction()
	c.state = stateReady
	c.hello, c.extended, c.ext = string(arg), extended, extensions{}
	if !extended {
		c.reply(250, "", c.srv.name)
		return
	}
	keep := c.offer()
	var b strings.Builder
	b.WriteString(c.srv.name)
	for _, keyword := range keep {
		b.WriteByte('\n')
		b.WriteString(keyword)
		switch keyword {
		case smtp.ExtSize:
			c.ext.size = true
			if c.lim.messageBytes > 0 {
				b.WriteByte(' ')
				b.WriteString(strconv.FormatInt(c.lim.messageBytes, 10))
			}
		case smtp.Ext8BitMIME:
			c.ext.eightBit = true
		case smtp.ExtSMTPUTF8:
			c.ext.utf8 = true
		case smtp.ExtDSN:
			c.ext.dsn = true
		case smtp.ExtSTARTTLS:
			c.ext.starttls = true
		case smtp.ExtAuth:
			c.ext.auth = c.mechanisms()
			for _, m := range c.ext.auth {
				b.WriteByte(' ')
				b.WriteString(m)
			}
		}
	}
	c.reply(250, "", b.String())
}

// offer returns the keywords of the extensions to announce now.
func (c *Conn) offer() []string {
	offered := []string{
		smtp.ExtPipelining, smtp.ExtSize, smtp.Ext8BitMIME, smtp.ExtSMTPUTF8,
		smtp.ExtEnhancedStatusCodes, smtp.ExtDSN,
	}
	if c.srv.TLS != nil && c.tls == nil {
		offered = append(offered, smtp.ExtSTARTTLS)
	}
	if !c.loggedIn && len(c.mechanisms()) > 0 {
		offered = append(offered, smtp.ExtAuth)
	}
	es, ok := c.session.(ExtensionSession)
	if !ok {
		return offered
	}
	keep := es.Extensions(slices.Clone(offered))
	return slices.DeleteFunc(offered, func(k string) bool { return !slices.Contains(keep, k) })
}

func printable(b []byte) bool {
	for _, ch := range b {
		if ch <= ' ' || ch == 0x7f {
			return false
		}
	}
	return true
}
