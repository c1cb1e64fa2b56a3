package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/postrider/postrider/smtp"
)

// maxRecipients is how many recipients one entry has at most: what every host
// must take in one transaction (RFC 5321 §4.5.3.1.8).
const maxRecipients = 100

// Mail is what is to be sent.
type Mail struct {
	Envelope smtp.Envelope
	// Tenant is whom the mail is sent for, Campaign a label of theirs.
	Tenant, Campaign string
	// Key makes it idempotent: while a (Tenant, Key) is known (72 hours), the
	// same again changes nothing and gives the earlier ID. "" = none.
	Key string
	// Priority orders mail: higher first. See [Lane]. 0 = that of the
	// Envelope.
	Priority int8
	// Due is when it is to be sent; zero = now, or when the Envelope's
	// HoldUntil is over.
	Due time.Time
	// Meta is kept with the message.
	Meta map[string]string
	// Body is the message, header and body, with CRLF line ends.
	Body io.Reader

	asIs bool // From is a return path already
}

// ErrMail is returned, wrapped, for mail that cannot be queued as it is: no
// recipient, or a control character in its envelope.
var ErrMail = errors.New("queue: unusable mail")

// Accept says whether a message of size octets (-1 = unknown) would find room
// now; a server asks it at MAIL. It returns ErrFull if not.
func (q *Queue) Accept(ctx context.Context, size int64) error {
	b, err := q.Storage.Stage(ctx, size)
	if err != nil {
		return err
	}
	return b.Close()
}

// Enqueue stores m and returns its ID. After a nil error the mail is as
// durable as the Storage makes it. After any other error than ErrMail and
// ErrFull it may have been stored: give m a Key to try again safely.
func (q *Queue) Enqueue(ctx context.Context, m Mail) (ID, error) {
	s, err := q.Prepare(ctx, m)
	if err != nil {
		return ID{}, err
	}
	if err := q.Put(ctx, s); err != nil {
		s.Body.Close()
		return ID{}, err
	}
	return s.Message.ID, nil
}

// Prepare reads m and splits it into entries, ready for Put; nothing is
// stored yet. Close the Body of what is never put.
//
// Recipients that are suppressed are left out; when nobody is left, OnEvent
// hears of them, with a Message that has no ID, and the error is ErrSuppressed.
//
// What the message needs of a hop is found while it goes by: Envelope.UTF8 is
// set if an address or the header has 8-bit text and cleared otherwise, Body
// becomes 8BITMIME or nothing unless it is BINARYMIME.
func (q *Queue) Prepare(ctx context.Context, m Mail) (*Submission, error) {
	if err := check(&m.Envelope); err != nil {
		return nil, err
	}
	out, err := q.leaveOut(ctx, &m)
	if err != nil {
		return nil, err
	}
	body, err := q.Storage.Stage(ctx, or(m.Envelope.Size, -1))
	if err != nil {
		return nil, err
	}
	w := watcher{w: body, header: true}
	if err := w.copyFrom(ctx, m.Body); err != nil {
		body.Close()
		return nil, err
	}
	s := q.submission(&m, body, &w)
	s.Events = append(s.Events, suppressedEvents(&m, s.Message, out)...)
	return s, nil
}

func suppressedEvents(m *Mail, msg *Message, out []leftOut) []Event {
	var events []Event
	for _, x := range out {
		events = append(events, Event{ID: NewID(), Kind: EventSuppressed, Time: msg.Received, Message: msg,
			Lane: Lane{x.to.Domain, m.Tenant, or(m.Priority, m.Envelope.Priority)}, From: m.Envelope.From, To: x.to, Result: smtp.Result{Err: x.err}})
	}
	return events
}

// leftOut is a recipient that is suppressed.
type leftOut struct {
	to  smtp.Address
	err error
}

// leaveOut takes suppressed recipients out of m, but for those whose failure
// the sender explicitly wants to hear of: their notice is the queue's to make.
// When nobody is left that is an error.
func (q *Queue) leaveOut(ctx context.Context, m *Mail) ([]leftOut, error) {
	no, err := q.suppressed(ctx, m.Tenant, m.Envelope.To)
	if err != nil || no == nil {
		return nil, err
	}
	var out []leftOut
	var left []smtp.Recipient
	for i, to := range m.Envelope.To {
		if no[i] == nil || to.Notify&smtp.NotifyFailure != 0 && !m.Envelope.From.IsZero() {
			left = append(left, to)
			continue
		}
		out = append(out, leftOut{to.Address, no[i]})
	}
	m.Envelope.To = left
	if len(left) == 0 {
		msg := &Message{Tenant: m.Tenant, Campaign: m.Campaign, Key: m.Key, Received: time.Now(), Meta: m.Meta}
		q.tell(suppressedEvents(m, msg, out))
		return nil, fmt.Errorf("queue: nobody is left to write to: %w", out[0].err)
	}
	return out, nil
}

