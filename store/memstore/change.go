package memstore

import (
	"context"
	"time"

	"github.com/postrider/postrider/store"
)

// SetFlags implements store.Account.
func (a *account) SetFlags(ctx context.Context, box store.MailboxID, uids store.UIDSet, op store.FlagOp) (store.FlagResult, error) {
	op.Flags = store.NewFlags(op.Flags.System, op.Flags.Keywords...)
	a.mu.Lock()
	r, err := a.setFlags(ctx, box, uids, op)
	a.mu.Unlock()
	if err == nil && r.Prev != r.ModSeq {
		a.notify()
	}
	return r, err
}

func (a *account) setFlags(ctx context.Context, box store.MailboxID, uids store.UIDSet, op store.FlagOp) (store.FlagResult, error) {
	b, err := a.box(ctx, box)
	if err != nil {
		return store.FlagResult{}, err
	}
	r := store.FlagResult{Changed: store.UIDSet{}, Modified: store.UIDSet{}}
	r.Commit = store.Commit{Prev: b.modSeq, ModSeq: b.modSeq}
	if op.Mode != store.RemoveFlags {
		words := make(map[string]struct{})
		b.missing(op.Flags.Keywords, words)
		if err := a.room(b, 0, 0, 0, words); err != nil {
			return store.FlagResult{}, err
		}
	}
	m := a.modSeq + 1
	var was, is *keywordSet // the last set met, and what it becomes
	known := false
	b.each(uids, func(w *row) {
		if op.UnchangedSince > 0 && w.modSeq > op.UnchangedSince || op.IfAbsent && w.flags().Any(op.Flags) {
			r.Modified.Add(w.uid)
			return
		}
		system := store.FlagOp{Mode: op.Mode, Flags: store.Flags{System: op.Flags.System}}.Apply(store.Flags{System: w.system}).System
		if !known || w.set != was {
			was, known = w.set, true
			is = b.acquire(op.Apply(w.flags()).Keywords, 0)
		}
		if system == w.system && is == w.set {
			return
		}
		b.count(w, -1)
		w.system = system
		b.count(w, 1)
		if is != w.set {
			if is != nil {
				is.rows++
			}
			b.release(w.set)
			w.set = is
		}
		b.touch(w, m)
		r.Changed.Add(w.uid)
	})
	b.settle()
	if !r.Changed.Empty() {
		b.modSeq = a.commit()
		r.ModSeq = b.modSeq
	}
	return r, nil
}

// Copy implements store.Account.
func (a *account) Copy(ctx context.Context, from store.MailboxID, uids store.UIDSet, to store.MailboxID, o store.CopyOptions) (store.Copied, error) {
	a.mu.Lock()
	r, err := a.copy(ctx, from, uids, to, o)
	a.mu.Unlock()
	if err == nil && !r.Source.Empty() {
		a.notify()
	}
	return r, err
}

func (a *account) copy(ctx context.Context, from store.MailboxID, uids store.UIDSet, to store.MailboxID, o store.CopyOptions) (store.Copied, error) {
	src, err := a.box(ctx, from)
	if err != nil {
		return store.Copied{}, err
	}
	dst, err := a.box(ctx, to)
	if err != nil {
		return store.Copied{}, err
	}
	r := store.Copied{
		From:        store.Commit{Prev: src.modSeq, ModSeq: src.modSeq},
		To:          store.Commit{Prev: dst.modSeq, ModSeq: dst.modSeq},
		UIDValidity: dst.validity,
		Source:      store.UIDSet{}, Dest: store.UIDSet{},
	}
	var rows []*row
	var size int64
	words := make(map[string]struct{})
	src.each(uids, func(w *row) {
		rows = append(rows, w)
		size += w.content.Size()
		if w.set != nil {
			dst.missing(w.set.words, words)
		}
	})
	if len(rows) == 0 {
		return r, nil
	}
	freed := int64(0)
	if o.Move {
		freed = size
	}
	if err := a.room(dst, size, freed, uint64(dst.next)+uint64(len(rows)), words); err != nil {
		return store.Copied{}, err
	}
	m, now := a.commit(), time.Now()
	for _, w := range rows {
		n := &row{system: w.system, content: w.content, date: w.date, saved: now}
		if w.set != nil {
			n.set = dst.acquire(w.set.words, 1)
		}
		r.Source.Add(w.uid)
		dst.add(n, m)
		r.Dest.Add(n.uid)
		a.hold(n.content)
	}
	if o.Move {
		// The result is the caller's: history keeps its own copy.
		src.remove(r.Source.Clone(), m, limit(a.store.History, defaultHistory))
		for _, w := range rows {
			a.drop(w.content, now)
		}
		src.modSeq = m
		r.From.ModSeq = m
	}
	dst.modSeq = m
	r.To.ModSeq = m
	if src == dst {
		r.From.ModSeq = m
	}
	return r, nil
}

// Expunge implements store.Account.
func (a *account) Expunge(ctx context.Context, box store.MailboxID, uids store.UIDSet, o store.ExpungeOptions) (store.Expunged, error) {
	a.mu.Lock()
	r, err := a.expunge(ctx, box, uids, o)
	a.mu.Unlock()
	if err == nil && !r.UIDs.Empty() {
		a.notify()
	}
	return r, err
}

func (a *account) expunge(ctx context.Context, box store.MailboxID, uids store.UIDSet, o store.ExpungeOptions) (store.Expunged, error) {
	b, err := a.box(ctx, box)
	if err != nil {
		return store.Expunged{}, err
	}
	r := store.Expunged{Commit: store.Commit{Prev: b.modSeq, ModSeq: b.modSeq}, UIDs: store.UIDSet{}}
	if o.OnlyDeleted && b.counts.Deleted == 0 {
		return r, nil
	}
	var contents []*content
	b.each(uids, func(w *row) {
		if !o.OnlyDeleted || w.system.Has(store.Deleted) {
			r.UIDs.Add(w.uid)
			contents = append(contents, w.content)
		}
	})
	if r.UIDs.Empty() {
		return r, nil
	}
	m, now := a.commit(), time.Now()
	b.remove(r.UIDs.Clone(), m, limit(a.store.History, defaultHistory))
	for _, c := range contents {
		a.drop(c, now)
	}
	b.modSeq = m
	r.ModSeq = m
	return r, nil
}
