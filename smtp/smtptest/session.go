package smtptest

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/emersion/go-sasl"

	"github.com/postrider/postrider/auth/login"
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

// users is an Authenticator without limits and hashes: a test's passwords are
// no secret.
type users map[string]string

func (u users) Mechanisms(*login.Conn) []string { return []string{sasl.Plain, sasl.Login} }

func (u users) Start(_ context.Context, mech string, _ *login.Conn) (login.Exchange, error) {
	x := &exchange{mech: mech}
	check := func(user, pass string) error {
		if want, ok := u[user]; !ok || want != pass {
			return login.ErrCredentials
		}
		x.user = user
		return nil
	}
	switch mech {
	case sasl.Plain:
		x.Server = sasl.NewPlainServer(func(identity, user, pass string) error {
			if identity != "" && identity != user {
				return login.ErrCredentials
			}
			return check(user, pass)
		})
	case sasl.Login:
		x.Server = &loginServer{check: check}
	default:
		return nil, login.ErrMechanism
	}
	return x, nil
}

type exchange struct {
	sasl.Server
	mech, user string
}

func (x *exchange) Identity() login.Identity {
	return login.Identity{User: x.user, Login: x.user, Mechanism: x.mech}
}

// loginServer is the mechanism LOGIN, which go-sasl has for clients only.
type loginServer struct {
	check func(user, pass string) error
	step  int
	user  string
}

func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil && l.step == 0 {
		return []byte("Username:"), false, nil
	}
	l.step++
	switch l.step {
	case 1:
		l.user = string(response)
		return []byte("Password:"), false, nil
	case 2:
		return nil, true, l.check(l.user, string(response))
	}
	return nil, false, errors.New("smtptest: too many responses")
}