// Put stores what Prepare made, all or none. See [Storage] for what an error
// means.
func (q *Queue) Put(ctx context.Context, s ...*Submission) error {
	if err := q.Storage.Put(ctx, s...); err != nil {
		return err
	}
	for _, s := range s {
		if !s.Duplicate {
			q.tell(s.Events)
		}
	}
	return nil
}

func (q *Queue) tell(events []Event) {
	if q.OnEvent == nil {
		return
	}
	for _, e := range events {
		q.OnEvent(e)
	}
}

// submission makes entries of m, whose content w saw.
func (q *Queue) submission(m *Mail, body Staged, w *watcher) *Submission {
	now := time.Now()
	msg := &Message{ID: NewID(), Tenant: m.Tenant, Campaign: m.Campaign, Key: m.Key,
		Received: now, Size: body.Size(), EightBit: w.eightBit, Meta: m.Meta}
	s := &Submission{Message: msg, Body: body}
	env := m.Envelope
	env.Size = 0 // what the client announced; trace fields were added since
	switch {
	case env.Body == smtp.BodyBinary:
	case w.eightBit:
		env.Body = smtp.Body8Bit
	default:
		env.Body = ""
	}
	env.UTF8 = w.eightBitHeader || !env.From.ASCII()
	for _, r := range env.To {
		env.UTF8 = env.UTF8 || !r.ASCII()
	}
	due := later(now, later(m.Due, env.HoldUntil))
	priority := or(m.Priority, env.Priority)
	type lot struct { // what an entry's recipients have in common
		domain string
		from   smtp.Address
	}
	open := make(map[lot]*Entry)
	seen := make(map[smtp.Recipient]struct{}, len(env.To))
	for _, r := range env.To {
		if _, dup := seen[r]; dup {
			continue
		}
		seen[r] = struct{}{}
		in := lot{r.Domain, env.From}
		if q.ReturnPath != nil && !env.From.IsZero() && !m.asIs {
			if a := q.ReturnPath(msg, env.From, r.Address); a.Valid() && !a.IsZero() && !control(a.Local, a.Domain) {
				in.from = a
			}
		}
		e := open[in]
		if e == nil || len(e.Envelope.To) == maxRecipients {
			e = &Entry{ID: NewID(), Message: msg, Envelope: env, Since: due, Due: due,
				Lane: Lane{Dest: r.Domain, Tenant: m.Tenant, Priority: priority}}
			e.Envelope.From, e.Envelope.To = in.from, nil
			e.Envelope.UTF8 = env.UTF8 || !in.from.ASCII()
			e.Alarm = q.alarm(e, now)
			open[in] = e
			s.Entries = append(s.Entries, e)
		}
		e.Envelope.To = append(e.Envelope.To, r)
	}
	for _, e := range s.Entries {
		s.Events = append(s.Events, Event{ID: NewID(), Kind: EventQueued, Time: now, Message: msg,
			Entry: e.ID, Lane: e.Lane, From: e.Envelope.From})
	}
	return s
}

// check refuses what could become another command on the wire.
func check(env *smtp.Envelope) error {
	if len(env.To) == 0 {
		return fmt.Errorf("%w: no recipient", ErrMail)
	}
	bad := control(env.From.Local, env.From.Domain, env.Auth, env.EnvelopeID, string(env.Return), string(env.Body))
	for i := range env.To {
		r := &env.To[i]
		if r.Local == "" {
			return fmt.Errorf("%w: empty recipient", ErrMail)
		}
		bad = bad || control(r.Local, r.Domain, r.Original, r.OriginalType)
	}
	if bad {
		return fmt.Errorf("%w: control character in the envelope", ErrMail)
	}
	return nil
}

func control(text ...string) bool {
	for _, s := range text {
		for i := 0; i < len(s); i++ {
			if s[i] < 0x20 || s[i] == 0x7f {
				return true
			}
		}
	}
	return false
}

// watcher passes a message on and notes where 8-bit octets are.
type watcher struct {
	w                        io.Writer
	header                   bool // not past the empty line yet
	column                   int
	eightBit, eightBitHeader bool
}

var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// copyFrom reads r to its end. ctx is looked at between reads.
func (w *watcher) copyFrom(ctx context.Context, r io.Reader) error {
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf[:])
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("queue: reading the message: %w", err)
		}
	}
}

// Write implements io.Writer.
func (w *watcher) Write(b []byte) (int, error) {
	w.see(b)
	return w.w.Write(b)
}

func (w *watcher) see(b []byte) {
	for w.header && len(b) > 0 {
		line := b
		i := bytes.IndexByte(b, '\n')
		if i >= 0 {
			line = b[:i]
		}
		if !w.eightBitHeader && !ascii(line) {
			w.eightBitHeader, w.eightBit = true, true
		}
		for _, c := range line {
			if c != '\r' {
				w.column++
			}
		}
		if i < 0 {
			return
		}
		w.header = w.column > 0
		w.column = 0
		b = b[i+1:]
	}
	if !w.eightBit && !ascii(b) {
		w.eightBit = true
	}
}

func ascii(b []byte) bool {
	for len(b) >= 8 {
		if (b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7])&0x80 != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c&0x80 != 0 {
			return false
		}
	}
	return true
}
