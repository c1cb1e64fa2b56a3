package store

import (
	"context"
	"sync"

	"github.com/postrider/postrider/internal/spool"
)

// Stage opens a place for one body: the store's own when s is a [Stager], so
// that an Append only links it, else memory and then a temporary file. size is
// a hint in octets, -1 unknown.
func Stage(ctx context.Context, s Store, size int64) (Staged, error) {
	if st, ok := As[Stager](s); ok {
		return st.Stage(ctx, size)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return new(spool.Spool), nil
}

// deliverers is how many Appends of one Deliver run at once.
const deliverers = 8

// Deliver adds one message to many accounts; the errors are index-aligned with
// the targets. A store that is a [Deliverer] does it in its own way, once with
// regard to Target.Once. For any other the targets are appended to one by one,
// a few at a time, and Target.Once is not looked at: a delivery that is tried
// again doubles the message for targets that had succeeded. d.Body best comes
// from [Stage].
func Deliver(ctx context.Context, s Store, d Draft, targets []Target) []error {
	if x, ok := As[Deliverer](s); ok {
		return x.Deliver(ctx, d, targets)
	}
	errs := make([]error, len(targets))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(deliverers, len(targets)) {
		wg.Go(func() {
			for i := range next {
				errs[i] = deliver(ctx, s, d, &targets[i])
			}
		})
	}
	for i := range targets {
		next <- i
	}
	close(next)
	wg.Wait()
	return errs
}

func deliver(ctx context.Context, s Store, d Draft, t *Target) error {
	acc, err := s.Account(ctx, t.Account)
	if err != nil {
		return err
	}
	box := t.Mailbox
	if box == "" {
		box = Inbox
	}
	_, err = acc.Append(ctx, box, []Draft{t.Draft(d)}, AppendOptions{})
	return err
}
