package pop3server

import (
	"bytes"
	"io"
	"strconv"

	"github.com/postrider/postrider/internal/lineio"
	"github.com/postrider/postrider/store"
)

func (c *conn) cmdRetr(arg []byte) {
	if i, ok := c.number(arg); ok {
		c.send(i, -1)
	}
}

func (c *conn) cmdTop(arg []byte) {
	num, lines, _ := bytes.Cut(arg, []byte{' '})
	n, err := strconv.ParseUint(string(lines), 10, 31)
	if err != nil {
		c.reject("message number and number of lines expected")
		return
	}
	if i, ok := c.number(num); ok {
		c.send(i, int(n))
	}
}

// send sends a message, or its header and the first lines of its body if
// lines is not negative.
func (c *conn) send(i, lines int) {
	m, err := c.drop.fetch(c.ctx, i)
	if err != nil {
		c.fail(err)
		return
	}
	body := m.Body
	if body == nil {
		blob, err := c.drop.Open(c.ctx, m)
		if err != nil {
			c.fail(err)
			return
		}
		defer blob.Close()
		body = blob
	}
	if lines < 0 {
		b := append(c.w.AvailableBuffer(), "+OK "...)
		b = strconv.AppendInt(b, c.drop.list[i].size, 10)
		c.w.Write(append(b, " octets\r\n"...))
	} else {
		c.line("+OK")
	}
	if err := c.copy(body, lines); err != nil {
		// Without its end the client cannot take what it has for the whole.
		c.srv.log().Warn("pop3: message cut", "user", c.id.User, "remote", c.nc.RemoteAddr(), "error", err)
		c.done = true
	}
}

func (c *conn) copy(body store.Body, lines int) error {
	dot := lineio.NewDotWriter(c.w)
	var top *topper
	if lines >= 0 {
		top = &topper{lines: lines, empty: true}
	}
	buf := c.srv.buffer()
	defer c.srv.bufs.Put(buf)
	for off, size := int64(0), body.Size(); off < size; {
		n, err := body.ReadAt(buf[:min(copySize, size-off)], off)
		off += int64(n)
		p := buf[:n]
		if top != nil {
			p = top.cut(p)
		}
		if _, err := dot.Write(p); err != nil {
			return err
		}
		switch {
		case top != nil && top.done():
			return dot.Close()
		case off >= size: // io.EOF is welcome here
		case err == io.EOF || err == nil && n == 0:
			return errShort
		case err != nil:
			return err
		}
	}
	return dot.Close()
}

// topper cuts a message behind the first lines of its body (TOP).
type topper struct {
	lines int // of the body, still to come
	body  bool
	empty bool // the line so far
}

// cut returns the part of p that TOP shows.
func (t *topper) cut(p []byte) []byte {
	for i := 0; i < len(p); {
		if t.done() {
			return p[:i]
		}
		j := bytes.IndexByte(p[i:], '\n')
		line := p[i:]
		if j >= 0 {
			line = p[i : i+j]
		}
		if len(line) > 1 || len(line) == 1 && line[0] != '\r' {
			t.empty = false
		}
		if j < 0 {
			break
		}
		switch {
		case t.body:
			t.lines--
		case t.empty:
			t.body = true
		}
		t.empty = true
		i += j + 1
	}
	return p
}

func (t *topper) done() bool { return t.body && t.lines <= 0 }
