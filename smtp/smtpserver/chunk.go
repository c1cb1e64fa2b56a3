package smtpserver

import (
	"bytes"
	"errors"
	"io"
	"strconv"
)

// smallChunk is the size from which on a chunk does not count as a command:
// a message may have many of them, but not of one octet each.
const smallChunk = 512

var (
	errReset = errors.New("smtpserver: message taken back with RSET")
	errQuit  = errors.New("smtpserver: QUIT before the last chunk")
	errCut   = errors.New("smtpserver: connection given up within a message")
)

// bdat does the first BDAT of a message (RFC 3030 §2); message.nextChunk does
// those after it. Whatever is wrong, the chunk is consumed before the answer:
// its octets must never be read as commands.
func (c *Conn) bdat(arg []byte) {
	size, last, ok := c.parseBDAT(arg)
	if !ok {
		return
	}
	code, enhanced, text := 0, "5.5.1", ""
	switch {
	case c.state == stateNew, c.state == stateReady, c.state == stateRefused:
		code, text = 503, c.misplacedText()
	case !c.ext.has(extChunking):
		code, text = 502, "BDAT not offered"
	case c.state == stateMail && c.srv.LMTP:
		code, text = 503, "No valid recipients"
	case c.state == stateMail:
		code, text = 554, "No valid recipients"
	}
	if code != 0 {
		if c.skipChunk(size) {
			c.bad(code, enhanced, text)
		}
		return
	}
	c.countChunk(size)
	c.receive(&message{c: c, chunked: true, left: size, last: last, owed: true})
}

// parseBDAT reads "size [LAST]". When that cannot be done nobody knows where
// the chunk ends, and when it is larger than anybody wants to read away it is
// not waited for: both end the connection.
func (c *Conn) parseBDAT(arg []byte) (size int64, last, ok bool) {
	num, rest, has := bytes.Cut(arg, []byte{' '})
	for _, ch := range num {
		ok = ch >= '0' && ch <= '9'
		if !ok {
			break
		}
	}
	size, err := strconv.ParseInt(string(num), 10, 64)
	last = bytes.EqualFold(rest, []byte("LAST"))
	if !ok || has && !last || err != nil && !errors.Is(err, strconv.ErrRange) {
		c.bad(501, "5.5.4", "Syntax: BDAT size [LAST], closing connection since the chunk has no end")
		c.closing, c.cutShort = true, true
		return 0, false, false
	}
	if size > max(c.lim.messageBytes, skipBytes) {
		c.write(errTooBig.Reply())
		c.closing, c.cutShort = true, true
		return 0, false, false
	}
	return size, last, true
}

func (c *Conn) countChunk(size int64) {
	if size >= smallChunk {
		c.commands--
	}
}

// skipChunk reads n octets away.
func (c *Conn) skipChunk(n int64) bool {
	c.inData, c.dataWait, c.dataBytes = true, 0, 0
	defer func() { c.inData = false }()
	for n > 0 {
		if _, err := c.r.Peek(1); err != nil {
			c.closing = true
			if isTimeout(err) {
				c.timeoutReply()
			}
			return false
		}
		k, _ := c.r.Discard(int(min(n, int64(c.r.Buffered()))))
		n -= int64(k)
	}
	return true
}

// nextChunk answers the chunk that was read and waits for the next one; of
// the other commands only RSET, QUIT and NOOP make sense here.
func (c *Conn) nextChunk(m *message) error {
	if m.owed {
		m.owed = false
		c.reply(250, "2.0.0", "Chunk received")
	}
	for {
		line, err, ok := c.readLine(c.lim.line)
		if !ok {
			return errCut
		}
		if err != nil {
			c.badLine(err)
		} else {
			line = bytes.TrimRight(line, " \t")
			verb, arg, _ := bytes.Cut(line, []byte{' '})
			c.commands++
			c.traceCommand(line)
			switch {
			case bytes.EqualFold(verb, []byte("BDAT")):
				size, last, ok := c.parseBDAT(arg)
				if !ok {
					return errCut
				}
				c.countChunk(size)
				m.left, m.last, m.owed = size, last, true
				if c.overLimits() {
					return errCut
				}
				return nil
			case bytes.EqualFold(line, []byte("RSET")):
				return errReset
			case bytes.EqualFold(line, []byte("QUIT")):
				return errQuit
			case bytes.EqualFold(verb, []byte("NOOP")):
				c.noop(arg)
			default:
				c.bad(503, "5.5.1", "Only BDAT, RSET, NOOP and QUIT before the last chunk")
			}
		}
		if c.overLimits() {
			return errCut
		}
	}
}

// readChunk is message's next for BDAT.
func (m *message) readChunk(limit int) ([]byte, error) {
	c := m.c
	for m.left == 0 {
		if m.last {
			return nil, io.EOF
		}
		if err := c.nextChunk(m); err != nil {
			return nil, err
		}
	}
	if c.r.Buffered() == 0 {
		if m.left > readBuffer {
			c.resize(dataBuffer)
		}
		if _, err := c.r.Peek(1); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	n := int(min(int64(c.r.Buffered()), m.left))
	if limit > 0 {
		n = min(n, limit)
	}
	b, _ := c.r.Peek(n)
	c.r.Discard(n)
	m.left -= int64(n)
	return b, nil
}

// finishChunks brings the connection behind the chunk that is answered next:
// this one when the message is refused, else the last one.
func (c *Conn) finishChunks(m *message, refused bool) bool {
	for !refused && m.lost == nil && m.refused == nil && !m.ended {
		m.next(0)
	}
	switch {
	case errors.Is(m.lost, errReset):
		c.resetTransaction()
		c.reply(250, "2.0.0", "OK")
		return false
	case errors.Is(m.lost, errQuit):
		c.quit(nil)
		return false
	case m.lost == nil && !c.skipChunk(m.left):
		m.lost = io.ErrUnexpectedEOF
	case m.lost != nil && isTimeout(m.lost):
		c.timeoutReply()
	}
	return m.lost == nil
}

// textCheck looks for what may not stand in a text that comes in chunks.
type textCheck struct {
	cr   bool
	line int
	bad  error
}
