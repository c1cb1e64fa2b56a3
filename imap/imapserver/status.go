package imapserver

import (
	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/store"
)

// status is STATUS (RFC 9051 §6.3.11, RFC 8438).
func (s *session) status() (result, error) {
	var name string
	var items []imap.StatusItem
	if !s.dec.ExpectSP() || !s.expectMailbox(&name) || !s.dec.ExpectSP() || !s.expectStatusItems(&items) || !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	m, err := s.queryMailbox(name, store.MailboxQuery{Counts: true})
	switch {
	case err != nil:
		return result{}, err
	case !mayRead(m.Rights):
		return result{}, errNotReadable()
	}
	return result{}, s.writeStatusData(m, items)
}

// writeStatusData writes a STATUS response from a mailbox with its counts.
func (s *session) writeStatusData(m store.Mailbox, items []imap.StatusItem) error {
	var recent int
	for _, it := range items {
		if it == imap.StatusRecent {
			var err error
			if recent, err = s.countRecent(m); err != nil {
				return err
			}
		}
	}
	s.enc.Atom("* STATUS ").Mailbox(m.Name).Atom(" (")
	for i, it := range items {
		if i > 0 {
			s.enc.SP()
		}
		var n uint64
		switch it {
		case imap.StatusMessages:
			n = uint64(m.Counts.Messages)
		case imap.StatusUIDNext:
			n = uint64(m.UIDNext)
		case imap.StatusUIDValidity:
			n = uint64(m.UIDValidity)
		case imap.StatusUnseen:
			n = uint64(m.Counts.Unseen)
		case imap.StatusDeleted:
			n = uint64(m.Counts.Deleted)
		case imap.StatusSize:
			n = uint64(m.Counts.Size)
		case imap.StatusRecent:
			n = uint64(recent)
		}
		s.enc.Atom(string(it)).SP().Number(n)
	}
	return s.enc.Atom(")").CRLF()
}

// countRecent counts what no session has claimed yet.
func (s *session) countRecent(m store.Mailbox) (int, error) {
	if m.Recent == 0 || m.Recent >= m.UIDNext {
		return 0, nil
	}
	n := 0
	for _, err := range s.acc.Messages(s.ctx, m.ID, store.Query{UIDs: store.UIDSet{{First: m.Recent, Last: store.MaxUID}}}) {
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}
