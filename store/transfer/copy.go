package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/postrider/postrider/store"
)

// Copy makes the mailboxes of to like those of from: messages, flags, dates,
// and subscriptions; nothing is taken away from from. Mailboxes that only to has
// are left alone. IDs (RFC 8474) and the save date are those of the new store.
//
// With a [store.Importer] as to, UIDs and UIDVALIDITY are kept, and a further
// Copy brings over what has changed since: new messages, flags, and what was
// expunged is expunged. A mailbox that got mail of its own meanwhile is not
// touched: ErrDiverged. Any other to gets new UIDs, and only mailboxes that
// never had a message are written to; the rest gives ErrDiverged too.
//
// The first error ends it. What was copied stays, and a further Copy goes on
// there if to is an Importer.
func Copy(ctx context.Context, to, from store.Account, o Options) (Report, error) {
	boxes, _, err := from.Mailboxes(ctx, store.MailboxQuery{Counts: true})
	if err != nil {
		return Report{}, err
	}
	w := &work{o: o}
	kept := boxes[:0]
	names := make(map[store.MailboxID]string)
	for _, b := range boxes {
		name := b.Name
		if o.Rename != nil {
			name = o.Rename(name)
		}
		if name == "" {
			continue
		}
		kept = append(kept, b)
		names[b.ID] = name
		w.progress.MessagesTotal += b.Counts.Messages
		w.progress.OctetsTotal += b.Counts.Size
	}
	for _, b := range kept {
		c := &copier{work: w, from: from, to: to, src: b, name: names[b.ID]}
		w.progress.Mailbox = b.Name
		w.report.Mailboxes++
		if err := c.run(ctx); err != nil {
			return w.report, fmt.Errorf("transfer: mailbox %q: %w", b.Name, err)
		}
	}
	return w.report, subscriptions(ctx, to, from, o.Rename)
}

// copier copies one mailbox.
type copier struct {
	*work
	from, to store.Account
	src      store.Mailbox
	dst      store.Mailbox
	name     string
	importer store.Importer // nil = to gives its own UIDs
	raised   store.ModSeq   // of the source, what the destination's is above

	drafts []store.Draft
	uids   []store.UID
	size   int64
}

func (c *copier) run(ctx context.Context) error {
	c.importer, _ = store.As[store.Importer](c.to)
	if err := c.open(ctx); err != nil {
		return err
	}
	defer c.drop()
	if err := c.merge(ctx); err != nil {
		return err
	}
	if c.importer == nil {
		return nil
	}
	// UIDs that are expunged at the source are never used again here either.
	_, err := c.importer.ImportMailbox(ctx, store.Mailbox{Name: c.name, UIDValidity: c.src.UIDValidity, UIDNext: c.src.UIDNext})
	return err
}

// open finds or makes the destination.
func (c *copier) open(ctx context.Context) error {
	there, _, err := c.to.Mailboxes(ctx, store.MailboxQuery{Names: []string{c.name}})
	if err != nil {
		return err
	}
	if len(there) > 0 {
		c.dst = there[0]
		if c.dst.UIDNext > 1 && (c.importer == nil || c.dst.UIDValidity != c.src.UIDValidity || c.dst.UIDNext > c.src.UIDNext) {
			return ErrDiverged
		}
	}
	switch {
	case c.importer != nil:
		c.raised = c.src.ModSeq
		c.dst, err = c.importer.ImportMailbox(ctx, store.Mailbox{
			Name: c.name, UIDValidity: c.src.UIDValidity, ModSeq: c.src.ModSeq, SpecialUse: c.src.SpecialUse,
		})
	case len(there) == 0:
		c.dst, err = c.to.CreateMailbox(ctx, store.NewMailbox{Name: c.name, SpecialUse: c.src.SpecialUse})
	}
	return err
}

