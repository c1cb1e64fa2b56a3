package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/postrider/postrider/store"
)

func lawCounts(p *probe) {
	in := store.Inbox
	p.newBox(p.a, "x")
	p.together(4, func(i int) error {
		acc := p.a
		if i%2 == 1 {
			acc = p.b
		}
		rnd := rand.New(rand.NewPCG(1, uint64(i)))
		for range max(p.rounds()/8, 20) {
			d := text(strings.Repeat("x", rnd.IntN(50)))
			d.Flags.System = store.SystemFlags(rnd.IntN(32))
			r, err := acc.Append(p.ctx, in, []store.Draft{d}, store.AppendOptions{})
			if err != nil {
				return err
			}
			u := store.UIDSet{{First: 1 + store.UID(rnd.IntN(int(r.Messages[0].UID))), Last: r.Messages[0].UID}}
			op := store.FlagOp{Mode: store.FlagMode(rnd.IntN(3)), Flags: store.Flags{System: store.SystemFlags(rnd.IntN(32))}}
			if _, err := acc.SetFlags(p.ctx, in, u, op); err != nil {
				return err
			}
			if rnd.IntN(4) == 0 {
				if _, err := acc.Expunge(p.ctx, in, u, store.ExpungeOptions{OnlyDeleted: true}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	var want store.Counts
	for _, m := range p.list(p.b, in, store.Query{}) {
		want.Messages++
		want.Size += m.Size
		if !m.Flags.System.Has(store.Seen) {
			want.Unseen++
		}
		if m.Flags.System.Has(store.Deleted) {
			want.Deleted++
			want.DeletedSize += m.Size
		}
	}
	if got := p.mailbox(p.b, in).Counts; got != want {
		p.errorf("Counts are %+v, a recount gives %+v", got, want)
	}
	p.expunge(p.a, in, store.AllUIDs())
	if got := p.mailbox(p.b, in).Counts; got != (store.Counts{}) {
		p.errorf("Counts of an empty mailbox are %+v", got)
	}
	if p.cfg.SetQuota == nil {
		return
	}
	const limit = 1000
	p.ok(p.cfg.SetQuota(p.one, p.account, limit), "SetQuota")
	p.together(8, func(i int) error {
		acc := p.a
		if i%2 == 1 {
			acc = p.b
		}
		for range 10 {
			_, err := acc.Append(p.ctx, in, []store.Draft{text(strings.Repeat("x", 30))}, store.AppendOptions{})
			if err != nil && !errors.Is(err, store.ErrQuota) {
				return err
			}
		}
		return nil
	})
	if got := p.mailbox(p.b, in).Counts.Size; got > limit || got < limit-30 {
		p.errorf("racing Appends of 30 octets filled %d of a quota of %d", got, limit)
	}
	_, err := p.a.Copy(p.ctx, in, store.AllUIDs(), in, store.CopyOptions{})
	p.want(err, store.ErrQuota, "Copy of everything in a full account")
	var o store.AppendOptions
	o.Replace.Box, o.Replace.UID = in, p.uids(p.a, in).First()
	_, err = p.a.Append(p.ctx, in, []store.Draft{text(strings.Repeat("y", 30))}, o)
	p.ok(err, "Append{Replace} of the same size in a full account")
}

func lawLoop(p *probe) {
	in := store.Inbox
	write := p.cfg.Level != ReadOnly
	if write {
		p.fill(p.a, in, 1200)
	}
	want := p.uids(p.a, in)
	got := store.UIDSet{}
	var added atomic.Bool
	for m, err := range p.a.Messages(p.ctx, in, store.Query{Fields: store.WithBody}) {
		p.ok(err, "Messages")
		if got.Contains(m.UID) {
			p.errorf("UID %d came twice", m.UID)
		}
		got.Add(m.UID)
		if m.UID%300 != 7 {
			continue
		}
		b, err := p.a.Open(p.ctx, m)
		p.ok(err, "Open inside a loop over Messages")
		b.Close()
		if !write {
			continue
		}
		// Another writer must come through while this loop stands still.
		done := make(chan error, 1)
		go func() {
			_, err := p.b.Append(p.ctx, in, []store.Draft{text("late")}, store.AppendOptions{})
			done <- err
		}()
		select {
		case err := <-done:
			p.ok(err, "Append on another handle during a loop over Messages")
			added.Store(true)
		case <-time.After(p.timeout() / 6):
			p.fatalf("a writer waits for a loop over Messages to end")
		}
		_, err = p.a.SetFlags(p.ctx, in, store.UIDs(m.UID, m.UID+1, m.UID+400), store.FlagOp{Flags: store.NewFlags(store.Seen)})
		p.ok(err, "SetFlags inside a loop over Messages")
	}
	if lost := want.Subtract(got); !lost.Empty() {
		p.errorf("a loop over Messages during writes lost UIDs %q", lost)
	}
}

func lawGrace(p *probe) {
	in := store.Inbox
	body := strings.Repeat("0123456789abcdef", 8192)
	p.append(p.a, in, text(body), text("second"))
	m := p.message(p.a, in, 1, 0)
	b, err := p.a.Open(p.ctx, m)
	p.ok(err, "Open")
	defer b.Close()
	first := make([]byte, 10)
	if _, err := b.ReadAt(first, 0); err != nil {
		p.errorf("ReadAt: %v", err)
	}
	p.expunge(p.b, in, store.AllUIDs())
	if got, err := readBody(b); err != nil || got != body {
		p.errorf("a Blob opened before the expunge: read %d octets of %d, %v", len(got), len(body), err)
	}
	again, err := p.b.Open(p.ctx, m)
	if err != nil {
		p.fatalf("Open by ID right after the expunge: %v", err)
	}
	defer again.Close()
	if got, err := readBody(again); err != nil || got != body {
		p.errorf("Open by ID after the expunge: read %d octets of %d, %v", len(got), len(body), err)
	}
}

func lawIDs(p *probe) {
	in := store.Inbox
	box := p.newBox(p.a, "box")
	first, reply, other := text("a"), text("b"), text("c")
	first.MessageID = "1@example.org"
	reply.MessageID, reply.References = "2@example.org", []string{"1@example.org"}
	other.MessageID = "3@example.org"
	p.append(p.a, in, first, reply, other)
	ms := p.list(p.b, in, store.Query{Fields: store.WithIDs})
	if len(ms) != 3 {
		p.fatalf("%d messages, want 3", len(ms))
	}
	if ms[0].ID == ms[1].ID || ms[1].ID == ms[2].ID || ms[0].ID == ms[2].ID {
		p.errorf("different messages have the same ID: %s %s %s", ms[0].ID, ms[1].ID, ms[2].ID)
	}
	if t := ms[0].ThreadID; t != "" && (ms[1].ThreadID != t || ms[2].ThreadID == t) {
		p.errorf("ThreadIDs are %q, %q (a reply) and %q (another thread)", ms[0].ThreadID, ms[1].ThreadID, ms[2].ThreadID)
	}
	same := func(what string, m store.Message) {
		if m.ID != ms[0].ID || m.ThreadID != ms[0].ThreadID {
			p.errorf("%s: ID %q and ThreadID %q, want %q and %q", what, m.ID, m.ThreadID, ms[0].ID, ms[0].ThreadID)
		}
	}
	_, err := p.a.Copy(p.ctx, in, store.UIDs(1), box, store.CopyOptions{})
	p.ok(err, "Copy")
	same("a copy", p.message(p.b, box, 1, store.WithIDs))
	_, err = p.a.Copy(p.ctx, box, store.UIDs(1), in, store.CopyOptions{Move: true})
	p.ok(err, "Move")
	same("a moved message", p.message(p.b, in, 4, store.WithIDs))
	b, err := p.a.Open(p.ctx, ms[0])
	p.ok(err, "Open")
	p.append(p.a, box, store.Draft{Body: b})
	b.Close()
	linked := p.list(p.b, box, store.Query{Fields: store.WithIDs})
	same("a message appended from a Blob of this store", linked[len(linked)-1])
	p.setFlags(p.a, in, store.UIDs(1), store.AddFlags, store.NewFlags(store.Seen))
	same("after a change of flags", p.message(p.b, in, 1, store.WithIDs))
	known := map[string]bool{}
	for _, m := range ms {
		known[m.ID] = true
	}
	p.expunge(p.a, in, store.AllUIDs())
	p.expunge(p.a, box, store.AllUIDs())
	p.fill(p.a, in, 20)
	for _, m := range p.list(p.b, in, store.Query{}) {
		if known[m.ID] {
			p.errorf("the ID %s of an expunged message was given to another", m.ID)
		}
	}
}

func lawValidity(p *probe) {
	// What (name, UIDVALIDITY, UID) was seen to mean.
	meant := map[string]string{}
	look := func(when string) {
		boxes, _, err := p.b.Mailboxes(p.ctx, store.MailboxQuery{})
		p.ok(err, "Mailboxes")
		for _, m := range boxes {
			for _, x := range p.list(p.b, m.ID, store.Query{}) {
				k := fmt.Sprintf("mailbox %q, UIDVALIDITY %d, UID %d", m.Name, m.UIDValidity, x.UID)
				if was, ok := meant[k]; ok && was != x.ID {
					p.errorf("after %s, %s means message %s; it meant %s before", when, k, x.ID, was)
				}
				meant[k] = x.ID
			}
		}
	}
	now := uint32(time.Now().Unix())
	name := func(s string) *string { return &s }
	a, b := p.newBox(p.a, "a"), p.newBox(p.a, "b")
	if v := p.mailbox(p.a, a).UIDValidity; v < now-1 {
		p.errorf("UIDVALIDITY %d of a new mailbox is below the clock, %d", v, now)
	}
	p.fill(p.a, a, 3)
	p.fill(p.a, b, 3)
	look("creation")
	was := p.mailbox(p.a, a).UIDValidity
	p.ok(p.a.UpdateMailboxes(p.ctx, store.MailboxUpdate{ID: a, Name: name("b")}, store.MailboxUpdate{ID: b, Name: name("a")}), "swap")
	look("a swap of names")
	if is := p.mailbox(p.a, a).UIDValidity; is != was {
		p.errorf("a rename changed UIDVALIDITY from %d to %d: it is constant for a MailboxID", was, is)
	}
	p.ok(p.a.DeleteMailbox(p.ctx, a), "DeleteMailbox")
	p.ok(p.a.UpdateMailboxes(p.ctx, store.MailboxUpdate{ID: b, Name: name("b")}), "rename over a deleted mailbox's name")
	look("a rename over a deleted mailbox's name")
	for range 3 {
		id := p.newBox(p.a, "a")
		p.fill(p.a, id, 3)
		look("creation under a deleted mailbox's name")
		p.ok(p.a.DeleteMailbox(p.ctx, id), "DeleteMailbox")
	}
	p.fill(p.a, store.Inbox, 3)
	look("appends to Inbox")
	p.expunge(p.a, store.Inbox, store.AllUIDs())
	p.fill(p.a, store.Inbox, 3)
	look("appends to an emptied Inbox")

	admin, ok := p.one.(store.Admin)
	if !ok || p.cfg.Account != "" {
		return
	}
	p.ok(admin.DeleteAccount(p.ctx, p.account), "DeleteAccount")
	_, err := p.tryList(p.b, store.Inbox, store.Query{})
	p.want(err, store.ErrNotExist, "Messages through a handle of a deleted account")
	_, err = p.b.Append(p.ctx, store.Inbox, []store.Draft{text("x")}, store.AppendOptions{})
	p.want(err, store.ErrNotExist, "Append through a handle of a deleted account")
	p.create(p.account)
	p.want(admin.CreateAccount(p.ctx, p.account), store.ErrExist, "CreateAccount of one that is there")
	p.a, p.b = p.handle(p.one, p.account), p.handle(p.two, p.account)
	p.fill(p.a, store.Inbox, 3)
	look("deleting and making the account again")
}

func lawBytes(p *probe) {
	in := store.Inbox
	big := make([]byte, 300_000)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range big {
		big[i] = byte(rnd.Uint32())
	}
	head := []byte("Return-Path: <>\r\nDelivered-To: a@example.org\r\n")
	cases := []struct{ head, body []byte }{
		{nil, []byte("x")}, {nil, nil}, {head, nil}, {head, []byte("Subject: x\r\n\r\nbody\r\n")}, {nil, big}, {head, big},
	}
	check := func(what string, m store.Message, want []byte) {
		if m.Size != int64(len(want)) {
			p.errorf("%s: Size is %d, want %d", what, m.Size, len(want))
		}
		b, err := p.b.Open(p.ctx, m)
		p.ok(err, "Open")
		defer b.Close()
		bodies := []store.Body{b}
		if m.Body != nil {
			bodies = append(bodies, m.Body)
		}
		for _, b := range bodies {
			got, err := readBody(b)
			if err != nil || got != string(want) {
				p.errorf("%s: %d octets came out (%v), not the %d that went in", what, len(got), err, len(want))
				return
			}
			for range 20 {
				off := rnd.IntN(len(want) + 10)
				buf := make([]byte, rnd.IntN(200))
				n, err := b.ReadAt(buf, int64(off))
				w := want[min(off, len(want)):]
				w = w[:min(len(w), len(buf))]
				if n != len(w) || !bytes.Equal(buf[:n], w) || n < len(buf) && !errors.Is(err, io.EOF) || err != nil && !errors.Is(err, io.EOF) {
					p.errorf("%s: ReadAt of %d octets at %d gave %d octets, %v", what, len(buf), off, n, err)
				}
			}
		}
	}
	for i, c := range cases {
		want := append(bytes.Clone(c.head), c.body...)
		what := fmt.Sprintf("head of %d and body of %d octets", len(c.head), len(c.body))
		uid := p.append(p.a, in, store.Draft{Head: c.head, Body: bytes.NewReader(c.body), Summary: []byte{byte(i + 1)}}).First()
		for m, err := range p.b.Messages(p.ctx, in, store.Query{UIDs: store.UIDs(uid), Fields: store.WithBody | store.WithSummary}) {
			p.ok(err, "Messages")
			check(what, m, want)
			if len(m.Summary) > 0 && !bytes.Equal(m.Summary, []byte{byte(i + 1)}) {
				p.errorf("%s: Summary is %x, want %x or none", what, m.Summary, i+1)
			}
		}
		// The same once more by way of a staged body and of a link.
		st, err := store.Stage(p.ctx, p.one, int64(len(c.body)))
		p.ok(err, "Stage")
		for rest := c.body; len(rest) > 0; {
			n := min(len(rest), 70_000)
			_, err := st.Write(rest[:n])
			p.ok(err, "writing a staged body")
			rest = rest[n:]
		}
		uid = p.append(p.a, in, store.Draft{Head: c.head, Body: st}).First()
		p.ok(st.Close(), "Close of a staged body")
		p.ok(st.Close(), "Close of a staged body again")
		m := p.message(p.b, in, uid, 0)
		check(what+", staged", m, want)
		blob, err := p.a.Open(p.ctx, m)
		p.ok(err, "Open")
		uid = p.append(p.a, in, store.Draft{Head: head, Body: blob}).First()
		p.ok(blob.Close(), "Close of a Blob")
		check(what+", linked behind another head", p.message(p.b, in, uid, 0), append(bytes.Clone(head), want...))
	}
}
