package imapserver

import (
	"github.com/postrider/postrider/imap"
)

// parseList takes the arguments of LIST and LSUB.
func (s *session) parseList(r *listRequest) error {
	d := s.dec
	if !d.ExpectSP() {
		return d.Err()
	}
	other := false // a selection option that RECURSIVEMATCH can stand beside
	if d.List(func() bool {
		var opt string
		if !d.ExpectKeyword(&opt) {
			return false
		}
		switch opt {
		case "SUBSCRIBED":
			r.SelectSubscribed, other = true, true
		case "SPECIAL-USE":
			r.SelectSpecialUse, other = true, true
		case "REMOTE":
			r.SelectRemote = true // there are none: nothing is added
		case "RECURSIVEMATCH":
			r.SelectRecursiveMatch = true
		default:
			return d.Fail("unknown selection option")
		}
		return true
	}) {
		r.extended = true
		if !d.ExpectSP() {
			return d.Err()
		}
	}
	if d.Err() != nil {
		return d.Err()
	}
	if r.SelectRecursiveMatch && !other {
		d.Fail("RECURSIVEMATCH needs another selection option")
		return d.Err()
	}
	if !d.ExpectMailbox(&r.reference) || !d.ExpectSP() {
		return d.Err()
	}
	room := maxPattern
	pattern := func() bool {
		var p string
		if !d.ExpectListMailbox(&p) {
			return false
		}
		room -= len(r.reference) + len(p)
		if len(r.patterns) == maxPatterns || len(p) > maxName || room < 0 {
			return d.Fail("too many or too long patterns")
		}
		r.patterns = append(r.patterns, p)
		return true
	}
	if d.List(pattern) {
		r.extended = true
		if len(r.patterns) == 0 {
			d.Fail("no pattern")
		}
	} else if d.Err() == nil {
		pattern()
	}
	if d.SP() {
		r.extended = true
		s.parseListReturn(r)
	}
	if !d.ExpectCRLF() {
		return d.Err()
	}
	for i, p := range r.patterns {
		// A reference is put before the pattern, whatever the latter is: names
		// have no root here. An empty pattern of an extended LIST is a name.
		if p != "" || r.extended {
			also := spellings(inboxName(r.reference + p))
			r.patterns[i] = also[0]
			r.patterns = append(r.patterns, also[1:]...)
		}
	}
	return nil
}

// parseListReturn takes RETURN (…).
func (s *session) parseListReturn(r *listRequest) bool {
	d := s.dec
	var word string
	if !d.ExpectKeyword(&word) || word != "RETURN" {
		return d.Fail("expected RETURN")
	}
	return d.ExpectSP() && d.ExpectList(func() bool {
		var opt string
		if !d.ExpectKeyword(&opt) {
			return false
		}
		switch opt {
		case "SUBSCRIBED":
			r.ReturnSubscribed = true
		case "CHILDREN":
			r.ReturnChildren = true // they are always told
		case "SPECIAL-USE":
			r.ReturnSpecialUse = true // so are they
		case "STATUS":
			return d.ExpectSP() && s.expectStatusItems(&r.ReturnStatus)
		default:
			return d.Fail("unknown return option")
		}
		return true
	})
}

// expectStatusItems takes the list of STATUS.
func (s *session) expectStatusItems(items *[]imap.StatusItem) bool {
	if !s.dec.ExpectList(func() bool {
		var w string
		if !s.dec.ExpectKeyword(&w) {
			return false
		}
		item := imap.StatusItem(w)
		switch item {
		case imap.StatusMessages, imap.StatusUIDNext, imap.StatusUIDValidity, imap.StatusUnseen,
			imap.StatusDeleted, imap.StatusSize, imap.StatusRecent:
		default:
			return s.dec.Fail("unknown status item")
		}
		if len(*items) == 20 {
			return s.dec.Fail("too many status items")
		}
		*items = append(*items, item)
		return true
	}) {
		return false
	}
	return len(*items) > 0 || s.dec.Fail("no status item")
}
