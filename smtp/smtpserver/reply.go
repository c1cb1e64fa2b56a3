package smtpserver

import (
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/smtp"
)

// maxReplyLine is RFC 5321 §4.5.3.1.5: code, CRLF and all.
const maxReplyLine = 512

// reply queues one reply of the server's own. text may have several lines,
// separated by \n; enhanced is "" where there is none.
func (c *Conn) reply(code int, enhanced, text string) {
	c.send(appendReply(c.w.AvailableBuffer(), code, enhanced, text, false), code)
}

// bad is reply for a command that the peer should not have sent.
func (c *Conn) bad(code int, enhanced, text string) {
	c.errors++
	c.reply(code, enhanced, text)
}

// withClass makes the class of the enhanced code that of the code (RFC 2034
// §4), and supplies a missing one.
func withClass(r smtp.Reply) smtp.Reply {
	r.Enhanced[0] = uint16(r.Code / 100)
	return r
}

// write queues a reply that a session chose.
func (c *Conn) write(r smtp.Reply) {
	r = withClass(r)
	c.send(appendReply(c.w.AvailableBuffer(), r.Code, r.Enhanced.String(), r.Text, c.tx.utf8 || c.replyUTF8), r.Code)
}

func (c *Conn) send(wire []byte, code int) {
	if t := c.srv.Trace; t != nil && t.Reply != nil && code != 334 {
		t.Reply(c, wire)
	}
	if code >= 400 && c.lim.errorDelay > 0 && c.errors > freeErrors {
		c.flush()
		wire = append([]byte(nil), wire...)
		c.Hold(c.ctx, c.lim.errorDelay)
	}
	c.w.Write(wire)
	if code == 421 {
		c.closing = true
	}
}

// freeErrors is how many commands may be wrong before ErrorDelay counts.
const freeErrors = 2

// Hold waits for d, for a session that wants to slow a peer down, or until
// ctx is done or the server stops, and says so.
func (c *Conn) Hold(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.base.Drain:
		return ErrServerClosed
	}
}

// appendReply appends a reply in wire form. Every line has the enhanced code
// (RFC 2034 §4) and at most 512 octets, and nothing in text can end a line
// early. Text beyond ASCII is for those who asked for it (RFC 6531 §3.7.4.2).
func appendReply(b []byte, code int, enhanced, text string, utf8 bool) []byte {
	for {
		start := len(b)
		b = strconv.AppendInt(b, int64(code), 10)
		sep := len(b)
		b = append(b, ' ')
		if enhanced != "" {
			b = append(b, enhanced...)
			b = append(b, ' ')
		}
		i := 0
		for i < len(text) && text[i] != '\n' && len(b)-start < maxReplyLine-2 {
			ch := text[i]
			if ch < ' ' && ch != '\t' || ch == 0x7f || ch >= 0x80 && !utf8 {
				if i++; ch == '\r' && i < len(text) && text[i] == '\n' {
					continue
				}
				ch = '?'
				i--
			}
			b = append(b, ch)
			i++
		}
		text = text[i:]
		if len(text) > 0 && text[0] == '\n' {
			text = text[1:]
		}
		if text == "" {
			if b[len(b)-1] == ' ' && len(b)-1 > sep {
				b = b[:len(b)-1] // no text after the enhanced code
			}
			return append(b, '\r', '\n')
		}
		b[sep] = '-'
		b = append(b, '\r', '\n')
	}
}

// replyFor turns an error of a session into a reply. Besides smtp.ReplyFor's
// mapping this is the one table of what other packages' sentinels mean here.
func (c *Conn) replyFor(err error) smtp.Reply {
	var e *smtp.Error
	switch {
	case errors.As(err, &e):
		if e.Err != nil {
			c.log().Info("smtp: refused", "reply", e.Reply().String(), "err", e.Err)
		}
	case errors.Is(err, login.ErrCredentials):
		return smtp.Reply{Code: 535, Enhanced: smtp.EnhancedCode{5, 7, 8}, Text: "Authentication credentials invalid"}
	case errors.Is(err, login.ErrMechanism):
		return smtp.Reply{Code: 504, Enhanced: smtp.EnhancedCode{5, 5, 4}, Text: "Authentication mechanism not offered"}
	case errors.Is(err, login.ErrMalformed):
		return smtp.Reply{Code: 501, Enhanced: smtp.EnhancedCode{5, 5, 2}, Text: "Malformed authentication response"}
	case errors.Is(err, login.ErrTooMany):
		return smtp.Reply{Code: 454, Enhanced: smtp.EnhancedCode{4, 7, 0}, Text: "Too many failed logins, try again later"}
	case c.ctx.Err() == nil && !errors.Is(err, io.ErrUnexpectedEOF):
		// What the peer is not told must be in the log, and a context error
		// is not ours while the connection's context lives.
		c.log().Error("smtp: session failed", "err", err)
		return smtp.ReplyFor(errInternal)
	}
	return smtp.ReplyFor(err)
}

var errInternal = errors.New("internal")
