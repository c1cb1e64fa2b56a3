package queue

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/smtp"
)

// What a notice returns of the message it is about, at most, in octets. A
// longer message is returned by its header only (RFC 3461 §6.2).
const (
	maxReturned       = 1 << 20
	maxReturnedHeader = 64 << 10
)

// notice gathers what one notification (RFC 3464) tells: there is one for
// each attempt of an entry, with all recipients that the sender wants to hear
// of.
type notice struct {
	to     []report.Recipient
	failed bool           // it tells of a failure
	env    *smtp.Envelope // of the message
	now    time.Time
	// late says that the time of DELIVERBY is over.
	late bool
}

// add takes a recipient's fate if the sender wants to hear of it (RFC 3461
// §5.2).
func (n *notice) add(kind EventKind, to smtp.Recipient, res smtp.Result) {
	r := report.Recipient{Final: to.Address.String(), Original: to.Original, OriginalType: strings.ToLower(to.OriginalType),
		Status: res.Reply.Enhanced}
	wanted := smtp.NotifyFailure
	switch kind {
	case EventFailed, EventExpired:
		r.Action = report.Failed
	case EventDelayed:
		wanted, r.Action = smtp.NotifyDelay, report.Delayed
	case EventDelivered:
		// Nobody hears of a success unasked, and a hop that announced DSN
		// reports it itself (§5.2.2). Without a hop it was delivered here
		// (§5.2.3). DELIVERBY asks in its own way.
		switch {
		case res.Hop == nil && to.Notify&smtp.NotifySuccess != 0:
			wanted, r.Action = smtp.NotifySuccess, report.Delivered
		case res.Hop != nil && to.Notify&smtp.NotifySuccess != 0 && !res.Hop.DSN:
			wanted, r.Action = smtp.NotifySuccess, report.Relayed
		case res.Hop != nil && n.traced(res.Hop):
			wanted, r.Action = ^smtp.NotifyNever, report.Relayed
		default:
			return
		}
	case EventSuppressed:
		// The sender is not told of what they must know, unless they insist.
		if to.Notify&smtp.NotifyFailure == 0 {
			return
		}
		r.Action = report.Failed
	default:
		return
	}
	if to.Notify != 0 && to.Notify&wanted == 0 {
		return
	}
	if res.Hop != nil {
		r.RemoteMTA = res.Hop.Name
	}
	if res.Reply.Code != 0 {
		r.Diagnostic = res.Reply.String()
	}
	var e *smtp.Error
	if errors.As(res.Err, &e) {
		if r.Status == (smtp.EnhancedCode{}) {
			r.Status = e.Enhanced
		}
		if r.Diagnostic == "" && e.Text != "" { // our own words
			r.Diagnostic, r.DiagnosticType = e.Reply().String(), "x-postrider"
		}
	}
	switch {
	case kind == EventExpired && n.late:
		r.Status = smtp.EnhancedCode{5, 4, 7} // RFC 2852 §4.1.3
	case kind == EventDelayed && n.late:
		r.Status = smtp.EnhancedCode{4, 4, 7}
	case kind == EventExpired && r.Status == (smtp.EnhancedCode{}):
		r.Status = smtp.EnhancedCode{4, 4, 7} // delivery time expired (RFC 3463 §3.5)
	case kind == EventFailed && r.Status[0] != 5, kind == EventDelivered && r.Status[0] != 2:
		r.Status = smtp.EnhancedCode{} // of the wrong class: the action has its own
	}
	n.failed = n.failed || r.Action == report.Failed
	n.to = append(n.to, r)
}

// traced reports whether DELIVERBY wants to hear that a hop took the message:
// it asked each hop for a trace, or this one will not keep the time (RFC 2852
// §4.1.4).
func (n *notice) traced(hop *smtp.Hop) bool {
	by := n.env
	return !by.DeliverBy.IsZero() &&
		(by.ByTrace && hop.DeliverBy || !by.ByReturn && !hop.DeliverBy && n.now.Before(by.DeliverBy))
}

