package storetest

import (
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/postrider/postrider/store"
)

// Crasher is a [store.Store] whose disk can be had as a crash would leave it.
// Config.Open returns one if it can.
type Crasher interface {
	store.Store
	// Steps has step called before each step that changes what a crash would
	// leave, from now on; nil = no more. It may be called from any goroutine.
	Steps(step func())
	// Crash takes what would be left if the machine stopped at this moment.
	// step calls it, so it waits for no method of the store. open makes a
	// store of it, which is closed if it is an io.Closer.
	Crash() (open func() (store.Store, error))
}

// crashCall is a call that a crash interrupts.
type crashCall struct {
	name string
	do   func() error
}

// lawCrashes stops the machine before each step of the store's disk, and holds
// what is left against the state before and after the call that ran: it must
// be the one or the other in each account, and the latter once the call has
// returned.
func lawCrashes(p *probe) {
	crasher, ok := p.one.(Crasher)
	if !ok {
		p.skipf("the store is no storetest.Crasher")
	}
	accounts := []string{p.account}
	if _, ok := p.one.(store.Admin); ok && p.cfg.Account == "" {
		p.create("other")
		accounts = append(accounts, "other")
	}
	type image struct {
		during int
		open   func() (store.Store, error)
	}
	var mu sync.Mutex
	var images []image
	running := -1
	set := func(n int) {
		mu.Lock()
		running = n
		mu.Unlock()
	}
	calls := p.crashCalls(accounts)
	p.list(p.a, store.Inbox, store.Query{}) // what is read late is read now
	states := [][]string{p.states(p.one, accounts)}
	crasher.Steps(func() {
		mu.Lock()
		defer mu.Unlock()
		if running >= 0 {
			images = append(images, image{running, crasher.Crash()})
		}
	})
	delivered := len(calls)
	for i, c := range calls {
		set(i)
		err := c.do()
		set(-1)
		p.ok(err, c.name)
		if c.name == deliverCall {
			delivered = i
		}
		states = append(states, p.states(p.one, accounts))
	}
	crasher.Steps(nil)
	// What the last one left is durable without another step.
	mu.Lock()
	images = append(images, image{len(calls) - 1, crasher.Crash()})
	mu.Unlock()
	for n, im := range images {
		what := fmt.Sprintf("crash %d of %d, during %s,", n, len(images), calls[im.during].name)
		s, err := im.open()
		p.ok(err, what+" leaves what cannot be opened")
		got := p.states(s, accounts)
		for i, id := range accounts {
			before, after := states[im.during][i], states[im.during+1][i]
			if got[i] != before && got[i] != after || n == len(images)-1 && got[i] != after {
				p.fatalf("%s leaves in account %s\n%s\nwhich is neither the state before:\n%s\nnor the one after:\n%s", what, id, got[i], before, after)
			}
			if before != after || im.during > delivered {
				known := im.during > delivered || im.during == delivered && got[i] == after
				p.afterCrash(what, s, id, known)
			}
		}
		if c, ok := s.(io.Closer); ok {
			p.ok(c.Close(), "Close")
		}
	}
	if len(images) < len(calls) {
		p.errorf("%d crashes in %d calls: does Steps work?", len(images), len(calls))
	}
}

const deliverCall = "Deliver"

