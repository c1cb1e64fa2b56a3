package imaptest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Bounds of what a server may send.
const (
	maxLine    = 1 << 20  // octets of a line
	maxLiteral = 64 << 20 // octets of a literal
)

// conn is one connection to the server.
type conn struct {
	nc      net.Conn
	r       *bufio.Reader
	timeout time.Duration
	stop    func() bool
	tags    int
	// ids has, for each message in order, the sequence number that it had
	// when the command began.
	ids []int
}

// response is one untagged response, and the numbers that messages had when
// it came.
type response struct {
	parts []part
	ids   []int
}

func newConn(ctx context.Context, nc net.Conn, timeout time.Duration) *conn {
	c := &conn{nc: nc, r: bufio.NewReader(nc), timeout: timeout}
	c.stop = context.AfterFunc(ctx, func() { nc.Close() })
	return c
}

func (c *conn) close() {
	c.stop()
	c.nc.Close()
}

func (c *conn) tag() string {
	c.tags++
	return "t" + strconv.Itoa(c.tags)
}

// read reads one response with its literals.
func (c *conn) read() ([]part, error) {
	c.nc.SetDeadline(time.Now().Add(c.timeout))
	var parts []part
	for {
		line, err := c.line()
		if err != nil {
			return nil, err
		}
		head, size, binary, ok := literalAtEnd(line)
		parts = append(parts, part{text: head})
		if !ok {
			return parts, nil
		}
		if size > maxLiteral {
			return nil, errors.New("literal too big")
		}
		b := make([]byte, size)
		if _, err := io.ReadFull(c.r, b); err != nil {
			return nil, err
		}
		parts = append(parts, part{text: string(b), literal: true, binary: binary})
	}
}

func (c *conn) line() (string, error) {
	var b []byte
	for {
		chunk, err := c.r.ReadSlice('\n')
		b = append(b, chunk...)
		if len(b) > maxLine {
			return "", errors.New("line too long")
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return "", err
		}
		s, ok := strings.CutSuffix(string(b), "\r\n")
		if !ok {
			return "", fmt.Errorf("line %.80q does not end with CRLF", b)
		}
		return s, nil
	}
}

// literalAtEnd cuts "{n}" or "~{n}" off.
func literalAtEnd(line string) (head string, size int, binary, ok bool) {
	rest, closed := strings.CutSuffix(line, "}")
	i := strings.LastIndexByte(rest, '{')
	if !closed || i < 0 {
		return line, 0, false, false
	}
	n, err := strconv.ParseUint(rest[i+1:], 10, 31)
	if err != nil {
		return line, 0, false, false
	}
	head, binary = strings.CutSuffix(rest[:i], "~")
	return head, int(n), binary, true
}

// send writes a command; each literal waits for the server's consent. Untagged
// responses that come meanwhile go to untagged; a tagged one, with which the
// server refuses a literal, is returned.
func (c *conn) send(tag string, parts []part, untagged func([]part)) (refused []part, err error) {
	c.nc.SetDeadline(time.Now().Add(c.timeout))
	out := tag + " "
	for _, p := range parts {
		if !p.literal {
			out += p.text
			continue
		}
		if p.binary {
			out += "~"
		}
		out += "{" + strconv.Itoa(len(p.text)) + "}\r\n"
		if _, err := io.WriteString(c.nc, out); err != nil {
			return nil, err
		}
		for {
			r, err := c.read()
			if err != nil {
				return nil, err
			}
			if strings.HasPrefix(r[0].text, "+") {
				break
			}
			if !strings.HasPrefix(r[0].text, "* ") {
				return r, nil
			}
			untagged(r)
		}
		out = p.text
	}
	_, err = io.WriteString(c.nc, out+"\r\n")
	return nil, err
}

// begin renumbers the messages: a command begins.
func (c *conn) begin() {
	for i := range c.ids {
		c.ids[i] = i + 1
	}
}

// note follows EXISTS and EXPUNGE, and returns the response as it is to be
// compared.
func (c *conn) note(parts []part) response {
	parts = append([]part{{text: strings.TrimPrefix(parts[0].text, "* ")}}, parts[1:]...)
	r := response{parts: parts, ids: append([]int(nil), c.ids...)}
	f := strings.Fields(parts[0].text)
	if len(f) != 2 {
		return r
	}
	n, err := strconv.Atoi(f[0])
	if err != nil || n < 0 || n > 1<<20 {
		return r
	}
	switch strings.ToUpper(f[1]) {
	case "EXISTS":
		for len(c.ids) < n {
			c.ids = append(c.ids, 0)
		}
		c.ids = c.ids[:n]
	case "EXPUNGE":
		if n >= 1 && n <= len(c.ids) {
			c.ids = append(c.ids[:n-1], c.ids[n:]...)
		}
	}
	return r
}
