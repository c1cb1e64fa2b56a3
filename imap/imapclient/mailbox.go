package imapclient

import (
	"context"
	"strings"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/internal/imapwire"
)

// Select opens a mailbox (RFC 9051 §6.3.2). The one that was open before is
// closed, also when this fails.
func (c *Client) Select(ctx context.Context, mailbox string) (*imap.SelectData, error) {
	return c.selectMailbox(ctx, "SELECT", mailbox)
}

// Examine opens a mailbox for reading only (RFC 9051 §6.3.3).
func (c *Client) Examine(ctx context.Context, mailbox string) (*imap.SelectData, error) {
	return c.selectMailbox(ctx, "EXAMINE", mailbox)
}

func (c *Client) selectMailbox(ctx context.Context, name, mailbox string) (*imap.SelectData, error) {
	s := &imap.SelectData{ReadOnly: name == "EXAMINE"}
	cmd := &command{
		name: name,
		args: func(e *imapwire.Encoder) {
			c.selected = s // EXISTS and RECENT that come now are of s
			e.SP().Mailbox(mailbox)
		},
		untagged: func(name string) bool {
			switch name {
			case "FLAGS":
				s.Flags = nil
				return c.dec.ExpectSP() && c.flags(&s.Flags)
			case "LIST":
				l := new(imap.ListData)
				if c.list(l) {
					s.List = l
				}
				return true
			}
			return false
		},
		code: func(code imap.Code, arg string) {
			switch code {
			case imap.CodeClosed: // what came before was of the old mailbox
				*s = imap.SelectData{ReadOnly: s.ReadOnly}
			case imap.CodePermanentFlags:
				s.PermanentFlags = nil
				for _, f := range strings.Fields(strings.Trim(arg, "()")) {
					s.PermanentFlags = append(s.PermanentFlags, imap.Flag(f))
				}
			case imap.CodeUIDNext:
				s.UIDNext = uint32(parseNumber(arg))
			case imap.CodeUIDValidity:
				s.UIDValidity = uint32(parseNumber(arg))
			case imap.CodeUnseen:
				s.FirstUnseen = uint32(parseNumber(arg))
			case imap.CodeHighestModSeq:
				s.HighestModSeq = parseNumber(arg)
			case imap.CodeReadOnly:
				s.ReadOnly = true
			case imap.CodeReadWrite:
				s.ReadOnly = false
			}
		},
	}
	if err := c.run(ctx, cmd); err != nil {
		if c.selected == s {
			c.selected = nil
		}
		return nil, err
	}
	data := *s
	return &data, nil
}

// Unselect closes the mailbox and expunges nothing (RFC 9051 §6.4.2).
func (c *Client) Unselect(ctx context.Context) error { return c.leave(ctx, "UNSELECT") }

// CloseMailbox closes the mailbox after expunging what is \Deleted (CLOSE,
// RFC 9051 §6.4.1).
func (c *Client) CloseMailbox(ctx context.Context) error { return c.leave(ctx, "CLOSE") }

func (c *Client) leave(ctx context.Context, name string) error {
	err := c.simple(ctx, name, nil)
	if err == nil {
		c.selected = nil
	}
	return err
}

