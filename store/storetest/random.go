package storetest

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/postrider/postrider/store"
)

// model is an account as simple as can be.
type model map[store.MailboxID]*modelBox

type modelBox struct {
	modSeq store.ModSeq
	next   store.UID
	msgs   map[store.UID]modelMessage
}

type modelMessage struct {
	flags  store.Flags
	modSeq store.ModSeq
	id     string
}

// uids are those of set that are there and that f wants, nil = all.
func (b *modelBox) uids(set store.UIDSet, f func(m modelMessage) bool) store.UIDSet {
	var have []store.UID
	for u, m := range b.msgs {
		if set.Contains(u) && (f == nil || f(m)) {
			have = append(have, u)
		}
	}
	slices.Sort(have)
	return store.UIDs(have...)
}

// commit holds what a write says of a mailbox against the model.
func (b *modelBox) commit(c store.Commit) error {
	if c.Prev != b.modSeq || c.ModSeq <= c.Prev {
		return fmt.Errorf("it says that the mailbox went from ModSeq %d to %d, it was at %d", c.Prev, c.ModSeq, b.modSeq)
	}
	b.modSeq = c.ModSeq
	return nil
}

// add puts a message at the end.
func (b *modelBox) add(uid store.UID, m modelMessage) error {
	if uid < b.next {
		return fmt.Errorf("it was given UID %d, the last one before it was %d", uid, b.next-1)
	}
	b.msgs[uid], b.next = m, uid+1
	return nil
}

// modelStep is a write that returned: apply does it to the model, and says
// what the store should have answered.
type modelStep struct {
	at    store.ModSeq
	what  string
	apply func(m model) error
}

// lawModel lets many writers do what they like, and then does the same in the
// order of the ModSeqs to a model: each write must have answered what it would
// have there, so that it was one step, at one moment, for all of them.
func lawModel(p *probe) {
	boxes := []store.MailboxID{store.Inbox, p.newBox(p.a, "x"), p.newBox(p.a, "y")}
	m := model{}
	for _, id := range boxes {
		m[id] = &modelBox{p.mailbox(p.a, id).ModSeq, 1, map[store.UID]modelMessage{}}
	}
	var mu sync.Mutex
	var steps []modelStep
	p.together(6, func(i int) error {
		w := &modelWriter{p: p, acc: p.a, boxes: boxes, rnd: rand.New(rand.NewPCG(11, uint64(i)))}
		if i%2 == 1 {
			w.acc = p.b
		}
		for range max(p.rounds()/6, 30) {
			s, err := w.write()
			if err != nil {
				return err
			}
			if s.apply != nil {
				mu.Lock()
				steps = append(steps, s)
				mu.Unlock()
			}
		}
		return nil
	})
	slices.SortFunc(steps, func(a, b modelStep) int { return cmp.Compare(a.at, b.at) })
	for i, s := range steps {
		if i > 0 && s.at == steps[i-1].at {
			p.fatalf("%s and %s have the same ModSeq, %d", s.what, steps[i-1].what, s.at)
		}
		if err := s.apply(m); err != nil {
			p.fatalf("write %d of %d in the order of the ModSeqs, %s at %d: %v", i, len(steps), s.what, s.at, err)
		}
	}
	for _, acc := range []store.Account{p.a, p.b} {
		for _, id := range boxes {
			want, got := m[id], p.mailbox(acc, id)
			if got.ModSeq != want.modSeq || got.UIDNext < want.next {
				p.errorf("the mailbox has ModSeq %d and UIDNext %d, its writes lead to %d and %d", got.ModSeq, got.UIDNext, want.modSeq, want.next)
			}
			list := p.list(acc, id, store.Query{})
			if len(list) != len(want.msgs) {
				p.errorf("the mailbox has %d messages, its writes lead to %d", len(list), len(want.msgs))
			}
			for _, x := range list {
				if w, ok := want.msgs[x.UID]; !ok || !x.Flags.Equal(w.flags) || x.ModSeq != w.modSeq || x.ID != w.id {
					p.errorf("UID %d is %+v, its writes lead to %+v", x.UID, x, w)
				}
			}
		}
	}
}

// modelWriter writes at random.
type modelWriter struct {
	p     *probe
	acc   store.Account
	boxes []store.MailboxID
	rnd   *rand.Rand
	last  store.ModSeq // that it saw
	top   store.UID
}

func (w *modelWriter) flags() store.Flags {
	return store.NewFlags(store.SystemFlags(w.rnd.IntN(32)), []string{"red", "green", "blue"}[w.rnd.IntN(3)])
}

// uids are some of the lately used ones.
func (w *modelWriter) uids() store.UIDSet {
	first := 1 + store.UID(w.rnd.IntN(int(w.top)+3))
	return store.UIDSet{{First: first, Last: first + store.UID(w.rnd.IntN(6))}}
}

func (w *modelWriter) write() (modelStep, error) {
	box := w.boxes[w.rnd.IntN(len(w.boxes))]
	switch w.rnd.IntN(8) {
	case 0, 1, 2:
		return w.append(box)
	case 3, 4:
		return w.setFlags(box)
	case 5, 6:
		return w.copy(box)
	}
	return w.expunge(box)
}

