package submission

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// mail is what goes into the pipeline.
type mail struct {
	queue.Mail
	id     *login.Identity // nil = a Go caller
	limits Limits
	// received makes the Received field, nil = none.
	received func(id queue.ID) []byte
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4<<10) }}

// prepare runs the pipeline: header, then body, in one pass.
func (s *Submitter) prepare(ctx context.Context, m *mail) (*queue.Submission, error) {
	if n := m.limits.MaxRecipients; n >= 0 && len(m.Envelope.To) > n {
		return nil, tooManyRecipients()
	}
	for i := range m.Envelope.To {
		if err := checkRecipient(m.Envelope.To[i].Address); err != nil {
			return nil, err
		}
	}
	r := readers.Get().(*bufio.Reader)
	r.Reset(m.Body)
	defer func() {
		r.Reset(nil)
		readers.Put(r)
	}()
	limit := s.MaxHeaderBytes
	if limit == 0 {
		limit = defaultMaxHeaderBytes
	}
	block, err := readHeader(r, limit)
	if err != nil {
		return nil, err
	}
	h := mime.ParseHeader(block)
	if err := checkHeader(&h, block); err != nil {
		return nil, err
	}
	author, err := s.complete(ctx, &h, m.Envelope.From, m.id)
	if err != nil {
		return nil, err
	}
	// RFC 8689 §4.1: REQUIRETLS takes precedence over the field.
	m.Envelope.TLSOptional = m.Envelope.TLSOptional ||
		!m.Envelope.RequireTLS && strings.EqualFold(h.Get("TLS-Required"), "No")

	var signer Signer
	if s.Sign != nil {
		if signer, err = s.Sign(ctx, author); err != nil {
			return nil, err
		}
	}
	left := m.limits.MaxMessageBytes
	if left >= 0 {
		left = max(left-int64(len(block)), 0)
	}
	body := io.MultiReader(bytes.NewReader(append(h.Bytes(), "\r\n"...)), &limited{r, left})
	if signer != nil {
		body = io.TeeReader(body, signer)
	}
	m.Body = body
	sub, err := s.Queue.Prepare(ctx, m.Mail)
	if err != nil {
		return nil, err
	}
	// Trace fields go on top (RFC 5321 §4.4).
	if m.received != nil {
		sub.Head = m.received(sub.Message.ID)
	}
	if signer != nil {
		fields, err := signer.Signature()
		if err != nil {
			sub.Body.Close()
			return nil, err
		}
		sub.Head = append(sub.Head, fields...)
	}
	return sub, nil
}

// limited fails, and does not end, beyond its limit.
type limited struct {
	r    io.Reader
	left int64 // negative = no limit
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left >= 0 {
		if l.left -= int64(n); l.left < 0 {
			l.left = 0
			return 0, tooLarge()
		}
	}
	return n, err
}

func tooLarge() error {
	return smtp.Errorf(552, smtp.EnhancedCode{5, 3, 4}, "Message is too large")
}

func tooManyRecipients() error {
	return smtp.Errorf(452, smtp.EnhancedCode{4, 5, 3}, "Too many recipients")
}

func checkRecipient(to smtp.Address) error {
	if !qualified(to.Domain) {
		return smtp.Errorf(554, smtp.EnhancedCode{5, 1, 2}, "Domain of %s is not fully qualified", to)
	}
	return nil
}

// translate gives the errors of the queue their replies.
func translate(err error) error {
	switch {
	case errors.Is(err, queue.ErrFull):
		return &smtp.Error{Code: 452, Enhanced: smtp.EnhancedCode{4, 3, 1}, Text: "Insufficient system storage", Err: err}
	case errors.Is(err, queue.ErrMail):
		return &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 6, 0}, Text: "Unusable envelope", Err: err}
	}
	return err
}
