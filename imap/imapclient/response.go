package imapclient

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/postrider/postrider/imap"
)

// greeting reads the server's first line (RFC 9051 §7.1.5).
func (c *Client) greeting() error {
	c.cmd = &command{}
	defer func() { c.cmd = nil }()
	c.arm()
	c.dec.Begin()
	var kind string
	if !c.dec.ExpectSpecial('*') || !c.dec.ExpectSP() || !c.dec.ExpectKeyword(&kind) {
		return c.fail(c.dec.Err())
	}
	res, err := c.status(imap.StatusType(kind))
	switch {
	case err != nil:
		return err
	case res.Type == imap.PREAUTH:
		c.preauth = true
	case res.Type == imap.BYE:
		c.err = res
		return res
	case res.Type != imap.OK:
		return c.fail(fmt.Errorf("%w: greeting %s", ErrProtocol, kind))
	}
	return nil
}

// read reads one response and hands it on.
func (c *Client) read() error {
	d := c.dec
	d.Begin()
	c.arm()
	switch {
	case d.Special('+'):
		var text string
		d.SP()
		if d.Text(&text); !d.ExpectCRLF() {
			return c.fail(d.Err())
		}
		if c.cmd.resume != nil {
			return c.cmd.resume(text)
		}
		c.cmd.more = true
		return nil
	case d.Special('*'):
		if !d.ExpectSP() {
			return c.fail(d.Err())
		}
		return c.untagged()
	}
	var tag, kind string
	if !d.ExpectTag(&tag) || !d.ExpectSP() || !d.ExpectKeyword(&kind) {
		return c.fail(d.Err())
	}
	if tag != c.cmd.tag {
		return c.fail(fmt.Errorf("%w: unknown tag %.40q", ErrProtocol, tag))
	}
	res, err := c.status(imap.StatusType(kind))
	if err != nil {
		return err
	}
	switch res.Type {
	case imap.OK, imap.NO, imap.BAD:
		c.cmd.done, c.cmd.res = true, res
		return nil
	}
	return c.fail(fmt.Errorf("%w: tagged %s", ErrProtocol, kind))
}

// status reads a status response from behind its type.
func (c *Client) status(kind imap.StatusType) (*imap.Error, error) {
	var text string
	c.dec.SP()
	if c.dec.Text(&text); !c.dec.ExpectCRLF() {
		return nil, c.fail(c.dec.Err())
	}
	res := &imap.Error{Type: kind, Text: text}
	if rest, ok := strings.CutPrefix(text, "["); ok {
		if code, rest, ok := strings.Cut(rest, "]"); ok {
			name, arg, _ := strings.Cut(code, " ")
			res.Code, res.Arg, res.Text = imap.Code(strings.ToUpper(name)), arg, strings.TrimPrefix(rest, " ")
		}
	}
	switch res.Code {
	case imap.CodeCapability:
		c.caps = nil
		for _, f := range strings.Fields(res.Arg) {
			c.caps = append(c.caps, imap.Cap(f))
		}
	case imap.CodeAlert:
		if c.handler.Alert != nil {
			c.handler.Alert(res.Text)
		}
	}
	if kind == imap.OK && res.Code != "" && c.cmd.code != nil {
		c.cmd.code(res.Code, res.Arg)
	}
	return res, nil
}

// untagged reads a response from behind "* ".
func (c *Client) untagged() error {
	d := c.dec
	var n uint32
	var name string
	if d.Number(&n) {
		if !d.ExpectSP() || !d.ExpectKeyword(&name) {
			return c.fail(d.Err())
		}
		c.numbered(n, name)
	} else {
		if !d.ExpectKeyword(&name) {
			return c.fail(d.Err())
		}
		switch name {
		case "OK", "NO", "BAD":
			_, err := c.status(imap.StatusType(name))
			return err
		case "BYE":
			res, err := c.status(imap.BYE)
			if err == nil && c.cmd.name != "LOGOUT" {
				c.err = res // what follows is the end
				c.nc.Close()
				return res
			}
			return err
		case "CAPABILITY":
			c.caps = c.capList()
		default:
			if c.cmd.untagged == nil || !c.cmd.untagged(name) {
				c.skip()
			}
		}
	}
	if !d.ExpectCRLF() {
		return c.fail(d.Err())
	}
	return nil
}

func (c *Client) numbered(n uint32, name string) {
	switch name {
	case "EXISTS":
		if c.selected != nil {
			c.selected.Messages = n
		}
		if c.handler.Exists != nil {
			c.handler.Exists(n)
		}
	case "EXPUNGE":
		if c.selected != nil && c.selected.Messages > 0 {
			c.selected.Messages--
		}
		if c.cmd.expunge != nil {
			c.cmd.expunge(n)
		}
		if c.handler.Expunge != nil {
			c.handler.Expunge(n)
		}
	case "RECENT":
		if c.selected != nil {
			c.selected.Recent = n
		}
	case "FETCH":
		c.fetchResponse(n)
	default:
		c.skip()
	}
}

// capList reads capabilities to the end of the line.
func (c *Client) capList() imap.Caps {
	caps := imap.Caps{}
	for c.dec.SP() {
		var s string
		if !c.dec.Atom(&s) {
			break // a space at the end
		}
		caps = append(caps, imap.Cap(s))
	}
	return caps
}

// maxDepth is how deep lists may nest; RFC 9051 sets no limit.
const maxDepth = 200

// skip reads a response that nobody wants to its end, with its literals.
func (c *Client) skip() {
	d := c.dec
	for d.SP(); d.Err() == nil && !d.Next('\r') && !d.Next('\n'); d.SP() {
		c.skipValue(0)
	}
}

// skipValue reads one value, which may be a list, away.
func (c *Client) skipValue(depth int) bool {
	d := c.dec
	var s string
	switch {
	case depth > maxDepth:
		return d.Fail("nested too deeply")
	case d.Special('('):
		for !d.Special(')') {
			if !c.skipValue(depth + 1) {
				return false
			}
			d.SP()
		}
	case d.Next('"'):
		d.Quoted(&s)
	case d.Next('{'), d.Next('~'):
		if l, ok := d.Literal(nil); ok {
			c.drain(l)
		}
	case d.Atom(&s):
	default:
		// Anything else is taken octet by octet.
		for _, b := range []byte(`\]*%}`) {
			if d.Special(b) {
				return true
			}
		}
		return d.Fail("unexpected octet")
	}
	return d.Err() == nil
}

// parseNumber parses a number of a response code; 0 when it is none.
func parseNumber(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}
