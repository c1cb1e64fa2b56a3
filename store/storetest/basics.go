package storetest

import (
	"errors"
	"slices"
	"strings"

	"github.com/postrider/postrider/store"
)

func lawRead(p *probe) {
	if p.cfg.Level != ReadOnly {
		p.fill(p.a, store.Inbox, 7)
	}
	boxes, through, err := p.b.Mailboxes(p.ctx, store.MailboxQuery{Counts: true})
	p.ok(err, "Mailboxes")
	var inbox *store.Mailbox
	for i, m := range boxes {
		if m.ID == "" || m.Name == "" || m.UIDValidity == 0 || m.UIDNext == 0 || m.Gone {
			p.errorf("Mailboxes: %+v lacks ID, Name, UIDValidity or UIDNext, or is Gone", m)
		}
		if m.ModSeq > through {
			p.errorf("Mailboxes: ModSeq %d of %s is above through %d, and nothing was written meanwhile", m.ModSeq, m.Name, through)
		}
		if m.ID == store.Inbox {
			inbox = &boxes[i]
		}
	}
	if inbox == nil {
		p.fatalf("Mailboxes: no mailbox has the ID store.Inbox")
	}
	byName, _, err := p.b.Mailboxes(p.ctx, store.MailboxQuery{Names: []string{inbox.Name, "no such name"}})
	p.ok(err, "Mailboxes by name")
	if len(byName) != 1 || byName[0].ID != store.Inbox {
		p.errorf("Mailboxes{Names: %q and an unknown one} gave %d mailboxes, want Inbox alone", inbox.Name, len(byName))
	}
	changed, _, err := p.b.Mailboxes(p.ctx, store.MailboxQuery{ChangedSince: through})
	p.ok(err, "Mailboxes changed since through")
	if through > 0 && len(changed) != 0 {
		p.errorf("Mailboxes{ChangedSince: through} gave %d mailboxes, though nothing changed", len(changed))
	}

	all := p.list(p.b, store.Inbox, store.Query{Fields: store.WithDates | store.WithIDs | store.WithBody | store.WithSummary})
	if len(all) != inbox.Counts.Messages {
		p.errorf("Inbox: Counts.Messages is %d, Messages yields %d", inbox.Counts.Messages, len(all))
	}
	for _, m := range all {
		if m.UID >= inbox.UIDNext {
			p.errorf("UID %d is not below UIDNext %d", m.UID, inbox.UIDNext)
		}
		if m.ID == "" || len(m.ID) > 255 || strings.Trim(m.ID, objectID) != "" {
			p.errorf("UID %d: ID %q is not 1 to 255 octets of RFC 8474's alphabet", m.UID, m.ID)
		}
		if m.InternalDate.IsZero() {
			p.errorf("UID %d: no InternalDate", m.UID)
		}
		if !m.Flags.Valid() {
			p.errorf("UID %d: keywords %q are not sorted and unique", m.UID, m.Flags.Keywords)
		}
		body := p.read(p.b, m)
		if int64(len(body)) != m.Size {
			p.errorf("UID %d: Size is %d, its body has %d octets", m.UID, m.Size, len(body))
		}
	}
	if len(all) > 1 {
		mid := all[len(all)/2]
		p.sameUIDs("Messages{UIDs: one in the middle}", p.list(p.b, store.Inbox, store.Query{UIDs: store.UIDs(mid.UID)}), store.UIDs(mid.UID))
		upper := store.UIDSet{{First: mid.UID, Last: store.MaxUID}}
		p.sameUIDs("Messages{UIDs: from the middle to MaxUID}", p.list(p.b, store.Inbox, store.Query{UIDs: upper}), uidsOf(all).Intersect(upper))
	}
	p.sameUIDs("Messages{UIDs: {1, MaxUID}}", p.list(p.b, store.Inbox, store.Query{UIDs: store.AllUIDs()}), uidsOf(all))
	p.sameUIDs("Messages{UIDs: empty, not nil}", p.list(p.b, store.Inbox, store.Query{UIDs: store.UIDSet{}}), store.UIDSet{})
	for since := range slices.Values([]store.ModSeq{1, inbox.ModSeq / 2, inbox.ModSeq}) {
		if since == 0 {
			continue
		}
		want := store.UIDSet{}
		for _, m := range all {
			if m.ModSeq > since {
				want.Add(m.UID)
			}
		}
		p.sameUIDs("Messages{ChangedSince}", p.list(p.b, store.Inbox, store.Query{ChangedSince: since}), want)
	}
	for range p.b.Messages(p.ctx, store.Inbox, store.Query{}) {
		break // a loop may be left at any time
	}
	if _, err := p.tryList(p.b, "no-such-mailbox", store.Query{}); true {
		p.want(err, store.ErrNotExist, "Messages of an unknown mailbox")
	}
	_, err = p.b.Changes(p.ctx, "no-such-mailbox", 0)
	p.want(err, store.ErrNotExist, "Changes of an unknown mailbox")
	_, err = p.b.Open(p.ctx, store.Message{ID: "nosuchmessage"})
	p.want(err, store.ErrNotExist, "Open of an unknown message")
	_, err = p.one.Account(p.ctx, "no such account")
	p.want(err, store.ErrNotExist, "Account of an unknown account")
	c, err := p.b.Changes(p.ctx, store.Inbox, inbox.ModSeq)
	if err != nil || c.ModSeq != inbox.ModSeq || !c.Expunged.Empty() || c.UIDNext != inbox.UIDNext {
		p.errorf("Changes(the mailbox's ModSeq) = %+v, %v: want its ModSeq %d and UIDNext %d and nothing expunged", c, err, inbox.ModSeq, inbox.UIDNext)
	}
	v, err := store.OpenView(p.ctx, p.b, store.Inbox)
	p.ok(err, "OpenView")
	if v.Snapshot().Len() != len(all) {
		p.errorf("a View has %d messages, want %d", v.Snapshot().Len(), len(all))
	}
	if p.cfg.Level == ReadOnly {
		_, err := p.a.Append(p.ctx, store.Inbox, []store.Draft{text("x")}, store.AppendOptions{})
		p.want(err, store.ErrPermission, "Append to a read-only store")
		_, err = p.a.Expunge(p.ctx, store.Inbox, store.AllUIDs(), store.ExpungeOptions{})
		p.want(err, store.ErrPermission, "Expunge in a read-only store")
		_, err = p.a.SetFlags(p.ctx, store.Inbox, store.AllUIDs(), store.FlagOp{Flags: store.NewFlags(store.Seen)})
		p.want(err, store.ErrPermission, "SetFlags in a read-only store")
	}
}

