package storetest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/postrider/postrider/store"
)

func lawOnlyDeleted(p *probe) {
	for range max(p.rounds()/2, 50) {
		uid := p.fill(p.a, store.Inbox, 1).First()
		u := store.UIDs(uid)
		p.setFlags(p.a, store.Inbox, u, store.AddFlags, store.NewFlags(store.Deleted))
		var f store.FlagResult
		var e store.Expunged
		p.together(2, func(i int) (err error) {
			if i == 0 {
				f, err = p.a.SetFlags(p.ctx, store.Inbox, u, store.FlagOp{Mode: store.RemoveFlags, Flags: store.NewFlags(store.Deleted)})
			} else {
				e, err = p.b.Expunge(p.ctx, store.Inbox, u, store.ExpungeOptions{OnlyDeleted: true})
			}
			return err
		})
		if f.Changed.Contains(uid) == e.UIDs.Contains(uid) {
			p.fatalf("UID %d: \\Deleted was taken back: %v; expunged all the same: %v; one of both must win",
				uid, f.Changed.Contains(uid), e.UIDs.Contains(uid))
		}
		p.expunge(p.a, store.Inbox, u)
	}
}

func lawConditions(p *probe) {
	const racers = 6
	for n := range max(p.rounds()/8, 25) {
		uids := p.fill(p.a, store.Inbox, 3)
		since := p.mailbox(p.a, store.Inbox).ModSeq
		ifAbsent := n%2 == 1
		results := make([]store.FlagResult, racers)
		p.together(racers, func(i int) (err error) {
			acc := p.a
			if i%2 == 1 {
				acc = p.b
			}
			op := store.FlagOp{Flags: store.NewFlags(0, fmt.Sprintf("won-by-%d", i)), UnchangedSince: since}
			if ifAbsent {
				op = store.FlagOp{Flags: store.NewFlags(0, "$MDNSent"), IfAbsent: true}
			}
			results[i], err = acc.SetFlags(p.ctx, store.Inbox, uids, op)
			return err
		})
		for u := range uids.All() {
			winners := 0
			for i, r := range results {
				if r.Changed.Contains(u) == r.Modified.Contains(u) {
					p.errorf("UID %d: racer %d was told Changed %v and Modified %v; want exactly one of both", u, i, r.Changed.Contains(u), r.Modified.Contains(u))
				}
				if r.Changed.Contains(u) {
					winners++
				}
			}
			if winners != 1 {
				p.fatalf("UID %d (IfAbsent %v): %d of %d racers won, want 1", u, ifAbsent, winners, racers)
			}
		}
		p.expunge(p.a, store.Inbox, uids)
	}
}

// watchWhile runs look again and again beside work, which goes on while
// more(n) says so, n being its rounds so far.
func (p *probe) watchWhile(look func() error, work func(more func(n int) bool) error) {
	var stop atomic.Bool
	var looks atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() && !p.failed() {
			if err := look(); err != nil {
				p.errorf("seen from another handle: %v", err)
			}
			looks.Add(1)
		}
	})
	err := work(p.more(&looks))
	stop.Store(true)
	wg.Wait()
	if err != nil {
		p.errorf("%v", err)
	}
}

