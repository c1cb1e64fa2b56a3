package pop3server

import (
	"bytes"
	"strconv"
)

// number parses a message number and rejects what is none, or deleted.
func (c *conn) number(arg []byte) (i int, ok bool) {
	n := 0
	for _, b := range arg {
		if b < '0' || b > '9' || n > 1<<40 {
			c.reject("message number expected")
			return 0, false
		}
		n = 10*n + int(b-'0')
	}
	switch {
	case len(arg) == 0:
		c.reject("message number expected")
	case n < 1 || n > len(c.drop.list):
		c.line("-ERR no such message")
	case c.drop.list[n-1].deleted:
		c.line("-ERR message is deleted")
	default:
		return n - 1, true
	}
	return 0, false
}

func (c *conn) cmdStat(arg []byte) {
	if !c.noArg(arg) {
		return
	}
	b := append(c.w.AvailableBuffer(), "+OK "...)
	b = strconv.AppendInt(b, int64(c.drop.count), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, c.drop.size, 10)
	c.w.Write(append(b, "\r\n"...))
}

func (c *conn) cmdList(arg []byte) { c.listing(arg, c.drop.appendSize) }
func (c *conn) cmdUIDL(arg []byte) { c.listing(arg, c.drop.appendID) }

// listing answers LIST and UIDL, which differ in what stands behind the
// number.
func (c *conn) listing(arg []byte, value func(b []byte, i int) []byte) {
	if arg = bytes.TrimRight(arg, " "); len(arg) > 0 {
		if i, ok := c.number(arg); ok {
			c.w.Write(appendLine(append(c.w.AvailableBuffer(), "+OK "...), i, value))
		}
		return
	}
	c.line("+OK")
	for i := range c.drop.list {
		if !c.drop.list[i].deleted {
			if _, err := c.w.Write(appendLine(c.w.AvailableBuffer(), i, value)); err != nil {
				return
			}
		}
	}
	c.line(".")
}

func appendLine(b []byte, i int, value func(b []byte, i int) []byte) []byte {
	b = strconv.AppendInt(b, int64(i+1), 10)
	b = value(append(b, ' '), i)
	return append(b, "\r\n"...)
}

func (d *drop) appendSize(b []byte, i int) []byte {
	return strconv.AppendInt(b, d.list[i].size, 10)
}

// appendID appends the unique-id, UIDVALIDITY.UID: it differs for copies of
// one message in one maildrop, as RFC 1939 §7 wants it.
func (d *drop) appendID(b []byte, i int) []byte {
	if d.validity != 0 {
		b = strconv.AppendUint(b, uint64(d.validity), 10)
		b = append(b, '.')
	}
	return strconv.AppendUint(b, uint64(d.list[i].uid), 10)
}

func (c *conn) cmdDele(arg []byte) {
	if i, ok := c.number(arg); ok {
		c.drop.mark(i)
		c.line("+OK deleted")
	}
}

func (c *conn) cmdRset(arg []byte) {
	if c.noArg(arg) {
		c.drop.reset()
		c.line("+OK")
	}
}

func (c *conn) cmdNoop(arg []byte) {
	if c.noArg(arg) {
		c.line("+OK")
	}
}
