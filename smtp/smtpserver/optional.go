package smtpserver

import (
	"bytes"
	"context"

	"github.com/postrider/postrider/smtp"
)

// The optional commands. A session that has the method has the command, and
// it is announced; the error of each becomes the reply, as Session's do.
type (
	// VerifySession answers VRFY (RFC 5321 §3.5.1), with 250 or 251 and
	// "Name <address>", or an error: 550, 551, 553. Without it VRFY gets 252,
	// which tells nothing (RFC 5321 §7.3).
	VerifySession interface {
		Session
		Verify(ctx context.Context, name string) (smtp.Reply, error)
	}
	// ExpandSession answers EXPN, a member of the list on each line of the
	// reply's text. Without it EXPN gets 502.
	ExpandSession interface {
		Session
		Expand(ctx context.Context, list string) (smtp.Reply, error)
	}
	// HelpSession answers HELP; the code is 214 or 211.
	HelpSession interface {
		Session
		Help(ctx context.Context, topic string) (smtp.Reply, error)
	}
	// TurnSession answers ETRN (RFC 1985): begin to send what waits for a
	// node, a domain, a subdomain "@domain" or a queue "#name". 250 to 253, or
	// an error: 458, 459. Without it ETRN gets 502.
	TurnSession interface {
		Session
		Turn(ctx context.Context, node string) (smtp.Reply, error)
	}
)

// optional writes the answer of an optional command.
func (c *Conn) optional(r smtp.Reply, err error, code int, text string) {
	if err != nil {
		c.write(c.replyFor(err))
		return
	}
	if r.Code < 200 || r.Code > 599 || r.Code/100 == 3 {
		r.Code = code
	}
	if r.Text == "" {
		r.Text = text
	}
	c.write(r)
}

// vrfy tells nothing by itself, as RFC 5321 §7.3 allows: whether an address
// exists is what RCPT answers.
func (c *Conn) vrfy(arg []byte) {
	name, ok := c.operand(arg)
	if !ok {
		c.bad(501, "5.5.4", "Syntax: VRFY <address>")
		return
	}
	s, ok := As[VerifySession](c.session)
	if !ok {
		c.reply(252, "2.5.2", "Cannot verify, but will take a message and try")
		return
	}
	r, err := s.Verify(c.ctx, name)
	c.optional(r, err, 250, name)
}

func (c *Conn) expn(arg []byte) {
	s, ok := As[ExpandSession](c.session)
	if !ok {
		c.notOffered(arg)
		return
	}
	name, ok := c.operand(arg)
	if !ok {
		c.bad(501, "5.5.4", "Syntax: EXPN <list>")
		return
	}
	r, err := s.Expand(c.ctx, name)
	c.optional(r, err, 250, name)
}

// operand reads the argument of VRFY and EXPN, and the keyword SMTPUTF8 behind
// it (RFC 6531 §3.7.4.2).
func (c *Conn) operand(arg []byte) (string, bool) {
	c.replyUTF8 = false
	if c.ext.has(extUTF8) {
		if head, ok := cutSuffixFold(arg, " SMTPUTF8"); ok {
			arg, c.replyUTF8 = bytes.TrimRight(head, " "), true
		}
	}
	s := string(arg)
	return s, s != "" && printableText(s) && (c.replyUTF8 || isASCII(s))
}

func cutSuffixFold(b []byte, suffix string) ([]byte, bool) {
	n := len(b) - len(suffix)
	if n < 0 || !bytes.EqualFold(b[n:], []byte(suffix)) {
		return b, false
	}
	return b[:n], true
}

func (c *Conn) help(arg []byte) {
	s, ok := As[HelpSession](c.session)
	if !ok {
		c.reply(214, "2.0.0", "See RFC 5321")
		return
	}
	r, err := s.Help(c.ctx, string(arg))
	c.optional(r, err, 214, "See RFC 5321")
}

func (c *Conn) etrn(arg []byte) {
	s, ok := As[TurnSession](c.session)
	if !ok {
		c.notOffered(arg)
		return
	}
	// RFC 1985 §5.1: a node, with "@" or "#" before it, or none.
	node := string(arg)
	if len(arg) == 0 || len(arg) > 255 || !printable(arg) {
		c.bad(501, "5.5.4", "Syntax: ETRN [@|#]<node>")
		return
	}
	if c.srv.RequireAuth && !c.loggedIn {
		c.bad(530, "5.7.0", "Authentication required")
		return
	}
	r, err := s.Turn(c.ctx, node)
	c.optional(r, err, 250, "Queuing for "+node+" started")
}
