package imapserver

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/store"
)

// delim is the hierarchy delimiter.
const delim = "/"

// maxName is the longest mailbox name taken, in octets; maxLevels bounds its
// hierarchy.
const (
	maxName   = 1000
	maxLevels = 50
)

// expectMailbox takes a mailbox name.
func (s *session) expectMailbox(name *string) bool {
	if !s.dec.ExpectMailbox(name) {
		return false
	}
	*name = inboxName(*name)
	return true
}

// inboxName writes INBOX, also as the first level of a name, in upper case.
func inboxName(name string) string {
	if len(name) >= 5 && strings.EqualFold(name[:5], "INBOX") && (len(name) == 5 || name[5] == '/') {
		return "INBOX" + name[5:]
	}
	return name
}

// spellings are the names that a client may mean by name: itself, and its
// normal form, which is how mailboxes are made here (RFC 9051 §5.1). A store
// that others fill may have names that are not normal.
func spellings(name string) []string {
	if n := norm.NFC.String(name); n != name {
		return []string{name, n}
	}
	return []string{name}
}

// newName checks a name for a mailbox to be made, takes a trailing delimiter
// off (RFC 9051 §6.3.4), and turns it into Net-Unicode (§5.1).
func newName(name string) (string, error) {
	name = norm.NFC.String(strings.TrimSuffix(name, delim))
	bad := name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.Count(name, delim) >= maxLevels
	for level := range strings.SplitSeq(name, delim) {
		bad = bad || level == ""
	}
	for _, r := range name {
		bad = bad || unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == utf8.RuneError || r == '*' || r == '%'
	}
	if bad {
		return "", no(imap.CodeCannot, "Not a name for a mailbox")
	}
	return name, nil
}

// findMailbox looks a mailbox up by name.
func (s *session) findMailbox(name string) (store.Mailbox, error) {
	return s.queryMailbox(name, store.MailboxQuery{})
}

// queryMailbox is findMailbox with what else q asks for.
func (s *session) queryMailbox(name string, q store.MailboxQuery) (store.Mailbox, error) {
	q.Names = spellings(name)
	if name == "INBOX" {
		q.Names, q.IDs = nil, []store.MailboxID{store.Inbox}
	}
	boxes, _, err := s.acc.Mailboxes(s.ctx, q)
	if err != nil {
		return store.Mailbox{}, err
	}
	var found *store.Mailbox
	for i := range boxes {
		if m := &boxes[i]; !m.Gone && (found == nil || m.Name == name) {
			found = m
		}
	}
	if found == nil {
		return store.Mailbox{}, errNoMailbox()
	}
	return s.named(*found), nil
}

// named gives the inbox IMAP's name for it, whatever the store calls it.
func (s *session) named(m store.Mailbox) store.Mailbox {
	if m.ID == store.Inbox {
		m.Name = "INBOX"
	}
	return m
}

// allMailboxes lists the account.
func (s *session) allMailboxes(counts bool) ([]store.Mailbox, error) {
	boxes, _, err := s.acc.Mailboxes(s.ctx, store.MailboxQuery{Counts: counts})
	if err != nil {
		return nil, err
	}
	out := boxes[:0]
	for _, m := range boxes {
		if !m.Gone {
			out = append(out, s.named(m))
		}
	}
	return out, nil
}

// isBelow tells whether name is under parent in the hierarchy.
func isBelow(name, parent string) bool {
	return len(name) > len(parent) && name[len(parent)] == '/' && name[:len(parent)] == parent
}

// matches tells whether name matches a LIST pattern (RFC 9051 §6.3.9): "*" is
// anything, "%" anything within a level. It takes time in the product of
// both lengths at worst.
func matches(pattern, name string) bool {
	// reach[i]: the pattern so far can have matched name[:i].
	reach := make([]bool, len(name)+1)
	reach[0] = true
	for p := range len(pattern) {
		c := pattern[p]
		switch c {
		case '*', '%':
			on := false
			for i := range reach {
				if i > 0 && on && c == '%' && name[i-1] == '/' {
					on = false
				}
				on = on || reach[i]
				reach[i] = on
			}
		default:
			for i := len(name); i > 0; i-- {
				reach[i] = reach[i-1] && name[i-1] == c
			}
			reach[0] = false
		}
	}
	return reach[len(name)]
}
