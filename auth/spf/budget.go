package spf

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// budget is the context of the lookups of one check: the caller's, with the
// deadline of the check. Its timer is made when a resolver asks for it, which
// one that answers from memory does not.
type budget struct {
	caller context.Context
	until  time.Time // zero = no limit

	mu     sync.Mutex
	ctx    context.Context // nil = not asked for
	cancel context.CancelFunc
	ended  bool
}

func newBudget(ctx context.Context, timeout time.Duration) *budget {
	b := &budget{caller: ctx}
	if timeout == 0 {
		timeout = 20 * time.Second
	}
	if timeout > 0 {
		b.until = time.Now().Add(timeout)
	}
	return b
}

// armed returns the context with its timer.
func (b *budget) armed() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx == nil {
		if b.until.IsZero() {
			b.ctx, b.cancel = context.WithCancel(b.caller)
		} else {
			b.ctx, b.cancel = context.WithDeadline(b.caller, b.until)
		}
		if b.ended {
			b.cancel()
		}
	}
	return b.ctx
}

// end cuts what a resolver may have left behind.
func (b *budget) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	if b.cancel != nil {
		b.cancel()
	}
}

func (b *budget) Deadline() (time.Time, bool) { return b.armed().Deadline() }
func (b *budget) Done() <-chan struct{}       { return b.armed().Done() }
func (b *budget) Err() error                  { return b.armed().Err() }
func (b *budget) Value(key any) any           { return b.armed().Value(key) }

// late says, as a failed lookup, that the time is up. A resolver that does
// not obey its context cannot draw a check out over many lookups either.
func (e *eval) late() error {
	b := e.budget
	err := b.caller.Err()
	if err == nil && !b.until.IsZero() && len(e.lookups) > 0 && !time.Now().Before(b.until) {
		err = context.DeadlineExceeded
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLookup, err)
	}
	return nil
}
