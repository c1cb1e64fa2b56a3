package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/postrider/postrider/smtp"
)

// Control of what is queued. It works through the Storage, so it needs neither
// a queue that runs nor one in this process, and holds for all of them: on a
// Storage that is no [Editor] or [Lister] it gives errors.ErrUnsupported. A
// change to an entry whose delivery is under way takes effect when that ends,
// and ends it if it can still be ended.
//
// Each change is an event: for OnEvent of the queue that was asked, and, with an
// ID of its own, in the EventLog.

// controlPage is how many entries are changed in one step.
const controlPage = 256

var errNoEditor = fmt.Errorf("queue: the storage is no Editor: %w", errors.ErrUnsupported)

// List yields the entries that f chooses, in no order, those that are being
// delivered too. No lock is held while it is consumed.
func (q *Queue) List(ctx context.Context, f Filter) iter.Seq2[*Entry, error] {
	l, ok := q.Storage.(Lister)
	if !ok {
		return func(yield func(*Entry, error) bool) {
			yield(nil, fmt.Errorf("queue: the storage is no Lister: %w", errors.ErrUnsupported))
		}
	}
	return l.List(ctx, f)
}

// Hold sets entries aside until they are released. They keep their age, but do
// not expire meanwhile.
func (q *Queue) Hold(ctx context.Context, f Filter) (int, error) {
	return q.edit(ctx, f, true, Edit{Hold: true})
}

// Release lets held entries go on.
func (q *Queue) Release(ctx context.Context, f Filter) (int, error) {
	f.Held = true
	return q.edit(ctx, f, true, Edit{Release: true})
}

// RetryNow makes entries due, and has the queue of this process ask the sites
// again that it found down. Held ones stay held.
func (q *Queue) RetryNow(ctx context.Context, f Filter) (int, error) {
	n, err := q.edit(ctx, f, false, Edit{Due: time.Now()})
	if r := q.current(); r != nil {
		r.revive.Store(true)
		r.kick()
	}
	return n, err
}

// Drop removes entries without a notice to anyone.
func (q *Queue) Drop(ctx context.Context, f Filter) (int, error) {
	return q.edit(ctx, f, true, Edit{Drop: true})
}

// Bounce ends entries as if a hop had refused them with reason, which is told
// to the senders as NOTIFY allows; nil = 554 5.7.1. A queue that runs does it,
// in lanes that are suspended too. The code of reason must be 5xx.
func (q *Queue) Bounce(ctx context.Context, f Filter, reason *smtp.Error) (int, error) {
	if reason == nil {
		reason = smtp.Errorf(554, smtp.EnhancedCode{5, 7, 1}, "Returned by the administrator")
	}
	if final(&smtp.Result{Err: reason}) == nil {
		return 0, fmt.Errorf("queue: %v is no final error", reason)
	}
	return q.edit(ctx, f, false, Edit{End: reason})
}

// Expire ends entries as if they had become too old.
func (q *Queue) Expire(ctx context.Context, f Filter) (int, error) {
	return q.edit(ctx, f, false, Edit{End: smtp.Errorf(554, smtp.EnhancedCode{5, 4, 7}, "Delivery time expired")})
}

// Reroute moves entries to the lanes of dest, of the same tenants and
// priorities, and makes them due. The recipients stay: what a lane's name means
// for the way the mail takes is for Queue.For to say.
func (q *Queue) Reroute(ctx context.Context, f Filter, dest string) (int, error) {
	now := time.Now()
	return q.editEach(ctx, f, func(e *Entry) Edit {
		lane := e.Lane
		lane.Dest = dest
		return Edit{Lane: lane, Due: now}
	})
}

// Redirect replaces the recipient old by another, or removes it without a
// notice when the other is zero. Where an entry has more recipients and the
// other has another domain, the other gets an entry with a copy of the message.
// What is being sent to old may still arrive there.
func (q *Queue) Redirect(ctx context.Context, f Filter, old, other smtp.Address) (int, error) {
	if old.IsZero() || control(other.Local, other.Domain) {
		return 0, fmt.Errorf("%w: recipient to replace", ErrMail)
	}
	if !f.To.IsZero() && f.To != old {
		return 0, nil
	}
	f.To = old
	if !other.IsZero() && other.Domain != old.Domain {
		for e, err := range q.List(ctx, f) {
			if err == nil && len(e.Envelope.To) > 1 {
				err = q.branch(ctx, e, old, other)
			}
			if err != nil {
				return 0, err
			}
		}
	}
	now := time.Now()
	return q.editEach(ctx, f, func(e *Entry) Edit {
		c := Edit{Old: old, New: other, Due: now}
		if len(e.Envelope.To) > 1 && other.Domain != old.Domain {
			c.New, c.Due = smtp.Address{}, time.Time{} // it has its own entry now
		}
		return c
	})
}

