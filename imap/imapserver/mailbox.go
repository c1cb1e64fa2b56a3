package imapserver

import (
	"errors"
	"slices"
	"sync/atomic"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/store"
)

// mailbox is the selected mailbox of a session.
type mailbox struct {
	id       store.MailboxID
	name     string
	readOnly bool

	view    *store.View
	release func()      // gives the view back
	stop    func()      // of the watch
	changed atomic.Bool // the store said that something happened

	// snap is what the client knows: its numbers are the sequence numbers.
	// newest is what flags are taken from; it may know of expunges that the
	// client cannot be told of yet.
	snap, newest *store.Snapshot
	told         []told       // by the command that runs
	recent       store.UIDSet // \Recent to this session
	saved        store.UIDSet // "$" (RFC 5182)
	keywords     map[string]struct{}
}

// told are messages whose flags, as at has them, the client was told by the
// command itself: no need to tell them again after it. What is told always
// comes from a Snapshot; flags read elsewhere could be changed back before the
// next one, and nobody would notice.
type told struct {
	uids store.UIDSet
	at   *store.Snapshot
}

// knows tells whether the flags in row are what the client was told last.
func (b *mailbox) knows(row store.Row) bool {
	for _, t := range slices.Backward(b.told) {
		if t.uids.Contains(row.UID) {
			i, ok := t.at.Index(row.UID)
			return ok && t.at.Flags(i).Equal(row.Flags)
		}
	}
	return false
}

// tell notes that flags of newest were told.
func (b *mailbox) tell(uids store.UIDSet) {
	if !uids.Empty() {
		b.told = append(b.told, told{uids, b.newest})
	}
}

// unselect leaves the selected mailbox, if there is one.
func (s *session) unselect() {
	b := s.box
	if b == nil {
		return
	}
	s.box = nil
	if s.state == selected {
		s.state = authenticated
	}
	b.stop()
	b.release()
}

// refresh brings b.newest up to date. It asks the store only when something
// is known to have happened.
func (s *session) refresh() error {
	b := s.box
	if !b.changed.Swap(false) {
		b.newest = b.view.Snapshot()
		return nil
	}
	newest, err := b.view.Sync(s.ctx)
	if err != nil {
		b.changed.Store(true)
		return err
	}
	b.newest = newest
	return nil
}

// update tells the client what happened in the mailbox. Without expunge
// numbers must stay as they are: nothing is told then until they may change.
func (s *session) update(expunge bool) error {
	b := s.box
	defer func() { b.told = nil }()
	if err := s.refresh(); err != nil {
		if errors.Is(err, store.ErrNotExist) {
			return s.bye("", "The mailbox was deleted")
		}
		// The command itself went well; the news come with a later one.
		s.log.Warn("mailbox not synced", "user", s.id.User, "mailbox", b.name, "error", err)
		return nil
	}
	if b.newest == b.snap {
		return nil
	}
	d := b.snap.Diff(b.newest)
	if !expunge && !d.Expunged.Empty() {
		return nil
	}
	old := b.snap
	gone := 0
	for _, r := range d.Expunged {
		for i := range old.Rows(store.UIDSet{r}) {
			s.enc.Atom("* ").Number(uint64(i + 1 - gone)).Atom(" EXPUNGE\r\n")
			gone++
		}
	}
	b.snap = b.newest
	s.tellKeywords(d.Changed)
	s.tellKeywords(d.Added)
	if !d.Added.Empty() {
		s.enc.Atom("* ").Number(uint64(b.snap.Len())).Atom(" EXISTS\r\n")
		if !s.rev2 {
			s.claimRecent(d.Added)
			s.enc.Atom("* ").Number(uint64(countIn(b.snap, b.recent))).Atom(" RECENT\r\n")
		}
	}
	for i, row := range b.snap.Rows(d.Changed) {
		if b.knows(row) {
			continue
		}
		s.writeFlags(i, row, true)
	}
	return s.enc.Err()
}

// claimRecent finds out which of the added messages are \Recent.
func (s *session) claimRecent(added store.UIDSet) {
	b := s.box
	claimer, ok := store.As[store.RecentClaimer](s.acc)
	if !ok {
		return
	}
	if b.readOnly {
		// Looking on takes nothing from whoever selects it next.
		b.recent = b.recent.Union(added)
		return
	}
	from, to, err := claimer.ClaimRecent(s.ctx, b.id)
	if err != nil {
		s.log.Warn("recent messages not claimed", "user", s.id.User, "error", err)
		return
	}
	if from < to {
		b.recent.AddRange(from, to-1)
	}
}

// tellKeywords sends FLAGS when messages have keywords that the client has
// not been told of.
func (s *session) tellKeywords(uids store.UIDSet) {
	if s.learnKeywords(uids) {
		s.writeFlagList()
	}
}

func (s *session) learnKeywords(uids store.UIDSet) (news bool) {
	b := s.box
	var last *string
	for _, row := range b.newest.Rows(uids) {
		k := row.Flags.Keywords
		if len(k) == 0 || last == &k[0] {
			continue
		}
		last = &k[0]
		for _, w := range k {
			if _, ok := b.keywords[w]; !ok {
				b.keywords[w] = struct{}{}
				news = true
			}
		}
	}
	return news
}

// countIn returns how many messages of snap are in uids.
func countIn(snap *store.Snapshot, uids store.UIDSet) int {
	n := 0
	for _, r := range uids {
		a, _ := snap.Index(r.First)
		z, ok := snap.Index(r.Last)
		if ok {
			z++
		}
		n += z - a
	}
	return n
}

// messages turns what a command names into UIDs of the mailbox as the client
// knows it. Sequence numbers must exist (RFC 9051 §9, seq-number).
func (b *mailbox) messages(set imap.MessageSet) (store.UIDSet, error) {
	n := b.snap.Len()
	if set.Saved {
		return b.saved, nil
	}
	if set.UID {
		return b.known(set.Nums), nil
	}
	out := store.UIDSet{}
	if n == 0 {
		return nil, bad("No such message")
	}
	for _, r := range set.Nums.Resolve(uint32(n)) {
		if int64(r.Last) > int64(n) {
			return nil, bad("No such message")
		}
		out.AddRange(b.snap.UID(int(r.First)-1), b.snap.UID(int(r.Last)-1))
	}
	return out, nil
}

// known returns the set of UIDs, cut to what the client can know.
func (b *mailbox) known(nums imap.NumSet) store.UIDSet {
	out := store.UIDSet{}
	n := b.snap.Len()
	if n == 0 {
		return out
	}
	last := b.snap.UID(n - 1)
	for _, r := range nums.Resolve(uint32(last)) {
		out.AddRange(store.UID(r.First), min(store.UID(r.Last), last))
	}
	return out
}

// wireSet is s as the wire has it.
func wireSet(s store.UIDSet) imap.NumSet {
	out := make(imap.NumSet, len(s))
	for i, r := range s {
		out[i] = imap.NumRange{First: uint32(r.First), Last: uint32(r.Last)}
	}
	return out
}
