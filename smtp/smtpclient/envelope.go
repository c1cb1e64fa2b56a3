package smtpclient

import (
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/smtp"
)

// maxLine is the longest command line sent, CRLF included. It is beyond
// RFC 5321 §4.5.3.1.4 with every extension's allowance, and only stops
// nonsense.
const maxLine = 2048

// scanNow is how much of a message is read ahead to see whether it has 8-bit
// octets when the peer takes both kinds anyway.
const scanNow = 64 << 10

// plan is what can be sent of an envelope.
type plan struct {
	mail    string // the MAIL command
	todo    []int  // the recipients to name
	wide    bool   // under SMTPUTF8
	chunked bool   // BINARYMIME
}

// plan decides what can be sent of env. The result of everyone who is not in
// todo is set. An extension that the message needs and the peer lacks is an
// error, never a silent change.
func (c *Conn) plan(env *smtp.Envelope, body Body, results []smtp.Result) plan {
	todo := make([]int, 0, len(env.To))
	all := func(err error) plan {
		for i := range results {
			if results[i].Err == nil {
				results[i] = smtp.Result{Err: err, Hop: c.hop}
			}
		}
		return plan{}
	}
	if !env.From.Valid() {
		return all(&smtp.Error{Code: 501, Enhanced: smtp.EnhancedCode{5, 1, 7}, Text: "Malformed sender address", Scope: smtp.ScopeMessage})
	}
	wide := env.UTF8 || !env.From.ASCII()
	for i := range env.To {
		if a := env.To[i].Address; a.IsZero() || !a.Valid() {
			results[i] = smtp.Result{Hop: c.hop, Err: &smtp.Error{Code: 501, Enhanced: smtp.EnhancedCode{5, 1, 3}, Text: "Malformed recipient address"}}
			continue
		}
		if _, ok := c.ext[smtp.ExtRRVS]; !ok && !env.To[i].ValidSince.IsZero() && !env.To[i].RelayUnchecked {
			results[i] = smtp.Result{Hop: c.hop, Err: &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 19}, Err: ErrExtension,
				Text: "Host does not check whose the mailbox is (RRVS)"}}
			continue
		}
		wide = wide || !env.To[i].ASCII()
		todo = append(todo, i)
	}
	if len(todo) == 0 {
		return plan{}
	}

	var b strings.Builder
	b.WriteString("MAIL FROM:")
	b.WriteString(env.From.Path())
	size := body.Size()
	if params, ok := c.ext[smtp.ExtSize]; ok {
		if limit, err := strconv.ParseInt(params, 10, 64); err == nil && limit > 0 && size > limit {
			return all(&smtp.Error{Code: 552, Enhanced: smtp.EnhancedCode{5, 3, 4}, Scope: smtp.ScopeMessage, Err: ErrExtension,
				Text: "Message of " + strconv.FormatInt(size, 10) + " octets is over the host's limit of " + params})
		}
		b.WriteString(" SIZE=")
		b.WriteString(strconv.FormatInt(size, 10))
	}

	if wide {
		if _, ok := c.ext[smtp.ExtSMTPUTF8]; ok {
			b.WriteString(" SMTPUTF8")
		} else {
			var err error
			if todo, err = c.narrow(env, body, todo, results); err != nil {
				return all(err)
			}
			if len(todo) == 0 {
				return plan{}
			}
			wide = false
		}
	}

	chunked, err := c.bodyParam(env, body, &b)
	if err != nil {
		return all(err)
	}
	if env.RequireTLS {
		_, ok := c.ext[smtp.ExtRequireTLS]
		switch {
		case ok && c.proven == Verified:
			b.WriteString(" REQUIRETLS")
		case env.From.IsZero():
			// A bounce goes on without (RFC 8689 §4.2.1).
		case c.proven != Verified:
			return all(&smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 10}, Text: "Encryption needed", Scope: smtp.ScopeHost, Err: ErrTLSRequired})
		default:
			return all(&smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 30}, Text: "REQUIRETLS support required", Scope: smtp.ScopeHost, Err: ErrExtension})
		}
	}
	if env.Auth != "" && c.authed {
		b.WriteString(" AUTH=")
		b.WriteString(smtp.EncodeXText(env.Auth))
	}
	if c.hop.DSN {
		if env.Return == smtp.ReturnFull || env.Return == smtp.ReturnHeaders {
			b.WriteString(" RET=")
			b.WriteString(string(env.Return))
		}
		if env.EnvelopeID != "" {
			b.WriteString(" ENVID=")
			b.WriteString(smtp.EncodeXText(env.EnvelopeID))
		}
	}
	if err := c.timeParams(env, &b); err != nil {
		return all(err)
	}
	// These two ask for a kindness, and are left out where it is not offered.
	if _, ok := c.ext[smtp.ExtMTPriority]; ok && env.Priority != 0 {
		b.WriteString(" MT-PRIORITY=")
		b.WriteString(strconv.Itoa(int(env.Priority)))
	}
	if _, ok := c.ext[smtp.ExtNoSoliciting]; ok && env.Solicit != "" {
		if _, err := smtp.ParseSolicit(env.Solicit); err != nil {
			return all(&smtp.Error{Code: 501, Enhanced: smtp.EnhancedCode{5, 5, 4}, Text: "Malformed SOLICIT", Scope: smtp.ScopeMessage})
		}
		b.WriteString(" SOLICIT=")
		b.WriteString(env.Solicit)
	}
	if b.Len() > maxLine-2 {
		return all(&smtp.Error{Code: 501, Enhanced: smtp.EnhancedCode{5, 5, 4}, Text: "Envelope parameters are too long", Scope: smtp.ScopeMessage})
	}
	return plan{b.String(), todo, wide, chunked}
}

