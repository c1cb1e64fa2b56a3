package storetest

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/postrider/postrider/store"
)

func lawWatch(p *probe) {
	if _, ok := p.a.(store.Watcher); !ok {
		p.skipf("the account is no store.Watcher")
	}
	within := p.cfg.Watch
	if within == 0 {
		within = 5 * time.Second
	}
	var calls atomic.Int64
	hint := make(chan struct{}, 1)
	stop := store.Watch(p.a, -1, func() {
		calls.Add(1)
		select {
		case hint <- struct{}{}:
		default:
		}
	})
	box := store.MailboxID("")
	steps := []struct {
		name string
		do   func() error
	}{
		{"Append", func() error {
			return second(p.b.Append(p.ctx, store.Inbox, []store.Draft{text("x"), text("y"), text("z")}, store.AppendOptions{}))
		}},
		{"SetFlags", func() error {
			return second(p.b.SetFlags(p.ctx, store.Inbox, store.UIDs(1), store.FlagOp{Flags: store.NewFlags(store.Seen)}))
		}},
		{"CreateMailbox", func() error {
			m, err := p.b.CreateMailbox(p.ctx, store.NewMailbox{Name: "x"})
			box = m.ID
			return err
		}},
		{"Copy", func() error { return second(p.b.Copy(p.ctx, store.Inbox, store.UIDs(1), box, store.CopyOptions{})) }},
		{"Move", func() error {
			return second(p.b.Copy(p.ctx, store.Inbox, store.UIDs(2), box, store.CopyOptions{Move: true}))
		}},
		{"UpdateMailboxes", func() error {
			name := "y"
			return p.b.UpdateMailboxes(p.ctx, store.MailboxUpdate{ID: box, Name: &name})
		}},
		{"Expunge", func() error {
			return second(p.b.Expunge(p.ctx, store.Inbox, store.AllUIDs(), store.ExpungeOptions{}))
		}},
		{"DeleteMailbox", func() error { return p.b.DeleteMailbox(p.ctx, box) }},
	}
	for _, s := range steps {
		select {
		case <-hint:
		default:
		}
		p.ok(s.do(), s.name)
		select {
		case <-hint:
		case <-time.After(within):
			p.errorf("%s on another handle was not told within %v", s.name, within)
		}
	}
	stop()
	n := calls.Load()
	p.fill(p.b, store.Inbox, 3)
	if calls.Load() != n {
		p.errorf("a watcher was called after stop had returned")
	}
}

func lawDeliver(p *probe) {
	const n = 12
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf("rcpt%d", i))
		p.create(ids[i])
	}
	st, err := store.Stage(p.ctx, p.one, -1)
	p.ok(err, "Stage")
	defer st.Close()
	body := "Subject: x\r\n\r\nhello\r\n"
	_, err = st.Write([]byte(body))
	p.ok(err, "writing a staged body")
	trace := "Received: by test\r\n"
	d := store.Draft{Head: []byte(trace), Body: st, MessageID: "m@example.org", Summary: []byte("draft")}
	targets := make([]store.Target, n+1)
	for i, id := range ids {
		targets[i] = store.Target{
			Account: id, Head: []byte("Delivered-To: " + id + "\r\n"), Flags: store.NewFlags(0, "new"),
			Once: "delivery/" + id, Summary: []byte("target"),
		}
	}
	targets[n] = store.Target{Account: "nobody"}
	full := -1
	if p.cfg.SetQuota != nil {
		full = 3
		p.ok(p.cfg.SetQuota(p.one, ids[full], 10), "SetQuota")
	}
	_, dedupes := p.one.(store.Deliverer)
	rounds := 1
	if dedupes {
		rounds = 2 // what was delivered is not delivered again
	}
	for round := range rounds {
		errs := store.Deliver(p.ctx, p.one, d, targets)
		if len(errs) != len(targets) {
			p.fatalf("Deliver to %d targets gave %d errors", len(targets), len(errs))
		}
		for i, err := range errs {
			switch {
			case i == n:
				p.want(err, store.ErrNotExist, "Deliver to an unknown account")
			case i == full:
				p.want(err, store.ErrQuota, "Deliver to a full account")
			case err != nil:
				p.errorf("round %d: Deliver to %s: %v", round, ids[i], err)
			}
		}
		for i, id := range ids {
			acc := p.handle(p.two, id)
			ms := p.list(acc, store.Inbox, store.Query{Fields: store.WithSummary})
			if i == full {
				if len(ms) != 0 {
					p.errorf("an account over quota got %d messages", len(ms))
				}
				continue
			}
			if len(ms) != 1 {
				p.errorf("round %d: %s has %d messages, want 1", round, id, len(ms))
				continue
			}
			if want := "Delivered-To: " + id + "\r\n" + trace + body; p.read(acc, ms[0]) != want {
				p.errorf("%s got %q, want %q", id, p.read(acc, ms[0]), want)
			}
			if !ms[0].Flags.Has("new") {
				p.errorf("%s: the target's flags are not set", id)
			}
			if s := string(ms[0].Summary); s != "" && s != "target" {
				p.errorf("%s: Summary is %q, want the target's, which covers its Head", id, s)
			}
		}
	}
	if full >= 0 {
		p.ok(p.cfg.SetQuota(p.one, ids[full], 0), "SetQuota")
		if err := store.Deliver(p.ctx, p.one, d, targets)[full]; err != nil {
			p.errorf("Deliver again, with room now: %v", err)
		}
		if got := p.uids(p.handle(p.two, ids[full]), store.Inbox); got.Count() != 1 {
			p.errorf("a delivery that failed at first and was repeated gave %d messages, want 1", got.Count())
		}
	}
}
