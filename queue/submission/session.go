package submission

import (
	"context"
	"io"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

var _ smtpserver.Backend = (*Submitter)(nil)

// NewSession implements smtpserver.Backend. Sessions take mail from
// authenticated users only, whatever the server's settings: it never relays
// for strangers.
func (s *Submitter) NewSession(ctx context.Context, c *smtpserver.Conn) (smtpserver.Session, error) {
	return &session{s: s, c: c}, nil
}

// session is one connection.
type session struct {
	s   *Submitter
	c   *smtpserver.Conn
	id  login.Identity
	env smtp.Envelope

	limits Limits
	taken  []string // keys of the Limiter, each for one, that are to be paid if the mail is queued
}

// take asks the Limiter for one of key.
func (s *session) take(ctx context.Context, what string, id *login.Identity) error {
	if s.s.Limiter == nil {
		return nil
	}
	key := what + " " + id.User
	n, again, err := s.s.Limiter.Take(ctx, key, 1)
	if err != nil {
		return err
	}
	if n < 1 {
		wait := max(time.Until(again).Round(time.Second), time.Second)
		return smtp.Errorf(450, smtp.EnhancedCode{4, 7, 1}, "Too many %s, try again in %v", what, wait)
	}
	s.taken = append(s.taken, key)
	return nil
}

// giveBack returns what was taken for mail that was not queued.
func (s *session) giveBack() {
	for _, key := range s.taken {
		s.s.Limiter.Give(key, 1)
	}
	s.taken = nil
}

func (s *session) Mail(ctx context.Context, from smtp.Address, o smtp.MailOptions) error {
	id, ok := s.c.Identity()
	if !ok || !id.Expires.IsZero() && !time.Now().Before(id.Expires) {
		return smtp.Errorf(530, smtp.EnhancedCode{5, 7, 0}, "Authentication required")
	}
	if !from.IsZero() && !qualified(from.Domain) {
		return smtp.Errorf(554, smtp.EnhancedCode{5, 1, 8}, "Domain of %s is not fully qualified", from)
	}
	if err := s.s.allow(ctx, &id, from); err != nil {
		return err
	}
	limits, err := s.s.limits(ctx, &id)
	if err != nil {
		return err
	}
	if n := limits.MaxMessageBytes; n >= 0 && o.Size > n {
		return tooLarge()
	}
	size := o.Size
	if size == 0 {
		size = -1
	}
	if err := s.s.Queue.Accept(ctx, size); err != nil {
		return translate(err)
	}
	s.giveBack()
	if err := s.take(ctx, "messages", &id); err != nil {
		return err
	}
	s.id, s.limits = id, limits
	o.Auth = s.submitter(ctx, o.Auth)
	s.env = smtp.Envelope{From: from, MailOptions: o}
	return nil
}

// submitter is the AUTH parameter to pass on to hosts that trust us: what the
// user claims if they may send as it, and else that it is unknown (RFC 4954
// §5).
func (s *session) submitter(ctx context.Context, claim string) string {
	if claim == "" {
		return ""
	}
	a, err := smtp.ParseAddress(claim)
	if err != nil || a.IsZero() || s.s.allow(ctx, &s.id, a) != nil {
		return "<>"
	}
	return a.String()
}

func (s *session) Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error {
	if n := s.limits.MaxRecipients; n >= 0 && len(s.env.To) >= n {
		return tooManyRecipients()
	}
	if err := checkRecipient(to); err != nil {
		return err
	}
	if err := s.take(ctx, "recipients", &s.id); err != nil {
		return err
	}
	s.env.To = append(s.env.To, smtp.Recipient{Address: to, RcptOptions: o})
	return nil
}

func (s *session) Data(ctx context.Context, r io.Reader) (smtp.Reply, error) {
	m := &mail{Mail: queue.Mail{Envelope: s.env, Tenant: s.id.User, Priority: s.env.Priority, Due: s.env.HoldUntil, Body: r}, id: &s.id, limits: s.limits, received: s.received}
	if s.s.Tenant != nil {
		m.Tenant = s.s.Tenant(s.id)
	}
	sub, err := s.s.prepare(ctx, m)
	if err != nil {
		return smtp.Reply{}, translate(err)
	}
	if err := s.s.Queue.Put(ctx, sub); err != nil {
		sub.Body.Close()
		return smtp.Reply{}, translate(err)
	}
	s.taken = nil
	return smtp.Reply{Code: 250, Enhanced: smtp.EnhancedCode{2, 0, 0}, Text: "OK queued as " + sub.Message.ID.String()}, nil
}

// received names the recipient only when there is one: others must not learn
// of a Bcc (RFC 5321 §7.2).
func (s *session) received(id queue.ID) []byte {
	var to string
	if len(s.env.To) == 1 {
		to = s.env.To[0].Address.String()
	}
	return s.c.Received(id.String(), to, time.Now())
}

func (s *session) Reset() {
	s.giveBack()
	s.env, s.id = smtp.Envelope{}, login.Identity{}
}

func (s *session) Close() error {
	s.giveBack()
	return nil
}
