package imapserver

import (
	"errors"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/store"
)

func (s *session) copySeq() (result, error) { return s.copyMessages(false, false) }
func (s *session) copyUID() (result, error) { return s.copyMessages(true, false) }
func (s *session) moveSeq() (result, error) { return s.copyMessages(false, true) }
func (s *session) moveUID() (result, error) { return s.copyMessages(true, true) }

// copyMessages is COPY (RFC 9051 §6.4.7) and MOVE (§6.4.8), each one step of
// the store.
func (s *session) copyMessages(uid, move bool) (result, error) {
	set := imap.MessageSet{UID: uid}
	var name string
	if !s.dec.ExpectSP() || !s.dec.ExpectMessageSet(&set) || !s.dec.ExpectSP() || !s.expectMailbox(&name) || !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	b := s.box
	if move && b.readOnly {
		return result{}, errReadOnly()
	}
	uids, err := b.messages(set)
	if err != nil {
		return result{}, err
	}
	to, err := s.findMailbox(name)
	if err != nil {
		return result{}, tryCreate(err)
	}
	if uids.Empty() {
		return result{}, nil
	}
	c, err := s.acc.Copy(s.ctx, b.id, uids, to.ID, store.CopyOptions{Move: move})
	if err != nil {
		return result{}, tryCreate(err)
	}
	if to.ID == b.id || move && !b.view.FoldExpunged(store.Expunged{Commit: c.From, UIDs: c.Source}) {
		b.changed.Store(true)
	}
	if c.Source.Empty() {
		if !uid && countIn(b.snap, uids) > 0 {
			return result{}, errExpunged()
		}
		return result{}, nil
	}
	if !mayRead(to.Rights) {
		return result{}, nil
	}
	arg := string(appendCopyUID(nil, c))
	if !move {
		return result{code: imap.CodeCopyUID, arg: arg}, nil
	}
	// Before the EXPUNGE responses, so that the client can follow (RFC 6851
	// §4.3).
	s.enc.Atom("* OK [COPYUID ").Atom(arg).Atom("] Moved\r\n")
	return result{}, nil
}

func appendCopyUID(b []byte, c store.Copied) []byte {
	n := imap.NumSet{{First: c.UIDValidity, Last: c.UIDValidity}}
	b, _ = n.AppendText(b)
	b = c.Source.AppendText(append(b, ' '))
	return c.Dest.AppendText(append(b, ' '))
}

// tryCreate is how a missing target is told.
func tryCreate(err error) error {
	var e *imap.Error
	if errors.Is(err, store.ErrNotExist) || errors.As(err, &e) && e.Code == imap.CodeNonExistent {
		return errTryCreate()
	}
	return err
}
