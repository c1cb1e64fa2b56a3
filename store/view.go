package store

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// View is a shared columnar index of one mailbox: UID, ModSeq, flags and size
// of each message, about 20 octets a message. It is safe for concurrent use.
// Sessions hold an immutable [Snapshot] of it and compare it with a newer one
// by [Snapshot.Diff].
//
// The truth is pulled: Sync asks the store what happened since the View's
// cursor. A session's own writes need not be read back: the Fold methods
// apply a write's result when nothing else came between.
type View struct {
	box    MailboxID
	shared *shared // set by Views
	cur    atomic.Pointer[Snapshot]

	turn   chan struct{} // held by the one Sync that reads
	begun  atomic.Uint64 // Syncs that began to read
	synced atomic.Uint64 // the latest of them that ended well

	mu      sync.Mutex // what follows, and changes of cur
	acc     Account
	reading bool
	gone    UIDSet // folded away while a Sync reads: it may have seen them before
}

// OpenView lists the mailbox. ErrNotExist.
func OpenView(ctx context.Context, acc Account, box MailboxID) (*View, error) {
	m, err := lookup(ctx, acc, box)
	if err != nil {
		return nil, err
	}
	v := &View{box: box, acc: acc, turn: make(chan struct{}, 1)}
	s := newSnapshot(m.UIDValidity)
	rows := make([]Row, 0, chunkRows)
	for msg, err := range acc.Messages(ctx, box, Query{}) {
		if err != nil {
			return nil, err
		}
		rows = append(rows, Row{msg.UID, msg.ModSeq, msg.Flags, msg.Size})
		if len(rows) == chunkRows {
			s = s.edit(nil, rows)
			rows = rows[:0]
		}
	}
	s = s.edit(nil, rows)
	s.modSeq, s.uidNext = m.ModSeq, max(s.uidNext, m.UIDNext)
	v.cur.Store(s)
	return v, nil
}

// lookup reads one mailbox.
func lookup(ctx context.Context, acc Account, box MailboxID) (Mailbox, error) {
	boxes, _, err := acc.Mailboxes(ctx, MailboxQuery{IDs: []MailboxID{box}})
	if err != nil {
		return Mailbox{}, err
	}
	if len(boxes) != 1 || boxes[0].Gone {
		return Mailbox{}, ErrNotExist
	}
	return boxes[0], nil
}

// Mailbox returns the ID of the mailbox.
func (v *View) Mailbox() MailboxID { return v.box }

// Snapshot returns the newest known state without I/O.
func (v *View) Snapshot() *Snapshot { return v.cur.Load() }

// Sync pulls what changed and returns the newest Snapshot, in which every
// write is that returned before Sync began. Callers that wait for another's
// read share one read. ErrNotExist when the mailbox is gone.
func (v *View) Sync(ctx context.Context) (*Snapshot, error) {
	arrived := v.begun.Load()
	select {
	case v.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-v.turn }()
	if v.synced.Load() > arrived {
		return v.Snapshot(), nil // one that began after we came has ended
	}
	n := v.begun.Add(1)
	if err := v.pull(ctx); err != nil {
		return nil, err
	}
	v.synced.Store(n)
	return v.Snapshot(), nil
}

// pull reads what happened after the cursor: the bound and the expunged
// first, then the messages, so that nothing falls between.
func (v *View) pull(ctx context.Context) error {
	v.mu.Lock()
	acc, since := v.acc, v.Snapshot().modSeq
	v.reading, v.gone = true, nil
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		v.reading, v.gone = false, nil
		v.mu.Unlock()
	}()

	c, err := acc.Changes(ctx, v.box, since)
	if errors.Is(err, ErrForgotten) {
		return v.relist(ctx, acc)
	}
	if err != nil {
		return err
	}
	if c.ModSeq == since && c.Expunged.Empty() {
		return nil
	}
	rows, err := listRows(ctx, acc, v.box, since)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.publish(c.Expunged, rows, c.ModSeq, c.UIDNext)
	return nil
}

