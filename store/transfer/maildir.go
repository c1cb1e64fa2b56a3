package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/postrider/postrider/mime/maildir"
	"github.com/postrider/postrider/store"
)

// FromMaildir appends the messages of a Maildir folder, with their flags and
// dates, to a mailbox, in no certain order. After an error those that Report
// counts are there. A message that goes away meanwhile is left out.
func FromMaildir(ctx context.Context, to store.Account, box store.MailboxID, d maildir.Dir, o Options) (Report, error) {
	a := &appender{work: &work{o: o, report: Report{Mailboxes: 1}}, to: to, box: box}
	defer a.drop()
	one := func(m *maildir.Message) error {
		r, err := m.Open()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer r.Close()
		return a.add(ctx, r, flags(m.Flags), m.Date)
	}
	for m, err := range d.Messages() {
		if err == nil {
			if err = one(m); err != nil {
				err = fmt.Errorf("message %s: %w", m.Key, err)
			}
		}
		if err != nil {
			if ferr := a.flush(ctx); ferr != nil {
				return a.report, ferr
			}
			return a.report, fmt.Errorf("transfer: Maildir %s: %w", d, err)
		}
	}
	err := a.flush(ctx)
	return a.report, err
}

// ToMaildir delivers the messages of a mailbox into a Maildir folder, which is
// made if it is not there, with their flags and dates.
func ToMaildir(ctx context.Context, d maildir.Dir, from store.Account, box store.MailboxID, o Options) (Report, error) {
	if err := d.Make(); err != nil {
		return Report{}, err
	}
	return export(ctx, from, box, o, func(m store.Message, b store.Blob) error {
		_, err := d.Deliver(io.NewSectionReader(b, 0, b.Size()), maildir.Options{
			Flags: names(m.Flags), Date: m.InternalDate, Seen: true,
		})
		return err
	})
}
