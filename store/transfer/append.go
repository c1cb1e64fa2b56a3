package transfer

import (
	"context"
	"io"
	"time"

	"github.com/postrider/postrider/internal/spool"
	"github.com/postrider/postrider/store"
)

// appender appends messages that come from a file to one mailbox, in batches.
type appender struct {
	*work
	to     store.Account
	box    store.MailboxID
	drafts []store.Draft
	bodies []*spool.Spool
	size   int64
}

func (a *appender) add(ctx context.Context, r io.Reader, flags store.Flags, date time.Time) error {
	d, body, err := incoming(r)
	if err != nil {
		return err
	}
	d.Flags, d.InternalDate = flags, date
	a.drafts, a.bodies = append(a.drafts, d), append(a.bodies, body)
	a.size += body.Size()
	if len(a.drafts) == batchMessages || a.size >= batchOctets {
		return a.flush(ctx)
	}
	return nil
}

func (a *appender) flush(ctx context.Context) error {
	if len(a.drafts) == 0 {
		return nil
	}
	_, err := a.to.Append(ctx, a.box, a.drafts, store.AppendOptions{})
	n, size := len(a.drafts), a.size
	a.drop()
	if err == nil {
		a.moved(n, size)
	}
	return err
}

// drop gives the bodies of the batch back.
func (a *appender) drop() {
	for _, b := range a.bodies {
		b.Close()
	}
	clear(a.drafts)
	clear(a.bodies)
	a.drafts, a.bodies, a.size = a.drafts[:0], a.bodies[:0], 0
}
