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
	errHeaderTooBig = &smtp.Error{
		Code: 552, Enhanced: smtp.EnhancedCode{5, 3, 4}, Scope: smtp.ScopeMessage,
		Text: "Header of the message exceeds the maximum size",
	}
	errDataReturned = errors.New("smtpserver: message read after Data has returned")
)

// skipBytes bounds what is read away of a message that was refused before
// its end, when MaxMessageBytes does not.
const skipBytes = 64 << 20

// data does DATA (RFC 5321 §4.1.1.4).
func (c *Conn) data(arg []byte) {
	switch {
	case c.state == stateMail && c.srv.LMTP: // RFC 2033 §4.2 leaves no choice
		c.bad(503, "5.5.1", "No valid recipients")
		return
	case c.state == stateMail:
		c.bad(554, "5.5.1", "No valid recipients")
		return
	case c.tx.body == smtp.BodyBinary: // RFC 3030 §3
		c.bad(503, "5.5.1", "A message with BODY=BINARYMIME comes with BDAT")
		return
	}
	c.reply(354, "", "End data with <CR><LF>.<CR><LF>")
	c.flush()
	c.resize(dataBuffer)
	c.dot.Reset(c.r, c.lim.textLine)
	c.receive(&message{c: c})
}

// receive gives the message to the session and answers it.
func (c *Conn) receive(m *message) {
	c.inData, c.dataWait, c.dataBytes = true, 0, 0
	m.binary = c.tx.body == smtp.BodyBinary
	var reply smtp.Reply
	var results []smtp.Result
	refused := false
	each, perRcpt := c.session.(LMTPSession)
	if perRcpt = perRcpt && c.srv.LMTP; perRcpt {
		results = each.DataLMTP(c.ctx, m)
	} else {
		var err error
		// A failure that the reader gave the session is answered for it.
		if reply, err = c.session.Data(c.ctx, m); err != nil && m.lost == nil && m.refused == nil {
			reply = c.replyFor(err)
		}
		refused = err != nil || reply.Code >= 400
	}
	m.returned = true // the session may have kept it
	var whole bool
	if m.chunked {
		whole = c.finishChunks(m, refused)
	} else {
		whole = c.finish(m)
	}
	c.inData = false
	if !whole {
		if !m.takenBack() {
			c.closing = true
			c.log().Info("smtp: message cut", "from", c.tx.from.String(), "size", m.size, "err", m.lost)
		}
		if t := c.srv.Trace; t != nil && t.Message != nil {
			t.Message(c, MessageEvent{From: c.tx.from, Recipients: c.tx.rcpts, Size: m.size, Err: m.lost})
		}
		return
	}
	// In LMTP a chunk that is not the last has one reply, also when it ends
	// the message.
	one := m.chunked && !m.last
	switch {
	case m.refused != nil:
		reply = m.refused.Reply()
		c.answerAll(reply, one)
	case perRcpt:
		reply = c.answerEach(results)
	default:
		reply = orAccepted(reply)
		c.answerAll(reply, one)
	}
	// The reply is worth most at once: the peer repeats what it is not told.
	c.flush()
	if reply.Code < 300 {
		c.commands, c.errors = 0, 0
	}
	if log := c.srv.log(); log.Enabled(c.ctx, slog.LevelInfo) {
		c.logMessage(log, m, reply)
	}
	if t := c.srv.Trace; t != nil && t.Message != nil {
		t.Message(c, MessageEvent{From: c.tx.from, Recipients: c.tx.rcpts, Size: m.size, Reply: withClass(reply)})
	}
	c.forwarded = nil
	c.resetTransaction()
}

// finish brings the connection behind the end of a message that DATA began.
// It returns false when that cannot be had and the connection ends.
func (c *Conn) finish(m *message) bool {
	if m.lost == nil && !m.ended {
		limit := c.lim.messageBytes
		if limit <= 0 {
			limit = skipBytes
		}
		// As much again as is allowed, and what is here already costs nothing.
		// One octet less: without an end in it, nothing more is waited for.
		limit = max(2*limit-max(m.size, limit), int64(c.r.Buffered())-1)
		n, err := int64(0), error(lineio.ErrTooLong)
		if limit > 0 {
			n, err = c.dot.Skip(limit)
		}
		m.size += n
		switch {
		case errors.Is(err, lineio.ErrTooLong):
			// It goes on and on: answer for good and hang up.
			c.closing, c.cutShort = true, true
			m.refused = errTooBig
		case err != nil:
			m.lost = err
		case m.refused != nil:
		case m.forbidden(c.dot.Bad):
			m.refused = malformed(c.dot.Bad)
		case c.lim.messageBytes > 0 && m.size > c.lim.messageBytes:
			m.refused = errTooBig
		}
	}
	if m.lost != nil && isTimeout(m.lost) {
		c.timeoutReply()
	}
	return m.lost == nil
}

