package imapserver

import (
	"slices"
	"strings"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/store"
)

// create is CREATE (RFC 9051 §6.3.4, with USE of RFC 6154 §3).
func (s *session) create() (result, error) {
	var name string
	if !s.dec.ExpectSP() || !s.expectMailbox(&name) {
		return result{}, s.dec.Err()
	}
	var use []string
	if s.dec.SP() {
		s.dec.ExpectList(func() bool {
			var param string
			if !s.dec.ExpectKeyword(&param) {
				return false
			}
			if param != "USE" {
				return s.dec.Fail("unknown parameter")
			}
			return s.dec.ExpectSP() && s.dec.ExpectList(func() bool {
				var f imap.Flag
				if !s.dec.ExpectFlag(&f) {
					return false
				}
				use = append(use, string(f))
				return len(use) <= 20 || s.dec.Fail("too many attributes")
			})
		})
	}
	if !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	use, err := specialUse(use)
	if err != nil {
		return result{}, err
	}
	given := strings.TrimSuffix(name, delim)
	if name, err = newName(name); err != nil {
		return result{}, err
	}
	if name == "INBOX" {
		return result{}, no(imap.CodeAlreadyExists, "INBOX is always there")
	}
	m, err := s.acc.CreateMailbox(s.ctx, store.NewMailbox{Name: name, SpecialUse: use})
	if err != nil {
		return result{}, err
	}
	return result{}, s.tellOldName(m, given, name != given)
}

// tellOldName tells that a mailbox that was made or renamed has another name
// than the client may think: old is what that calls it (RFC 9051 §6.3.4,
// §6.3.6).
func (s *session) tellOldName(m store.Mailbox, old string, differs bool) error {
	if !differs || !s.rev2 {
		return nil
	}
	d, err := s.listed(m, old)
	if err != nil {
		// The command itself went well.
		s.log.Warn("new name not told", "user", s.id.User, "error", err)
		return nil
	}
	s.writeList("LIST", &d)
	return s.enc.Err()
}

// specialUse checks attributes and gives them their usual spelling.
func specialUse(attrs []string) ([]string, error) {
	var out []string
	for _, a := range attrs {
		found := false
		for _, known := range [...]imap.MailboxAttr{imap.AttrArchive, imap.AttrDrafts, imap.AttrJunk, imap.AttrSent, imap.AttrTrash} {
			if strings.EqualFold(a, string(known)) {
				out, found = append(out, string(known)), true
			}
		}
		if !found {
			// \All and \Flagged are views, which no mailbox here is.
			return nil, no(imap.CodeUseAttr, "No mailbox can have this special use")
		}
	}
	return out, nil
}

// delete is DELETE (RFC 9051 §6.3.5). A mailbox below it keeps its name.
func (s *session) delete() (result, error) {
	var name string
	if !s.dec.ExpectSP() || !s.expectMailbox(&name) || !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	if name == "INBOX" {
		return result{}, no(imap.CodeCannot, "INBOX cannot be deleted")
	}
	m, err := s.findMailbox(name)
	if err != nil {
		boxes, lerr := s.allMailboxes(false)
		if lerr == nil {
			for _, b := range boxes {
				if isBelow(b.Name, name) {
					return result{}, no(imap.CodeHasChildren, "Only mailboxes below it exist")
				}
			}
		}
		return result{}, err
	}
	if s.box != nil && s.box.id == m.ID {
		s.unselect()
		s.enc.Atom("* OK [CLOSED] Selected mailbox deleted\r\n")
	}
	return result{}, s.acc.DeleteMailbox(s.ctx, m.ID)
}

