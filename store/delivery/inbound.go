package delivery

import (
	"context"
	"net/netip"
	"time"

	"github.com/postrider/postrider/auth/verify"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/store"
)

// Target stores messages, or does whatever else becomes of them.
type Target interface {
	// Deliver returns when the message is durable for each recipient whose
	// error is nil; the errors are index-aligned with in.Recipients. The
	// errors of package store and *smtp.Error choose the reply, any other is
	// a temporary failure. in, its Body above all, is only good during the
	// call. It is called from many goroutines.
	//
	// A Target that is a store.Stager is asked for the place that bodies are
	// written to; else that is memory and then a temporary file.
	Deliver(ctx context.Context, in *Inbound) []error
}

// Checker is a Target that knows at RCPT what will not fit, so that a message
// need not be sent in vain.
type Checker interface {
	// Check returns what Deliver would fail with for a message of size octets,
	// 0 = not told. It is quick, and may let through what Deliver refuses.
	Check(ctx context.Context, targets []store.Target, size int64) error
}

// Inbound is one message that has come in, whole.
type Inbound struct {
	// ID is in the Received field, in the log and in the reply.
	ID   string
	Time time.Time
	// Remote, Hello and Protocol say who sent it and how: the WITH keyword of
	// Received.
	Remote   netip.AddrPort
	Hello    string
	Protocol string
	// From and its parameters; the recipients are in Recipients.
	From smtp.Address
	smtp.MailOptions
	Recipients []Recipient
	// Trace is what goes on top of every recipient's copy:
	// Authentication-Results and Received. A Policy may put more before it,
	// whole fields with CRLF line ends.
	Trace []byte
	// Body is the message as it came, without forged Authentication-Results.
	Body store.Body
	// Message is its structure; offsets count from the beginning of Body.
	Message *mime.Part
	// Auth is what the Verifier found, nil without one.
	Auth *verify.Result
	// Junk says that it belongs with the junk.
	Junk bool

	digest string // of Body and From
}

// Recipient is one accepted RCPT and where its mail goes.
type Recipient struct {
	smtp.Recipient
	Targets []store.Target
	// Redirect are addresses that the message is sent on to, beside what is
	// done for Targets; a Filter fills it in.
	Redirect []smtp.Address
}

// Head returns what goes before Body for recipient i: Return-Path,
// Delivered-To and Trace (RFC 5321 §4.4).
func (in *Inbound) Head(i int) []byte {
	return append(in.ownHead(i), in.Trace...)
}

// OnwardHead returns what goes before Body when recipient i has the message
// sent on: Delivered-To, by which a loop is noticed, and Trace.
func (in *Inbound) OnwardHead(i int) []byte {
	return append([]byte("Delivered-To: "+in.Recipients[i].Address.String()+"\r\n"), in.Trace...)
}

// ownHead is the part of Head that differs from recipient to recipient.
func (in *Inbound) ownHead(i int) []byte {
	b := make([]byte, 0, 256)
	b = append(b, "Return-Path: "...)
	b = append(b, in.From.Path()...)
	b = append(b, "\r\nDelivered-To: "...)
	b = append(b, in.Recipients[i].Address.String()...)
	return append(b, "\r\n"...)
}

// Summary returns a store's Summary of head and Body together.
func (in *Inbound) Summary(head []byte) []byte {
	m := in.Message
	if m.BodyOffset == 0 && in.Body.Size() > 0 {
		// No header of its own: behind a head its first lines read as one.
		p, err := mime.Parse(joined{head, in.Body}, int64(len(head))+in.Body.Size(), mime.Limits{})
		if err != nil {
			return nil // the store's reader parses again
		}
		return p.Summary()
	}
	n := int64(len(head))
	shift(m, n)
	m.HeaderOffset -= n // the head is the beginning of its header
	b := m.Summary()
	m.HeaderOffset += n
	shift(m, -n)
	return b
}

// shift moves a part and all within by n octets.
func shift(p *mime.Part, n int64) {
	p.HeaderOffset += n
	p.BodyOffset += n
	for _, c := range p.Parts {
		shift(c, n)
	}
	if p.Message != nil {
		shift(p.Message, n)
	}
}

// joined reads head and body as one.
type joined struct {
	head []byte
	body store.Body
}

func (j joined) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	if off < int64(len(j.head)) {
		n = copy(p, j.head[off:])
		if n == len(p) {
			return n, nil
		}
	}
	m, err := j.body.ReadAt(p[n:], off+int64(n)-int64(len(j.head)))
	return n + m, err
}