// merge goes through both mailboxes side by side, by UID.
func (c *copier) merge(ctx context.Context) error {
	next, stop := iter.Pull2(c.to.Messages(ctx, c.dst.ID, store.Query{UIDs: existing(c.dst.UIDNext)}))
	defer stop()
	there, err, ok := next()
	changes := newChanges()
	for m, errFrom := range c.from.Messages(ctx, c.src.ID, store.Query{UIDs: existing(c.src.UIDNext), Fields: store.WithDates | store.WithSummary}) {
		if errFrom != nil {
			return errFrom
		}
		for ; ok && err == nil && there.UID < m.UID; there, err, ok = next() {
			changes.gone.Add(there.UID)
		}
		if err != nil {
			return err
		}
		switch {
		case ok && there.UID == m.UID:
			changes.compare(&m, &there, c.importer != nil)
			there, err, ok = next()
			c.seen(1, m.Size)
		case c.importer != nil && m.UID < c.dst.UIDNext:
			c.seen(1, m.Size) // it was there, and was expunged there
		default:
			if err := c.add(ctx, m); err != nil {
				return err
			}
		}
	}
	for ; ok && err == nil; there, err, ok = next() {
		changes.gone.Add(there.UID)
	}
	if err != nil {
		return err
	}
	if err := c.flush(ctx); err != nil {
		return err
	}
	return c.change(ctx, changes)
}

// existing are the UIDs below next: what comes while the copy runs is for the
// next one.
func existing(next store.UID) store.UIDSet {
	if next <= 1 {
		return store.UIDSet{}
	}
	return store.UIDSet{{First: 1, Last: next - 1}}
}

// add puts m into the batch.
func (c *copier) add(ctx context.Context, m store.Message) error {
	if len(c.drafts) > 0 && c.size+m.Size > batchOctets {
		if err := c.flush(ctx); err != nil {
			return err
		}
	}
	b, err := c.from.Open(ctx, m)
	if errors.Is(err, store.ErrNotExist) {
		c.seen(1, m.Size) // expunged since it was listed
		return nil
	}
	if err != nil {
		return fmt.Errorf("UID %d: %w", m.UID, err)
	}
	d := store.Draft{Body: b, Flags: m.Flags, InternalDate: m.InternalDate, Summary: bytes.Clone(m.Summary)}
	h, err := header(b)
	if err != nil {
		b.Close()
		return fmt.Errorf("UID %d: %w", m.UID, err)
	}
	identify(&d, &h)
	c.drafts, c.uids = append(c.drafts, d), append(c.uids, m.UID)
	c.size += m.Size
	if len(c.drafts) == batchMessages || c.size >= batchOctets {
		return c.flush(ctx)
	}
	return nil
}

// flush writes the batch.
func (c *copier) flush(ctx context.Context) error {
	if len(c.drafts) == 0 {
		return nil
	}
	err := c.raise(ctx)
	if err != nil {
		return err
	}
	if c.importer != nil {
		_, err = c.importer.Import(ctx, c.dst.ID, c.uids, c.drafts)
	} else {
		_, err = c.to.Append(ctx, c.dst.ID, c.drafts, store.AppendOptions{})
	}
	n, size := len(c.drafts), c.size
	c.drop()
	if err == nil {
		c.moved(n, size)
	}
	return err
}

// raise puts the destination's ModSeq above what the source's is now, and so
// above that of every change about to be written: a client that knows the
// source up to some ModSeq must find all later changes above it.
func (c *copier) raise(ctx context.Context) error {
	if c.importer == nil {
		return nil
	}
	now, _, err := c.from.Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{c.src.ID}})
	if err != nil || len(now) == 0 || now[0].ModSeq <= c.raised {
		return err
	}
	c.raised = now[0].ModSeq
	_, err = c.importer.ImportMailbox(ctx, store.Mailbox{Name: c.name, UIDValidity: c.src.UIDValidity, ModSeq: c.raised})
	return err
}

// drop closes the bodies of the batch.
func (c *copier) drop() {
	for _, d := range c.drafts {
		d.Body.(io.Closer).Close()
	}
	clear(c.drafts)
	c.drafts, c.uids, c.size = c.drafts[:0], c.uids[:0], 0
}

// subscriptions adds those of from to to's.
func subscriptions(ctx context.Context, to, from store.Account, rename func(string) string) error {
	dst, ok := store.As[store.Subscriber](to)
	if !ok {
		return nil
	}
	src, ok := store.As[store.Subscriber](from)
	if !ok {
		return nil
	}
	list, err := src.Subscriptions(ctx)
	if err != nil {
		return err
	}
	for _, name := range list {
		if rename != nil {
			name = rename(name)
		}
		if name == "" {
			continue
		}
		if err := dst.Subscribe(ctx, name); err != nil {
			return fmt.Errorf("transfer: subscription to %q: %w", name, err)
		}
	}
	return nil
}
