package imapserver

import (
	"slices"
	"strconv"
	"strings"

	"github.com/postrider/postrider/imap"
	"github.com/postrider/postrider/store"
)

// systemFlags in the order of their bits.
var systemFlags = [...]struct {
	bit  store.SystemFlags
	name imap.Flag
}{
	{store.Answered, imap.FlagAnswered},
	{store.Flagged, imap.FlagFlagged},
	{store.Deleted, imap.FlagDeleted},
	{store.Seen, imap.FlagSeen},
	{store.DraftFlag, imap.FlagDraft},
}

const allSystemFlags = `\Answered \Flagged \Deleted \Seen \Draft`

// appendFlags appends the list of flags, with its parentheses.
func appendFlags(b []byte, f store.Flags, recent bool) []byte {
	b = append(b, '(')
	start := len(b)
	for i := range systemFlags {
		if f.System&systemFlags[i].bit != 0 {
			b = append(b, systemFlags[i].name...)
			b = append(b, ' ')
		}
	}
	for _, k := range f.Keywords {
		b = append(b, k...)
		b = append(b, ' ')
	}
	if recent {
		b = append(b, imap.FlagRecent...)
		b = append(b, ' ')
	}
	if len(b) > start {
		b = b[:len(b)-1]
	}
	return append(b, ')')
}

// flagsRoom is how many octets appendFlags needs at most for f.
func flagsRoom(f store.Flags) int {
	n := len(allSystemFlags) + len(imap.FlagRecent) + 8
	for _, k := range f.Keywords {
		n += len(k) + 1
	}
	return n
}

// writeFlags writes a FETCH response with the flags of message i of the
// mailbox, and its UID.
func (s *session) writeFlags(i int, row store.Row, uid bool) {
	b := s.enc.AppendBuffer(flagsRoom(row.Flags) + 64)
	b = append(b, "* "...)
	b = strconv.AppendUint(b, uint64(i+1), 10)
	b = append(b, " FETCH ("...)
	if uid {
		b = append(b, "UID "...)
		b = strconv.AppendUint(b, uint64(row.UID), 10)
		b = append(b, ' ')
	}
	b = append(b, "FLAGS "...)
	b = appendFlags(b, row.Flags, s.isRecent(row.UID))
	b = append(b, ")\r\n"...)
	s.enc.Raw(b)
}

func (s *session) isRecent(uid store.UID) bool {
	return len(s.box.recent) > 0 && !s.rev2 && s.box.recent.Contains(uid)
}

// writeFlagList writes the FLAGS response.
func (s *session) writeFlagList() {
	s.enc.Atom("* FLAGS (").Atom(allSystemFlags)
	s.writeKeywords()
	s.enc.Atom(")\r\n")
}

func (s *session) writeKeywords() {
	words := make([]string, 0, len(s.box.keywords))
	for k := range s.box.keywords {
		words = append(words, k)
	}
	slices.SortFunc(words, store.CompareKeywords)
	for _, k := range words {
		s.enc.SP().Atom(k)
	}
}

// maxKeyword is the longest keyword taken, in octets.
const maxKeyword = 128

// expectFlags takes a list of flags that can be set, or with bare a sequence
// of them without parentheses.
func (s *session) expectFlags(bare bool) (store.Flags, error) {
	var system store.SystemFlags
	var keywords []string
	one := func() bool {
		var f imap.Flag
		if !s.dec.ExpectFlag(&f) {
			return false
		}
		if f.IsKeyword() {
			if len(f) > maxKeyword {
				return s.dec.FailWith(&imap.Error{Type: imap.NO, Code: imap.CodeLimit, Text: "Keyword too long"})
			}
			if len(keywords) == 1000 {
				return s.dec.FailWith(&imap.Error{Type: imap.NO, Code: imap.CodeLimit, Text: "Too many keywords"})
			}
			keywords = append(keywords, strings.Clone(string(f)))
			return true
		}
		for i := range systemFlags {
			if systemFlags[i].name.Equal(f) {
				system |= systemFlags[i].bit
				return true
			}
		}
		return s.dec.Fail("unknown system flag")
	}
	if bare && !s.dec.Next('(') {
		for one() && s.dec.SP() {
		}
	} else {
		s.dec.ExpectList(one)
	}
	if err := s.dec.Err(); err != nil {
		return store.Flags{}, err
	}
	return store.NewFlags(system, keywords...), nil
}
