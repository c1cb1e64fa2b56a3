package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// maxHops is how many Received fields a message may have: more is a loop
// (RFC 5321 §6.3).
const maxHops = 50

// NewSession makes the relay a smtpserver.Backend.
func (r *relay) NewSession(ctx context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
	return &session{r: r, c: c}, nil
}

// session takes one connection's mail into the queue.
type session struct {
	r      *relay
	c      *smtpserver.Conn
	tenant string // who sends: the queue is fair to each of them
	env    smtp.Envelope
}

// Mail refuses strangers.
func (s *session) Mail(ctx context.Context, from smtp.Address, o smtp.MailOptions) error {
	addr := s.c.Remote().Addr().Unmap()
	id, ok := s.c.Identity()
	switch {
	case ok:
		s.tenant = id.User
	case slices.ContainsFunc(s.r.prefixes, func(p netip.Prefix) bool { return p.Contains(addr) }):
		s.tenant = addr.String()
	case s.r.server.Auth != nil:
		return smtp.Errorf(530, smtp.EnhancedCode{5, 7, 0}, "Authentication required")
	default:
		return smtp.Errorf(550, smtp.EnhancedCode{5, 7, 1}, "Relaying denied")
	}
	size := o.Size
	if size == 0 {
		size = -1
	}
	s.env = smtp.Envelope{From: from, MailOptions: o}
	return translate(s.r.queue.Accept(ctx, size))
}

// Rcpt takes every address whose domain can be one on the Internet.
func (s *session) Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error {
	if to.Domain == "" { // <Postmaster>, which every server takes
		to.Domain = s.r.hostname
	}
	if !strings.Contains(to.Domain, ".") && !strings.HasPrefix(to.Domain, "[") {
		return smtp.Errorf(550, smtp.EnhancedCode{5, 1, 2}, "Domain of %s is not fully qualified", to)
	}
	s.env.To = append(s.env.To, smtp.Recipient{Address: to, RcptOptions: o})
	return nil
}

// Data answers when the message is on disk.
func (s *session) Data(ctx context.Context, r io.Reader) (smtp.Reply, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	top, _ := br.Peek(64 << 10) // an error comes again, behind these octets
	header, hops := mime.ParseHeader(top), 0
	for range header.All("Received") {
		hops++
	}
	if hops > maxHops {
		return smtp.Reply{}, smtp.Errorf(554, smtp.EnhancedCode{5, 4, 6}, "Too many hops")
	}
	// RFC 8689 §4.1: REQUIRETLS takes precedence over the field.
	s.env.TLSOptional = !s.env.RequireTLS && strings.EqualFold(header.Get("TLS-Required"), "No")

	sub, err := s.r.queue.Prepare(ctx, queue.Mail{Envelope: s.env, Tenant: s.tenant, Priority: s.env.Priority, Due: s.env.HoldUntil, Body: br})
	if err != nil {
		return smtp.Reply{}, translate(err)
	}
	forAddr := ""
	if len(s.env.To) == 1 { // others must not learn of one another (RFC 5321 §7.2)
		forAddr = s.env.To[0].Address.String()
	}
	id := sub.Message.ID.String()
	sub.Head = s.c.Received(id, forAddr, time.Now())
	if err := s.r.queue.Put(ctx, sub); err != nil {
		sub.Body.Close()
		return smtp.Reply{}, translate(err)
	}
	return smtp.Reply{Code: 250, Enhanced: smtp.EnhancedCode{2, 0, 0}, Text: "OK queued as " + id}, nil
}

func (s *session) Reset()       { s.env, s.tenant = smtp.Envelope{}, "" }
func (s *session) Close() error { return nil }

// translate gives the errors of the queue their replies; all others are 451.
func translate(err error) error {
	switch {
	case errors.Is(err, queue.ErrFull):
		return &smtp.Error{Code: 452, Enhanced: smtp.EnhancedCode{4, 3, 1}, Text: "Insufficient system storage", Err: err}
	case errors.Is(err, queue.ErrMail):
		return &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 6, 0}, Text: "Unusable envelope", Err: err}
	}
	return err
}
