package storetest

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/postrider/postrider/store"
)

// lawViews has two Views on two handles follow random writes, each folding in
// its own handle's results, and compares them with the truth.
func lawViews(p *probe) {
	box := p.newBox(p.a, "box")
	p.fill(p.a, box, 20)
	var views [2]*store.View
	accs := [2]store.Account{p.a, p.b}
	for i := range views {
		v, err := store.OpenView(p.ctx, accs[i], box)
		p.ok(err, "OpenView")
		views[i] = v
	}
	var mu sync.Mutex // one comparison at a time, with no writer at work
	for round := range 4 {
		p.together(4, func(i int) error {
			w := writer{p: p, acc: accs[i%2], view: views[i%2], box: box, rnd: rand.New(rand.NewPCG(uint64(round), uint64(i)))}
			for range p.rounds() / 8 {
				if err := w.step(); err != nil {
					return err
				}
			}
			return nil
		})
		mu.Lock()
		p.compareViews(box, accs, views)
		mu.Unlock()
		if p.failed() {
			return
		}
	}
}

func (p *probe) compareViews(box store.MailboxID, accs [2]store.Account, views [2]*store.View) {
	m := p.mailbox(p.a, box)
	truth := p.list(p.a, box, store.Query{})
	for i, v := range views {
		before := v.Snapshot()
		s, err := v.Sync(p.ctx)
		p.ok(err, "Sync")
		if s.ModSeq() != m.ModSeq {
			p.errorf("View %d: cursor %d after Sync, the mailbox is at %d", i, s.ModSeq(), m.ModSeq)
		}
		if s.Len() != len(truth) {
			p.errorf("View %d: %d messages, there are %d", i, s.Len(), len(truth))
		}
		for _, t := range truth {
			j, ok := s.Index(t.UID)
			if !ok {
				p.errorf("View %d lacks UID %d", i, t.UID)
				continue
			}
			r := s.Row(j)
			if r.ModSeq != t.ModSeq || !r.Flags.Equal(t.Flags) || r.Size != t.Size {
				p.errorf("View %d: UID %d is %+v, the truth is ModSeq %d, flags %v, size %d", i, t.UID, r, t.ModSeq, t.Flags, t.Size)
			}
		}
		// What Diff tells must lead from the one to the other.
		d := before.Diff(s)
		if got := before.UIDs().Subtract(d.Expunged).Union(d.Added); !got.Equal(s.UIDs()) {
			p.errorf("View %d: Diff %+v does not lead from the old Snapshot to the new", i, d)
		}
	}
}

// writer makes random writes through one handle and folds them into its View.
type writer struct {
	p    *probe
	acc  store.Account
	view *store.View
	box  store.MailboxID
	rnd  *rand.Rand
}

func (w *writer) some() store.UIDSet {
	s := w.view.Snapshot()
	out := store.UIDSet{}
	if s.Len() == 0 {
		return out
	}
	for range 1 + w.rnd.IntN(4) {
		u := s.UID(w.rnd.IntN(s.Len()))
		out.AddRange(u, u+store.UID(w.rnd.IntN(3)))
	}
	return out
}

func (w *writer) flags() store.Flags {
	f := store.Flags{System: store.SystemFlags(w.rnd.IntN(32))}
	for i := range 3 {
		if w.rnd.IntN(4) == 0 {
			f = f.With(store.NewFlags(0, fmt.Sprintf("kw%d", i)))
		}
	}
	return f
}

func (w *writer) step() error {
	ctx := w.p.ctx
	folded := true
	switch n := w.rnd.IntN(20); {
	case n < 9:
		op := store.FlagOp{Mode: store.FlagMode(w.rnd.IntN(3)), Flags: w.flags()}
		if w.rnd.IntN(3) == 0 {
			op.UnchangedSince = w.view.Snapshot().ModSeq()
		}
		r, err := w.acc.SetFlags(ctx, w.box, w.some(), op)
		if err != nil {
			return err
		}
		folded = w.view.FoldFlags(op, r)
	case n < 14:
		d := text("x")
		d.Flags = w.flags()
		r, err := w.acc.Append(ctx, w.box, []store.Draft{d}, store.AppendOptions{})
		if err != nil {
			return err
		}
		folded = w.view.FoldAppended(store.AppendOptions{}, r)
	case n < 16:
		r, err := w.acc.Expunge(ctx, w.box, w.some(), store.ExpungeOptions{OnlyDeleted: w.rnd.IntN(2) == 0})
		if err != nil {
			return err
		}
		folded = w.view.FoldExpunged(r)
	case n < 18:
		r, err := w.acc.Copy(ctx, w.box, w.some(), store.Inbox, store.CopyOptions{Move: true})
		if err != nil {
			return err
		}
		folded = w.view.FoldExpunged(store.Expunged{Commit: r.From, UIDs: r.Source})
	default:
		if _, err := w.acc.Copy(ctx, w.box, w.some(), w.box, store.CopyOptions{}); err != nil {
			return err
		}
		folded = false
	}
	if !folded && w.rnd.IntN(2) == 0 {
		_, err := w.view.Sync(ctx)
		return err
	}
	return nil
}
