package dnsbl

import (
	"context"
	"log/slog"
	"strings"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// Refuse is the error for what r tells, nil below the threshold.
func (c *Checker) Refuse(r Result) error {
	threshold := c.Threshold
	if threshold == 0 {
		threshold = 1
	}
	if r.Score < threshold {
		return nil
	}
	for _, h := range r.Hits {
		if h.List.weight() <= 0 {
			continue
		}
		text := h.Subject + " is listed by " + strings.TrimSuffix(h.List.Zone, ".")
		if h.Text != "" {
			text += ": " + h.Text
		}
		return &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 7, 1}, Scope: smtp.ScopeHost, Text: text}
	}
	return nil
}

// Wrap asks the lists about one connection; it is a smtpserver.Wrapper.
func (c *Checker) Wrap(ctx context.Context, conn *smtpserver.Conn, inner smtpserver.Session) (smtpserver.Session, error) {
	s := &session{Inner: smtpserver.Inner{Session: inner}, check: c, conn: conn}
	ctx, s.cancel = context.WithCancel(ctx)
	ip := conn.Remote().Addr()
	s.address = start(func() Result { return c.LookupAddr(ctx, ip) })
	return s, nil
}

// pending is a lookup that runs.
type pending struct {
	done   chan struct{}
	result Result
}

func start(lookup func() Result) *pending {
	p := &pending{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.result = lookup()
	}()
	return p
}

func (p *pending) wait() Result {
	if p == nil {
		return Result{}
	}
	<-p.done
	return p.result
}

type session struct {
	smtpserver.Inner
	check                  *Checker
	conn                   *smtpserver.Conn
	cancel                 context.CancelFunc
	address, hello, sender *pending
	name                   string // that hello is about
	stop                   context.CancelFunc
	result                 *Result // of this transaction, once a RCPT has asked
}

// Mail starts the questions whose subjects are known now.
func (s *session) Mail(ctx context.Context, from smtp.Address, o smtp.MailOptions) error {
	if err := s.Inner.Mail(ctx, from, o); err != nil {
		return err
	}
	s.endTransaction()
	if _, ok := s.conn.Identity(); ok {
		return nil
	}
	ctx, s.stop = context.WithCancel(ctx)
	if name := s.conn.Hello(); s.hello == nil || name != s.name {
		// A question about an older name has been waited for by now.
		s.name = name
		s.hello = start(func() Result { return s.check.LookupDomain(ctx, Hello, name) })
	}
	s.sender = start(func() Result { return s.check.LookupDomain(ctx, Sender, from.Domain) })
	return nil
}

// endTransaction joins what a Mail has started.
func (s *session) endTransaction() {
	if s.stop != nil {
		// Hello's answer outlives the transaction, but a question that was
		// cut short has none.
		select {
		case <-s.hello.done:
		default:
			s.stop()
			s.hello.wait()
			s.hello = nil
		}
		s.stop()
		s.sender.wait()
	}
	s.sender, s.stop, s.result = nil, nil, nil
}

func (s *session) Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error {
	if _, ok := s.conn.Identity(); !ok && !strings.EqualFold(to.Local, "postmaster") {
		if err := s.decide(ctx, to); err != nil {
			return err
		}
	}
	return s.Inner.Rcpt(ctx, to, o)
}

func (s *session) decide(ctx context.Context, to smtp.Address) error {
	if s.result == nil {
		r := Result{}
		for _, p := range []*pending{s.address, s.hello, s.sender} {
			r.add(p.wait())
		}
		s.result = &r
		log := s.check.Log
		if log == nil {
			log = slog.Default()
		}
		for _, err := range r.Errs {
			log.Warn("dnsbl: no answer", "remote", s.conn.Remote(), "err", err)
		}
		for _, h := range r.Hits {
			log.Info("dnsbl: listed", "remote", s.conn.Remote(), "subject", h.Subject, "list", h.List.Zone, "score", r.Score)
		}
	}
	if s.check.Decide != nil {
		return s.check.Decide(ctx, s.conn, to, *s.result)
	}
	return s.check.Refuse(*s.result)
}

func (s *session) Reset() {
	s.endTransaction()
	s.Inner.Reset()
}

// Close ends and joins all questions.
func (s *session) Close() error {
	s.cancel()
	s.endTransaction()
	s.address.wait()
	return s.Inner.Close()
}
