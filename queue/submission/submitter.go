package submission

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/postrider/postrider/auth/login"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// Submitter completes, signs and queues. Only Queue is required. Its fields
// must not change once it is used; all methods may be called from many
// goroutines.
type Submitter struct {
	Queue *queue.Queue

	// Allow says whether a user may send as addr, in MAIL FROM and in From
	// and Sender. An *smtp.Error is the reply, any other error 451. nil =
	// OwnAddress. The null reverse-path is always allowed: notifications need
	// it (RFC 8098 §3). Send and Prepare do not ask.
	Allow func(ctx context.Context, id login.Identity, addr smtp.Address) error

	// Sign returns what signs a message with that From, nil for no
	// signature; a *dkim.Signer is a Signer. nil = nothing is signed.
	Sign func(ctx context.Context, from smtp.Address) (Signer, error)

	// Tenant names the tenant of a user's mail in the queue; nil = each User
	// is one. Options say it for Send and Prepare.
	Tenant func(id login.Identity) string

	// MaxMessageBytes is the largest message as it was submitted, in octets; 0 =
	// 50 MiB, negative = no limit.
	MaxMessageBytes int64
	// MaxHeaderBytes is the largest header, in octets; 0 = 256 KiB.
	MaxHeaderBytes int
	// MaxRecipients of one message; 0 = 1,000, negative = no limit.
	MaxRecipients int

	// Limits returns those of one user, asked at each MAIL; what is 0 is as
	// above. nil = all users have those above.
	Limits func(ctx context.Context, id login.Identity) (Limits, error)
	// Limiter bounds how much a user submits, by the keys "messages USER" and
	// "recipients USER"; what is refused in the end is given back. Over it
	// MAIL or RCPT get 450 4.7.1. A queue.Rates is one in memory. nil = no
	// bound. Send and Prepare do not ask.
	Limiter queue.Limiter
}

// Limits are what one user may submit at once, as in Submitter.
type Limits struct {
	MaxMessageBytes int64
	MaxRecipients   int
}

// Signer signs one message: the whole of it is written to it in order, and
// then Signature returns the fields to go in front, each with its CRLF.
type Signer interface {
	io.Writer
	Signature() (string, error)
}

// Defaults of Submitter.
const (
	defaultMaxMessageBytes = 50 << 20
	defaultMaxHeaderBytes  = 256 << 10
	defaultMaxRecipients   = 1000
)

// OwnAddress allows a user the address that is their User, and no other. The
// case of the local part does not matter: it is our own user.
func OwnAddress(_ context.Context, id login.Identity, addr smtp.Address) error {
	own, err := smtp.ParseAddress(id.User)
	if err != nil || own.IsZero() || own.Domain != addr.Domain || !strings.EqualFold(own.Local, addr.Local) {
		return smtp.Errorf(550, smtp.EnhancedCode{5, 7, 1}, "%s may not send as %s", id.User, addr)
	}
	return nil
}

func (s *Submitter) allow(ctx context.Context, id *login.Identity, addr smtp.Address) error {
	if id == nil || addr.IsZero() { // a Go caller, or a notification
		return nil
	}
	if s.Allow != nil {
		return s.Allow(ctx, *id, addr)
	}
	return OwnAddress(ctx, *id, addr)
}

// limits returns those of id, nil = a Go caller, with the defaults filled in.
func (s *Submitter) limits(ctx context.Context, id *login.Identity) (Limits, error) {
	var l Limits
	if id != nil && s.Limits != nil {
		var err error
		if l, err = s.Limits(ctx, *id); err != nil {
			return l, err
		}
	}
	l.MaxMessageBytes = cmp.Or(l.MaxMessageBytes, s.MaxMessageBytes, defaultMaxMessageBytes)
	l.MaxRecipients = cmp.Or(l.MaxRecipients, s.MaxRecipients, defaultMaxRecipients)
	return l, nil
}

// Options of Send and Prepare. The zero value sends now, to whom the message
// names.
type Options struct {
	// Envelope, if it has recipients, is used as it is. Without, only its
	// MailOptions count: From, and To, Cc and Bcc of the message give the rest.
	Envelope smtp.Envelope
	// Tenant, Campaign, Key, Priority, Due and Meta are those of queue.Mail.
	Tenant, Campaign, Key string
	Priority              int8
	Due                   time.Time
	Meta                  map[string]string
}

// Send completes, signs and queues m. After a nil error the queue is
// responsible for it. See queue.Queue.Enqueue for what an error means; what
// is wrong with the message is an *smtp.Error. With a Key that is known, the ID
// is that of the mail that came first; who must know it calls Prepare and Put,
// and looks at Duplicate.
func (s *Submitter) Send(ctx context.Context, m *mime.Message, o Options) (queue.ID, error) {
	sub, err := s.Prepare(ctx, m, o)
	if err != nil {
		return queue.ID{}, err
	}
	if err := s.Queue.Put(ctx, sub); err != nil {
		sub.Body.Close()
		return queue.ID{}, err
	}
	return sub.Message.ID, nil
}

// Prepare is Send without the last step: the result is for queue.Queue.Put,
// or for a storage that takes part in a transaction. Close the Body of what
// is never put.
func (s *Submitter) Prepare(ctx context.Context, m *mime.Message, o Options) (*queue.Submission, error) {
	env := o.Envelope
	if len(env.To) == 0 {
		own, err := m.Envelope()
		if err != nil {
			return nil, fmt.Errorf("submission: %w", err)
		}
		env.From, env.To = own.From, own.To
	}
	// The message is written while the pipeline reads it.
	r, w := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, err := m.WriteTo(w)
		w.CloseWithError(err)
	}()
	limits, _ := s.limits(ctx, nil) // nobody is asked
	sub, err := s.prepare(ctx, &mail{limits: limits,
		Mail: queue.Mail{Envelope: env, Tenant: o.Tenant, Campaign: o.Campaign, Key: o.Key,
			Priority: o.Priority, Due: o.Due, Meta: o.Meta, Body: r},
	})
	r.CloseWithError(errors.New("submission: message refused"))
	<-written
	return sub, err
}
