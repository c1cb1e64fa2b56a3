package smtpclient

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/postrider/postrider/smtp"
)

// ErrCommand: the line is none that Command sends.
var ErrCommand = errors.New("smtpclient: not a command to be sent by itself")

// Command sends one command and returns the reply, for VRFY, EXPN, HELP, NOOP,
// ETRN (RFC 1985) and what a host has of its own. XFORWARD speaks of the
// message that is sent next:
//
//	c.Command(ctx, "XFORWARD "+smtp.FormatAttributes(list))
//
// A negative reply is no error. What changes the connection's state is
// refused: ErrCommand.
func (c *Conn) Command(ctx context.Context, line string) (smtp.Reply, error) {
	verb, _, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "", "EHLO", "HELO", "LHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT", "BURL", "RSET", "QUIT", "XCLIENT":
		return smtp.Reply{}, ErrCommand
	}
	if strings.ContainsAny(line, "\r\n\x00") || len(line) > maxLine-2 {
		return smtp.Reply{}, ErrCommand
	}
	var r smtp.Reply
	err := c.talk(ctx, func() (err error) {
		r, err = c.command(c.tmo.Command, line)
		return err
	})
	return r, err
}

// XClient tells a Postfix that trusts us for whom we speak (XCLIENT), and
// greets again: what the host offers may be different then. Attributes that it
// does not announce are left out; smtp.Error with ErrExtension when it has no
// XCLIENT. A refusal ends the connection. It is to be called before the first
// message.
func (c *Conn) XClient(ctx context.Context, list []smtp.Attribute) error {
	known, ok := c.ext[smtp.ExtXCLIENT]
	if !ok {
		return &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 3, 3}, Text: "Host does not take XCLIENT", Scope: smtp.ScopeHost, Err: ErrExtension}
	}
	names := strings.Fields(strings.ToUpper(known))
	list = slices.DeleteFunc(slices.Clone(list), func(a smtp.Attribute) bool { return !slices.Contains(names, strings.ToUpper(a.Name)) })
	line := "XCLIENT " + smtp.FormatAttributes(list)
	if len(list) == 0 || strings.ContainsAny(line, "\r\n\x00") || len(line) > maxLine-2 {
		return ErrCommand
	}
	return c.talk(ctx, func() error {
		r, err := c.command(c.tmo.Command, line)
		switch {
		case err != nil:
			return err
		case r.Code != 220:
			return hostRefusal(r)
		}
		c.dirty = false
		if err := c.hello(); err != nil {
			return err
		}
		c.learn()
		return nil
	})
}

// talk runs an exchange that has the connection for itself. An error ends the
// connection.
func (c *Conn) talk(ctx context.Context, f func() error) error {
	done, err := c.alone(ctx)
	if err != nil {
		return err
	}
	defer done()
	c.w = c.watch(ctx)
	err = f()
	c.w.stop()
	if err == nil {
		return nil
	}
	if e := new(smtp.Error); errors.As(err, &e) {
		c.abandon(e)
		return e
	}
	return c.fail(ctx, err)
}

// learn notes what the reply to EHLO says.
func (c *Conn) learn() {
	c.limits = smtp.ParseLimits(c.ext[smtp.ExtLimits])
	hop := *c.hop // results have the old one
	_, hop.DSN = c.ext[smtp.ExtDSN]
	_, hop.DeliverBy = c.ext[smtp.ExtDeliverBy]
	c.hop = &hop
}