// List returns the mailboxes whose names match pattern ("*" all, "%" none
// with a delimiter) below reference, with what o asks for (RFC 9051 §6.3.9).
func (c *Client) List(ctx context.Context, reference, pattern string, o imap.ListOptions) ([]*imap.ListData, error) {
	if !areWords(o.ReturnStatus...) {
		return nil, ErrArgument
	}
	var all []*imap.ListData
	byName := map[string]*imap.ListData{}
	err := c.run(ctx, &command{
		name: "LIST",
		args: func(e *imapwire.Encoder) { listArgs(e, reference, pattern, o) },
		untagged: func(name string) bool {
			switch name {
			case "LIST":
				l := new(imap.ListData)
				if c.list(l) {
					all = append(all, l)
					byName[l.Mailbox] = l
				}
				return true
			case "STATUS":
				var s imap.StatusData
				if c.statusData(&s) {
					if l := byName[s.Mailbox]; l != nil {
						l.Status = &s
					}
				}
				return true
			}
			return false
		},
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

func listArgs(e *imapwire.Encoder, reference, pattern string, o imap.ListOptions) {
	var sel, ret []string
	add := func(to *[]string, on bool, s string) {
		if on {
			*to = append(*to, s)
		}
	}
	add(&sel, o.SelectSubscribed, "SUBSCRIBED")
	add(&sel, o.SelectRemote, "REMOTE")
	add(&sel, o.SelectRecursiveMatch, "RECURSIVEMATCH")
	add(&sel, o.SelectSpecialUse, "SPECIAL-USE")
	add(&ret, o.ReturnSubscribed, "SUBSCRIBED")
	add(&ret, o.ReturnChildren, "CHILDREN")
	add(&ret, o.ReturnSpecialUse, "SPECIAL-USE")
	add(&ret, len(o.ReturnStatus) > 0, "STATUS ("+statusItems(o.ReturnStatus)+")")
	if len(sel) > 0 {
		e.SP().Atom("(" + strings.Join(sel, " ") + ")")
	}
	e.SP().Mailbox(reference).SP().QuotedMailbox(pattern)
	if len(ret) > 0 {
		e.SP().Atom("RETURN (" + strings.Join(ret, " ") + ")")
	}
}

func statusItems(items []imap.StatusItem) string {
	s := make([]string, len(items))
	for i, it := range items {
		s[i] = string(it)
	}
	return strings.Join(s, " ")
}

// list reads a LIST response from behind its name.
func (c *Client) list(l *imap.ListData) bool {
	d := c.dec
	ok := d.ExpectSP() && d.ExpectList(func() bool {
		var f imap.Flag
		if !d.ExpectFlag(&f) {
			return false
		}
		l.Attrs = append(l.Attrs, imap.MailboxAttr(f))
		return true
	})
	var delim string
	if !ok || !d.ExpectSP() || !d.ExpectNString(&delim) || !d.ExpectSP() || !d.ExpectMailbox(&l.Mailbox) {
		return false
	}
	for _, r := range delim {
		l.Delim = r
	}
	if !d.SP() {
		return true
	}
	return d.ExpectList(func() bool {
		var name string
		if !d.ExpectAString(&name) || !d.ExpectSP() {
			return false
		}
		switch strings.ToUpper(name) {
		case "CHILDINFO":
			return d.ExpectList(func() bool {
				var s string
				if !d.ExpectAString(&s) {
					return false
				}
				l.ChildInfo = append(l.ChildInfo, s)
				return true
			})
		case "OLDNAME":
			return d.ExpectSpecial('(') && d.ExpectMailbox(&l.OldName) && d.ExpectSpecial(')')
		}
		return c.skipValue(0)
	})
}

// Status tells about a mailbox without opening it (RFC 9051 §6.3.11).
func (c *Client) Status(ctx context.Context, mailbox string, items ...imap.StatusItem) (*imap.StatusData, error) {
	if !areWords(items...) {
		return nil, ErrArgument
	}
	s := &imap.StatusData{}
	err := c.run(ctx, &command{
		name: "STATUS",
		args: func(e *imapwire.Encoder) { e.SP().Mailbox(mailbox).SP().Atom("(" + statusItems(items) + ")") },
		untagged: func(name string) bool {
			if name != "STATUS" {
				return false
			}
			c.statusData(s)
			return true
		},
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// statusData reads a STATUS response from behind its name.
func (c *Client) statusData(s *imap.StatusData) bool {
	d := c.dec
	s.Items = map[imap.StatusItem]uint64{}
	return d.ExpectSP() && d.ExpectMailbox(&s.Mailbox) && d.ExpectSP() && d.ExpectList(func() bool {
		var name string
		var n int64
		if !d.ExpectKeyword(&name) || !d.ExpectSP() {
			return false
		}
		if !d.Number64(&n) {
			return c.skipValue(0)
		}
		s.Items[imap.StatusItem(name)] = uint64(n)
		return true
	})
}

// Create makes a mailbox (RFC 9051 §6.3.4), with special uses when there are
// any (CREATE-SPECIAL-USE, RFC 6154 §3).
func (c *Client) Create(ctx context.Context, mailbox string, use ...imap.MailboxAttr) error {
	if !areWords(use...) {
		return ErrArgument
	}
	return c.simple(ctx, "CREATE", func(e *imapwire.Encoder) {
		e.SP().Mailbox(mailbox)
		if len(use) > 0 {
			e.Atom(" (USE (")
			for i, u := range use {
				if i > 0 {
					e.SP()
				}
				e.Atom(string(u))
			}
			e.Atom("))")
		}
	})
}

// Delete removes a mailbox with its messages (RFC 9051 §6.3.5).
func (c *Client) Delete(ctx context.Context, mailbox string) error {
	return c.simple(ctx, "DELETE", func(e *imapwire.Encoder) { e.SP().Mailbox(mailbox) })
}

// Rename renames a mailbox and those below it (RFC 9051 §6.3.6).
func (c *Client) Rename(ctx context.Context, from, to string) error {
	return c.simple(ctx, "RENAME", func(e *imapwire.Encoder) { e.SP().Mailbox(from).SP().Mailbox(to) })
}

// Subscribe adds a name to the list of subscriptions (RFC 9051 §6.3.7).
func (c *Client) Subscribe(ctx context.Context, mailbox string) error {
	return c.simple(ctx, "SUBSCRIBE", func(e *imapwire.Encoder) { e.SP().Mailbox(mailbox) })
}

// Unsubscribe takes a name off the list of subscriptions (RFC 9051 §6.3.8).
func (c *Client) Unsubscribe(ctx context.Context, mailbox string) error {
	return c.simple(ctx, "UNSUBSCRIBE", func(e *imapwire.Encoder) { e.SP().Mailbox(mailbox) })
}
