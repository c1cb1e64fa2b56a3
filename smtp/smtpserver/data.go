package smtpserver

import (
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/postrider/postrider/internal/lineio"
	"github.com/postrider/postrider/smtp"
)

var (
	errTooBig = &smtp.Error{
		Code: 552, Enhanced: smtp.EnhancedCode{5, 3, 4}, Scope: smtp.ScopeMessage,
		Text: "Message exceeds the maximum size",
	}
	errDataReturned = errors.New("smtpserver: message read after Data has returned")
)

// skipBytes bounds what is read away of a message that was refused before
// its end, when MaxMessageBytes does not.
const skipBytes = 64 << 20

// data does DATA (RFC 5321 §4.1.1.4).
func (c *Conn) data(arg []byte) {
	if c.state == stateMail {
		if c.srv.LMTP { // RFC 2033 §4.2 leaves no choice
			c.bad(503, "5.5.1", "No valid recipients")
		} else {
			c.bad(554, "5.5.1", "No valid recipients")
		}
		return
	}
	c.reply(354, "", "End data with <CR><LF>.<CR><LF>")
	c.flush()
	c.dot.Reset(c.r, c.lim.textLine)
	m := &message{c: c}
	c.inData = true
	var reply smtp.Reply
	var results []smtp.Result
	each, perRcpt := c.session.(LMTPSession)
	if perRcpt = perRcpt && c.srv.LMTP; perRcpt {
		results = each.DataLMTP(c.ctx, m)
	} else {
		var err error
		// A failure that the reader gave the session is answered for it.
		if reply, err = c.session.Data(c.ctx, m); err != nil && m.lost == nil && m.refused == nil {
			reply = c.replyFor(err)
		}
	}
	m.c = nil // the session may have kept it
	whole := c.finish(m)
	c.inData = false
	if !whole {
		return
	}
	switch {
	case m.refused != nil:
		reply = m.refused.Reply()
		c.answerAll(reply)
	case perRcpt:
		reply = c.answerEach(results)
	default:
		reply = orAccepted(reply)
		c.answerAll(reply)
	}
	// The reply is worth most at once: the peer repeats what it is not told.
	c.flush()
	if reply.Code < 300 {
		c.commands, c.errors = 0, 0
	}
	if log := c.srv.log(); log.Enabled(c.ctx, slog.LevelInfo) {
		c.logMessage(log, m, reply)
	}
	c.resetTransaction()
}

// finish brings the connection behind the end of the message. It returns
// false when that cannot be had and the connection ends.
func (c *Conn) finish(m *message) bool {
	if m.lost == nil && !m.ended {
		limit := c.lim.messageBytes
		if limit <= 0 {
			limit = skipBytes
		}
		n, err := c.dot.Skip(limit)
		m.size += n
		switch {
		case errors.Is(err, lineio.ErrTooLong):
			// It goes on and on: answer for good and hang up.
			c.closing, c.cutShort = true, true
			m.refused = errTooBig
		case err != nil:
			m.lost = err
		case m.refused != nil:
		case c.dot.Bad != nil:
			m.refused = malformed(c.dot.Bad)
		case c.lim.messageBytes > 0 && m.size > c.lim.messageBytes:
			m.refused = errTooBig
		}
	}
	if m.lost == nil {
		return true
	}
	c.closing = true
	if isTimeout(m.lost) {
		c.timeoutReply()
	}
	c.log().Info("smtp: message cut", "from", c.tx.from.String(), "size", m.size, "err", m.lost)
	return false
}

// answerAll writes the reply to a message, in LMTP for each recipient.
func (c *Conn) answerAll(reply smtp.Reply) {
	n := 1
	if c.srv.LMTP {
		n = c.tx.rcpts
	}
	for range n {
		c.write(reply)
	}
}

