package store

import (
	"context"
	"sync"
	"time"
)

// DefaultPoll is how often [Watch] asks an account that cannot tell.
const DefaultPoll = 15 * time.Second

// Watch calls f soon after each commit to the account, as [Watcher] says. An
// account that is no Watcher is asked every poll (0 = DefaultPoll, negative =
// never) what changed, on a goroutine that stop ends and waits for. A wake-up
// is a hint: whoever gets one pulls what happened, and whoever relies on the
// truth pulls now and then without one.
func Watch(acc Account, poll time.Duration, f func()) (stop func()) {
	if w, ok := As[Watcher](acc); ok {
		return w.Watch(f)
	}
	if poll < 0 {
		return func() {}
	}
	if poll == 0 {
		poll = DefaultPoll
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		pollAccount(ctx, acc, poll, f)
	}()
	var once sync.Once
	return func() {
		once.Do(cancel)
		<-done
	}
}

func pollAccount(ctx context.Context, acc Account, poll time.Duration, f func()) {
	// The first answer only tells where history stands.
	_, seen, err := acc.Mailboxes(ctx, MailboxQuery{ChangedSince: ^ModSeq(0)})
	known := err == nil
	t := time.NewTicker(poll)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		changed, through, err := acc.Mailboxes(ctx, MailboxQuery{ChangedSince: ^ModSeq(0)})
		if ctx.Err() != nil {
			return
		}
		// What cannot be asked may have changed.
		if err != nil || !known || through != seen || len(changed) > 0 {
			f()
		}
		seen, known = through, err == nil
	}
}