// rename is RENAME (RFC 9051 §6.3.6): with all that is below it, in one step.
func (s *session) rename() (result, error) {
	var from, to string
	if !s.dec.ExpectSP() || !s.expectMailbox(&from) || !s.dec.ExpectSP() || !s.expectMailbox(&to) || !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	from, given := strings.TrimSuffix(from, delim), strings.TrimSuffix(to, delim)
	to, err := newName(to)
	if err != nil {
		return result{}, err
	}
	old, differs := from, to != given
	if from == "INBOX" {
		return result{}, s.renameInbox(to)
	}
	boxes, err := s.allMailboxes(false)
	if err != nil {
		return result{}, err
	}
	if also := spellings(from); len(also) > 1 && !hasTree(boxes, from) {
		from, differs = also[1], true
	}
	var moves []store.MailboxUpdate
	moved := map[string]bool{}
	for _, m := range boxes {
		if m.Name == from || isBelow(m.Name, from) {
			name, err := newName(to + m.Name[len(from):])
			if err != nil {
				return result{}, err
			}
			moves = append(moves, store.MailboxUpdate{ID: m.ID, Name: &name})
			moved[m.Name] = true
		}
	}
	if len(moves) == 0 {
		return result{}, errNoMailbox()
	}
	for _, m := range boxes {
		if m.Name == to && !moved[m.Name] || to == "INBOX" || from == to {
			return result{}, no(imap.CodeAlreadyExists, "A mailbox of that name exists")
		}
	}
	if err := s.acc.UpdateMailboxes(s.ctx, moves...); err != nil {
		return result{}, err
	}
	if b := s.box; b != nil && moved[b.name] {
		b.name = to + b.name[len(from):]
	}
	return result{}, s.tellOldName(store.Mailbox{Name: to}, old, differs)
}

// hasTree tells whether there is a mailbox of that name or below it.
func hasTree(boxes []store.Mailbox, name string) bool {
	return slices.ContainsFunc(boxes, func(m store.Mailbox) bool { return m.Name == name || isBelow(m.Name, name) })
}

// renameInbox moves the messages to a new mailbox and leaves the inbox empty.
func (s *session) renameInbox(to string) error {
	if to == "INBOX" {
		return no(imap.CodeAlreadyExists, "INBOX is always there")
	}
	m, err := s.acc.CreateMailbox(s.ctx, store.NewMailbox{Name: to})
	if err != nil {
		return err
	}
	_, err = s.acc.Copy(s.ctx, store.Inbox, store.AllUIDs(), m.ID, store.CopyOptions{Move: true})
	if err != nil {
		// Nothing was moved: the new mailbox should not stay.
		s.acc.DeleteMailbox(s.ctx, m.ID)
		return err
	}
	if s.box != nil && s.box.id == store.Inbox {
		s.box.changed.Store(true)
	}
	return nil
}

func (s *session) subscribe() (result, error)   { return s.changeSubscription(true) }
func (s *session) unsubscribe() (result, error) { return s.changeSubscription(false) }

// changeSubscription is SUBSCRIBE and UNSUBSCRIBE (RFC 9051 §6.3.7).
func (s *session) changeSubscription(on bool) (result, error) {
	var name string
	if !s.dec.ExpectSP() || !s.expectMailbox(&name) || !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	sub, ok := store.As[store.Subscriber](s.acc)
	if !ok {
		return result{}, no(imap.CodeCannot, "Subscriptions are not kept here")
	}
	name = strings.TrimSuffix(name, delim)
	if !on {
		for _, n := range spellings(name) {
			if err := sub.Unsubscribe(s.ctx, n); err != nil {
				return result{}, err
			}
		}
		return result{}, nil
	}
	name, err := newName(name)
	if err != nil {
		return result{}, err
	}
	return result{}, sub.Subscribe(s.ctx, name)
}

// subscriptions lists the subscribed names. Where the store keeps none, every
// mailbox counts as subscribed.
func (s *session) subscriptions(boxes []store.Mailbox) ([]string, error) {
	if sub, ok := store.As[store.Subscriber](s.acc); ok {
		return sub.Subscriptions(s.ctx)
	}
	names := make([]string, len(boxes))
	for i, m := range boxes {
		names[i] = m.Name
	}
	return names, nil
}

// namespace is NAMESPACE (RFC 9051 §6.3.10).
func (s *session) namespace() (result, error) {
	if !s.dec.ExpectCRLF() {
		return result{}, s.dec.Err()
	}
	s.enc.Atom(`* NAMESPACE (("" "/")) NIL NIL` + "\r\n")
	return result{}, nil
}
