package imapserver

import (
	"strings"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/store"
)

func (s *session) selectMailbox() (result, error) { return s.openMailbox(false) }
func (s *session) examine() (result, error)       { return s.openMailbox(true) }

// openMailbox is SELECT and EXAMINE (RFC 9051 §6.3.2, §6.3.3).
func (s *session) openMailbox(readOnly bool) (result, error) {
	var name string
	if !s.dec.ExpectSP() || !s.expectMailbox(&name) || !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	// Whatever comes of it, the mailbox selected before is left.
	if s.box != nil {
		s.unselect()
		s.enc.Atom("* OK [CLOSED] Previous mailbox closed\r\n")
	}
	// First the watch, then the state: nothing falls between.
	b := &mailbox{keywords: map[string]struct{}{}}
	b.stop = store.Watch(s.acc, 0, b.watched(&s.t))
	m, err := s.findMailbox(name)
	if err == nil && !mayRead(m.Rights) {
		err = errNotReadable()
	}
	var listed imap.ListData
	if err == nil && s.rev2 {
		listed, err = s.listed(m, name)
	}
	if err == nil {
		b.view, err = s.srv.views.Open(s.ctx, s.id.User, s.acc, m)
	}
	if err != nil {
		b.stop()
		return result{}, err
	}
	b.release = func() { s.srv.views.Close(b.view) }
	b.id, b.name, b.readOnly = m.ID, m.Name, readOnly || !mayWrite(m.Rights)
	b.snap = b.view.Snapshot()
	b.newest = b.snap
	s.box, s.state = b, selected
	for _, k := range b.snap.Keywords() {
		b.keywords[k] = struct{}{}
	}
	s.writeSelected(m)
	if s.rev2 {
		s.writeList("LIST", &listed)
	}
	code := imap.CodeReadWrite
	if b.readOnly {
		code = imap.CodeReadOnly
	}
	return result{code: code, quiet: true}, s.enc.Err()
}

func (s *session) writeSelected(m store.Mailbox) {
	b := s.box
	s.writeFlagList()
	n := b.snap.Len()
	s.enc.Atom("* ").Number(uint64(n)).Atom(" EXISTS\r\n")
	if !s.rev2 {
		if m.Recent > 0 && n > 0 {
			s.claimRecent(store.UIDSet{{First: m.Recent, Last: max(m.Recent, b.snap.UID(n-1))}})
		}
		s.enc.Atom("* ").Number(uint64(countIn(b.snap, b.recent))).Atom(" RECENT\r\n")
		// The store may know where to look; what it says is of the time of m.
		from := store.UID(1)
		if m.FirstUnseen > 0 && m.ModSeq == b.snap.ModSeq() {
			from = m.FirstUnseen
		}
		for i, row := range b.snap.Rows(store.UIDSet{{First: from, Last: store.MaxUID}}) {
			if !row.Flags.System.Has(store.Seen) {
				s.enc.Atom("* OK [UNSEEN ").Number(uint64(i + 1)).Atom("] First unseen message\r\n")
				break
			}
		}
	}
	s.writePermanentFlags(true)
	s.enc.Atom("* OK [UIDNEXT ").Number(uint64(b.snap.UIDNext())).Atom("] Predicted next UID\r\n")
	s.enc.Atom("* OK [UIDVALIDITY ").Number(uint64(m.UIDValidity)).Atom("] UIDs valid\r\n")
}

// writePermanentFlags tells which flags can be changed, and with more that
// keywords can be made.
func (s *session) writePermanentFlags(more bool) {
	s.enc.Atom("* OK [PERMANENTFLAGS (")
	if !s.box.readOnly {
		s.enc.Atom(allSystemFlags)
		s.writeKeywords()
		if more {
			s.enc.Atom(` \*`)
		}
	}
	s.enc.Atom(")] Flags that stay\r\n")
}

// listed is what LIST tells of m, with all attributes (RFC 9051 §6.3.2). name
// is what the client called it.
func (s *session) listed(m store.Mailbox, name string) (imap.ListData, error) {
	var t tree
	if err := s.loadTree(&t, false); err != nil {
		return imap.ListData{}, err
	}
	n := t.index[m.Name]
	if n == nil {
		return imap.ListData{}, errNoMailbox() // deleted meanwhile
	}
	d := n.list(true)
	if m.Name != name {
		d.OldName = name
	}
	return d, nil
}

// watched returns what the store calls after each commit.
func (b *mailbox) watched(t *transport) func() {
	return func() {
		b.changed.Store(true)
		t.news()
	}
}

// mayRead tells whether rights let a mailbox be opened (RFC 4314 §4); zero
// Rights are all. Who may add to it and not read it learns no UIDs.
func mayRead(r store.Rights) bool { return r == "" || strings.ContainsRune(string(r), 'r') }

func errNotReadable() error { return no(imap.CodeNoPerm, "Permission denied") }

// mayWrite tells whether rights let anything be changed (RFC 4314 §5.2).
func mayWrite(r store.Rights) bool {
	if r == "" {
		return true
	}
	for _, c := range r {
		switch c {
		case 's', 'w', 'i', 't', 'e':
			return true
		}
	}
	return false
}

// closeMailbox is CLOSE (RFC 9051 §6.4.1): expunge in silence, then leave.
func (s *session) closeMailbox() (result, error) {
	if !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	b := s.box
	if n := b.snap.Len(); n > 0 && !b.readOnly {
		// What the client has not seen it cannot want to lose.
		known := store.UIDSet{{First: 1, Last: b.snap.UID(n - 1)}}
		if _, err := s.acc.Expunge(s.ctx, b.id, known, store.ExpungeOptions{OnlyDeleted: true}); err != nil {
			return result{}, err
		}
	}
	s.unselect()
	return result{}, nil
}

// unselectMailbox is UNSELECT (RFC 9051 §6.4.2).
func (s *session) unselectMailbox() (result, error) {
	if !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	s.unselect()
	return result{}, nil
}