// notify puts the notice into o. There is none about a notice: its
// reverse-path is null (RFC 5321 §6.1).
func (q *Queue) notify(o *Outcome, n *notice, now time.Time) {
	e := o.Lease.Entry
	if len(n.to) == 0 || e.Envelope.From.IsZero() {
		return
	}
	s, err := q.bounce(o, n, now, true)
	if err != nil {
		// Better a notice without the message than none: the recipients are
		// done with this outcome, and nobody else will tell of them.
		q.log().Error("queue: making a notice with the message in it", "message", e.Message.ID, "entry", e.ID, "err", err)
		s, err = q.bounce(o, n, now, false)
	}
	if err != nil {
		q.log().Error("queue: making a notice", "message", e.Message.ID, "entry", e.ID, "err", err)
		return
	}
	o.Put = append(o.Put, s)
}

// bounce makes the notice, which returns the message or its header if it can
// be read and if that is wanted.
func (q *Queue) bounce(o *Outcome, n *notice, now time.Time, withMessage bool) (*Submission, error) {
	e := o.Lease.Entry
	for i := range n.to {
		if o.Attempt > 0 {
			n.to[i].LastAttempt = now
		}
		if n.to[i].Action == report.Delayed {
			n.to[i].RetryUntil = q.expiry(e)
		}
	}
	host := q.hostname()
	dsn := &report.DSN{ReportingMTA: host, Arrival: e.Message.Received, EnvelopeID: e.Envelope.EnvelopeID,
		DeliverBy: e.Envelope.DeliverBy, FutureRelease: e.Envelope.HoldRequest, Recipients: n.to, UTF8: e.Envelope.UTF8}
	domain, err := smtp.ParseDomain(host)
	if err != nil || !strings.Contains(host, ".") {
		// Not a name that others know (RFC 3461 §6.3 (b)).
		dsn.ReportingMTA = "x-local-hostname; " + host
		if err != nil {
			domain = "localhost"
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if withMessage {
		original, err := q.Storage.Open(ctx, e.Message)
		if err != nil {
			return nil, err
		}
		defer original.Close()
		block := make([]byte, min(maxReturnedHeader, original.Size()))
		k, _ := original.ReadAt(block, 0)
		dsn.OriginalHeader = mime.ParseHeader(block[:k])
		// RFC 8689 §5: what required TLS is not returned in full.
		if n.failed && e.Envelope.Return == smtp.ReturnFull && !e.Envelope.RequireTLS && original.Size() <= maxReturned {
			dsn.Original = func() (io.ReadCloser, error) {
				return io.NopCloser(io.NewSectionReader(original, 0, original.Size())), nil
			}
		}
	}
	from := mime.Address{Name: "Mail Delivery System", Address: smtp.Address{Local: "MAILER-DAEMON", Domain: domain}}
	m, err := dsn.Message(from, e.Envelope.From)
	if err != nil {
		return nil, err
	}
	body := new(memory)
	w := &watcher{w: body, header: true}
	if _, err := m.WriteTo(w); err != nil {
		return nil, err
	}
	return q.submission(&Mail{
		Envelope: smtp.Envelope{
			MailOptions: smtp.MailOptions{RequireTLS: e.Envelope.RequireTLS},
			// Nobody hears of what becomes of a notice, whoever relays it (RFC
			// 3461 §6.1).
			To: []smtp.Recipient{{Address: e.Envelope.From, RcptOptions: smtp.RcptOptions{Notify: smtp.NotifyNever}}},
		},
		Tenant:   e.Lane.Tenant,
		Campaign: e.Message.Campaign,
		Priority: e.Lane.Priority,
	}, body, w), nil
}

// memory is a Staged for a notice, which is small and made by us: a storage
// copies it and has room for it.
type memory struct{ text []byte }

func (m *memory) Write(p []byte) (int, error) {
	m.text = append(m.text, p...)
	return len(p), nil
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.text).ReadAt(p, off)
}

func (m *memory) Size() int64  { return int64(len(m.text)) }
func (m *memory) Close() error { return nil }
