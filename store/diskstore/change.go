package diskstore

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/store"
)

// SetFlags implements store.Account.
func (a *account) SetFlags(ctx context.Context, box store.MailboxID, uids store.UIDSet, op store.FlagOp) (r store.FlagResult, err error) {
	op.Flags = store.NewFlags(op.Flags.System, op.Flags.Keywords...)
	err = a.commit(ctx, func(t *tx) error {
		r, err = t.setFlags(box, uids, op)
		return err
	})
	if err != nil {
		return store.FlagResult{}, err
	}
	return r, nil
}

func (t *tx) setFlags(box store.MailboxID, uids store.UIDSet, op store.FlagOp) (store.FlagResult, error) {
	b, err := t.box(box)
	if err != nil {
		return store.FlagResult{}, err
	}
	r := store.FlagResult{Changed: store.UIDSet{}, Modified: store.UIDSet{}}
	r.Commit = store.Commit{Prev: b.modSeq, ModSeq: b.modSeq}
	if op.Mode != store.RemoveFlags {
		if err := t.learn(b, op.Flags.Keywords); err != nil {
			return store.FlagResult{}, err
		}
	}
	words := b.table()
	refused := func(uid store.UID, m store.ModSeq, f func() store.Flags) bool {
		if op.UnchangedSince > 0 && m > op.UnchangedSince || op.IfAbsent && f().Any(op.Flags) {
			r.Modified.Add(uid)
			return true
		}
		return false
	}
	err = t.editChunks(b, uids, func(c *chunk, in store.UIDSet) (bool, error) {
		changed := false
		// Most messages have the same few flags: each is worked out once.
		var memo map[uint32]uint32
		was, is := ^uint32(0), uint32(0)
		c.members(in, func(j int) {
			code := c.codes[j]
			flags := func() store.Flags { return words.flags(store.SystemFlags(code), c.sets[code>>8]) }
			if (op.UnchangedSince > 0 || op.IfAbsent) && refused(c.uids[j], c.modSeqs[j], flags) {
				return
			}
			if code != was {
				to, known := memo[code]
				if !known {
					to = code
					f := flags()
					if g := op.Apply(f); !g.Equal(f) {
						to = uint32(g.System) | c.set(words.indexes(g.Keywords))<<8
					}
					if memo == nil {
						memo = make(map[uint32]uint32)
					}
					memo[code] = to
				}
				was, is = code, to
			}
			if is == code {
				return
			}
			b.reflag(c.uids[j], store.SystemFlags(code), store.SystemFlags(is), c.sizes[j])
			c.codes[j], c.modSeqs[j] = is, t.m
			r.Changed.Add(c.uids[j])
			changed = true
		})
		return changed, nil
	})
	if err != nil {
		return store.FlagResult{}, err
	}
	err = t.tailRows(b.mailbox, uids, func(m *row) error {
		f := words.flags(m.system, m.words)
		if refused(m.uid, m.modSeq, func() store.Flags { return f }) {
			return nil
		}
		g := op.Apply(f)
		if g.Equal(f) {
			return nil
		}
		b.reflag(m.uid, f.System, g.System, m.size)
		m.system, m.words, m.modSeq = g.System, words.indexes(g.Keywords), t.m
		t.batch().Set(rowKey(t.a.no, b.no, m.uid), m.encode(), nil)
		r.Changed.Add(m.uid)
		return nil
	})
	if err != nil {
		return store.FlagResult{}, err
	}
	if r.Changed.Empty() {
		b.words = nil
		return r, nil
	}
	t.touch(b)
	r.ModSeq = b.modSeq
	return r, nil
}

// reflag counts a change of flags.
func (b *boxTx) reflag(uid store.UID, was, is store.SystemFlags, size int64) {
	b.note(uid, unseen(was), unseen(is))
	b.count(was, size, -1)
	b.count(is, size, 1)
}

// Copy implements store.Account.
func (a *account) Copy(ctx context.Context, from store.MailboxID, uids store.UIDSet, to store.MailboxID, o store.CopyOptions) (r store.Copied, err error) {
	err = a.commit(ctx, func(t *tx) error {
		r, err = t.copy(from, uids, to, o)
		return err
	})
	if err != nil {
		return store.Copied{}, err
	}
	return r, nil
}

func (t *tx) copy(from store.MailboxID, uids store.UIDSet, to store.MailboxID, o store.CopyOptions) (store.Copied, error) {
	src, err := t.box(from)
	if err != nil {
		return store.Copied{}, err
	}
	dst, err := t.box(to)
	if err != nil {
		return store.Copied{}, err
	}
	r := store.Copied{
		From:        store.Commit{Prev: src.modSeq, ModSeq: src.modSeq},
		To:          store.Commit{Prev: dst.modSeq, ModSeq: dst.modSeq},
		UIDValidity: dst.validity,
		Source:      store.UIDSet{}, Dest: store.UIDSet{},
	}
	var rows []row
	var size int64
	err = t.each(src.mailbox, uids, true, func(m *row) error {
		rows = append(rows, *m)
		size += m.size
		return nil
	})
	if err != nil || len(rows) == 0 {
		return r, err
	}
	if err := t.a.s.db.Room(int64(len(rows)) * rowCost); err != nil {
		return store.Copied{}, full(err)
	}
	freed := int64(0)
	if o.Move {
		freed = size
	}
	if err := t.room(size, freed, uint64(dst.next)+uint64(len(rows))); err != nil {
		return store.Copied{}, err
	}
	srcWords := src.table()
	var was, is []int // the last keywords met, and what they are at dst
	for i := range rows {
		m := rows[i]
		if len(m.words) > 0 && src != dst {
			if !slices.Equal(m.words, was) {
				kw := srcWords.keywords(m.words)
				if err := t.learn(dst, kw); err != nil {
					return store.Copied{}, err
				}
				was, is = m.words, dst.table().indexes(kw)
			}
			m.words = is
		}
		m.saved = t.now
		r.Source.Add(m.uid)
		t.add(dst, &m)
		r.Dest.Add(m.uid)
	}
	if o.Move {
		if _, err := t.remove(src, r.Source, false); err != nil {
			return store.Copied{}, err
		}
	}
	r.From.ModSeq, r.To.ModSeq = src.modSeq, dst.modSeq
	return r, nil
}

