package delivery

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"time"

	"github.com/postrider/postrider/internal/spool"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/store"
)

// Data implements smtpserver.Session.
func (s *session) Data(ctx context.Context, r io.Reader) (smtp.Reply, error) {
	errs, id, err := s.deliver(ctx, r)
	if err == nil {
		err = joint(errs)
	}
	if err != nil {
		return smtp.Reply{}, err
	}
	return accepted(id), nil
}

// DataLMTP implements smtpserver.LMTPSession.
func (s *session) DataLMTP(ctx context.Context, r io.Reader) []smtp.Result {
	results := make([]smtp.Result, len(s.rcpt))
	errs, id, err := s.deliver(ctx, r)
	for i := range results {
		switch {
		case err != nil:
			results[i].Err = err
		case errs[i] != nil:
			results[i].Err = errs[i]
		default:
			results[i].Reply = accepted(id)
		}
	}
	return results
}

func accepted(id string) smtp.Reply {
	return smtp.Reply{Code: 250, Enhanced: smtp.EnhancedCode{2, 0, 0}, Text: "OK " + id}
}

// deliver takes one message from r to the Target. errs are index-aligned with
// s.rcpt and speak to the peer; err refuses the message for all.
func (s *session) deliver(ctx context.Context, r io.Reader) (errs []error, id string, err error) {
	body, err := s.stage(ctx)
	if err != nil {
		return nil, "", refusal(err)
	}
	defer body.Close()
	in, err := s.receive(ctx, r, body)
	if err != nil {
		return nil, "", err
	}
	if s.b.Policy != nil {
		if err := s.b.Policy(ctx, in); err != nil {
			s.b.log().InfoContext(ctx, "delivery: refused by policy", "id", in.ID, "from", in.From.String(), "err", err)
			return nil, "", refusal(err)
		}
	}
	errs, err = s.b.place(ctx, in)
	if err != nil {
		return nil, "", refusal(err)
	}
	told := make([]error, len(errs))
	for i, err := range errs {
		told[i] = refusal(err)
		if err != nil {
			s.b.log().WarnContext(ctx, "delivery: not stored", "id", in.ID, "to", in.Recipients[i].Address.String(), "err", err)
		}
	}
	s.b.log().InfoContext(ctx, "delivery: done", "id", in.ID, "from", in.From.String(),
		"recipients", len(errs), "size", in.Body.Size(), "junk", in.Junk)
	return told, in.ID, nil
}

// stage opens the place where the body goes.
func (s *session) stage(ctx context.Context) (store.Staged, error) {
	if st, ok := store.As[store.Stager](s.b.Target); ok {
		size := s.opts.Size
		if size == 0 {
			size = -1
		}
		return st.Stage(ctx, size)
	}
	return new(spool.Spool), nil
}

// receive reads the whole message in one pass. Its error is the peer's to
// see, or r's.
func (s *session) receive(ctx context.Context, r io.Reader, body store.Staged) (*Inbound, error) {
	in := &Inbound{
		ID: newID(), Time: time.Now(),
		Remote: s.c.Remote(), Hello: s.c.Hello(), Protocol: s.c.Protocol(),
		From: s.from, MailOptions: s.opts, Recipients: s.rcpt,
		Body: body,
	}
	p := pass{body: body, hash: sha256.New(), max: s.b.MaxReceived}
	if s.check != nil {
		p.check = s.check
	}
	p.header.ids = []string{s.authServID}
	if p.max == 0 {
		p.max = defaultMaxReceived
	}
	_, err := io.Copy(&p, r)
	if err == nil {
		err = p.end()
	}
	switch {
	case p.failed != nil:
		return nil, refusal(p.failed)
	case err != nil:
		return nil, err
	}
	in.Message = p.parser.Close()
	io.WriteString(p.hash, in.From.String())
	in.digest = hex.EncodeToString(p.hash.Sum(nil)[:16])

	// A Received field names a recipient only when it is the only one: it
	// must not tell the others of one another (RFC 5321 §7.2).
	forAddr := ""
	if len(s.rcpt) == 1 {
		forAddr = s.rcpt[0].Address.String()
	}
	if s.check != nil {
		in.Auth, err = s.check.Result()
		if in.Auth == nil {
			return nil, refusal(err) // closed: the connection ends
		}
		a := &in.Auth.AuthenticationResults
		a.AuthServID = s.authServID
		in.Trace = a.AppendTo(in.Trace)
	}
	in.Trace = append(in.Trace, s.c.Received(in.ID, forAddr, in.Time)...)
	return in, nil
}

// newID returns a name for one reception.
func newID() string {
	var b [10]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// pass is the one pass over a message: each octet goes to the checks and to
// the filter of the header, and what that keeps to the body, the parser and
// the digest.
type pass struct {
	check  io.Writer // nil = none
	header headerFilter
	body   io.Writer
	parser mime.Parser
	hash   hash.Hash
	max    int   // of Received fields
	failed error // a failure of ours, not of the reader
}

func (p *pass) Write(b []byte) (int, error) {
	n := len(b)
	if p.check != nil {
		p.check.Write(b) // it never fails
	}
	if !p.header.done {
		out, rest, err := p.header.write(b)
		if err == nil {
			err = p.loop()
		}
		if err == nil {
			err = p.keep(out)
		}
		if err != nil {
			return 0, p.fail(err)
		}
		b = rest
	}
	if err := p.keep(b); err != nil {
		return 0, p.fail(err)
	}
	return n, nil
}

// end is told that the message is whole.
func (p *pass) end() error {
	out := p.header.close()
	if err := errors.Join(p.loop(), p.keep(out)); err != nil {
		return p.fail(err)
	}
	return nil
}

func (p *pass) fail(err error) error {
	if p.failed == nil {
		p.failed = err
	}
	return err
}

func (p *pass) loop() error {
	if p.max > 0 && p.header.received > p.max {
		return &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 4, 6}, Scope: smtp.ScopeMessage,
			Text: "Too many Received fields, this is a mail loop"}
	}
	return nil
}

func (p *pass) keep(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	p.parser.Write(b)
	p.hash.Write(b)
	_, err := p.body.Write(b)
	return err
}
