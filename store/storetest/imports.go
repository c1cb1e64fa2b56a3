package storetest

import (
	"bytes"
	"time"

	"github.com/postrider/postrider/store"
)

// lawImport takes a mailbox over twice, as someone does who moves from one
// store to another while the first is still in use.
func lawImport(p *probe) {
	to, ok := p.a.(store.Importer)
	if !ok {
		p.skipf("the account is no store.Importer")
	}
	p.fill(p.a, store.Inbox, 1)
	old := store.Mailbox{Name: "Moved", UIDValidity: 7, ModSeq: 5000, SpecialUse: []string{`\Archive`}}
	box, err := to.ImportMailbox(p.ctx, old)
	p.ok(err, "ImportMailbox")
	if box.Name != "Moved" || box.UIDValidity != 7 || box.UIDNext != 1 || len(box.SpecialUse) != 1 {
		p.fatalf("ImportMailbox made %+v", box)
	}
	if box.ModSeq <= old.ModSeq || p.cfg.Level == Full && box.Horizon <= old.ModSeq {
		p.errorf("after ImportMailbox with ModSeq %d the mailbox has %d and Horizon %d: both must be above it", old.ModSeq, box.ModSeq, box.Horizon)
	}

	date := time.Date(2020, 5, 17, 9, 0, 0, 0, time.UTC)
	draft := func(body string) store.Draft {
		return store.Draft{Body: bytes.NewReader([]byte(body)), Flags: store.NewFlags(store.Seen, "work"), InternalDate: date}
	}
	r, err := to.Import(p.ctx, box.ID, []store.UID{3, 4, 90}, []store.Draft{draft("three"), draft("four"), draft("ninety")})
	p.ok(err, "Import")
	if r.UIDValidity != 7 || r.ModSeq <= r.Prev || r.Prev < box.ModSeq || len(r.Messages) != 3 {
		p.errorf("Import returned %+v", r)
	}
	for i, want := range []struct {
		uid  store.UID
		text string
	}{{3, "three"}, {4, "four"}, {90, "ninety"}} {
		m := p.message(p.b, box.ID, want.uid, store.WithDates)
		if got := p.read(p.b, m); got != want.text || m.ModSeq <= old.ModSeq || !m.Flags.Has("work") || !m.InternalDate.Equal(date) {
			p.errorf("UID %d came out as %q, %+v", want.uid, got, m)
		}
		if i < len(r.Messages) && r.Messages[i].UID != want.uid {
			p.errorf("Import returned UID %d for %d", r.Messages[i].UID, want.uid)
		}
	}
	if got := p.mailbox(p.b, box.ID); got.UIDNext != 91 || got.Counts.Messages != 3 {
		p.errorf("after an import up to UID 90 the mailbox is %+v", got)
	}

	gone := func(since store.ModSeq, uids ...store.UID) {
		if p.cfg.Level != Full {
			return
		}
		c, err := p.b.Changes(p.ctx, box.ID, since)
		p.ok(err, "Changes")
		for _, uid := range uids {
			if !c.Expunged.Contains(uid) {
				p.errorf("UID %d was passed over, and Changes says that only %v are gone", uid, c.Expunged)
			}
		}
	}
	gone(r.Prev, 1, 2, 5, 89)

	// What is in use cannot be imported, and a refused import leaves nothing.
	for _, uids := range [][]store.UID{{90, 91}, {95, 94}, {95, 95}, {2, 95}} {
		_, err := to.Import(p.ctx, box.ID, uids, []store.Draft{draft("x"), draft("y")})
		p.want(err, store.ErrExist, "Import of UIDs that are taken or do not ascend")
	}
	if got := p.uids(p.b, box.ID); got.Count() != 3 {
		p.errorf("refused imports left UIDs %v", got)
	}
	_, err = to.ImportMailbox(p.ctx, store.Mailbox{Name: "Moved", UIDValidity: 8})
	p.want(err, store.ErrExist, "ImportMailbox with another UIDVALIDITY over messages")
	_, err = to.ImportMailbox(p.ctx, store.Mailbox{Name: string(store.Inbox), UIDValidity: 7})
	p.want(err, store.ErrExist, "ImportMailbox over an Inbox with messages")

	// Again, later: a change there is later here than all that was known there.
	before := p.mailbox(p.b, box.ID)
	old.ModSeq, old.UIDNext = before.ModSeq+1000, 120
	box, err = to.ImportMailbox(p.ctx, old)
	p.ok(err, "ImportMailbox again")
	if box.ModSeq <= old.ModSeq || box.UIDNext != 120 || box.Horizon != before.Horizon && p.cfg.Level == Full {
		p.errorf("ImportMailbox again made %+v of %+v", box, before)
	}
	gone(before.ModSeq, 91, 119)
	p.setFlags(p.a, box.ID, store.UIDs(3), store.AddFlags, store.NewFlags(store.Flagged))
	if m := p.message(p.b, box.ID, 3, 0); m.ModSeq <= old.ModSeq {
		p.errorf("a change after ImportMailbox with ModSeq %d has ModSeq %d", old.ModSeq, m.ModSeq)
	}
	box = p.mailbox(p.b, box.ID)
	again, err := to.ImportMailbox(p.ctx, store.Mailbox{Name: "Moved", UIDValidity: 7, UIDNext: 50, ModSeq: 10})
	p.ok(err, "ImportMailbox with nothing new")
	if again.ModSeq != box.ModSeq || again.UIDNext != box.UIDNext {
		p.errorf("ImportMailbox with nothing new made %+v of %+v", again, box)
	}
	if got := p.fill(p.a, box.ID, 1); got.First() != 120 {
		p.errorf("the first UID after the import is %d, want 120", got.First())
	}
}
