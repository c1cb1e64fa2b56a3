package smtpserver

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/smtp"
)

// mail does MAIL (RFC 5321 §4.1.1.2).
func (c *Conn) mail(arg []byte) {
	if c.srv.RequireAuth && !c.loggedIn {
		c.bad(530, "5.7.0", "Authentication required")
		return
	}
	path, ok := cutKeyword(arg, "FROM:")
	if !ok {
		c.bad(501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]")
		return
	}
	from, rest, err := smtp.ParsePath(path)
	// The bare <Postmaster> is for RCPT only (RFC 5321 §4.1.1.3).
	if err != nil || from.Domain == "" && !from.IsZero() || rest != "" && rest[0] != ' ' {
		c.bad(501, "5.1.7", "Malformed sender address")
		return
	}
	o, e := c.mailOptions(rest)
	if e == nil && !o.UTF8 && !isASCII(path[:len(path)-len(rest)]) {
		e = &smtp.Error{Code: 553, Enhanced: smtp.EnhancedCode{5, 6, 7}, Text: "Address needs SMTPUTF8"}
	}
	if e != nil {
		c.errors++
		c.write(e.Reply())
		return
	}
	if c.lim.messageBytes > 0 && o.Size > c.lim.messageBytes {
		c.write(errTooBig.Reply())
		return
	}
	if c.lim.messages > 0 && c.messages >= c.lim.messages {
		c.hangUp("Too many messages on this connection, open another")
		return
	}
	// RFC 6710 §4.1: no stranger may raise a priority.
	lowered := o.Priority > 0 && !c.loggedIn && !c.trusted()
	if lowered {
		o.Priority = 0
	}
	if err := c.session.Mail(c.ctx, from, o); err != nil {
		c.write(c.replyFor(err))
		return
	}
	c.messages++
	c.tx = transaction{open: true, from: from, utf8: o.UTF8, body: o.Body, priority: o.Priority, began: time.Now()}
	c.state = stateMail
	if lowered {
		c.reply(250, "2.3.6", "0 is the priority without a login")
		return
	}
	c.reply(250, "2.1.0", "Sender OK")
}

// rcpt does RCPT (RFC 5321 §4.1.1.3).
func (c *Conn) rcpt(arg []byte) {
	path, ok := cutKeyword(arg, "TO:")
	if !ok {
		c.bad(501, "5.5.4", "Syntax: RCPT TO:<address> [parameters]")
		return
	}
	to, rest, err := smtp.ParsePath(path)
	if err != nil || to.IsZero() || rest != "" && rest[0] != ' ' {
		c.bad(501, "5.1.3", "Malformed recipient address")
		return
	}
	o, e := c.rcptOptions(rest)
	if e == nil && !c.tx.utf8 && !isASCII(path[:len(path)-len(rest)]) {
		e = &smtp.Error{Code: 553, Enhanced: smtp.EnhancedCode{5, 6, 7}, Text: "Address needs SMTPUTF8"}
	}
	if e != nil {
		c.errors++
		c.write(e.Reply())
		return
	}
	if c.lim.recipients > 0 && c.tx.rcpts >= c.lim.recipients {
		c.commands-- // the session is not asked, and the others' message is to come
		c.reply(452, "4.5.3", "Too many recipients")
		return
	}
	if err := c.session.Rcpt(c.ctx, to, o); err != nil {
		c.write(c.replyFor(err))
		return
	}
	c.commands-- // an accepted recipient is work, not noise
	c.tx.rcpts++
	c.state = stateRcpt
	c.reply(250, "2.1.5", "Recipient OK")
}

