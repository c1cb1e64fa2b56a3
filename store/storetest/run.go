package storetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/store"
)

// Level says how much a store does.
type Level uint8

// The levels. Each has the laws of the ones below it too.
const (
	Full      Level = iota // everything
	NoHistory              // writes, but Horizon always equals ModSeq
	ReadOnly               // embeds store.ReadOnly
)

// Config describes a store to be tested.
type Config struct {
	// Open makes new data and returns two ways to it, as two nodes would have;
	// they may be the same value. It is called once for each law. At level
	// ReadOnly the account should have some messages in its Inbox.
	Open  func() (one, two store.Store, err error)
	Level Level
	// Account is an account that Open made; "" = the suite makes its own
	// through store.Admin.
	Account string
	// SetQuota bounds an account, in octets; nil = laws about quotas are
	// skipped.
	SetQuota func(s store.Store, account string, octets int64) error
	// Sweep gives back at once what is kept only for the grace, but for what
	// is open, staged or coming in, and returns how many bodies are kept
	// then: none when there is no mail. nil = the law about what is left
	// behind is skipped, as it is for a store that cannot tell what is open.
	Sweep func(s store.Store) (bodies int64, err error)
	// Damage does to the body of a message what a failing disk would: it is
	// gone, or else some of it has changed. nil = the law about damage is
	// skipped.
	Damage func(s store.Store, account string, m store.Message, gone bool) error
	// Watch is within what time a commit is told to watchers; 0 = 5 seconds.
	Watch time.Duration
	// Timeout is how long one law may take before it counts as a deadlock; 0 =
	// 60 seconds.
	Timeout time.Duration
	// Rounds is how many random operations the property tests do; 0 = 400.
	Rounds int
}

// Law is one law. Name is its number, as in "L7".
type Law struct {
	Name, Text string
	level      Level // the least level that must keep it
	run        func(p *probe)
}

// Run tests a store against all laws of its level.
func Run(t *testing.T, c Config) {
	for _, l := range Laws() {
		t.Run(l.Name, func(t *testing.T) {
			err := l.Check(t.Context(), c)
			switch {
			case errors.Is(err, ErrSkipped):
				t.Skip(err)
			case err != nil:
				t.Errorf("law %s (%s) is broken:\n%v", l.Name, l.Text, err)
			}
		})
	}
}

// ErrSkipped is returned by Check for a law that does not concern the store:
// of another level, or about an optional interface it does not have.
var ErrSkipped = errors.New("storetest: does not apply")

// Check tests one law on new data. A nil error means that it was kept.
func (l Law) Check(ctx context.Context, c Config) error {
	if c.Level > l.level {
		return fmt.Errorf("%w: needs a higher level", ErrSkipped)
	}
	p := &probe{cfg: c}
	timeout := p.timeout()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	p.ctx = ctx
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if v := recover(); v != nil {
				p.errorf("panic: %v", v)
			}
		}()
		p.open()
		l.run(p)
	}()
	select {
	case <-done:
	case <-time.After(timeout + 5*time.Second):
		return fmt.Errorf("no end after %v: a deadlock, or a call that ignores its context", timeout)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.errs) > 0 {
		return errors.New(strings.Join(p.errs, "\n"))
	}
	return p.skipped
}

// probe is a law at work. fatalf and skipf end the goroutine, so only the
// law's own may call them, and what is built on them.
type probe struct {
	ctx      context.Context
	cfg      Config
	one, two store.Store
	a, b     store.Account // one account through either
	account  string

	mu      sync.Mutex
	errs    []string
	skipped error
}

const maxErrors = 10

func (p *probe) errorf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.errs) < maxErrors {
		p.errs = append(p.errs, fmt.Sprintf(format, args...))
	}
}

func (p *probe) fatalf(format string, args ...any) {
	p.errorf(format, args...)
	runtime.Goexit()
}

func (p *probe) skipf(format string, args ...any) {
	p.skipped = fmt.Errorf("%w: %s", ErrSkipped, fmt.Sprintf(format, args...))
	runtime.Goexit()
}

// ok ends the law when a call failed that should not have.
func (p *probe) ok(err error, what string) {
	if err != nil {
		p.fatalf("%s: %v", what, err)
	}
}

func (p *probe) failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.errs) > 0
}

func (p *probe) timeout() time.Duration {
	if p.cfg.Timeout > 0 {
		return p.cfg.Timeout
	}
	return 60 * time.Second
}

func (p *probe) rounds() int {
	if p.cfg.Rounds > 0 {
		return p.cfg.Rounds
	}
	return 400
}

// open makes the data and the account.
func (p *probe) open() {
	var err error
	p.one, p.two, err = p.cfg.Open()
	p.ok(err, "Open")
	p.account = p.cfg.Account
	if p.account == "" {
		p.account = "storetest"
		p.create(p.account)
	}
	p.a = p.handle(p.one, p.account)
	p.b = p.handle(p.two, p.account)
}

// create makes an account, or skips the law.
func (p *probe) create(id string) {
	admin, ok := p.one.(store.Admin)
	if !ok {
		p.skipf("the store is no store.Admin and Config.Account is not set")
	}
	p.ok(admin.CreateAccount(p.ctx, id), "CreateAccount")
}

func (p *probe) handle(s store.Store, id string) store.Account {
	a, err := s.Account(p.ctx, id)
	p.ok(err, "Account")
	return a
}

// together runs n goroutines and waits for them. Errors go to errorf.
func (p *probe) together(n int, f func(i int) error) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := f(i); err != nil {
				p.errorf("goroutine %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}