// answerEach writes the replies of an LMTPSession and returns the best of
// them (RFC 2033 §4.2).
func (c *Conn) answerEach(results []smtp.Result) (best smtp.Reply) {
	if len(results) != c.tx.rcpts {
		c.log().Error("smtp: DataLMTP gave a wrong number of results", "want", c.tx.rcpts, "got", len(results))
	}
	for i := range c.tx.rcpts {
		r := smtp.ReplyFor(errInternal)
		if i < len(results) {
			if results[i].Err != nil {
				r = c.replyFor(results[i].Err)
			} else {
				r = orAccepted(results[i].Reply)
			}
		}
		if i == 0 || r.Code < best.Code {
			best = r
		}
		c.write(r)
	}
	return best
}

func (c *Conn) logMessage(log *slog.Logger, m *message, reply smtp.Reply) {
	text := "smtp: message accepted"
	if reply.Code >= 300 {
		text = "smtp: message refused"
	}
	log.LogAttrs(c.ctx, slog.LevelInfo, text,
		slog.String("remote", c.remoteName()),
		slog.String("hello", c.hello),
		slog.String("protocol", c.Protocol()),
		slog.String("user", c.identity.User),
		slog.String("from", c.tx.from.String()),
		slog.Int("recipients", c.tx.rcpts),
		slog.Int64("size", m.size),
		slog.String("reply", withClass(reply).String()),
		slog.Duration("took", time.Since(c.tx.began)))
}

// orAccepted fills in what a session left out of its reply to a message. A
// reply that refuses is let through without an error beside it: to say 250
// then could lose a message.
func orAccepted(r smtp.Reply) smtp.Reply {
	if r.Code < 200 || r.Code > 599 || r.Code/100 == 3 {
		r.Code = 250
	}
	if r.Text == "" {
		r.Text = "OK"
	}
	return r
}

func malformed(bad error) *smtp.Error {
	text := "Message has a line that is too long"
	switch {
	case errors.Is(bad, lineio.ErrBareCR):
		text = "Message has a CR without LF"
	case errors.Is(bad, lineio.ErrBareLF):
		text = "Message has an LF without CR"
	case errors.Is(bad, lineio.ErrNUL):
		text = "Message has a NUL"
	}
	return &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 6, 0}, Scope: smtp.ScopeMessage, Text: text}
}

// message is what a session reads from. It ends with io.EOF only when the
// whole message was there and nothing is wrong with it.
type message struct {
	c       *Conn // nil once Data has returned
	size    int64 // octets given out
	ended   bool  // the end was reached
	lost    error // the connection ended before it
	refused *smtp.Error
}

// Read implements io.Reader.
func (m *message) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := m.next(len(p))
	if err != nil {
		return 0, err
	}
	n := copy(p, b)
	// Fill p as far as that is possible without waiting.
	for n < len(p) && m.c.r.Buffered() > 0 {
		if b, err = m.next(len(p) - n); err != nil {
			break // kept in m for the next call
		}
		n += copy(p[n:], b)
	}
	return n, nil
}

// WriteTo implements io.WriterTo, so that io.Copy needs no buffer.
func (m *message) WriteTo(w io.Writer) (n int64, err error) {
	for {
		b, err := m.next(0)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		k, err := w.Write(b)
		n += int64(k)
		if err != nil {
			return n, err
		}
	}
}

func (m *message) next(limit int) ([]byte, error) {
	switch {
	case m.c == nil:
		return nil, errDataReturned
	case m.refused != nil:
		return nil, m.refused
	case m.lost != nil:
		return nil, m.lost
	case m.ended:
		return nil, io.EOF
	}
	b, err := m.c.dot.Next(limit)
	switch {
	case errors.Is(err, io.EOF):
		m.ended = true
		return nil, io.EOF
	case err != nil:
		m.lost = err
		return nil, err
	case m.c.dot.Bad != nil:
		m.refused = malformed(m.c.dot.Bad)
		return nil, m.refused
	}
	m.size += int64(len(b))
	if maxBytes := m.c.lim.messageBytes; maxBytes > 0 && m.size > maxBytes {
		m.refused = errTooBig
		return nil, m.refused
	}
	return b, nil
}