func lawAtomic(p *probe) {
	// Append of several: all or none.
	const batch = 5
	many := p.newBox(p.a, "many")
	p.watchWhile(func() error {
		m, err := p.tryMailbox(p.b, many)
		if err == nil && m.Counts.Messages%batch != 0 {
			err = fmt.Errorf("%d messages, though they are appended %d at a time", m.Counts.Messages, batch)
		}
		return err
	}, func(more func(int) bool) error {
		for n := 0; more(n); n++ {
			d := make([]store.Draft, batch)
			for i := range d {
				d[i] = text("x")
			}
			if _, err := p.a.Append(p.ctx, many, d, store.AppendOptions{}); err != nil {
				return err
			}
		}
		return nil
	})

	// Move: never in both places, never in none.
	from, to := p.newBox(p.a, "from"), p.newBox(p.a, "to")
	p.watchWhile(func() error {
		// What is at the destination cannot be at the source after that.
		there, err := p.tryList(p.b, to, store.Query{})
		if err != nil {
			return err
		}
		here, err := p.tryList(p.b, from, store.Query{})
		if err != nil {
			return err
		}
		moved := map[string]bool{}
		for _, m := range there {
			moved[m.ID] = true
		}
		for _, m := range here {
			if moved[m.ID] {
				return fmt.Errorf("a message being moved was at the destination and then still at the source, as UID %d", m.UID)
			}
		}
		// The UIDs of the source are given out in order, so what is missing
		// below the greatest has gone, and must have arrived.
		m, err := p.tryMailbox(p.b, to)
		if err != nil {
			return err
		}
		if n := len(here); n > 0 {
			if gone := int(here[n-1].UID) - n; m.Counts.Messages < gone {
				return fmt.Errorf("%d messages had left the source and then only %d were at the destination", gone, m.Counts.Messages)
			}
		}
		return nil
	}, func(more func(int) bool) error {
		for n := 0; more(n); n++ {
			uids := p.fill(p.a, from, 4)
			for _, u := range []store.UID{uids.First() + 1, uids.First(), uids.Last() - 1} {
				if _, err := p.a.Copy(p.ctx, from, store.UIDs(u), to, store.CopyOptions{Move: true}); err != nil {
					return err
				}
			}
			// All that is left but the last goes too, so that lists stay short.
			rest := store.UIDSet{{First: 1, Last: uids.Last() - 1}}
			if _, err := p.a.Copy(p.ctx, from, rest, to, store.CopyOptions{Move: true}); err != nil {
				return err
			}
		}
		return nil
	})

	// Replace: always exactly one draft.
	drafts := p.newBox(p.a, "drafts")
	uid := p.fill(p.a, drafts, 1).First()
	p.watchWhile(func() error {
		m, err := p.tryMailbox(p.b, drafts)
		if err == nil && m.Counts.Messages != 1 {
			err = fmt.Errorf("%d messages while one is being replaced, want 1", m.Counts.Messages)
		}
		return err
	}, func(more func(int) bool) error {
		for n := 0; more(n); n++ {
			var o store.AppendOptions
			o.Replace.Box, o.Replace.UID = drafts, uid
			r, err := p.a.Append(p.ctx, drafts, []store.Draft{text("draft")}, o)
			if err != nil {
				return err
			}
			uid = r.Messages[0].UID
		}
		return nil
	})

	// A failure leaves nothing.
	before := p.mailbox(p.b, drafts)
	var o store.AppendOptions
	o.Replace.Box, o.Replace.UID = drafts, uid+1000
	_, err := p.a.Append(p.ctx, drafts, []store.Draft{text("x"), text("y")}, o)
	p.want(err, store.ErrNotExist, "Append{Replace} of a message that is not there")
	if after := p.mailbox(p.b, drafts); after.Counts != before.Counts || after.UIDNext != before.UIDNext {
		p.errorf("failed Appends left something: %+v, was %+v", after.Counts, before.Counts)
	}
}