// cutKeyword removes "FROM:" or "TO:". A space behind the colon is against
// the grammar, but a good many devices send it and nothing hangs on it.
func cutKeyword(arg []byte, keyword string) (string, bool) {
	if len(arg) < len(keyword) || !strings.EqualFold(string(arg[:len(keyword)]), keyword) {
		return "", false
	}
	return strings.TrimLeft(string(arg[len(keyword):]), " "), true
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func unknownParameter() *smtp.Error {
	return &smtp.Error{Code: 555, Enhanced: smtp.EnhancedCode{5, 5, 4}, Text: "Parameter not recognized"}
}

func badParameter(keyword string) *smtp.Error {
	return &smtp.Error{Code: 501, Enhanced: smtp.EnhancedCode{5, 5, 4}, Text: "Malformed parameter " + keyword}
}

// nextParameter reads one esmtp-param of RFC 5321 §4.1.2. The keyword comes
// back in upper case; hasValue tells KEY= from KEY.
func nextParameter(s string) (keyword, value string, hasValue bool, rest string) {
	s = strings.TrimLeft(s, " ")
	s, rest, _ = strings.Cut(s, " ")
	keyword, value, hasValue = strings.Cut(s, "=")
	return strings.ToUpper(keyword), value, hasValue, rest
}

// mailOptions reads the parameters of MAIL: those of the extensions that
// were announced, each at most once.
func (c *Conn) mailOptions(s string) (o smtp.MailOptions, e *smtp.Error) {
	var seen extension
	var seenAuth bool
	for s = strings.TrimLeft(s, " "); s != ""; s = strings.TrimLeft(s, " ") {
		var key, val string
		var has bool
		key, val, has, s = nextParameter(s)
		bit := mailParameter(key)
		isAuth := key == "AUTH" && c.srv.Auth != nil && c.extended
		if !isAuth && !c.ext.has(bit) {
			return o, unknownParameter()
		}
		ok := has && val != "" && seen&bit == 0
		seen |= bit
		var err error
		switch key {
		case "SIZE":
			// 20 digits (RFC 1870 §3) are more than an int64 holds: then
			// ParseUint gives the largest, which is over any limit.
			n, err := strconv.ParseUint(val, 10, 63)
			ok = ok && len(val) <= 20 && (err == nil || errors.Is(err, strconv.ErrRange))
			o.Size = int64(n)
		case "BODY":
			o.Body = smtp.BodyType(strings.ToUpper(val))
			ok = ok && (o.Body == smtp.Body7Bit || o.Body == smtp.Body8Bit || o.Body == smtp.BodyBinary && c.ext.has(extBinary))
		case "SMTPUTF8":
			ok = !has && !o.UTF8
			o.UTF8 = true
		case "REQUIRETLS":
			ok = !has && !o.RequireTLS
			o.RequireTLS = true
		case "RET":
			ok = ok && o.Return == ""
			o.Return = smtp.DSNReturn(strings.ToUpper(val))
			ok = ok && (o.Return == smtp.ReturnFull || o.Return == smtp.ReturnHeaders)
			seen &^= extDSN // shared with ENVID
		case "ENVID":
			ok = has && val != "" && o.EnvelopeID == ""
			o.EnvelopeID, err = smtp.DecodeXText(val)
			ok = ok && err == nil && len(val) <= 100 && printableText(o.EnvelopeID)
			seen &^= extDSN
		case "BY":
			o.DeliverBy, o.ByReturn, o.ByTrace, err = smtp.ParseDeliverBy(val, time.Now())
			if ok = ok && err == nil; ok && o.ByReturn && time.Until(o.DeliverBy) < c.ext.minBy-time.Second {
				return o, &smtp.Error{Code: 555, Enhanced: smtp.EnhancedCode{5, 5, 4}, Text: "BY is below the minimum of DELIVERBY"}
			}
		case "HOLDFOR":
			d, err := smtp.ParseHoldFor(val)
			ok = ok && err == nil && d <= c.ext.hold
			o.HoldUntil, o.HoldRequest = time.Now().Add(d), "for;"+val
		case "HOLDUNTIL":
			o.HoldUntil, err = smtp.ParseHoldUntil(val)
			// The latest time was announced at EHLO; a second's truncation and
			// the time since must not count against the client.
			ok = ok && err == nil && time.Until(o.HoldUntil) <= c.ext.hold
			o.HoldRequest = "until;" + val
		case "MT-PRIORITY":
			o.Priority, err = smtp.ParsePriority(val)
			ok = ok && err == nil
		case "SOLICIT":
			o.Solicit, err = smtp.ParseSolicit(val)
			ok = ok && err == nil
		case "AUTH":
			who, err := smtp.DecodeXText(val)
			ok = has && val != "" && !seenAuth && err == nil && printableText(who)
			// Who is not logged in is not trusted (RFC 4954 §5).
			if !c.loggedIn {
				who = "<>"
			}
			o.Auth, seenAuth = who, true
		}
		if !ok {
			return o, badParameter(key)
		}
	}
	if !o.HoldUntil.IsZero() && !o.DeliverBy.IsZero() && o.HoldUntil.After(o.DeliverBy) { // RFC 4865 §5.2.2
		return o, badParameter("HOLD: it ends after BY")
	}
	return o, nil
}

// mailParameter returns the extension that a parameter of MAIL belongs to.
func mailParameter(key string) extension {
	switch key {
	case "SIZE":
		return extSize
	case "BODY":
		return ext8Bit
	case "SMTPUTF8":
		return extUTF8
	case "RET", "ENVID":
		return extDSN
	case "REQUIRETLS":
		return extRequireTLS
	case "BY":
		return extDeliverBy
	case "HOLDFOR", "HOLDUNTIL":
		return extFutureRelease
	case "MT-PRIORITY":
		return extPriority
	case "SOLICIT":
		return extSolicit
	}
	return 0
}

// rcptOptions reads the parameters of RCPT (RFC 3461 §4.1, §4.2, RFC 7293).
func (c *Conn) rcptOptions(s string) (o smtp.RcptOptions, e *smtp.Error) {
	for s = strings.TrimLeft(s, " "); s != ""; s = strings.TrimLeft(s, " ") {
		var key, val string
		var has bool
		key, val, has, s = nextParameter(s)
		ok := has && val != ""
		switch {
		case key == "NOTIFY" && c.ext.has(extDSN):
			n, err := smtp.ParseNotify(val)
			ok = ok && o.Notify == 0 && err == nil
			o.Notify = n
		case key == "ORCPT" && c.ext.has(extDSN):
			typ, addr, err := smtp.ParseOriginalRecipient(val)
			ok = ok && o.Original == "" && err == nil && len(val) <= 500 && (c.tx.utf8 || isASCII(val))
			o.OriginalType, o.Original = typ, addr
		case key == "RRVS" && c.ext.has(extRRVS):
			at, unchecked, err := smtp.ParseValidSince(val)
			ok = ok && o.ValidSince.IsZero() && err == nil
			o.ValidSince, o.RelayUnchecked = at, unchecked
		default:
			return o, unknownParameter()
		}
		if !ok {
			return o, badParameter(key)
		}
	}
	return o, nil
}

func printableText(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
