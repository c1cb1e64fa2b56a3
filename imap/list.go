package imap

// MailboxAttr is an attribute of a mailbox in LIST (RFC 9051 §7.3.1).
type MailboxAttr string

// Attributes.
const (
	AttrNonExistent   MailboxAttr = `\NonExistent`
	AttrNoInferiors   MailboxAttr = `\Noinferiors`
	AttrNoSelect      MailboxAttr = `\Noselect`
	AttrHasChildren   MailboxAttr = `\HasChildren`
	AttrHasNoChildren MailboxAttr = `\HasNoChildren`
	AttrMarked        MailboxAttr = `\Marked`
	AttrUnmarked      MailboxAttr = `\Unmarked`
	AttrSubscribed    MailboxAttr = `\Subscribed`
	AttrRemote        MailboxAttr = `\Remote`

	// Special use (RFC 6154).
	AttrAll       MailboxAttr = `\All`
	AttrArchive   MailboxAttr = `\Archive`
	AttrDrafts    MailboxAttr = `\Drafts`
	AttrFlagged   MailboxAttr = `\Flagged`
	AttrJunk      MailboxAttr = `\Junk`
	AttrSent      MailboxAttr = `\Sent`
	AttrTrash     MailboxAttr = `\Trash`
	AttrImportant MailboxAttr = `\Important` // RFC 8457
)

// ListOptions are the selection and return options of LIST (RFC 5258, RFC
// 5819, RFC 6154). The zero value is the plain command.
type ListOptions struct {
	SelectSubscribed     bool
	SelectRemote         bool
	SelectRecursiveMatch bool // only beside SelectSubscribed or SelectSpecialUse
	SelectSpecialUse     bool

	ReturnSubscribed bool
	ReturnChildren   bool
	ReturnSpecialUse bool
	ReturnStatus     []StatusItem // RFC 5819
}

// ListData is one LIST or LSUB response.
type ListData struct {
	Attrs     []MailboxAttr
	Delim     rune // 0 = no hierarchy (NIL)
	Mailbox   string
	ChildInfo []string    // CHILDINFO criteria, such as "SUBSCRIBED" (RFC 5258 §4)
	OldName   string      // RFC 9051 §6.3.9.7
	Status    *StatusData // of LIST-STATUS, when the client joined it to the entry
}

// Has tells whether a is among the attributes.
func (d *ListData) Has(a MailboxAttr) bool {
	for _, x := range d.Attrs {
		if Flag(x).Equal(Flag(a)) {
			return true
		}
	}
	return false
}

// NamespaceData is the NAMESPACE response (RFC 9051 §6.3.10).
type NamespaceData struct {
	Personal, Other, Shared []Namespace
}

// Namespace is one namespace.
type Namespace struct {
	Prefix string
	Delim  rune // 0 = NIL
}

// StatusItem is a data item of STATUS (RFC 9051 §6.3.11).
type StatusItem string

// Items.
const (
	StatusMessages      StatusItem = "MESSAGES"
	StatusUIDNext       StatusItem = "UIDNEXT"
	StatusUIDValidity   StatusItem = "UIDVALIDITY"
	StatusUnseen        StatusItem = "UNSEEN"
	StatusDeleted       StatusItem = "DELETED"
	StatusSize          StatusItem = "SIZE"
	StatusRecent        StatusItem = "RECENT"        // RFC 3501
	StatusHighestModSeq StatusItem = "HIGHESTMODSEQ" // RFC 7162
)

// StatusData is the STATUS response; Items holds what was sent.
type StatusData struct {
	Mailbox string
	Items   map[StatusItem]uint64
}

// SelectData is what SELECT and EXAMINE tell (RFC 9051 §6.3.2).
type SelectData struct {
	Flags, PermanentFlags []Flag
	Messages              uint32
	Recent                uint32 // RFC 3501
	FirstUnseen           uint32 // sequence number, RFC 3501; 0 = not told
	UIDNext, UIDValidity  uint32
	HighestModSeq         uint64 // RFC 7162; 0 = not told
	ReadOnly              bool
	List                  *ListData // RFC 9051; nil = not told
}

// AppendData is the APPENDUID response code (RFC 4315 §3). The zero value
// means that the server did not tell.
type AppendData struct {
	UIDValidity uint32
	UIDs        NumSet
}

// CopyData is the COPYUID response code (RFC 4315 §3): the n-th UID of Source
// became the n-th of Dest.
type CopyData struct {
	UIDValidity  uint32
	Source, Dest NumSet
}
