package storetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postrider/postrider/store"
)

// follower reads a mailbox as a cursor reader does: bound and expunged first,
// then the messages changed since.
type follower struct {
	acc    store.Account
	box    store.MailboxID
	cursor store.ModSeq
	have   map[store.UID]store.ModSeq
}

func (p *probe) follow(f *follower) error {
	c, err := f.acc.Changes(p.ctx, f.box, f.cursor)
	if errors.Is(err, store.ErrForgotten) {
		// The mailbox's ModSeq is the bound, all that is listed is the state.
		m, err := p.tryMailbox(f.acc, f.box)
		if err != nil {
			return err
		}
		f.cursor, f.have = 0, map[store.UID]store.ModSeq{}
		c = store.Changes{ModSeq: m.ModSeq}
	} else if err != nil {
		return err
	}
	if c.ModSeq < f.cursor {
		return fmt.Errorf("Changes(%d): the mailbox's ModSeq went back to %d", f.cursor, c.ModSeq)
	}
	for _, r := range c.Expunged {
		for u := range (store.UIDSet{r}).All() {
			delete(f.have, u)
		}
	}
	changed, err := p.tryList(f.acc, f.box, store.Query{ChangedSince: f.cursor})
	if err != nil {
		return err
	}
	for _, m := range changed {
		if was := f.have[m.UID]; m.ModSeq < was {
			return fmt.Errorf("UID %d: its ModSeq went back from %d to %d", m.UID, was, m.ModSeq)
		}
		f.have[m.UID] = m.ModSeq
	}
	f.cursor = c.ModSeq
	return nil
}

// more returns what tells a writer whether to go on after n rounds, when
// another goroutine counts how often it looked on: until that has seen enough,
// but not for long.
func (p *probe) more(looks *atomic.Int64) func(n int) bool {
	const enough, long = 100, time.Second
	began := time.Now()
	return func(n int) bool {
		return !p.failed() && (n < max(p.rounds()/8, 10) || looks.Load() < enough && n < 4*p.rounds() && time.Since(began) < long)
	}
}

// followWhile lets a follower on handle b read until work is done, and then
// compares what it has with the truth. A writer of work goes on while more(n)
// says so, n being its rounds so far: long enough for the reader to be in the
// midst of things often.
func (p *probe) followWhile(work func(more func(n int) bool)) {
	f := &follower{acc: p.b, box: store.Inbox, have: map[store.UID]store.ModSeq{}}
	var stop atomic.Bool
	var reads atomic.Int64
	more := p.more(&reads)
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() && !p.failed() {
			if err := p.follow(f); err != nil {
				p.errorf("cursor reader: %v", err)
				return
			}
			reads.Add(1)
		}
	})
	work(more)
	stop.Store(true)
	wg.Wait()
	if p.failed() {
		return
	}
	if err := p.follow(f); err != nil {
		p.fatalf("cursor reader: %v", err)
	}
	truth := map[store.UID]store.ModSeq{}
	for _, m := range p.list(p.a, store.Inbox, store.Query{}) {
		truth[m.UID] = m.ModSeq
	}
	for u, m := range truth {
		if got, ok := f.have[u]; !ok {
			p.errorf("a cursor reader never saw UID %d (ModSeq %d)", u, m)
		} else if got != m {
			p.errorf("a cursor reader saw UID %d last at ModSeq %d, it is at %d", u, got, m)
		}
	}
	for u := range f.have {
		if _, ok := truth[u]; !ok {
			p.errorf("a cursor reader missed that UID %d was expunged", u)
		}
	}
}

func lawOrder(p *probe) {
	const writers = 8
	p.followWhile(func(more func(int) bool) {
		p.together(writers, func(i int) error {
			acc := p.a
			if i%2 == 1 {
				acc = p.b
			}
			var last store.Appended
			for n := 0; more(n); n++ {
				r, err := acc.Append(p.ctx, store.Inbox, []store.Draft{text("x"), text("y")}, store.AppendOptions{})
				if err != nil {
					return err
				}
				if len(r.Messages) != 2 || r.Messages[0].UID >= r.Messages[1].UID {
					return fmt.Errorf("Append of two gave %+v", r.Messages)
				}
				if n > 0 && (r.Messages[0].UID <= last.Messages[1].UID || r.ModSeq <= last.ModSeq) {
					return fmt.Errorf("a later Append got UID %d and ModSeq %d after UID %d and ModSeq %d",
						r.Messages[0].UID, r.ModSeq, last.Messages[1].UID, last.ModSeq)
				}
				if r.Prev >= r.ModSeq {
					return fmt.Errorf("Append: Commit is %+v, want Prev below ModSeq", r.Commit)
				}
				last = r
				f, err := acc.SetFlags(p.ctx, store.Inbox, store.UIDs(r.Messages[0].UID), store.FlagOp{Flags: store.NewFlags(store.Seen)})
				if err != nil {
					return err
				}
				if f.ModSeq <= r.ModSeq {
					return fmt.Errorf("SetFlags got ModSeq %d after an Append at %d", f.ModSeq, r.ModSeq)
				}
			}
			return nil
		})
	})
}

