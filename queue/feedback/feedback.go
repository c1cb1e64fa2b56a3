package feedback

import (
	"context"
	"errors"
	"io"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// Matcher makes return paths and reads what comes back to them. Base must be
// set. It must not change while it is used; its methods may be called from many
// goroutines.
type Matcher struct {
	// Base is the address that return paths are made from: mail to its Local,
	// a "+" and anything must reach Read.
	Base smtp.Address
	// Key proves that a return path was made here; without one anybody who
	// knows an ID can make it.
	Key []byte
	// Find names the message with that Message-ID, without its <>, for what
	// came to another address; a zero ID = it is not ours. nil = none is.
	Find func(ctx context.Context, messageID string) (queue.ID, error)
}

// Feedback is what came back about one recipient.
type Feedback struct {
	// Class says what it is: a kind of bounce, late, delivered, an automatic
	// reply, or a complaint. Class.Hard means that the address is no good.
	Class report.Class
	// Message is which message of the queue it is about. It may have left the
	// queue.
	Message queue.ID
	// Recipient is whom we wrote to; zero when nothing tells.
	Recipient smtp.Address
	// MessageID and EnvelopeID are those of the original, "" = not told.
	MessageID, EnvelopeID string
	// Status, RemoteHost and Diagnostic are what the host said.
	Status                 smtp.EnhancedCode
	RemoteHost, Diagnostic string
}

// ErrNotFeedback: a message says nothing of another one.
var ErrNotFeedback = errors.New("feedback: neither a bounce nor a reply nor a complaint")

// ErrUnmatched: what a message is about is not known here. Its feedback is not
// to be acted on.
var ErrUnmatched = errors.New("feedback: about a message that is not known")

// Read reads a message that came for to. Each recipient it tells of is one
// Feedback; with ErrUnmatched they have no Message. Any other error is
// ErrNotFeedback, or that of r or Find.
//
// A bounce that came to a return path is about the recipient in that path,
// whatever it says itself: it may name where the mail was forwarded to.
func (m *Matcher) Read(ctx context.Context, to smtp.Address, r io.ReaderAt, size int64) ([]Feedback, error) {
	root, err := mime.Parse(r, size, mime.Limits{})
	if err != nil {
		return nil, err
	}
	n, err := report.Classify(root, r)
	if err != nil {
		return nil, err
	}
	if n.Class == "" {
		return nil, ErrNotFeedback
	}
	var list []Feedback
	for _, b := range n.Recipients {
		f := Feedback{Class: b.Class, Status: b.Status, RemoteHost: b.RemoteHost, Diagnostic: b.Diagnostic}
		for _, s := range [...]string{b.Recipient, b.Final} {
			if a, err := smtp.ParseAddress(s); err == nil && f.Recipient.IsZero() {
				f.Recipient = a
			}
		}
		list = append(list, f)
	}
	if len(list) == 0 {
		list = []Feedback{{Class: n.Class}}
	}
	origin, err := m.origin(ctx, to, n, root, r)
	if err != nil && !errors.Is(err, ErrUnmatched) {
		return nil, err
	}
	if !origin.Recipient.IsZero() {
		list = about(list, origin.Recipient)
	}
	for i := range list {
		f := &list[i]
		f.Message, f.MessageID, f.EnvelopeID = origin.Message, n.MessageID, n.EnvelopeID
	}
	return list, err
}

// about leaves one: what is said of rcpt, or else the worst that is said.
func about(list []Feedback, rcpt smtp.Address) []Feedback {
	best := 0
	for i, f := range list {
		if f.Recipient == rcpt {
			best = i
			break
		}
		if f.Class.Hard() && !list[best].Class.Hard() {
			best = i
		}
	}
	f := list[best]
	f.Recipient = rcpt
	return []Feedback{f}
}

// origin finds the message: by the address the mail came to, by the
// reverse-path that a complaint tells of, or by its Message-ID.
func (m *Matcher) origin(ctx context.Context, to smtp.Address, n *report.Notice, root *mime.Part, r io.ReaderAt) (Origin, error) {
	if o, err := m.Match(to); err == nil {
		return o, nil
	}
	if n.Class == report.Complaint {
		a, err := report.ReadARF(root, r)
		if err != nil {
			return Origin{}, err
		}
		for _, s := range [...]string{a.MailFrom, a.OriginalHeader.Get("Return-Path")} {
			path, err := smtp.ParseAddress(trimAngles(s))
			if err != nil {
				continue
			}
			if o, err := m.Match(path); err == nil {
				return o, nil
			}
		}
	}
	if m.Find != nil && n.MessageID != "" {
		id, err := m.Find(ctx, n.MessageID)
		if err != nil {
			return Origin{}, err
		}
		if !id.IsZero() {
			return Origin{Message: id}, nil
		}
	}
	return Origin{}, ErrUnmatched
}

func trimAngles(s string) string {
	if len(s) > 1 && s[0] == '<' && s[len(s)-1] == '>' {
		return s[1 : len(s)-1]
	}
	return s
}