// branch queues the message of e once more, for one of its recipients at
// another address. Asked again it does nothing.
func (q *Queue) branch(ctx context.Context, e *Entry, old, other smtp.Address) error {
	i := slices.IndexFunc(e.Envelope.To, func(r smtp.Recipient) bool { return r.Address == old })
	if i < 0 {
		return nil
	}
	only := *e
	only.Envelope.To, only.Last = e.Envelope.To[i:i+1:i+1], nil
	(&Edit{Old: old, New: other}).Apply(&only, time.Now())
	blob, err := q.Storage.Open(ctx, e.Message)
	if err != nil {
		return err
	}
	defer blob.Close()
	m := Mail{Envelope: only.Envelope, Tenant: e.Lane.Tenant, Campaign: e.Message.Campaign, Priority: e.Lane.Priority,
		Key: "redirect " + e.ID.String() + " " + old.String() + " " + other.String(), Meta: e.Message.Meta, asIs: true,
		Body: io.NewSectionReader(blob, 0, blob.Size())}
	_, err = q.Enqueue(ctx, m)
	return err
}

// Suspend stops deliveries of what f chooses, all of them if f is zero, until
// Resume. The rule is the Storage's: it outlives this process, and holds for
// mail queued later. Queues elsewhere learn it within a third of LeaseTime.
// What is chosen by no more than domain and tenant stays where it is; entries
// chosen by sender, campaign, recipient or ID are held as their turn comes.
// Notices are sent, and entries expire, all the same, unless they are held.
func (q *Queue) Suspend(ctx context.Context, f Filter) error {
	return q.pause(ctx, f, true)
}

// Resume ends a Suspend with the same f, and releases what it held.
func (q *Queue) Resume(ctx context.Context, f Filter) error {
	if err := q.pause(ctx, f, false); err != nil || f.ofLane() {
		return err
	}
	_, err := q.resume(ctx, f)
	return err
}

func (q *Queue) resume(ctx context.Context, f Filter) (int, error) {
	f.Held = true
	return q.editEach(ctx, f, func(e *Entry) Edit { return Edit{Resume: e.Suspended} })
}

// Suspended returns what Suspend was called with and Resume was not.
func (q *Queue) Suspended(ctx context.Context) ([]Filter, error) {
	ed, ok := q.Storage.(Editor)
	if !ok {
		return nil, errNoEditor
	}
	return ed.Paused(ctx)
}

func (q *Queue) pause(ctx context.Context, f Filter, on bool) error {
	ed, ok := q.Storage.(Editor)
	if !ok {
		return errNoEditor
	}
	if err := ed.Pause(ctx, f, on); err != nil {
		return err
	}
	q.renewSoon()
	return nil
}

func (q *Queue) current() *run {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.run
}

// renewSoon lets the queue of this process learn what changed.
func (q *Queue) renewSoon() {
	if r := q.current(); r != nil {
		select {
		case r.renewNow <- struct{}{}:
		default:
		}
	}
}

// edit makes one change; told says that it is an event.
func (q *Queue) edit(ctx context.Context, f Filter, told bool, c Edit) (int, error) {
	if _, ok := q.Storage.(Lister); !ok || !told || q.OnEvent == nil {
		ed, ok := q.Storage.(Editor)
		if !ok {
			return 0, errNoEditor
		}
		n, err := ed.Edit(ctx, f, c)
		q.renewSoon()
		return n, err
	}
	return q.editEach(ctx, f, func(*Entry) Edit { return c })
}

// editEach changes entry by entry, some at a time, and tells of each. A zero
// Edit leaves it as it is.
func (q *Queue) editEach(ctx context.Context, f Filter, change func(*Entry) Edit) (n int, err error) {
	ed, ok := q.Storage.(Editor)
	if !ok {
		return 0, errNoEditor
	}
	defer q.renewSoon()
	page := make(map[Edit][]*Entry)
	listed := 0
	flush := func() error {
		for c, entries := range page {
			if c == (Edit{}) {
				continue
			}
			some := f
			some.IDs = make([]ID, len(entries))
			for i, e := range entries {
				some.IDs[i] = e.ID
			}
			k, err := ed.Edit(ctx, some, c)
			n += k
			if err != nil {
				return err
			}
			for _, e := range entries {
				if ev, ok := c.Event(e, time.Now()); ok {
					q.tell([]Event{ev})
				}
			}
		}
		clear(page)
		listed = 0
		return nil
	}
	for e, err := range q.List(ctx, f) {
		if err != nil {
			return n, err
		}
		c := change(e)
		page[c] = append(page[c], e)
		if listed++; listed == controlPage {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
	return n, flush()
}
