package transfer

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/postrider/postrider/mime/mbox"
	"github.com/postrider/postrider/store"
)

// FromMbox appends the messages of an mbox, with their flags and dates, to a
// mailbox. After an error those that Report counts are there; a message that
// ends too early is not.
func FromMbox(ctx context.Context, to store.Account, box store.MailboxID, r *mbox.Reader, o Options) (Report, error) {
	a := &appender{work: &work{o: o, report: Report{Mailboxes: 1}}, to: to, box: box}
	defer a.drop()
	n := 0
	for m, err := range r.Messages() {
		n++
		if err == nil {
			err = a.add(ctx, m, flags(m.Flags), m.Date)
		}
		if err != nil {
			if ferr := a.flush(ctx); ferr != nil {
				return a.report, ferr
			}
			return a.report, fmt.Errorf("transfer: message %d of the mbox: %w", n, err)
		}
	}
	err := a.flush(ctx)
	return a.report, err
}

// ToMbox writes a mailbox to an mbox. The sender of each From_ line is that of
// Return-Path, as delivery wrote it.
func ToMbox(ctx context.Context, w *mbox.Writer, from store.Account, box store.MailboxID, o Options) (Report, error) {
	return export(ctx, from, box, o, func(m store.Message, b store.Blob) error {
		h, err := header(b)
		if err != nil {
			return err
		}
		sender := strings.TrimSpace(h.Get("Return-Path"))
		sender = strings.TrimSuffix(strings.TrimPrefix(sender, "<"), ">")
		if strings.ContainsAny(sender, " \t\r\n") {
			sender = ""
		}
		head := mbox.Head{From: sender, Date: m.InternalDate, Flags: names(m.Flags)}
		return w.Add(head, io.NewSectionReader(b, 0, b.Size()))
	})
}

// export calls f for each message of a mailbox.
func export(ctx context.Context, from store.Account, box store.MailboxID, o Options, f func(store.Message, store.Blob) error) (Report, error) {
	w := &work{o: o, report: Report{Mailboxes: 1}}
	boxes, _, err := from.Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{box}, Counts: true})
	if err != nil {
		return w.report, err
	}
	if len(boxes) == 0 {
		return w.report, store.ErrNotExist
	}
	w.progress = Progress{Mailbox: boxes[0].Name, MessagesTotal: boxes[0].Counts.Messages, OctetsTotal: boxes[0].Counts.Size}
	one := func(m store.Message) error {
		b, err := from.Open(ctx, m)
		if err != nil {
			return err
		}
		defer b.Close()
		return f(m, b)
	}
	for m, err := range from.Messages(ctx, box, store.Query{Fields: store.WithDates}) {
		if err == nil {
			err = one(m)
		}
		if err != nil {
			return w.report, fmt.Errorf("transfer: mailbox %q, UID %d: %w", boxes[0].Name, m.UID, err)
		}
		w.moved(1, m.Size)
	}
	return w.report, nil
}