const objectID = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

func (p *probe) sameUIDs(what string, got []store.Message, want store.UIDSet) {
	if g := uidsOf(got); !g.Equal(want) {
		p.errorf("%s gave UIDs %q, want %q", what, g, want)
	}
}

func lawWrite(p *probe) {
	in := store.Inbox
	p.fill(p.a, in, 5)
	box := p.newBox(p.a, "Archive")

	// Flags: each mode, and what really changed.
	r := p.setFlags(p.a, in, store.UIDSet{{First: 1, Last: 3}}, store.AddFlags, store.NewFlags(store.Seen, "one", "two"))
	p.equalSet("SetFlags(add) on new messages: Changed", r.Changed, "1:3")
	r = p.setFlags(p.a, in, store.AllUIDs(), store.AddFlags, store.NewFlags(store.Seen))
	p.equalSet("SetFlags(add) again on all: Changed", r.Changed, "4:5")
	p.setFlags(p.a, in, store.UIDs(2), store.RemoveFlags, store.NewFlags(store.Seen, "TWO"))
	p.setFlags(p.a, in, store.UIDs(3), store.ReplaceFlags, store.NewFlags(store.Flagged))
	for uid, want := range []store.Flags{
		1: store.NewFlags(store.Seen, "one", "two"),
		2: store.NewFlags(0, "one"),
		3: store.NewFlags(store.Flagged),
		4: store.NewFlags(store.Seen),
	} {
		if uid > 0 {
			if got := p.message(p.b, in, store.UID(uid), 0).Flags; !got.Equal(want) {
				p.errorf("flags of UID %d are %v, want %v", uid, got, want)
			}
		}
	}
	if r := p.setFlags(p.a, in, store.UIDs(77), store.AddFlags, store.NewFlags(store.Seen)); !r.Changed.Empty() || !r.Modified.Empty() {
		p.errorf("SetFlags on a UID that is not there gave %+v, want it left out", r)
	}

	// Copy and Move.
	c, err := p.a.Copy(p.ctx, in, store.UIDs(1, 3, 99), box, store.CopyOptions{})
	p.ok(err, "Copy")
	p.equalSet("Copy: Source", c.Source, "1,3")
	p.equalSet("Copy: Dest", c.Dest, "1:2")
	if c.UIDValidity != p.mailbox(p.b, box).UIDValidity {
		p.errorf("Copy: UIDValidity %d is not the destination's", c.UIDValidity)
	}
	src, dst := p.message(p.b, in, 3, store.WithDates), p.message(p.b, box, 2, store.WithDates)
	if !dst.Flags.Equal(src.Flags) || !dst.InternalDate.Equal(src.InternalDate) || dst.Size != src.Size || dst.ID != src.ID {
		p.errorf("Copy: flags, date, size or ID of the copy differ: %+v and %+v", src, dst)
	}
	c, err = p.a.Copy(p.ctx, in, store.UIDSet{{First: 4, Last: 9}}, box, store.CopyOptions{Move: true})
	p.ok(err, "Copy{Move}")
	p.equalSet("Move: Source", c.Source, "4:5")
	p.equalSet("Move: Dest", c.Dest, "3:4")
	p.equalSet("after a move the source has", p.uids(p.b, in), "1:3")
	p.equalSet("after a move the destination has", p.uids(p.b, box), "1:4")
	if none, err := p.a.Copy(p.ctx, in, store.UIDs(99), box, store.CopyOptions{}); err != nil || !none.Source.Empty() || none.To.Prev != none.To.ModSeq {
		p.errorf("Copy of nothing gave %+v, %v: want no error and an unchanged mailbox", none, err)
	}
	c, err = p.a.Copy(p.ctx, box, store.UIDs(4), box, store.CopyOptions{Move: true})
	p.ok(err, "Move within a mailbox")
	p.equalSet("Move within a mailbox: Dest", c.Dest, "5")
	p.equalSet("after a move within a mailbox it has", p.uids(p.b, box), "1:3,5")

	// Expunge.
	p.setFlags(p.a, in, store.UIDs(1), store.AddFlags, store.NewFlags(store.Deleted))
	e, err := p.a.Expunge(p.ctx, in, store.AllUIDs(), store.ExpungeOptions{OnlyDeleted: true})
	p.ok(err, "Expunge")
	p.equalSet("Expunge{OnlyDeleted}: UIDs", e.UIDs, "1")
	p.equalSet("Expunge: UIDs", p.expunge(p.a, in, store.UIDs(1, 2)).UIDs, "2")
	p.equalSet("after Expunge Inbox has", p.uids(p.b, in), "3")
	if next := p.fill(p.a, in, 1); next.First() < 6 {
		p.errorf("UID %d was given out twice", next.First())
	}

	// Replace.
	var o store.AppendOptions
	o.Replace.Box, o.Replace.UID = in, 3
	rep, err := p.a.Append(p.ctx, box, []store.Draft{text("new")}, o)
	p.ok(err, "Append{Replace}")
	if len(rep.Messages) != 1 || rep.Replaced.ModSeq <= rep.Replaced.Prev || rep.ModSeq <= rep.Prev {
		p.errorf("Append{Replace} gave %+v: want one message and both mailboxes changed", rep)
	}
	_, err = p.a.Append(p.ctx, box, []store.Draft{text("newer")}, o)
	p.want(err, store.ErrNotExist, "Append{Replace} of a message that is gone")

	for what, err := range map[string]error{
		"Append":   second(p.a.Append(p.ctx, "nowhere", []store.Draft{text("x")}, store.AppendOptions{})),
		"SetFlags": second(p.a.SetFlags(p.ctx, "nowhere", store.UIDs(1), store.FlagOp{Flags: store.NewFlags(store.Seen)})),
		"Copy":     second(p.a.Copy(p.ctx, box, store.UIDs(1), "nowhere", store.CopyOptions{})),
		"Expunge":  second(p.a.Expunge(p.ctx, "nowhere", store.UIDs(1), store.ExpungeOptions{})),
	} {
		p.want(err, store.ErrNotExist, what+" with an unknown mailbox")
	}
}