// crashCalls are calls of every kind; each but the last few changes something.
func (p *probe) crashCalls(accounts []string) []crashCall {
	in := store.Inbox
	big := strings.Repeat("a line of a body that is no small one\r\n", 10_000)
	var box, second store.MailboxID
	create := func(name string, id *store.MailboxID) func() error {
		return func() error {
			m, err := p.a.CreateMailbox(p.ctx, store.NewMailbox{Name: name, SpecialUse: []string{`\Archive`}})
			*id = m.ID
			return err
		}
	}
	add := func(box *store.MailboxID, d ...store.Draft) func() error {
		return func() error {
			_, err := p.a.Append(p.ctx, *box, d, store.AppendOptions{})
			return err
		}
	}
	flags := func(uids store.UIDSet, mode store.FlagMode, f store.Flags) func() error {
		return func() error {
			_, err := p.a.SetFlags(p.ctx, in, uids, store.FlagOp{Mode: mode, Flags: f})
			return err
		}
	}
	inbox := in
	full := text("Subject: full\r\n\r\nbody\r\n")
	full.Head, full.Summary, full.MessageID, full.References = []byte("Return-Path: <>\r\n"), []byte("summary"), "1@example.org", []string{"0@example.org"}
	full.Flags = store.NewFlags(store.Flagged, "keyword")
	calls := []crashCall{
		{"CreateMailbox", create("one", &box)},
		{"CreateMailbox again", create("two", &second)},
		{"Append", add(&inbox, full)},
		{"Append of three", add(&inbox, text("one"), text("two"), text("three"))},
		{"Append of a large body", add(&inbox, text(big))},
		{"Append of a small and a large one", add(&inbox, text("small"), text(big+"more"))},
		{"Append of a staged body", func() error {
			st, err := store.Stage(p.ctx, p.one, -1)
			if err != nil {
				return err
			}
			defer st.Close()
			if _, err := io.WriteString(st, big+"staged"); err != nil {
				return err
			}
			_, err = p.a.Append(p.ctx, box, []store.Draft{{Body: st}}, store.AppendOptions{})
			return err
		}},
		{"Append of a linked body", func() error {
			b, err := p.a.Open(p.ctx, p.message(p.a, in, 5, 0))
			if err != nil {
				return err
			}
			defer b.Close()
			_, err = p.a.Append(p.ctx, box, []store.Draft{{Body: b}, {Head: []byte("X: y\r\n"), Body: b}}, store.AppendOptions{})
			return err
		}},
		{"SetFlags", flags(store.AllUIDs(), store.AddFlags, store.NewFlags(store.Seen, "new"))},
		{"SetFlags that takes some away", flags(store.UIDs(2, 4), store.RemoveFlags, store.NewFlags(store.Seen))},
		{"Copy", func() error {
			_, err := p.a.Copy(p.ctx, in, store.UIDs(1, 3, 5), box, store.CopyOptions{})
			return err
		}},
		{"Copy{Move}", func() error {
			_, err := p.a.Copy(p.ctx, in, store.UIDs(2, 5), box, store.CopyOptions{Move: true})
			return err
		}},
		{"Append{Replace}", func() error {
			var o store.AppendOptions
			o.Replace.Box, o.Replace.UID = in, 3
			_, err := p.a.Append(p.ctx, box, []store.Draft{text("instead")}, o)
			return err
		}},
		{"Expunge", func() error {
			_, err := p.a.Expunge(p.ctx, box, store.UIDs(1, 2), store.ExpungeOptions{})
			return err
		}},
		{"UpdateMailboxes", func() error {
			one, two := "two", "one"
			return p.a.UpdateMailboxes(p.ctx, store.MailboxUpdate{ID: box, Name: &one}, store.MailboxUpdate{ID: second, Name: &two})
		}},
		{"DeleteMailbox", func() error { return p.a.DeleteMailbox(p.ctx, second) }},
		{"Append of a body that fails", func() error {
			bad := &source{data: big, size: int64(len(big)), failAt: int64(len(big) / 2)}
			if _, err := p.a.Append(p.ctx, in, []store.Draft{text("good"), {Body: bad}}, store.AppendOptions{}); err == nil {
				p.errorf("a body that fails was appended")
			}
			return nil
		}},
	}
	if _, ok := p.one.(store.Deliverer); ok {
		calls = append(calls, crashCall{deliverCall, func() error {
			for _, err := range store.Deliver(p.ctx, p.one, text(big+"delivered"), deliveries(accounts)) {
				if err != nil {
					return err
				}
			}
			return nil
		}})
	}
	if s, ok := p.a.(store.Subscriber); ok {
		calls = append(calls, crashCall{"Subscribe", func() error { return s.Subscribe(p.ctx, "name") }})
	}
	if im, ok := p.a.(store.Importer); ok {
		calls = append(calls, crashCall{"ImportMailbox", func() error {
			_, err := im.ImportMailbox(p.ctx, store.Mailbox{Name: "imported", UIDValidity: 7, UIDNext: 40, ModSeq: 900})
			return err
		}}, crashCall{"Import", func() error {
			_, err := im.Import(p.ctx, in, []store.UID{100, 200}, []store.Draft{text("100"), text(big + "200")})
			return err
		}})
	}
	if p.cfg.Sweep != nil {
		calls = append(calls, crashCall{"Sweep", func() error {
			_, err := p.cfg.Sweep(p.one)
			return err
		}})
	}
	return append(calls, crashCall{"Expunge of all", func() error {
		_, err := p.a.Expunge(p.ctx, in, store.AllUIDs(), store.ExpungeOptions{})
		return err
	}})
}