// relist is pull when the store has forgotten what happened.
func (v *View) relist(ctx context.Context, acc Account) error {
	m, err := lookup(ctx, acc, v.box) // the bound
	if err != nil {
		return err
	}
	rows, err := listRows(ctx, acc, v.box, 0)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	// Gone is what is not listed any more, unless we folded it in since: then
	// it is newer than the bound, and the next pull looks after it.
	expunged := UIDSet{}
	i := 0
	for _, r := range v.Snapshot().Rows(nil) {
		for i < len(rows) && rows[i].UID < r.UID {
			i++
		}
		if (i == len(rows) || rows[i].UID != r.UID) && r.ModSeq <= m.ModSeq {
			expunged.Add(r.UID)
		}
	}
	v.publish(expunged, rows, m.ModSeq, m.UIDNext)
	return nil
}

func listRows(ctx context.Context, acc Account, box MailboxID, since ModSeq) ([]Row, error) {
	var rows []Row
	for m, err := range acc.Messages(ctx, box, Query{ChangedSince: since}) {
		if err != nil {
			return nil, err
		}
		rows = append(rows, Row{m.UID, m.ModSeq, m.Flags, m.Size})
	}
	return rows, nil
}

// publish makes the next Snapshot. v.mu is held.
func (v *View) publish(expunged UIDSet, rows []Row, modSeq ModSeq, next UID) *Snapshot {
	if !v.gone.Empty() {
		kept := rows[:0]
		for _, r := range rows {
			if !v.gone.Contains(r.UID) {
				kept = append(kept, r)
			}
		}
		rows = kept
	}
	s := v.Snapshot().edit(expunged, rows)
	s.modSeq, s.uidNext = max(s.modSeq, modSeq), max(s.uidNext, next)
	v.cur.Store(s)
	return s
}

// fold reports whether a write's result can be applied: nothing else happened
// between the cursor and it. done: the cursor is past it already.
func (v *View) fold(c Commit) (apply, done bool) {
	cur := v.Snapshot().modSeq
	return c.Prev <= cur && cur < c.ModSeq, cur >= c.ModSeq
}

// FoldFlags applies the result of one's own SetFlags(op) on this mailbox. It
// reports whether the newest Snapshot has it now; if not, call Sync.
func (v *View) FoldFlags(op FlagOp, r FlagResult) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	apply, done := v.fold(r.Commit)
	if !apply {
		return done
	}
	s := v.Snapshot().setFlags(op, r)
	s.modSeq = r.ModSeq
	v.cur.Store(s)
	return true
}

// FoldAppended applies the result of one's own Append to this mailbox, and of
// the replacement when it was in this mailbox too. It reports whether the
// newest Snapshot has it now; if not, call Sync.
func (v *View) FoldAppended(o AppendOptions, r Appended) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	apply, done := v.fold(r.Commit)
	if !apply {
		return done
	}
	var expunged UIDSet
	if o.Replace.UID != 0 && o.Replace.Box == v.box {
		expunged.Add(o.Replace.UID)
	}
	rows := make([]Row, 0, len(r.Messages))
	var next UID
	for _, m := range r.Messages {
		rows = append(rows, Row{m.UID, m.ModSeq, m.Flags, m.Size})
		next = max(next, m.UID+1)
	}
	if v.reading {
		v.gone = v.gone.Union(expunged)
	}
	v.publish(expunged, rows, r.ModSeq, next)
	return true
}

// FoldExpunged applies the result of one's own Expunge of this mailbox, or of
// a move out of it to another one (Expunged{Copied.From, Copied.Source}). It
// reports whether the newest Snapshot has it now; if not, call Sync.
func (v *View) FoldExpunged(r Expunged) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	apply, done := v.fold(r.Commit)
	if !apply {
		return done
	}
	if v.reading {
		v.gone = v.gone.Union(r.UIDs)
	}
	v.publish(r.UIDs, nil, r.ModSeq, 0)
	return true
}