func second[T any](_ T, err error) error { return err }

func (p *probe) equalSet(what string, got store.UIDSet, want string) {
	if got.String() != want {
		p.errorf("%s %q, want %q", what, got, want)
	}
}

func lawMailboxes(p *probe) {
	a := p.newBox(p.a, "a")
	b := p.newBox(p.a, "b")
	_, err := p.a.CreateMailbox(p.ctx, store.NewMailbox{Name: "a"})
	p.want(err, store.ErrExist, "CreateMailbox of a name that is there")
	name := func(s string) *string { return &s }
	p.want(p.a.UpdateMailboxes(p.ctx, store.MailboxUpdate{ID: a, Name: name("b")}), store.ErrExist, "renaming to a name that is there")
	p.want(p.a.UpdateMailboxes(p.ctx, store.MailboxUpdate{ID: a, Name: name("c")}, store.MailboxUpdate{ID: "nowhere", Name: name("d")}),
		store.ErrNotExist, "UpdateMailboxes with an unknown mailbox")
	if got := p.mailbox(p.b, a).Name; got != "a" {
		p.errorf("a failed UpdateMailboxes renamed a to %q: it must be all or none", got)
	}
	p.ok(p.a.UpdateMailboxes(p.ctx, store.MailboxUpdate{ID: a, Name: name("b")}, store.MailboxUpdate{ID: b, Name: name("a")}), "swapping two names")
	if x, y := p.mailbox(p.b, a).Name, p.mailbox(p.b, b).Name; x != "b" || y != "a" {
		p.errorf("after a swap the names are %q and %q", x, y)
	}
	use := []string{`\Sent`}
	_, before, err := p.b.Mailboxes(p.ctx, store.MailboxQuery{})
	p.ok(err, "Mailboxes")
	p.ok(p.a.UpdateMailboxes(p.ctx, store.MailboxUpdate{ID: a, SpecialUse: &use}), "setting a special use")
	if got := p.mailbox(p.b, a).SpecialUse; !slices.Equal(got, use) {
		p.errorf("SpecialUse is %q, want %q", got, use)
	}
	p.ok(p.a.DeleteMailbox(p.ctx, b), "DeleteMailbox")
	p.want(p.a.DeleteMailbox(p.ctx, b), store.ErrNotExist, "DeleteMailbox again")
	changed, _, err := p.b.Mailboxes(p.ctx, store.MailboxQuery{ChangedSince: before})
	if errors.Is(err, store.ErrForgotten) && p.cfg.Level != Full {
		err, changed = nil, nil
	} else {
		p.ok(err, "Mailboxes{ChangedSince}")
		gone, upd := false, false
		for _, m := range changed {
			gone = gone || m.ID == b && m.Gone
			upd = upd || m.ID == a && !m.Gone
		}
		if p.cfg.Level == Full && (!gone || !upd || len(changed) != 2) {
			p.errorf("Mailboxes{ChangedSince} after an update and a deletion gave %+v, want the one and the other with Gone", changed)
		}
	}
	if err := p.a.DeleteMailbox(p.ctx, store.Inbox); err == nil {
		p.errorf("Inbox could be deleted")
	}
	if err := p.a.UpdateMailboxes(p.ctx, store.MailboxUpdate{ID: store.Inbox, Name: name("x")}); err == nil {
		p.errorf("Inbox could be renamed")
	}
	again := p.newBox(p.a, "a")
	if again == b || again == a {
		p.errorf("the ID %s was used again", again)
	}
	if s, ok := p.a.(store.Subscriber); ok {
		p.subscriptions(s)
	}
	if r, ok := p.a.(store.RecentClaimer); ok {
		uids := p.fill(p.b, store.Inbox, 3)
		from, to, err := r.ClaimRecent(p.ctx, store.Inbox)
		if err != nil || from > uids.First() || to != uids.Last()+1 {
			p.errorf("ClaimRecent gave %d to %d, %v: want all three new messages", from, to, err)
		}
		if from, to, err := r.ClaimRecent(p.ctx, store.Inbox); err != nil || from != to {
			p.errorf("ClaimRecent again gave %d to %d, %v: want nothing", from, to, err)
		}
	}
}

func (p *probe) subscriptions(s store.Subscriber) {
	for _, n := range []string{"x", "no mailbox", "x"} {
		p.ok(s.Subscribe(p.ctx, n), "Subscribe")
	}
	p.ok(s.Unsubscribe(p.ctx, "unknown"), "Unsubscribe of what is not subscribed")
	got, err := s.Subscriptions(p.ctx)
	if err != nil || !slices.Equal(got, []string{"no mailbox", "x"}) {
		p.errorf("Subscriptions = %q, %v", got, err)
	}
	p.ok(s.Unsubscribe(p.ctx, "x"), "Unsubscribe")
	if got, _ := s.Subscriptions(p.ctx); !slices.Equal(got, []string{"no mailbox"}) {
		p.errorf("Subscriptions after Unsubscribe = %q", got)
	}
}