// rowCost is about what a row takes, with all that belongs to it.
const rowCost = 160

// Expunge implements store.Account.
func (a *account) Expunge(ctx context.Context, box store.MailboxID, uids store.UIDSet, o store.ExpungeOptions) (r store.Expunged, err error) {
	err = a.commit(ctx, func(t *tx) error {
		b, err := t.box(box)
		if err != nil {
			return err
		}
		r.Commit = store.Commit{Prev: b.modSeq, ModSeq: b.modSeq}
		r.UIDs = store.UIDSet{}
		if o.OnlyDeleted && b.counts.Deleted == 0 {
			return nil
		}
		r.UIDs, err = t.remove(b, uids, o.OnlyDeleted)
		r.ModSeq = b.modSeq
		return err
	})
	if err != nil {
		return store.Expunged{}, err
	}
	return r, nil
}

// remove takes messages out of b, and returns which. It is called once for a
// mailbox.
func (t *tx) remove(b *boxTx, uids store.UIDSet, onlyDeleted bool) (store.UIDSet, error) {
	gone := store.UIDSet{}
	err := t.editChunks(b, uids, func(c *chunk, in store.UIDSet) (bool, error) {
		changed := false
		c.members(in, func(j int) {
			f := store.SystemFlags(c.codes[j])
			if onlyDeleted && !f.Has(store.Deleted) {
				return
			}
			b.count(f, c.sizes[j], -1)
			b.note(c.uids[j], unseen(f), false)
			c.codes[j], c.modSeqs[j] = codeGone, 0
			gone.Add(c.uids[j])
			changed = true
		})
		return changed, nil
	})
	if err != nil {
		return nil, err
	}
	upTo := store.MaxUID
	if len(b.rows) > 0 {
		upTo = b.rows[0].uid - 1
	}
	err = t.tailRows(b.mailbox, within(uids, 1, upTo), func(m *row) error {
		if onlyDeleted && !m.system.Has(store.Deleted) {
			return nil
		}
		b.count(m.system, m.size, -1)
		b.note(m.uid, unseen(m.system), false)
		b.tailRows--
		m.gone = true
		t.batch().Set(rowKey(t.a.no, b.no, m.uid), m.encode(), nil)
		gone.Add(m.uid)
		return nil
	})
	if err != nil || gone.Empty() {
		return gone, err
	}
	b.gone = gone
	t.touch(b)
	return gone, t.bury(b, gone)
}

// bury writes the tombstone, bounds the history, and says when the space can
// be given back.
func (t *tx) bury(b *boxTx, gone store.UIDSet) error {
	a := t.a
	t.batch().Set(key3(kTomb, a.no, b.no, uint64(t.m)), encodeTomb(t.due(b.no, t.m), gone), nil)
	b.tombs++
	b.tombRgs += len(gone)
	most := limit(a.s.o.History, defaultHistory)
	if a.s.o.History < 0 {
		most = -1
	}
	if b.tombRgs <= most {
		return nil
	}
	it, err := a.s.db.NewIter(&pebble.IterOptions{
		LowerBound: key3(kTomb, a.no, b.no, uint64(b.horizon)+1), UpperBound: boxKey(kTomb, a.no, b.no+1)})
	if err != nil {
		return unavailable(err)
	}
	defer it.Close()
	for ok := it.First(); ok && b.tombRgs > most; ok = it.Next() {
		due, uids, err := decodeTomb(it.Value())
		if err != nil {
			return damaged(err, "mailbox %s: what was expunged", boxID(b.no))
		}
		b.forget(store.ModSeq(u8(it.Key()[lenTomb-8:])), len(uids))
		// The sweeper drops those that it still needs.
		pending, err := a.s.db.Value(dueKey(due, a.no, b.no, b.horizon))
		if err != nil {
			return unavailable(err)
		}
		if pending == nil {
			t.batch().Delete(it.Key(), nil)
		}
	}
	if err := it.Error(); err != nil {
		return unavailable(err)
	}
	if b.tombRgs > most {
		b.forget(t.m, len(gone))
	}
	return nil
}

func (b *boxTx) forget(m store.ModSeq, ranges int) {
	b.horizon = m
	b.tombs--
	b.tombRgs -= ranges
}

// due says that something is to be given back after the grace: what a write
// to a mailbox expunged, all of a mailbox if m is 0, all of the account if box
// is 0.
func (t *tx) due(box uint64, m store.ModSeq) (at uint64) {
	at = uint64(t.now.Add(t.a.s.o.Grace).UnixMicro())
	t.batch().Set(dueKey(at, t.a.no, box, m), nil, nil)
	t.sweep = true
	return at
}

func dueKey(at, acct, box uint64, m store.ModSeq) []byte {
	return binary.BigEndian.AppendUint64(key3(kDue, at, acct, box), uint64(m))
}
