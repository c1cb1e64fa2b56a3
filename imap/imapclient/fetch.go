package imapclient

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/internal/imapwire"
)

// Fetch asks for data of messages (RFC 9051 §6.4.5) and yields them as they
// come, bodies in memory. The server may add messages and items that were not
// asked for, such as flags that changed. An error is yielded once, as the
// last turn. A loop that ends early costs the reading of the rest. The Client
// cannot be used inside the loop.
func (c *Client) Fetch(ctx context.Context, set imap.MessageSet, o imap.FetchOptions) iter.Seq2[*imap.FetchData, error] {
	return func(yield func(*imap.FetchData, error) bool) {
		more := true
		cmd := fetchCommand(set, o)
		cmd.fetch = func(m *imap.FetchData) { more = more && yield(m, nil) }
		if err := c.run(ctx, cmd); err != nil && more {
			yield(nil, err)
		}
	}
}

// FetchBodies is Fetch with bodies streamed: f is called with each section's
// octets as they come, and with what the server sent of the message before
// it; servers send UID and FLAGS first. What f leaves unread is read away. An
// error of f is returned, when the command has ended, and f is not called any
// more.
func (c *Client) FetchBodies(ctx context.Context, set imap.MessageSet, o imap.FetchOptions, f func(m *imap.FetchData, s *imap.Section, body io.Reader) error) error {
	var ferr error
	cmd := fetchCommand(set, o)
	cmd.body = func(m *imap.FetchData, s *imap.Section, r io.Reader) {
		if ferr == nil {
			ferr = f(m, s, r)
		}
	}
	if err := c.run(ctx, cmd); err != nil {
		return err
	}
	return ferr
}

func fetchCommand(set imap.MessageSet, o imap.FetchOptions) *command {
	return &command{
		name: uidName(set, "FETCH"),
		args: func(e *imapwire.Encoder) {
			var items []string
			add := func(on bool, item string) {
				if on {
					items = append(items, item)
				}
			}
			add(o.UID || set.UID, "UID")
			add(o.Flags, "FLAGS")
			add(o.InternalDate, "INTERNALDATE")
			add(o.Size, "RFC822.SIZE")
			add(o.Envelope, "ENVELOPE")
			add(o.Body, "BODY")
			add(o.BodyStructure, "BODYSTRUCTURE")
			for i := range o.Sections {
				items = append(items, o.Sections[i].String())
			}
			for _, part := range o.BinarySizes {
				items = append(items, "BINARY.SIZE["+partText(part)+"]")
			}
			e.SP().MessageSet(set).SP().Special('(').Atom(strings.Join(items, " ")).Special(')')
		},
	}
}

func partText(part []int) string {
	s := make([]string, len(part))
	for i, n := range part {
		s[i] = strconv.Itoa(n)
	}
	return strings.Join(s, ".")
}

// uidName puts UID before a command on UIDs.
func uidName(set imap.MessageSet, name string) string {
	if set.UID {
		return "UID " + name
	}
	return name
}

// fetchResponse reads a FETCH response from behind its name.
func (c *Client) fetchResponse(seq uint32) {
	m := &imap.FetchData{Seq: seq}
	if !c.dec.ExpectSP() || !c.dec.ExpectList(func() bool { return c.fetchItem(m) }) {
		return
	}
	switch {
	case c.cmd.fetch != nil:
		c.cmd.fetch(m)
	case c.cmd.body == nil && c.handler.Fetch != nil:
		c.handler.Fetch(m)
	}
}

func (c *Client) fetchItem(m *imap.FetchData) bool {
	d := c.dec
	var name string
	if !d.ExpectLabel(&name) {
		return false
	}
	if d.Next('[') {
		switch name {
		case "BODY", "BINARY":
			s := imap.Section{Binary: name == "BINARY"}
			return d.ExpectSection(&s, false) && d.ExpectSP() && c.content(m, &s)
		case "BINARY.SIZE":
			var b imap.BinarySize
			if !d.ExpectPart(&b.Part) || !d.ExpectSP() || !d.ExpectNumber64(&b.Size) {
				return false
			}
			m.BinarySizes = append(m.BinarySizes, b)
			return true
		}
	}
	if !d.ExpectSP() {
		return false
	}
	switch name {
	case "UID":
		return d.ExpectNumber(&m.UID)
	case "FLAGS":
		m.HasFlags = true
		return c.flags(&m.Flags)
	case "INTERNALDATE":
		return d.ExpectDateTime(&m.InternalDate)
	case "RFC822.SIZE":
		return d.ExpectNumber64(&m.Size)
	case "ENVELOPE":
		m.Envelope = new(imap.Envelope)
		return c.envelope(m.Envelope)
	case "BODY", "BODYSTRUCTURE":
		m.BodyStructure = new(imap.BodyStructure)
		return c.structure(m.BodyStructure, 0)
	case "RFC822", "RFC822.HEADER", "RFC822.TEXT":
		return c.content(m, &imap.Section{Old: name})
	}
	return c.skipValue(0)
}

func (c *Client) flags(flags *[]imap.Flag) bool {
	return c.dec.ExpectList(func() bool {
		var f imap.Flag
		if !c.dec.ExpectFlag(&f) {
			return false
		}
		*flags = append(*flags, f)
		return true
	})
}

// content reads the octets of a section, an nstring or literal8.
func (c *Client) content(m *imap.FetchData, s *imap.Section) bool {
	d := c.dec
	if !d.Next('{') && !d.Next('~') {
		var text string
		var notNil bool
		if !d.NString(&text, &notNil) {
			return d.Fail("expected a section's content")
		}
		if c.cmd.body != nil && notNil {
			c.cmd.body(m, s, strings.NewReader(text))
		} else if c.cmd.body == nil {
			m.Sections = append(m.Sections, imap.SectionData{Section: *s, Data: []byte(text), Nil: !notNil})
		}
		return true
	}
	l, ok := d.Literal(func(l *imapwire.Literal) error {
		if c.cmd.body == nil && d.MaxLiteral > 0 && l.Size > d.MaxLiteral-held(m) {
			return imapwire.ErrLiteralTooBig
		}
		return nil
	})
	if !ok {
		return false
	}
	r := &armed{c, l}
	if c.cmd.body != nil {
		c.cmd.body(m, s, r)
		return c.drain(r)
	}
	// The announced size is believed only as far as octets have come.
	var b []byte
	for int64(len(b)) < l.Size {
		at := len(b)
		b = append(b, make([]byte, min(l.Size-int64(at), max(64<<10, int64(at))))...)
		if _, err := io.ReadFull(r, b[at:]); err != nil {
			return d.FailWith(err)
		}
	}
	m.Sections = append(m.Sections, imap.SectionData{Section: *s, Data: b})
	return true
}

// held is how much of m is in memory already.
func held(m *imap.FetchData) (n int64) {
	for i := range m.Sections {
		n += int64(len(m.Sections[i].Data))
	}
	return n
}

// drain reads r away.
func (c *Client) drain(r io.Reader) bool {
	if _, err := io.Copy(io.Discard, &armed{c, r}); err != nil {
		return c.dec.FailWith(err)
	}
	return true
}

// armed gives each read its own time.
type armed struct {
	c *Client
	r io.Reader
}

func (a *armed) Read(p []byte) (int, error) {
	a.c.arm()
	n, err := a.r.Read(p)
	if err != nil && err != io.EOF {
		return n, fmt.Errorf("imapclient: body: %w", err)
	}
	return n, err
}