func lawKeywords(p *probe) {
	in := store.Inbox
	p.fill(p.a, in, 2)
	p.setFlags(p.a, in, store.UIDs(1), store.AddFlags, store.NewFlags(0, "Label", "$Junk"))
	r := p.setFlags(p.a, in, store.UIDs(1), store.AddFlags, store.NewFlags(0, "LABEL"))
	if !r.Changed.Empty() {
		p.errorf("adding LABEL where Label is changed UIDs %q", r.Changed)
	}
	p.setFlags(p.a, in, store.UIDs(2), store.AddFlags, store.NewFlags(0, "label"))
	for _, uid := range []store.UID{1, 2} {
		k := p.message(p.b, in, uid, 0).Flags.Keywords
		if !store.NewFlags(0, k...).Has("label") || strings.Contains(strings.Join(k, " "), "label") {
			p.errorf("UID %d has keywords %q, want Label in its first spelling", uid, k)
		}
	}
	p.setFlags(p.a, in, store.AllUIDs(), store.ReplaceFlags, store.Flags{})
	if k := p.message(p.b, in, 1, 0).Flags.Keywords; len(k) != 0 {
		p.errorf("replacing all flags by none left keywords %q", k)
	}
	var words []string
	for i := range 64 {
		words = append(words, fmt.Sprintf("kw-%02d", i))
	}
	_, err := p.a.SetFlags(p.ctx, in, store.UIDs(1), store.FlagOp{Flags: store.NewFlags(0, words...)})
	p.ok(err, "SetFlags with 64 keywords")
	if k := p.message(p.b, in, 1, 0).Flags.Keywords; len(k) != 64 {
		p.errorf("of 64 keywords %d were kept", len(k))
	}
	// Is there a limit? Then nothing may change beyond it.
	for i := range 40 {
		before := p.mailbox(p.b, in)
		words = words[:0]
		for j := range 64 {
			words = append(words, fmt.Sprintf("more-%d-%d", i, j))
		}
		_, err := p.a.SetFlags(p.ctx, in, store.UIDs(2), store.FlagOp{Flags: store.NewFlags(0, words...)})
		if err == nil {
			continue
		}
		p.want(err, store.ErrLimit, "SetFlags with too many keywords")
		if after := p.mailbox(p.b, in); after.ModSeq != before.ModSeq {
			p.errorf("SetFlags failed with ErrLimit but changed the mailbox")
		}
		d := text("x")
		d.Flags = store.NewFlags(0, words...)
		_, err = p.a.Append(p.ctx, in, []store.Draft{text("y"), d}, store.AppendOptions{})
		p.want(err, store.ErrLimit, "Append with too many keywords")
		if after := p.mailbox(p.b, in); after.Counts.Messages != before.Counts.Messages {
			p.errorf("Append failed with ErrLimit but appended something")
		}
		return
	}
}

func lawContext(p *probe) {
	in := store.Inbox
	p.fill(p.a, in, 4)
	other := p.newBox(p.a, "other")
	done, cancel := context.WithCancel(p.ctx)
	cancel()
	calls := []struct {
		name string
		call func() error
		all  func(was, is []store.Mailbox) bool
	}{
		{"Append", func() error {
			return second(p.a.Append(done, in, []store.Draft{text("x"), text("y")}, store.AppendOptions{}))
		}, func(was, is []store.Mailbox) bool { return is[0].Counts.Messages == was[0].Counts.Messages+2 }},
		{"SetFlags", func() error {
			return second(p.a.SetFlags(done, in, store.AllUIDs(), store.FlagOp{Flags: store.NewFlags(store.Seen)}))
		}, func(was, is []store.Mailbox) bool { return is[0].Counts.Unseen == 0 }},
		{"Copy", func() error {
			return second(p.a.Copy(done, in, store.AllUIDs(), other, store.CopyOptions{}))
		}, func(was, is []store.Mailbox) bool {
			return is[1].Counts.Messages == was[1].Counts.Messages+was[0].Counts.Messages
		}},
		{"Expunge", func() error {
			return second(p.a.Expunge(done, in, store.AllUIDs(), store.ExpungeOptions{}))
		}, func(was, is []store.Mailbox) bool { return is[0].Counts.Messages == 0 }},
	}
	state := func() []store.Mailbox { return []store.Mailbox{p.mailbox(p.b, in), p.mailbox(p.b, other)} }
	for _, c := range calls {
		was := state()
		err := c.call()
		is := state()
		nothing := is[0].Counts == was[0].Counts && is[1].Counts == was[1].Counts
		switch all := c.all(was, is); {
		case err == nil && !all:
			p.errorf("%s with a done context gave no error and did not do all of it: %+v, was %+v", c.name, is, was)
		case err != nil && !all && !nothing:
			p.errorf("%s with a done context did half of it: %+v, was %+v", c.name, is, was)
		}
	}
}