// timeParams writes DELIVERBY's and FUTURERELEASE's parameters.
func (c *Conn) timeParams(env *smtp.Envelope, b *strings.Builder) error {
	now := time.Now()
	missing := func(text string) error {
		return &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 3, 3}, Text: text, Scope: smtp.ScopeHost, Err: ErrExtension}
	}
	// Mode N goes on without the extension: who is told then is whoever sees
	// Hop.DeliverBy unset (RFC 2852 §4.1.4.2).
	if !env.DeliverBy.IsZero() && (c.hop.DeliverBy || env.ByReturn) {
		left := env.DeliverBy.Sub(now)
		least, _ := strconv.ParseInt(c.ext[smtp.ExtDeliverBy], 10, 64)
		switch {
		case !env.ByReturn:
		case left < time.Second:
			return &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 4, 7}, Text: "Delivery time expired", Scope: smtp.ScopeMessage}
		case !c.hop.DeliverBy:
			return missing("Host does not support delivery by a time (DELIVERBY)")
		case least > 0 && int64(left/time.Second) < least:
			return missing("Host needs more time for a delivery than is left (DELIVERBY)")
		}
		b.WriteString(" BY=")
		b.WriteString(env.DeliverByValue(now))
	}
	if env.HoldUntil.After(now) {
		params, ok := c.ext[smtp.ExtFutureRelease]
		if !ok {
			return missing("Host does not hold messages (FUTURERELEASE)")
		}
		if longest, latest, err := smtp.ParseFutureRelease(params); err == nil && (env.HoldUntil.Sub(now) > longest || env.HoldUntil.After(latest)) {
			return missing("Host does not hold messages for so long (FUTURERELEASE)")
		}
		b.WriteString(" HOLDUNTIL=")
		b.WriteString(env.HoldUntilValue())
	}
	return nil
}

// narrow is plan for an internationalised message and a peer without
// SMTPUTF8: recipients with ASCII addresses get it if its header and sender
// are ASCII (RFC 6531 §3.2); the header is not rewritten.
func (c *Conn) narrow(env *smtp.Envelope, body Body, todo []int, results []smtp.Result) ([]int, error) {
	const text = "Host does not support internationalized mail (SMTPUTF8)"
	if !env.From.ASCII() {
		return nil, &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 6, 7}, Text: text, Scope: smtp.ScopeMessage, Err: ErrExtension}
	}
	ascii, err := headerASCII(body)
	if err != nil {
		return nil, bodyError(err)
	}
	if !ascii {
		return nil, &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 6, 7}, Text: text, Scope: smtp.ScopeMessage, Err: ErrExtension}
	}
	keep := todo[:0]
	for _, i := range todo {
		if env.To[i].ASCII() {
			keep = append(keep, i)
			continue
		}
		results[i] = smtp.Result{Hop: c.hop, Err: &smtp.Error{Code: 553, Enhanced: smtp.EnhancedCode{5, 6, 7}, Text: text, Err: ErrExtension}}
	}
	return keep, nil
}

