package imapserver

import (
	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/store"
)

// errReadOnly is how commands that write answer after EXAMINE.
func errReadOnly() error { return no(imap.CodeReadOnly, "The mailbox is read-only") }

// expunge is EXPUNGE (RFC 9051 §6.4.3).
func (s *session) expunge() (result, error) {
	if !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	n := s.box.snap.Len()
	if n == 0 && !s.box.readOnly {
		return result{}, nil
	}
	var known store.UIDSet
	if n > 0 {
		known = store.UIDSet{{First: 1, Last: s.box.snap.UID(n - 1)}}
	}
	return result{}, s.expungeUIDs(known)
}

// uidExpunge is UID EXPUNGE (RFC 4315 §2.1).
func (s *session) uidExpunge() (result, error) {
	set := imap.MessageSet{UID: true}
	if !s.dec.ExpectSP() || !s.dec.ExpectMessageSet(&set) || !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	uids, err := s.box.messages(set)
	if err != nil {
		return result{}, err
	}
	return result{}, s.expungeUIDs(uids)
}

// expungeUIDs removes those of uids that carry \Deleted when it is done; the
// EXPUNGE responses come with the update after the command.
func (s *session) expungeUIDs(uids store.UIDSet) error {
	b := s.box
	if b.readOnly {
		return errReadOnly()
	}
	if uids.Empty() {
		return nil
	}
	r, err := s.acc.Expunge(s.ctx, b.id, uids, store.ExpungeOptions{OnlyDeleted: true})
	if err != nil {
		return err
	}
	if !b.view.FoldExpunged(r) {
		b.changed.Store(true)
	}
	return nil
}