// answerAll writes the reply to a message, in LMTP for each recipient.
func (c *Conn) answerAll(reply smtp.Reply, one bool) {
	n := 1
	if c.srv.LMTP && !one {
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
	if r.Code >= 400 {
		return smtp.ReplyFor(&smtp.Error{Code: r.Code, Enhanced: r.Enhanced, Text: r.Text})
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
	c        *Conn
	returned bool  // Data has: it is of no use any more
	size     int64 // octets received
	ended    bool  // the end was reached
	lost     error // the connection, or the message, ended before it
	refused  *smtp.Error
	header   header

	// With BDAT:
	chunked, binary bool
	left            int64 // of the current chunk
	last            bool  // it is the last
	owed            bool  // it is not answered yet
	text            textCheck

	// With LineEndsFix:
	cr         bool // the last octet was a CR
	fixed, out []byte
}

// Read implements io.Reader.
func (m *message) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if m.returned {
		return 0, errDataReturned
	}
	b, err := m.next(len(p))
	if err != nil {
		return 0, err
	}
	n := copy(p, b)
	// Fill p as far as that is possible without waiting.
	for n < len(p) && (len(m.out) > 0 || m.ready()) {
		if b, err = m.next(len(p) - n); err != nil {
			break // kept in m for the next call
		}
		n += copy(p[n:], b)
	}
	return n, nil
}

// ready reports whether more can be had without waiting for the peer.
func (m *message) ready() bool {
	return m.c.r.Buffered() > 0 && (!m.chunked || m.left > 0)
}

// WriteTo implements io.WriterTo, so that io.Copy needs no buffer.
func (m *message) WriteTo(w io.Writer) (n int64, err error) {
	if m.returned {
		return 0, errDataReturned
	}
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
	for {
		if n := len(m.out); n > 0 {
			if limit > 0 {
				n = min(n, limit)
			}
			b := m.out[:n]
			m.out = m.out[n:]
			return b, nil
		}
		switch {
		case m.refused != nil:
			return nil, m.refused
		case m.lost != nil:
			return nil, m.lost
		case m.ended:
			return nil, io.EOF
		}
		b, err := m.read(limit)
		if err != nil {
			return nil, err
		}
		if m.binary || m.c.srv.LineEnds != LineEndsFix {
			return b, nil
		}
		m.fixed = fix(m.fixed[:0], b, &m.cr)
		m.out = m.fixed
	}
}

// read takes the next octets from the connection and looks at them.
func (m *message) read(limit int) ([]byte, error) {
	c := m.c
	var b []byte
	var err error
	var bad error
	if m.chunked {
		b, err = m.readChunk(limit)
		if !m.binary {
			m.text.check(b, c.lim.textLine)
			if errors.Is(err, io.EOF) {
				m.text.end()
			}
			bad = m.text.bad
		}
	} else {
		b, err = c.dot.Next(limit)
		bad = c.dot.Bad
	}
	m.size += int64(len(b))
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		m.lost = err
		return nil, err
	case err != nil && m.cr: // LineEndsFix, and the text ends with a CR
		m.ended, m.cr = true, false
		return []byte("\n"), nil
	case m.forbidden(bad):
		m.ended = err != nil
		m.refused = malformed(bad)
	case err != nil:
		m.ended = true
		return nil, io.EOF
	case c.lim.messageBytes > 0 && m.size > c.lim.messageBytes:
		m.refused = errTooBig
	case c.lim.headerBytes > 0 && !m.header.done && m.header.over(b, c.lim.headerBytes):
		m.refused = errHeaderTooBig
	default:
		return b, nil
	}
	return nil, m.refused
}

// forbidden reports whether what is wrong in the text refuses the message.
func (m *message) forbidden(bad error) bool {
	return bad != nil && (m.c.srv.LineEnds == LineEndsRefuse || errors.Is(bad, lineio.ErrTooLong))
}

// takenBack reports that the client ended the message in good order.
func (m *message) takenBack() bool {
	return errors.Is(m.lost, errReset) || errors.Is(m.lost, errQuit)
}