// bodyParam writes the BODY parameter (RFC 6152, RFC 3030). What the envelope
// does not say is read from the message; a large one for a peer that takes
// both is called 8BITMIME, which a 7-bit message may be. What was declared
// binary and is text all the same can go anywhere.
func (c *Conn) bodyParam(env *smtp.Envelope, body Body, b *strings.Builder) (chunked bool, err error) {
	_, ok := c.ext[smtp.Ext8BitMIME]
	eight := env.Body == smtp.Body8Bit
	if env.Body == smtp.BodyBinary {
		_, chunking := c.ext[smtp.ExtChunking]
		if _, binary := c.ext[smtp.ExtBinaryMIME]; binary && chunking {
			b.WriteString(" BODY=BINARYMIME")
			return true, nil
		}
		text, err := isText(body)
		switch {
		case err != nil:
			return false, bodyError(err)
		case !text:
			return false, &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 6, 3}, Text: "Binary content cannot be sent to this host", Scope: smtp.ScopeMessage, Err: ErrExtension}
		}
	}
	switch {
	case eight:
	case ok && body.Size() > scanNow:
		eight = true
	default:
		var err error
		if eight, err = has8Bit(body); err != nil {
			return false, bodyError(err)
		}
	}
	if !eight {
		return false, nil
	}
	if !ok {
		return false, &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 6, 3}, Text: "Host does not support 8-bit content (8BITMIME)", Scope: smtp.ScopeMessage, Err: ErrExtension}
	}
	b.WriteString(" BODY=8BITMIME")
	return false, nil
}

// appendRcpt appends a RCPT command without its CRLF.
func (c *Conn) appendRcpt(b []byte, r *smtp.Recipient, wide bool) []byte {
	b = append(b, "RCPT TO:"...)
	b = append(b, r.Path()...)
	if _, ok := c.ext[smtp.ExtRRVS]; ok && !r.ValidSince.IsZero() {
		b = append(append(b, " RRVS="...), r.ValidSinceValue()...)
	}
	if !c.hop.DSN {
		return b
	}
	if r.Notify != 0 {
		b = append(append(b, " NOTIFY="...), r.Notify.String()...)
	}
	// RFC 3461 §4.2: at most 500 octets. What is longer, or has a type that
	// nobody could read, is of no use to the host.
	if o := r.OriginalRecipient(wide); o != "" && len(o) <= 500 {
		if _, _, err := smtp.ParseOriginalRecipient(o); err == nil {
			b = append(append(b, " ORCPT="...), o...)
		}
	}
	return b
}

func bodyError(err error) *smtp.Error {
	return &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 3, 0}, Text: "Message cannot be read", Scope: smtp.ScopeMessage, Err: err}
}

// headerASCII reports whether the header of body, up to its empty line, is ASCII.
func headerASCII(body Body) (bool, error) {
	ascii := true
	bol := false
	err := scan(body, func(b []byte) bool {
		for _, c := range b {
			switch {
			case c >= 0x80:
				ascii = false
				return false
			case c == '\n':
				if bol {
					return false
				}
				bol = true
			case c != '\r':
				bol = false
			}
		}
		return true
	})
	return ascii, err
}

func has8Bit(body Body) (bool, error) {
	found := false
	err := scan(body, func(b []byte) bool {
		for _, c := range b {
			if c >= 0x80 {
				found = true
				return false
			}
		}
		return true
	})
	return found, err
}

// isText reports whether body is what DATA carries unchanged: lines of at most
// 998 octets that end with CRLF, without NUL, of which none says that binary
// content follows (RFC 2045 §2.7 to §2.9).
func isText(body Body) (bool, error) {
	const field = "content-transfer-encoding:"
	text, cr := true, false
	n := 0                      // octets of the line
	head := make([]byte, 0, 64) // of the line, in lower case
	err := scan(body, func(b []byte) bool {
		for _, c := range b {
			switch {
			case c == '\n':
				if value, ok := strings.CutPrefix(string(head), field); ok {
					value, _, _ = strings.Cut(value, "(")
					if value = strings.TrimSpace(value); value == "" || value == "binary" {
						text = false
					}
				}
				text = text && cr
				n, head = 0, head[:0]
			case cr || c == 0:
				text = false
			case c != '\r':
				if n++; n > 998 {
					text = false
				}
				if len(head) < cap(head) {
					if 'A' <= c && c <= 'Z' {
						c |= 0x20
					}
					head = append(head, c)
				}
			}
			if cr = c == '\r'; !text {
				return false
			}
		}
		return true
	})
	return text && n == 0 && !cr, err
}

// scan shows body to f, piece by piece, until f has seen enough.
func scan(body Body, f func([]byte) bool) error {
	buf := blocks.get()
	defer blocks.put(buf)
	size := body.Size()
	for off := int64(0); off < size; {
		n, err := readBlock(body, *buf, off, size)
		if err != nil {
			return err
		}
		if !f((*buf)[:n]) {
			return nil
		}
		off += int64(n)
	}
	return nil
}

// readBlock fills buf from off, as far as the body goes.
func readBlock(body Body, buf []byte, off, size int64) (int, error) {
	buf = buf[:min(int64(len(buf)), size-off)]
	n, err := body.ReadAt(buf, off)
	if n == len(buf) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // shorter than it said
	}
	return n, err
}
