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

// plan decides what can be sent of env: the MAIL command, the recipients to
// name, and whether SMTPUTF8 is used. Everyone else's result is set. An extension that the message needs
// and the peer lacks is an error, never a silent change.
func (c *Conn) plan(env *smtp.Envelope, body Body, results []smtp.Result) (mail string, todo []int, wide bool) {
	todo = make([]int, 0, len(env.To))
	all := func(err error) (string, []int, bool) {
		for i := range results {
			if results[i].Err == nil {
				results[i] = smtp.Result{Err: err, Hop: c.hop}
			}
		}
		return "", nil, false
	}
	if !env.From.Valid() {
		return all(&smtp.Error{Code: 501, Enhanced: smtp.EnhancedCode{5, 1, 7}, Text: "Malformed sender address", Scope: smtp.ScopeMessage})
	}
	wide = env.UTF8 || !env.From.ASCII()
	for i := range env.To {
		if a := env.To[i].Address; a.IsZero() || !a.Valid() {
			results[i] = smtp.Result{Hop: c.hop, Err: &smtp.Error{Code: 501, Enhanced: smtp.EnhancedCode{5, 1, 3}, Text: "Malformed recipient address"}}
			continue
		}
		wide = wide || !env.To[i].ASCII()
		todo = append(todo, i)
	}
	if len(todo) == 0 {
		return "", nil, false
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
				return "", nil, false
			}
			wide = false
		}
	}

	if err := c.bodyParam(env, body, &b); err != nil {
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
	if c.hop.DeliverBy && !env.DeliverBy.IsZero() {
		b.WriteString(" BY=")
		b.WriteString(strconv.FormatInt(int64(min(max(time.Until(env.DeliverBy)/time.Second, -999999999), 999999999)), 10))
		b.WriteString(";N")
	}
	if b.Len() > maxLine-2 {
		return all(&smtp.Error{Code: 501, Enhanced: smtp.EnhancedCode{5, 5, 4}, Text: "Envelope parameters are too long", Scope: smtp.ScopeMessage})
	}
	return b.String(), todo, wide
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

// bodyParam writes the BODY parameter (RFC 6152). What the envelope does not
// say is read from the message; a large one for a peer that takes both is
// called 8BITMIME, which a 7-bit message may be.
func (c *Conn) bodyParam(env *smtp.Envelope, body Body, b *strings.Builder) error {
	_, ok := c.ext[smtp.Ext8BitMIME]
	eight := env.Body == smtp.Body8Bit
	switch {
	case env.Body == smtp.BodyBinary:
		return &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 6, 3}, Text: "Binary content cannot be sent to this host", Scope: smtp.ScopeMessage, Err: ErrExtension}
	case eight:
	case ok && body.Size() > scanNow:
		eight = true
	default:
		var err error
		if eight, err = has8Bit(body); err != nil {
			return bodyError(err)
		}
	}
	if !eight {
		return nil
	}
	if !ok {
		return &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 6, 3}, Text: "Host does not support 8-bit content (8BITMIME)", Scope: smtp.ScopeMessage, Err: ErrExtension}
	}
	b.WriteString(" BODY=8BITMIME")
	return nil
}

// appendRcpt appends a RCPT command without its CRLF.
func (c *Conn) appendRcpt(b []byte, r *smtp.Recipient, wide bool) []byte {
	b = append(b, "RCPT TO:"...)
	b = append(b, r.Path()...)
	if !c.hop.DSN {
		return b
	}
	if r.Notify != 0 {
		b = append(b, " NOTIFY="...)
		if r.Notify&smtp.NotifyNever != 0 {
			b = append(b, "NEVER"...)
		} else {
			sep := ""
			for _, n := range [...]struct {
				bit  smtp.Notify
				name string
			}{{smtp.NotifySuccess, "SUCCESS"}, {smtp.NotifyFailure, "FAILURE"}, {smtp.NotifyDelay, "DELAY"}} {
				if r.Notify&n.bit != 0 {
					b = append(append(b, sep...), n.name...)
					sep = ","
				}
			}
		}
	}
	// RFC 3461 §4.2: at most 500 octets; a longer one is of no use to anybody.
	if o := r.OriginalRecipient(wide); o != "" && len(o) <= 500 && validHello(o) {
		b = append(append(b, " ORCPT="...), o...)
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