func deliveries(accounts []string) []store.Target {
	var t []store.Target
	for _, id := range accounts {
		t = append(t, store.Target{Account: id, Head: []byte("Delivered-To: " + id + "\r\n"), Once: "once/" + id})
	}
	return t
}

// states describes accounts, with all that can be read of them.
func (p *probe) states(s store.Store, accounts []string) (out []string) {
	for _, id := range accounts {
		out = append(out, p.stateOf(p.handle(s, id)))
	}
	return out
}

func (p *probe) stateOf(acc store.Account) string {
	var b strings.Builder
	boxes, _, err := acc.Mailboxes(p.ctx, store.MailboxQuery{Counts: true})
	p.ok(err, "Mailboxes")
	for _, m := range boxes {
		fmt.Fprintf(&b, "%+v", m)
		c, err := acc.Changes(p.ctx, m.ID, m.Horizon)
		p.ok(err, "Changes")
		fmt.Fprintf(&b, " expunged %v\n", c.Expunged)
		for _, m := range p.list(acc, m.ID, store.Query{Fields: store.WithDates | store.WithIDs | store.WithSummary}) {
			fmt.Fprintf(&b, "  UID %d ModSeq %d %v %d %v %v %s %s %q %x\n", m.UID, m.ModSeq, m.Flags, m.Size, m.InternalDate.UTC(), m.SaveDate.UTC(),
				m.ID, m.ThreadID, m.Summary, sha256.Sum256([]byte(p.read(acc, m))))
		}
	}
	if s, ok := acc.(store.Subscriber); ok {
		names, err := s.Subscriptions(p.ctx)
		p.ok(err, "Subscriptions")
		fmt.Fprintf(&b, "subscribed %q\n", names)
	}
	return b.String()
}

// afterCrash has an account go on. known: its delivery has arrived.
func (p *probe) afterCrash(what string, s store.Store, id string, known bool) {
	acc := p.handle(s, id)
	was := p.mailbox(acc, store.Inbox)
	if _, ok := s.(store.Deliverer); ok {
		p.ok(store.Deliver(p.ctx, s, text("again"), deliveries([]string{id}))[0], what+" and then Deliver")
		is := p.mailbox(acc, store.Inbox)
		if again := is.Counts.Messages > was.Counts.Messages; again == known {
			p.errorf("%s: a delivery to %s had arrived: %v; it was taken again: %v", what, id, known, again)
		}
		was = is
	}
	r, err := acc.Append(p.ctx, store.Inbox, []store.Draft{text("after")}, store.AppendOptions{})
	p.ok(err, what+" and then Append")
	if m := r.Messages[0]; m.UID < was.UIDNext || m.ModSeq <= was.ModSeq || p.read(acc, m) != "after" {
		p.errorf("%s: the next message is %+v; UIDNext was %d, ModSeq %d", what, m, was.UIDNext, was.ModSeq)
	}
	if is := p.mailbox(acc, store.Inbox); is.Counts.Messages != was.Counts.Messages+1 || len(p.list(acc, store.Inbox, store.Query{})) != is.Counts.Messages {
		p.errorf("%s: then there are %d messages, of %d and one", what, is.Counts.Messages, was.Counts.Messages)
	}
}