func lawBound(p *probe) {
	p.fill(p.a, store.Inbox, 8)
	p.followWhile(func(more func(int) bool) {
		p.together(2, func(i int) error {
			acc := p.a
			if i == 1 {
				acc = p.b
			}
			var window []store.UID // alive long enough to be seen by the reader
			for n := 0; more(n); n++ {
				r, err := acc.Append(p.ctx, store.Inbox, []store.Draft{text("x")}, store.AppendOptions{})
				if err != nil {
					return err
				}
				window = append(window, r.Messages[0].UID)
				if len(window) < 8 {
					continue
				}
				u := store.UIDs(window[0])
				window = window[1:]
				if _, err := acc.SetFlags(p.ctx, store.Inbox, u, store.FlagOp{Flags: store.NewFlags(store.Deleted)}); err != nil {
					return err
				}
				if _, err := acc.Expunge(p.ctx, store.Inbox, u, store.ExpungeOptions{OnlyDeleted: true}); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func lawHighest(p *probe) {
	in := store.Inbox
	p.fill(p.a, in, 4)
	check := func(after string, c store.Commit, before store.ModSeq, changes bool) {
		m := p.mailbox(p.b, in)
		if c.Prev != before {
			p.errorf("%s: Commit.Prev is %d, the mailbox was at %d", after, c.Prev, before)
		}
		if c.ModSeq != m.ModSeq {
			p.errorf("%s: Commit.ModSeq is %d, the mailbox is at %d", after, c.ModSeq, m.ModSeq)
		}
		if changes && m.ModSeq <= before {
			p.errorf("%s: the mailbox's ModSeq stayed at %d", after, before)
		}
		if !changes && m.ModSeq != before {
			p.errorf("%s changed nothing, but raised the mailbox's ModSeq from %d to %d", after, before, m.ModSeq)
		}
		for _, x := range p.list(p.b, in, store.Query{}) {
			if x.ModSeq > m.ModSeq {
				p.errorf("%s: UID %d has ModSeq %d, above the mailbox's %d", after, x.UID, x.ModSeq, m.ModSeq)
			}
		}
		if ch, err := p.b.Changes(p.ctx, in, m.ModSeq); err != nil || !ch.Expunged.Empty() {
			p.errorf("%s: Changes(the mailbox's ModSeq) = %+v, %v: an expunge has a greater ModSeq than the mailbox", after, ch, err)
		}
	}
	op := store.FlagOp{Flags: store.NewFlags(store.Seen, "kw")}
	for i, what := range []string{"SetFlags", "SetFlags again"} {
		before := p.mailbox(p.b, in).ModSeq
		r, err := p.a.SetFlags(p.ctx, in, store.UIDSet{{First: 1, Last: 2}}, op)
		p.ok(err, what)
		check(what, r.Commit, before, i == 0)
	}
	msg := p.message(p.b, in, 1, 0)
	p.setFlags(p.a, in, store.AllUIDs(), store.AddFlags, op.Flags)
	if now := p.message(p.b, in, 1, 0); now.ModSeq != msg.ModSeq {
		p.errorf("UID 1 had its flags already, but its ModSeq went from %d to %d when others changed", msg.ModSeq, now.ModSeq)
	}
	for i, what := range []string{"Expunge", "Expunge again"} {
		before := p.mailbox(p.b, in).ModSeq
		r, err := p.a.Expunge(p.ctx, in, store.UIDs(2), store.ExpungeOptions{})
		p.ok(err, what)
		check(what, r.Commit, before, i == 0)
	}
	before := p.mailbox(p.b, in).ModSeq
	r, err := p.a.Append(p.ctx, in, nil, store.AppendOptions{})
	p.ok(err, "Append of nothing")
	check("Append of nothing", r.Commit, before, false)
}

func lawHorizon(p *probe) {
	p.fill(p.a, store.Inbox, 300)
	start := p.mailbox(p.a, store.Inbox).ModSeq
	expungedAt := map[store.UID]store.ModSeq{}
	for u := store.UID(1); u < 300; u += 2 { // no two touch
		r := p.expunge(p.a, store.Inbox, store.UIDs(u))
		expungedAt[u] = r.ModSeq
	}
	m := p.mailbox(p.b, store.Inbox)
	if m.Horizon > m.ModSeq {
		p.errorf("Horizon %d is above the mailbox's ModSeq %d", m.Horizon, m.ModSeq)
	}
	for since := start; since <= m.ModSeq; since++ {
		c, err := p.b.Changes(p.ctx, store.Inbox, since)
		if since < m.Horizon {
			p.want(err, store.ErrForgotten, fmt.Sprintf("Changes(%d), below the Horizon %d", since, m.Horizon))
			continue
		}
		if err != nil {
			p.errorf("Changes(%d), not below the Horizon %d: %v", since, m.Horizon, err)
			continue
		}
		for u, at := range expungedAt {
			if (at > since) != c.Expunged.Contains(u) {
				p.errorf("Changes(%d) says that UID %d was expunged: %v; it was, at %d", since, u, c.Expunged.Contains(u), at)
			}
		}
	}
}
