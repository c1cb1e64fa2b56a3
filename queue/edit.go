package queue

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/postrider/postrider/smtp"
)

// Filter chooses entries. What is set must match; the zero Filter matches all.
type Filter struct {
	IDs              []ID // of entries or messages
	Dest             string
	Tenant, Campaign string
	From             smtp.Address // the reverse-path
	To               smtp.Address // a recipient that is not done
	Held             bool         // only held ones
}

// Match reports whether f chooses e.
func (f *Filter) Match(e *Entry) bool {
	if f.Dest != "" && f.Dest != e.Lane.Dest || f.Tenant != "" && f.Tenant != e.Lane.Tenant ||
		f.Campaign != "" && f.Campaign != e.Message.Campaign ||
		!f.From.IsZero() && f.From != e.Envelope.From || f.Held && !e.Held {
		return false
	}
	if !f.To.IsZero() && !slices.ContainsFunc(e.Envelope.To, func(r smtp.Recipient) bool { return r.Address == f.To }) {
		return false
	}
	for _, id := range f.IDs {
		if id == e.ID || id == e.Message.ID {
			return true
		}
	}
	return len(f.IDs) == 0
}

// ofLane reports whether f says no more than a lane knows.
func (f *Filter) ofLane() bool {
	return f.Campaign == "" && f.From.IsZero() && f.To.IsZero() && len(f.IDs) == 0 && !f.Held
}

// Lister is a Storage that shows what it keeps.
type Lister interface {
	// List yields the entries that f chooses, in no order, leased ones too.
	// No lock is held while it is consumed.
	List(ctx context.Context, f Filter) iter.Seq2[*Entry, error]
}

// Edit is a change to entries from outside. What is zero stays as it is.
type Edit struct {
	Hold, Release bool
	// Resume releases what a rule of Pause held, and nothing else.
	Resume bool
	Drop   bool // gone, without a notice to anyone
	Due    time.Time
	Lane   Lane
	// End is why the recipients are tried no more: a final error. The entry
	// is released, and its Alarm made due, so that a queue that runs tells the
	// sender and finishes it. Delivery time expired (X.4.7) makes it expire.
	End *smtp.Error
	// Old is a recipient to replace by New, or to remove without a notice
	// when New is zero. Those left without one are dropped.
	Old, New smtp.Address
}

// Apply changes e, which is free to be changed, and reports whether it is
// gone. It is for storages, which know the time.
func (c *Edit) Apply(e *Entry, now time.Time) (gone bool) {
	if c.Drop {
		return true
	}
	if c.Hold {
		e.Held, e.Suspended = true, false
	}
	if c.Release || c.Resume && e.Suspended {
		e.Held, e.Suspended = false, false
	}
	if !c.Due.IsZero() {
		e.Due = c.Due
	}
	if !c.Old.IsZero() && !c.readdress(e) {
		return true
	}
	if c.Lane != (Lane{}) {
		e.Lane = c.Lane
	}
	if c.End != nil {
		e.Held, e.Suspended, e.Alarm = false, false, now
		last := make([]smtp.Result, len(e.Envelope.To))
		for i := range last {
			if expired(c.End) && i < len(e.Last) {
				last[i] = e.Last[i] // what the hop said is worth telling
			}
			last[i].Err = c.End
		}
		e.Last = last
	}
	return false
}

// readdress replaces or removes Old, and reports whether anybody is left.
func (c *Edit) readdress(e *Entry) bool {
	old := func(r smtp.Recipient) bool { return r.Address == c.Old }
	i := slices.IndexFunc(e.Envelope.To, old)
	if i < 0 {
		return true
	}
	to := slices.Clone(e.Envelope.To)
	last := slices.Clone(e.Last)
	for ; i >= 0; i = slices.IndexFunc(to, old) {
		if c.New.IsZero() || c.New == c.Old {
			to = slices.Delete(to, i, i+1)
			if i < len(last) {
				last = slices.Delete(last, i, i+1)
			}
			continue
		}
		to[i].Address = c.New
		if to[i].Original == "" { // whom the sender knows (RFC 3461 §5.2.1)
			to[i].OriginalType, to[i].Original = "rfc822", c.Old.String()
			if !c.Old.ASCII() {
				to[i].OriginalType = "utf-8"
			}
		}
		if i < len(last) {
			last[i] = smtp.Result{}
		}
	}
	e.Envelope.To, e.Last = to, last
	e.Envelope.UTF8 = e.Envelope.UTF8 || !c.New.ASCII()
	if len(to) > 0 && e.Lane.Dest == c.Old.Domain &&
		!slices.ContainsFunc(to, func(r smtp.Recipient) bool { return r.Domain != to[0].Domain }) {
		e.Lane.Dest = to[0].Domain
	}
	return len(to) > 0
}

// Revokes reports whether a delivery that is under way should end for c.
func (c *Edit) Revokes() bool {
	return c.Drop || c.Hold || c.Lane != (Lane{}) || c.End != nil || !c.Old.IsZero()
}

// Event is what an [EventLog] is to tell of c when it is applied to e; ok is
// false when that is nothing.
func (c *Edit) Event(e *Entry, now time.Time) (ev Event, ok bool) {
	ev = Event{ID: NewID(), Time: now, Message: e.Message, Entry: e.ID, Lane: e.Lane, From: e.Envelope.From, Attempt: e.Attempt}
	switch {
	case c.Drop:
		ev.Kind = EventDropped
	case !c.Old.IsZero() && slices.ContainsFunc(e.Envelope.To, func(r smtp.Recipient) bool { return r.Address == c.Old }):
		ev.Kind, ev.To = EventMoved, c.Old
	case c.Lane != (Lane{}) && c.Lane != e.Lane:
		ev.Kind = EventMoved
	case c.Hold && !e.Held:
		ev.Kind = EventHeld
	case c.Release && e.Held, c.Resume && e.Suspended:
		ev.Kind = EventReleased
	}
	return ev, ev.Kind != 0
}

// final returns the error of a result that ends a recipient, or nil.
func final(r *smtp.Result) *smtp.Error {
	if r.Err == nil {
		return nil
	}
	var e *smtp.Error
	if errors.As(r.Err, &e) && !e.Temporary() && !e.Unsure {
		return e
	}
	return nil
}

// expired reports whether e says that the time is over (RFC 3463 §3.5).
func expired(e *smtp.Error) bool { return e.Enhanced[1] == 4 && e.Enhanced[2] == 7 }

// Editor is a Storage whose entries can be changed from outside.
type Editor interface {
	// Edit changes what f chooses by [Edit.Apply] and returns how many that
	// were; an EventLog keeps what [Edit.Event] tells of it. A leased entry changes when its lease is finished, or its owner
	// dies; until then it is Revoked if Edit.Revokes.
	Edit(ctx context.Context, f Filter, e Edit) (int, error)
	// Pause adds or removes a rule. Queues learn it when they renew.
	Pause(ctx context.Context, f Filter, on bool) error
	// Paused returns the rules there are.
	Paused(ctx context.Context) ([]Filter, error)
}
