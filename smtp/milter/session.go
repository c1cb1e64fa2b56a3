package milter

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
)

// session is one peer's, between the server and the backend's session.
type session struct {
	inner smtpserver.Session
	m     *Client
	c     *smtpserver.Conn
	w     *wire // nil = not connected

	hello   string  // that the filter knows
	whole   verdict // on the whole connection: accept, or refusal
	begun   bool    // the filter has heard of a message
	verdict verdict // on the message so far: continue, accept or discard
	id      string
	from    smtp.Address
	options smtp.MailOptions
	rcpts   []rcpt
	changed bool // the backend's envelope is not ours
}

// rcpt is a recipient that the peer was told is accepted, or one that the
// filter added.
type rcpt struct {
	addr    smtp.Address
	options smtp.RcptOptions
	added   bool
	removed bool
}

// Unwrap returns the session within.
func (s *session) Unwrap() smtpserver.Session { return s.inner }

// fail is a filter that cannot be used: the connection to it ends, and the
// message is deferred or passes.
func (s *session) fail(err error) error {
	s.m.log().Warn("milter: filter failed", "filter", s.m.Address, "remote", s.c.Remote(), "open", s.m.FailOpen, "err", err)
	if s.w != nil {
		s.w.nc.Close()
		s.w = nil
	}
	s.hello, s.whole, s.begun = "", verdict{}, false
	if s.m.FailOpen {
		s.verdict = verdict{kind: repAccept}
		return nil
	}
	return unavailable(err)
}

// step sends one command and reads its answer. An error is the filter's.
func (s *session) step(ctx context.Context, no, nr uint32, cmd byte, macros []string, parts ...[]byte) (verdict, error) {
	if s.w.steps&no != 0 {
		return verdict{kind: repContinue}, nil
	}
	defer s.w.guard(ctx)()
	if macros != nil {
		for name, v := range s.m.Macros {
			macros = append(macros, name, v)
		}
		if err := s.w.macros(cmd, macros...); err != nil {
			return verdict{}, err
		}
	}
	if err := s.w.send(cmd, parts...); err != nil {
		return verdict{}, err
	}
	if s.w.steps&nr != 0 {
		return verdict{kind: repContinue}, nil
	}
	for {
		rep, data, err := s.w.read()
		if err != nil {
			return verdict{}, err
		}
		if rep != repProgress {
			return judge(rep, data)
		}
		s.w.deadline(s.w.timeout)
	}
}

// connect opens the filter's connection and says who the peer is.
func (s *session) connect(ctx context.Context) error {
	if s.w == nil {
		w, err := s.m.open(ctx)
		if err != nil {
			return err
		}
		s.w, s.hello, s.whole = w, "", verdict{kind: repContinue}
		addr := s.c.Remote().Addr().WithZone("")
		data := appendString(nil, s.clientName())
		switch {
		case !addr.IsValid():
			data = append(data, 'U')
		default:
			family := byte('4')
			if addr.Is6() {
				family = '6'
			}
			data = binary.BigEndian.AppendUint16(append(data, family), s.c.Remote().Port())
			data = appendString(data, addr.String())
		}
		v, err := s.step(ctx, noConnect, nrConnect, cmdConnect, []string{
			"j", s.c.Hostname(), "v", "Postrider", "{daemon_name}", s.c.Hostname(), "_", s.clientName(),
			"{client_name}", s.clientName(), "{client_addr}", s.clientAddr(), "{client_port}", s.clientPort(),
		}, data)
		if err != nil {
			return err
		}
		if s.whole = v; v.kind != repContinue {
			return nil
		}
	}
	if s.whole.kind != repContinue || s.hello == s.c.Hello() {
		return nil
	}
	s.hello = s.c.Hello()
	macros := []string{"{tls_version}", "", "{cipher}", "", "{cert_subject}", ""}
	if t := s.c.TLS(); t != nil {
		macros[1], macros[3] = tls.VersionName(t.Version), tls.CipherSuiteName(t.CipherSuite)
		if len(t.PeerCertificates) > 0 {
			macros[5] = t.PeerCertificates[0].Subject.String()
		}
	}
	v, err := s.step(ctx, noHello, nrHello, cmdHello, macros, appendString(nil, s.hello))
	s.whole = v
	return err
}

func (s *session) clientAddr() string {
	if a := s.c.Remote().Addr(); a.IsValid() {
		return a.WithZone("").String()
	}
	return ""
}

// clientName is the address in brackets, which stands for "no name known".
func (s *session) clientName() string {
	if a := s.clientAddr(); a != "" {
		return "[" + a + "]"
	}
	return "localhost"
}

func (s *session) clientPort() string {
	if p := s.c.Remote().Port(); p != 0 {
		return strconv.Itoa(int(p))
	}
	return ""
}

// apply takes a verdict on the message; the error is a refusal.
func (s *session) apply(v verdict) error {
	if v.kind == repReject {
		return v.err
	}
	if v.kind == repAccept || v.kind == repDiscard {
		s.verdict = v
	}
	return nil
}

