package smtpserver

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/smtp"
)

// extension is a bit for each extension that has parameters or commands.
type extension uint16

const (
	extSize extension = 1 << iota
	ext8Bit
	extUTF8
	extDSN
	extSTARTTLS
	extChunking
	extBinary
	extRequireTLS
	extDeliverBy
	extFutureRelease
	extPriority
	extRRVS
	extSolicit
)

// extensions are what was announced.
type extensions struct {
	set  extension
	auth []string // mechanisms
	// minBy is the shortest time of DELIVERBY in seconds, and hold the
	// longest of FUTURERELEASE.
	minBy, hold time.Duration
}

func (e *extensions) has(x extension) bool { return e.set&x != 0 }

func keywordBit(keyword string) extension {
	switch keyword {
	case smtp.ExtSize:
		return extSize
	case smtp.Ext8BitMIME:
		return ext8Bit
	case smtp.ExtSMTPUTF8:
		return extUTF8
	case smtp.ExtDSN:
		return extDSN
	case smtp.ExtSTARTTLS:
		return extSTARTTLS
	case smtp.ExtChunking:
		return extChunking
	case smtp.ExtBinaryMIME:
		return extBinary
	case smtp.ExtRequireTLS:
		return extRequireTLS
	case smtp.ExtDeliverBy:
		return extDeliverBy
	case smtp.ExtFutureRelease:
		return extFutureRelease
	case smtp.ExtMTPriority:
		return extPriority
	case smtp.ExtRRVS:
		return extRRVS
	case smtp.ExtNoSoliciting:
		return extSolicit
	}
	return 0
}

// DefaultExtensions returns what Server.Extensions stands for when it is nil.
func DefaultExtensions() []string {
	return []string{
		smtp.ExtPipelining, smtp.ExtSize, smtp.Ext8BitMIME, smtp.ExtSMTPUTF8,
		smtp.ExtEnhancedStatusCodes, smtp.ExtDSN, smtp.ExtChunking, smtp.ExtLimits,
	}
}

// maxHold is the default of FUTURERELEASE's parameter.
const maxHold = 30 * 24 * time.Hour

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
	var b strings.Builder
	b.WriteString(c.srv.name)
	for _, line := range c.offer() {
		keyword, params, _ := strings.Cut(line, " ")
		c.ext.set |= keywordBit(keyword)
		switch keyword {
		case smtp.ExtSize:
			if c.lim.messageBytes > 0 {
				params = strconv.FormatInt(c.lim.messageBytes, 10)
			}
		case smtp.ExtAuth:
			c.ext.auth = c.mechanisms()
			params = strings.Join(c.ext.auth, " ")
		case smtp.ExtLimits:
			params = smtp.Limits{MailMax: c.lim.messages, RcptMax: c.lim.recipients}.String()
		case smtp.ExtDeliverBy:
			n, _ := strconv.ParseUint(params, 10, 30)
			c.ext.minBy = time.Duration(n) * time.Second
		case smtp.ExtFutureRelease:
			c.ext.hold = maxHold
			if d, err := smtp.ParseHoldFor(params); err == nil {
				c.ext.hold = d
			}
			params = smtp.FormatFutureRelease(c.ext.hold, time.Now().Add(c.ext.hold))
		case smtp.ExtXCLIENT:
			params = xclientNames[1:]
		case smtp.ExtXFORWARD:
			params = xforwardNames[1:]
		}
		b.WriteByte('\n')
		b.WriteString(keyword)
		if params != "" {
			b.WriteByte(' ')
			b.WriteString(params)
		}
	}
	c.reply(250, "", b.String())
}

// offer returns the extensions to announce now, each a keyword with the
// parameters that Server.Extensions gave it.
func (c *Conn) offer() []string {
	all := c.srv.Extensions
	if all == nil {
		all = DefaultExtensions()
	}
	chunking := slices.ContainsFunc(all, func(s string) bool { return keywordOf(s) == smtp.ExtChunking })
	offered := make([]string, 0, len(all)+8)
	for _, line := range all {
		// What stands here for another setting, or makes no sense here, is
		// not announced.
		switch keywordOf(line) {
		case smtp.ExtSTARTTLS, smtp.ExtAuth, smtp.ExtXCLIENT, smtp.ExtXFORWARD, smtp.ExtETRN, smtp.ExtVRFY, smtp.ExtEXPN, smtp.ExtHELP:
			continue
		case smtp.ExtRequireTLS: // RFC 8689 §2: under TLS only
			if c.tls == nil {
				continue
			}
		case smtp.ExtFutureRelease: // RFC 4865 §4.2: for submission only
			if !c.srv.RequireAuth {
				continue
			}
		case smtp.ExtBinaryMIME: // RFC 3030 §3
			if !chunking {
				continue
			}
		case smtp.ExtLimits:
			if c.lim.recipients <= 0 && c.lim.messages <= 0 {
				continue
			}
		}
		offered = append(offered, line)
	}
	if c.srv.TLS != nil && c.tls == nil {
		offered = append(offered, smtp.ExtSTARTTLS)
	}
	if !c.loggedIn && len(c.mechanisms()) > 0 {
		offered = append(offered, smtp.ExtAuth)
	}
	if _, ok := As[VerifySession](c.session); ok {
		offered = append(offered, smtp.ExtVRFY)
	}
	if _, ok := As[ExpandSession](c.session); ok {
		offered = append(offered, smtp.ExtEXPN)
	}
	if _, ok := As[HelpSession](c.session); ok {
		offered = append(offered, smtp.ExtHELP)
	}
	if _, ok := As[TurnSession](c.session); ok {
		offered = append(offered, smtp.ExtETRN)
	}
	if c.trusted() {
		offered = append(offered, smtp.ExtXCLIENT, smtp.ExtXFORWARD)
	}
	// Each session of a chain of wrappers may decline.
	for s := c.session; s != nil; {
		es, ok := As[ExtensionSession](s)
		if !ok {
			break
		}
		keywords := make([]string, len(offered))
		for i, line := range offered {
			keywords[i] = keywordOf(line)
		}
		keep := es.Extensions(keywords)
		offered = slices.DeleteFunc(offered, func(k string) bool { return !slices.Contains(keep, keywordOf(k)) })
		u, ok := Session(es).(interface{ Unwrap() Session })
		if !ok {
			break
		}
		s = u.Unwrap()
	}
	if !slices.Contains(offered, smtp.ExtChunking) {
		offered = slices.DeleteFunc(offered, func(k string) bool { return k == smtp.ExtBinaryMIME })
	}
	return offered
}

func keywordOf(line string) string {
	keyword, _, _ := strings.Cut(line, " ")
	return keyword
}

func printable(b []byte) bool {
	for _, ch := range b {
		if ch <= ' ' || ch == 0x7f {
			return false
		}
	}
	return true
}
