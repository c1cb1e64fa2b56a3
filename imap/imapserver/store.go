package imapserver

import (
	"errors"
	"strings"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/store"
)

func (s *session) storeSeq() (result, error) { return s.storeFlags(false) }
func (s *session) storeUID() (result, error) { return s.storeFlags(true) }

// storeFlags is STORE (RFC 9051 §6.4.6).
func (s *session) storeFlags(uid bool) (result, error) {
	set := imap.MessageSet{UID: uid}
	var item string
	if !s.dec.ExpectSP() || !s.dec.ExpectMessageSet(&set) || !s.dec.ExpectSP() || !s.dec.ExpectKeyword(&item) || !s.dec.ExpectSP() {
		return result{}, s.dec.Err()
	}
	name, silent := strings.CutSuffix(item, ".SILENT")
	var op store.FlagOp
	switch name {
	case "FLAGS":
		op.Mode = store.ReplaceFlags
	case "+FLAGS":
		op.Mode = store.AddFlags
	case "-FLAGS":
		op.Mode = store.RemoveFlags
	default:
		s.dec.Fail("unknown store item")
		return result{}, s.dec.Err()
	}
	var err error
	if op.Flags, err = s.expectFlags(true); err != nil {
		return result{}, err
	}
	if !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	b := s.box
	if b.readOnly {
		return result{}, errReadOnly()
	}
	uids, err := b.messages(set)
	if err != nil {
		return result{}, err
	}
	if uids.Empty() {
		return result{}, nil
	}
	r, err := s.acc.SetFlags(s.ctx, b.id, uids, op)
	if errors.Is(err, store.ErrLimit) && len(op.Flags.Keywords) > 0 {
		s.writePermanentFlags(false) // RFC 9051 §7.1, PERMANENTFLAGS
	}
	if err != nil {
		return result{}, err
	}
	if !b.view.FoldFlags(op, r) {
		b.changed.Store(true)
	}
	if err := s.refresh(); err != nil {
		return result{}, err
	}
	return result{}, s.tellStored(uids, op, silent, uid)
}

// tellStored answers a STORE that was done: the new flags of every message
// unless it is silent, and of those that others changed at the same time.
// Sequence numbers of messages that others expunged are an error, UIDs are not.
func (s *session) tellStored(uids store.UIDSet, op store.FlagOp, silent, uid bool) error {
	b := s.box
	missing := false
	told := store.UIDSet{}
	if s.learnKeywords(uids) {
		s.writeFlagList()
	}
	same := b.snap == b.newest
	for i, old := range b.snap.Rows(uids) {
		row := old
		if !same {
			j, ok := b.newest.Index(old.UID)
			if !ok {
				missing = true
				continue
			}
			row = b.newest.Row(j)
		}
		told.Add(row.UID)
		if silent && row.Flags.Equal(op.Apply(old.Flags)) {
			continue
		}
		s.writeFlags(i, row, true)
	}
	b.tell(told)
	if missing && !uid {
		return errExpunged()
	}
	return s.enc.Err()
}
