package webhook

import (
	"errors"
	"time"

	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// Event is a queue.Event as JSON has it. What does not apply is left out.
type Event struct {
	// ID is the same however often the event is told.
	ID   queue.ID  `json:"id"`
	Kind string    `json:"kind"` // "delivered", "deferred", …
	Time time.Time `json:"time"`
	// Message and Entry are their IDs in the queue.
	Message  queue.ID          `json:"message,omitzero"`
	Entry    queue.ID          `json:"entry,omitzero"`
	Tenant   string            `json:"tenant,omitempty"`
	Campaign string            `json:"campaign,omitempty"`
	Key      string            `json:"key,omitempty"`
	Meta     map[string]string `json:"meta,omitempty"`
	From     string            `json:"from"` // "<>" is the null reverse-path
	To       string            `json:"to,omitempty"`
	Lane     string            `json:"lane,omitempty"` // its Dest
	Attempt  int               `json:"attempt,omitempty"`
	// Code, Status and Text are what the hop said last, or we in its place.
	Code   int    `json:"code,omitempty"`
	Status string `json:"status,omitempty"`
	Text   string `json:"text,omitempty"`
	// Class says what kind of failure it is: see report.Class.
	Class report.Class `json:"class,omitempty"`
	// Hop is the host that was talked to, and whether that was by TLS.
	Hop  string     `json:"hop,omitempty"`
	TLS  bool       `json:"tls,omitempty"`
	Next *time.Time `json:"next,omitempty"` // when it is tried again
	// Unsure: the message may have arrived although this is an error.
	Unsure bool `json:"unsure,omitempty"`
}

// eventOf translates. Private causes of errors stay here.
func eventOf(e *queue.Event) Event {
	out := Event{ID: e.ID, Kind: e.Kind.String(), Time: e.Time.UTC(), Entry: e.Entry, Lane: e.Lane.Dest, Attempt: e.Attempt}
	if m := e.Message; m != nil {
		out.Message, out.Tenant, out.Campaign, out.Key, out.Meta = m.ID, m.Tenant, m.Campaign, m.Key, m.Meta
	}
	if out.From = e.From.String(); e.From.IsZero() {
		out.From = "<>"
	}
	if !e.To.IsZero() {
		out.To = e.To.String()
	}
	r := e.Result.Reply
	var se *smtp.Error
	if errors.As(e.Result.Err, &se) {
		out.Unsure = se.Unsure
		if r.Code == 0 {
			r = se.Reply()
		}
	}
	out.Code, out.Status, out.Text = r.Code, r.Enhanced.String(), r.Text
	if e.Result.Err != nil && r.Code >= 400 {
		out.Class = report.ClassOf(r.Enhanced, r.Text)
	}
	if h := e.Result.Hop; h != nil {
		out.Hop, out.TLS = h.Name, h.TLS != 0
	}
	if !e.Next.IsZero() {
		next := e.Next.UTC()
		out.Next = &next
	}
	return out
}