// Mail asks the backend, then the filter.
func (s *session) Mail(ctx context.Context, from smtp.Address, o smtp.MailOptions) error {
	if err := s.inner.Mail(ctx, from, o); err != nil {
		return err
	}
	s.verdict, s.from, s.options, s.rcpts, s.changed = verdict{kind: repContinue}, from, o, nil, false
	if err := s.mail(ctx); err != nil {
		s.end(ctx)
		s.inner.Reset()
		return err
	}
	return nil
}

func (s *session) mail(ctx context.Context) error {
	if err := s.connect(ctx); err != nil {
		return s.fail(err)
	}
	if s.whole.kind != repContinue {
		return s.apply(s.whole)
	}
	s.id = strings.ToUpper(rand.Text()[:12])
	s.begun = true
	macros := []string{"i", s.id, "{mail_addr}", s.from.String(), "{mail_host}", s.from.Domain, "{auth_type}", "", "{auth_authen}", ""}
	if id, ok := s.c.Identity(); ok {
		macros[7], macros[9] = id.Mechanism, id.User
	}
	data := appendString(nil, s.from.Path())
	if s.options.Size > 0 {
		data = appendString(data, "SIZE="+strconv.FormatInt(s.options.Size, 10))
	}
	if s.options.Body != "" {
		data = appendString(data, "BODY="+string(s.options.Body))
	}
	if s.options.UTF8 {
		data = appendString(data, "SMTPUTF8")
	}
	v, err := s.step(ctx, noMail, nrMail, cmdMail, macros, data)
	if err != nil {
		return s.fail(err)
	}
	return s.apply(v)
}

// Rcpt asks the backend, then the filter.
func (s *session) Rcpt(ctx context.Context, to smtp.Address, o smtp.RcptOptions) error {
	if err := s.inner.Rcpt(ctx, to, o); err != nil {
		return err
	}
	if s.verdict.kind == repContinue {
		v, err := s.step(ctx, noRcpt, nrRcpt, cmdRcpt, []string{"{rcpt_addr}", to.String(), "{rcpt_host}", to.Domain}, appendString(nil, to.Path()))
		if err != nil {
			err = s.fail(err)
		} else {
			err = s.apply(v)
		}
		if err != nil {
			s.changed = true // the backend has it, and must not
			return err
		}
	}
	s.rcpts = append(s.rcpts, rcpt{addr: to, options: o})
	return nil
}

// Data implements smtpserver.Session.
func (s *session) Data(ctx context.Context, r io.Reader) (smtp.Reply, error) {
	m := &message{s: s}
	defer m.close()
	if done, err := m.filter(ctx, r); done || err != nil {
		return smtp.Reply{}, err
	}
	return s.inner.Data(ctx, m.reader())
}

// DataLMTP implements smtpserver.LMTPSession; a backend's session that does
// not gives one answer for all.
func (s *session) DataLMTP(ctx context.Context, r io.Reader) []smtp.Result {
	var peers int
	for _, to := range s.rcpts {
		if !to.added {
			peers++
		}
	}
	all := func(r smtp.Result) []smtp.Result {
		out := make([]smtp.Result, peers)
		for i := range out {
			out[i] = r
		}
		return out
	}
	m := &message{s: s}
	defer m.close()
	if done, err := m.filter(ctx, r); done || err != nil {
		return all(smtp.Result{Err: err})
	}
	n := 0
	for _, to := range s.rcpts {
		if !to.removed {
			n++
		}
	}
	got := smtpserver.DataLMTP(ctx, s.inner, m.reader(), n)
	// The answers are for the envelope as the filter left it.
	var out []smtp.Result
	for _, to := range s.rcpts {
		var r smtp.Result // of a recipient that the filter removed: taken
		if !to.removed {
			if len(got) == 0 {
				r.Err = fmt.Errorf("milter: the session gave too few results")
			} else {
				r, got = got[0], got[1:]
			}
		}
		if !to.added {
			out = append(out, r)
		}
	}
	return out
}

// replay gives the backend the envelope as it is now.
func (s *session) replay(ctx context.Context) error {
	s.inner.Reset()
	if err := s.inner.Mail(ctx, s.from, s.options); err != nil {
		return err
	}
	for _, to := range s.rcpts {
		if !to.removed {
			if err := s.inner.Rcpt(ctx, to.addr, to.options); err != nil {
				return err
			}
		}
	}
	return nil
}

// end tells the filter that the message is over.
func (s *session) end(ctx context.Context) {
	if s.w == nil || !s.begun {
		return
	}
	s.begun = false
	defer s.w.guard(ctx)()
	err := s.w.send(cmdAbort)
	if err == nil {
		err = s.w.w.Flush()
	}
	if err != nil {
		s.w.nc.Close()
		s.w = nil
	}
}

// Reset implements smtpserver.Session.
func (s *session) Reset() {
	s.end(context.Background())
	s.verdict = verdict{kind: repAccept}
	s.rcpts = nil
	s.inner.Reset()
}

// Close implements smtpserver.Session.
func (s *session) Close() error {
	if s.w != nil {
		s.w.quit()
		s.w = nil
	}
	return s.inner.Close()
}