func (w *modelWriter) append(box store.MailboxID) (modelStep, error) {
	d := make([]store.Draft, 1+w.rnd.IntN(3))
	for i := range d {
		d[i] = text("x")
		d[i].Flags = w.flags()
	}
	var o store.AppendOptions
	if w.rnd.IntN(4) == 0 {
		o.Replace.Box, o.Replace.UID = w.boxes[w.rnd.IntN(len(w.boxes))], w.uids().First()
	}
	r, err := w.acc.Append(w.p.ctx, box, d, o)
	if o.Replace.UID > 0 && errors.Is(err, store.ErrNotExist) {
		return modelStep{}, nil
	}
	if err != nil || len(r.Messages) != len(d) {
		return modelStep{}, fmt.Errorf("Append of %d gave %d messages, %w", len(d), len(r.Messages), err)
	}
	w.last, w.top = r.ModSeq, max(w.top, r.Messages[0].UID)
	return modelStep{r.ModSeq, fmt.Sprintf("Append(%+v) of %d to %s", o, len(d), box), func(m model) error {
		if err := m[box].commit(r.Commit); err != nil {
			return err
		}
		if o.Replace.UID > 0 {
			b := m[o.Replace.Box]
			if _, ok := b.msgs[o.Replace.UID]; !ok {
				return errors.New("it replaced a message that was not there")
			}
			if delete(b.msgs, o.Replace.UID); o.Replace.Box != box {
				if err := b.commit(r.Replaced); err != nil {
					return err
				}
			}
		}
		for i, x := range r.Messages {
			if err := m[box].add(x.UID, modelMessage{d[i].Flags, r.ModSeq, x.ID}); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

func (w *modelWriter) setFlags(box store.MailboxID) (modelStep, error) {
	op := store.FlagOp{Mode: store.FlagMode(w.rnd.IntN(3)), Flags: w.flags(), IfAbsent: w.rnd.IntN(4) == 0}
	if w.rnd.IntN(3) == 0 && w.last > 6 {
		op.UnchangedSince = w.last - store.ModSeq(w.rnd.IntN(6))
	}
	uids := w.uids()
	r, err := w.acc.SetFlags(w.p.ctx, box, uids, op)
	if err != nil || r.Changed.Empty() {
		return modelStep{}, err
	}
	w.last = r.ModSeq
	return modelStep{r.ModSeq, fmt.Sprintf("SetFlags(%+v) on %v of %s", op, uids, box), func(m model) error {
		b := m[box]
		if err := b.commit(r.Commit); err != nil {
			return err
		}
		modified := b.uids(uids, func(x modelMessage) bool {
			return op.UnchangedSince > 0 && x.modSeq > op.UnchangedSince || op.IfAbsent && x.flags.Any(op.Flags)
		})
		changed := b.uids(uids.Subtract(modified), func(x modelMessage) bool { return !op.Apply(x.flags).Equal(x.flags) })
		if !r.Changed.Equal(changed) || !r.Modified.Equal(modified) {
			return fmt.Errorf("it says Changed %v and Modified %v, want %v and %v", r.Changed, r.Modified, changed, modified)
		}
		for u := range changed.All() {
			b.msgs[u] = modelMessage{op.Apply(b.msgs[u].flags), r.ModSeq, b.msgs[u].id}
		}
		return nil
	}}, nil
}

func (w *modelWriter) copy(from store.MailboxID) (modelStep, error) {
	to, uids := w.boxes[w.rnd.IntN(len(w.boxes))], w.uids()
	o := store.CopyOptions{Move: w.rnd.IntN(2) == 0}
	r, err := w.acc.Copy(w.p.ctx, from, uids, to, o)
	if err != nil || r.Source.Empty() {
		return modelStep{}, err
	}
	w.last = r.To.ModSeq
	return modelStep{r.To.ModSeq, fmt.Sprintf("Copy(%+v) of %v from %s to %s", o, uids, from, to), func(m model) error {
		src, dst := m[from], m[to]
		source := src.uids(uids, nil)
		if !r.Source.Equal(source) || r.Dest.Count() != source.Count() {
			return fmt.Errorf("it says Source %v and Dest %v, want %v", r.Source, r.Dest, source)
		}
		if err := dst.commit(r.To); err != nil {
			return err
		}
		if o.Move && from != to {
			if err := src.commit(r.From); err != nil {
				return err
			}
		}
		dest := slices.Collect(r.Dest.All())
		for u := range source.All() {
			x := src.msgs[u]
			if o.Move {
				delete(src.msgs, u)
			}
			x.modSeq = r.To.ModSeq
			if err := dst.add(dest[0], x); err != nil {
				return err
			}
			dest = dest[1:]
		}
		return nil
	}}, nil
}

func (w *modelWriter) expunge(box store.MailboxID) (modelStep, error) {
	uids := w.uids()
	o := store.ExpungeOptions{OnlyDeleted: w.rnd.IntN(2) == 0}
	r, err := w.acc.Expunge(w.p.ctx, box, uids, o)
	if err != nil || r.UIDs.Empty() {
		return modelStep{}, err
	}
	w.last = r.ModSeq
	return modelStep{r.ModSeq, fmt.Sprintf("Expunge(%+v) of %v in %s", o, uids, box), func(m model) error {
		b := m[box]
		if err := b.commit(r.Commit); err != nil {
			return err
		}
		want := b.uids(uids, func(x modelMessage) bool { return !o.OnlyDeleted || x.flags.System.Has(store.Deleted) })
		if !r.UIDs.Equal(want) {
			return fmt.Errorf("it says that %v left, want %v", r.UIDs, want)
		}
		for u := range want.All() {
			delete(b.msgs, u)
		}
		return nil
	}}, nil
}
