package storetest

import (
	"math/rand/v2"

	"github.com/postrider/postrider/store"
)

// lawUnseen has the first unseen message come and go in each way that it can.
func lawUnseen(p *probe) {
	in := store.Inbox
	box := p.newBox(p.a, "box")
	keeps := false
	look := func(when string) {
		for _, id := range []store.MailboxID{in, box} {
			want := store.UID(0)
			for _, m := range p.list(p.b, id, store.Query{}) {
				if !m.Flags.System.Has(store.Seen) {
					want = m.UID
					break
				}
			}
			got := p.mailbox(p.b, id).FirstUnseen
			if keeps = keeps || got != 0; keeps && got != want {
				p.fatalf("after %s FirstUnseen is %d, the first message without \\Seen is UID %d", when, got, want)
			}
		}
	}
	look("nothing")
	p.fill(p.a, in, 12)
	look("Append")
	if !keeps {
		p.skipf("the store does not keep FirstUnseen")
	}
	seen := store.NewFlags(store.Seen)
	p.setFlags(p.a, in, store.UIDSet{{First: 1, Last: 4}}, store.AddFlags, seen)
	look("\\Seen on the first")
	p.setFlags(p.a, in, store.UIDs(7), store.AddFlags, seen)
	look("\\Seen on one in the middle")
	p.expunge(p.a, in, store.UIDs(5, 6))
	look("Expunge of the first unseen")
	p.setFlags(p.a, in, store.UIDs(2), store.RemoveFlags, seen)
	look("\\Seen taken from an earlier one")
	p.setFlags(p.a, in, store.UIDs(2), store.ReplaceFlags, store.NewFlags(store.Seen|store.Flagged))
	look("flags replaced by \\Seen")
	for _, o := range []store.CopyOptions{{}, {Move: true}} {
		_, err := p.a.Copy(p.ctx, in, store.UIDs(1, 8), box, o)
		p.ok(err, "Copy")
		look("Copy")
	}
	_, err := p.a.Copy(p.ctx, in, store.UIDs(9), in, store.CopyOptions{Move: true})
	p.ok(err, "Move")
	look("Move of the first unseen within its mailbox")
	var o store.AppendOptions
	o.Replace.Box, o.Replace.UID = in, 10
	d := text("new")
	d.Flags = seen
	_, err = p.a.Append(p.ctx, in, []store.Draft{d}, o)
	p.ok(err, "Append{Replace}")
	look("Append{Replace} of the first unseen")
	p.setFlags(p.a, in, store.AllUIDs(), store.AddFlags, seen)
	look("\\Seen on all")
	p.fill(p.a, in, 1)
	look("Append after \\Seen on all")

	// At random, in a mailbox of some length.
	p.fill(p.a, in, 60)
	rnd := rand.New(rand.NewPCG(3, 4))
	for range max(p.rounds()/4, 40) {
		last := int(p.mailbox(p.a, in).UIDNext)
		first := 1 + rnd.IntN(last)
		r := store.UIDSet{{First: store.UID(first), Last: store.UID(first + rnd.IntN(1+last/3))}}
		switch rnd.IntN(6) {
		case 0, 1, 2:
			p.setFlags(p.a, in, r, store.AddFlags, seen)
		case 3:
			p.setFlags(p.a, in, r, store.FlagMode(rnd.IntN(3)), store.NewFlags(store.SystemFlags(rnd.IntN(32))))
		case 4:
			_, err := p.a.Copy(p.ctx, in, store.UIDs(r.First(), r.Last()), box, store.CopyOptions{Move: rnd.IntN(2) == 0})
			p.ok(err, "Copy")
			p.fill(p.a, in, 2)
		case 5:
			p.expunge(p.a, in, store.UIDs(r.First(), r.Last()))
		}
		look("random writes")
	}
}
