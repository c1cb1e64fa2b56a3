package smtptest

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// session is one connection's view of the Server.
type session struct {
	s  *Server
	c  *smtpserver.Conn
	nc net.Conn // below TLS
	m  Message
}

func (s *session) Extensions(offered []string) []string { return s.s.extensions(offered) }

func (s *session) Mail(ctx context.Context, from smtp.Address, o smtp.MailOptions) error {
	if err := s.s.hit(ctx, Mail, from.String(), s.nc); err != nil {
		return err
	}
	s.m = Message{Envelope: smtp.Envelope{From: from, MailOptions: o}}
	return nil
}

func (s *session) Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error {
	if err := s.s.hit(ctx, Rcpt, to.String(), s.nc); err != nil {
		return err
	}
	s.m.Envelope.To = append(s.m.Envelope.To, smtp.Recipient{Address: to, RcptOptions: o})
	return nil
}

func (s *session) Data(ctx context.Context, r io.Reader) (smtp.Reply, error) {
	err := s.read(ctx, r)
	if err == nil {
		err = s.s.hit(ctx, Dot, s.m.Envelope.From.String(), s.nc)
	}
	if err != nil {
		return smtp.Reply{}, err
	}
	s.keep(s.m.Envelope.To)
	return smtp.Reply{}, nil
}

// DataLMTP asks the faults at Dot for each recipient.
func (s *session) DataLMTP(ctx context.Context, r io.Reader) []smtp.Result {
	results := make([]smtp.Result, len(s.m.Envelope.To))
	err := s.read(ctx, r)
	var to []smtp.Recipient
	for i, rcpt := range s.m.Envelope.To {
		results[i].Err = err
		if err == nil {
			results[i].Err = s.s.hit(ctx, Dot, rcpt.String(), s.nc)
		}
		if results[i].Err == nil {
			to = append(to, rcpt)
		}
	}
	if len(to) > 0 {
		s.keep(to)
	}
	return results
}

func (s *session) read(ctx context.Context, r io.Reader) error {
	if err := s.s.hit(ctx, Data, s.m.Envelope.From.String(), s.nc); err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	s.m.Data = data
	return err
}

func (s *session) keep(to []smtp.Recipient) {
	m := s.m
	m.Envelope.To = to
	m.Hello, m.Protocol, m.Remote, m.TLS = s.c.Hello(), s.c.Protocol(), s.c.Remote(), s.c.TLS() != nil
	if id, ok := s.c.Identity(); ok {
		m.User = id.User
	}
	m.At = time.Now()
	s.s.arrive(&m)
}

func (s *session) Reset()       { s.m = Message{} }
func (s *session) Close() error { return nil }
