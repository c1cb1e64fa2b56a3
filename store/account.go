package store

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Store opens accounts.
type Store interface {
	// Account returns the account as its owner sees it; ErrNotExist. It is
	// cheap: servers call it at each login and delivery at each recipient.
	Account(ctx context.Context, id string) (Account, error)
}

// Account is one account as one viewer sees it. Methods may be called from
// many goroutines and nodes.
//
// Each write is one atomic step, durable when it returned: nobody sees half of
// it, at no moment, and a crash leaves all of it or nothing. On error nothing
// happened, and no UID or ModSeq is missing for it; only after ErrUnavailable
// or a done ctx the outcome may be unknown. Stores retry their own conflicts.
// Conditions (UnchangedSince, IfAbsent, OnlyDeleted, Replace, a quota) are
// tested inside the write, so that of two writers who race one is the first.
//
// Reads see every write that returned before they began. ModSeqs come from
// one counter per account, UIDs from one per mailbox; both ascend strictly and
// become visible in order, and whatever was visible is never given out again.
// A mailbox's ModSeq is not below that of any of its messages and expunges; a
// write that changes nothing leaves it.
//
// An argument is the caller's again when the method returns, a result is the
// caller's; Flags.Keywords are shared and read-only. An unknown mailbox is
// ErrNotExist. UIDs that are not there are left out, and {1, MaxUID} is all.
type Account interface {
	// Mailboxes returns all, or those by ID, by name, or changed since a
	// ModSeq (deleted ones with Gone), in any order; those that are not there
	// are left out. through is read before the rows: it is the next
	// ChangedSince. ErrForgotten when what was deleted since is not known any
	// more: list all.
	Mailboxes(ctx context.Context, q MailboxQuery) (boxes []Mailbox, through ModSeq, err error)
	// CreateMailbox: ErrExist; names are opaque, unique UTF-8; ErrLimit for one
	// that is empty or too long, or a mailbox too many. Its UIDVALIDITY is one
	// that the account never had, not below the clock in seconds.
	CreateMailbox(ctx context.Context, m NewMailbox) (Mailbox, error)
	// UpdateMailboxes: all or none; names are unique after the whole, so two
	// can be swapped. ErrExist; ErrPermission for the name of Inbox. ID and
	// UIDVALIDITY stay.
	UpdateMailboxes(ctx context.Context, u ...MailboxUpdate) error
	// DeleteMailbox deletes it with its messages; the ID never returns.
	// ErrPermission for Inbox.
	DeleteMailbox(ctx context.Context, id MailboxID) error

	// Messages yields in ascending UID. No snapshot: each message present
	// throughout comes exactly once, in a state at or after the call; one that
	// comes or goes meanwhile may be yielded or not. Nothing is held between
	// pages: the loop may take minutes and may call any method. Summary and
	// Body die with the loop body. An error is yielded once, as the last turn.
	// A damaged Body or Summary is none: it is nil, and Open tells the error.
	Messages(ctx context.Context, box MailboxID, q Query) iter.Seq2[Message, error]
	// Changes returns the mailbox's ModSeq, read first, then the UIDs
	// expunged or moved away after since. With Messages{ChangedSince: since}
	// it is complete. ErrForgotten below Horizon, and only there.
	Changes(ctx context.Context, box MailboxID, since ModSeq) (Changes, error)
	// Open works by m.ID alone, also for the store's grace after an expunge
	// (ErrNotExist then), and gives the same octets each time. A Blob that is
	// open stays readable for the grace at least. ctx bounds its life. What is
	// damaged is ErrDamaged, from here or from ReadAt, and never short.
	Open(ctx context.Context, m Message) (Blob, error)

	// Append adds messages; their UIDs ascend in the order of d. SaveDate is
	// now; ThreadID is that of a message that one refers to or is referred to
	// by, else a new one, and never changes. ErrQuota, ErrTooBig, ErrLimit for
	// keywords; Replace: ErrNotExist.
	Append(ctx context.Context, box MailboxID, d []Draft, o AppendOptions) (Appended, error)
	// SetFlags: one ModSeq for all that change; no-ops keep theirs. Keywords
	// are text without regard to ASCII case, and keep the spelling that the
	// mailbox met first; at least 64 fit in one. Beyond: ErrLimit.
	SetFlags(ctx context.Context, box MailboxID, uids UIDSet, op FlagOp) (FlagResult, error)
	// Copy copies or moves; ID, ThreadID, flags and InternalDate are kept,
	// SaveDate is now. Into another account: Append with the Blob as Body.
	// ErrQuota (a move needs none), ErrLimit.
	Copy(ctx context.Context, from MailboxID, uids UIDSet, to MailboxID, o CopyOptions) (Copied, error)
	// Expunge removes; OnlyDeleted is tested inside the write.
	Expunge(ctx context.Context, box MailboxID, uids UIDSet, o ExpungeOptions) (Expunged, error)
}

// Errors of Store and Account. Test with errors.Is.
var (
	ErrNotExist    = errors.New("store: no such account, mailbox or message")
	ErrExist       = errors.New("store: already exists")
	ErrPermission  = errors.New("store: permission denied")
	ErrQuota       = errors.New("store: over quota")
	ErrLimit       = errors.New("store: limit reached") // keywords, mailboxes, name length
	ErrTooBig      = errors.New("store: message too big")
	ErrForgotten   = errors.New("store: history is forgotten") // list the mailbox anew
	ErrUnavailable = errors.New("store: unavailable")          // the outcome may be unknown
	ErrDamaged     = errors.New("store: damaged")              // what is kept cannot be read any more; all else can
)

// ModSeq is a point in an account's history (RFC 7162). 0 is before all.
type ModSeq uint64

// MailboxID identifies a mailbox for ever; at most 255 octets of RFC 8474's
// ObjectID alphabet.
type MailboxID string

// Inbox is in every account, always exists, and cannot be deleted or renamed.
const Inbox MailboxID = "INBOX"

// Commit is a mailbox's ModSeq before and after a write; equal = nothing
// changed.
type Commit struct{ Prev, ModSeq ModSeq }

// MailboxQuery selects mailboxes: the zero value all that exist, else the
// union of IDs and Names, or those changed after ChangedSince.
type MailboxQuery struct {
	IDs          []MailboxID
	Names        []string
	ChangedSince ModSeq
	Counts       bool // fill Mailbox.Counts
}

// Mailbox is one mailbox.
type Mailbox struct {
	ID          MailboxID
	Name        string
	UIDValidity uint32 // never changes
	UIDNext     UID    // greater than every UID that was ever visible
	// ModSeq is HIGHESTMODSEQ; metadata, renames and rights raise it too.
	ModSeq ModSeq
	// Horizon is the least ModSeq that Changes can start from; ModSeq itself
	// when the store keeps no history.
	Horizon ModSeq
	Recent  UID // first UID that no session has claimed as \Recent; 0 when the store does not track it
	// FirstUnseen is the UID of the first message without \Seen; 0 when there
	// is none, and always 0 when the store does not keep it: in tables it
	// would cost an index that each change of flags writes. A [View] tells it,
	// too, with its place, which is what IMAP4rev1's UNSEEN is (RFC 3501 §7.1).
	FirstUnseen UID
	SpecialUse  []string // \Sent, \Drafts, … (RFC 6154)
	Rights      Rights
	Counts      Counts
	Gone        bool // deleted; only ID and ModSeq are set
}

// Rights are RFC 4314's rights of the viewer as letters, "" = all of them.
type Rights string

// Counts are exact, and equal a recount at the mailbox's ModSeq.
type Counts struct {
	Messages, Unseen, Deleted int
	Size, DeletedSize         int64 // octets
}

// NewMailbox is what CreateMailbox creates.
type NewMailbox struct {
	Name       string
	SpecialUse []string
}

// MailboxUpdate changes one mailbox; nil fields stay.
type MailboxUpdate struct {
	ID         MailboxID
	Name       *string
	SpecialUse *[]string
}

// Query selects messages and what to load of them. UID, ModSeq, Flags, Size
// and ID are always there.
type Query struct {
	UIDs         UIDSet // nil = all
	ChangedSince ModSeq // only those with a greater ModSeq; 0 = all
	Fields       Fields
}

// Fields says what Messages loads beyond the minimum.
type Fields uint8

// The fields.
const (
	WithDates   Fields = 1 << iota // InternalDate, SaveDate
	WithIDs                        // ThreadID
	WithSummary                    // Summary
	WithBody                       // Body, where it is small enough to ride along
)

// Body is the bytes of a message. ReadAt may be called from many goroutines at
// once.
type Body interface {
	io.ReaderAt
	Size() int64
}

// Blob is an opened body.
type Blob interface {
	Body
	io.Closer
}

// Message is one message of a mailbox.
type Message struct {
	UID                    UID
	ModSeq                 ModSeq
	Flags                  Flags
	Size                   int64 // octets
	InternalDate, SaveDate time.Time
	ID, ThreadID           string // RFC 8474, as MailboxID; never used again; ThreadID "" = NIL
	Summary                []byte // opaque to the store; nil = none
	Body                   Body   // nil unless asked for and at hand
}

// Changes is what left a mailbox.
type Changes struct {
	ModSeq   ModSeq // the mailbox's, read before the rest
	UIDNext  UID
	Expunged UIDSet
}

// Draft is a message to be appended.
type Draft struct {
	// Head goes before Body: Open and WithBody give both as one, Size and
	// Summary cover both.
	Head []byte
	// Body that is a Blob or Staged of this Store is linked, with its ID
	// and ThreadID; of anything else Size octets are copied, while nobody
	// waits for it. When it cannot be read nothing is appended, and its error
	// is in the one returned; io.ErrUnexpectedEOF when it ends before Size. It
	// is the caller's again when Append returns.
	Body         Body
	Flags        Flags
	InternalDate time.Time // zero = now
	Summary      []byte
	MessageID    string   // for threads
	References   []string // for threads
}

// AppendOptions: Replace removes a message in the same step (RFC 8508). When
// it is gone: ErrNotExist, and nothing is appended; quota is net.
type AppendOptions struct {
	Replace struct {
		Box MailboxID
		UID UID
	}
}

// Appended is the result of Append; Messages are in the order of the drafts.
type Appended struct {
	Commit
	UIDValidity uint32
	Messages    []Message
	Replaced    Commit
}

// FlagMode says how a FlagOp changes flags.
type FlagMode uint8

// The modes.
const (
	AddFlags FlagMode = iota
	RemoveFlags
	ReplaceFlags
)

// FlagOp is a change of flags. UnchangedSince 0 = any, else those changed
// after it go to Modified; UnchangedSince is applied as RFC 7162 says, and
// IfAbsent sends those that carry a flag of Flags to Modified.
type FlagOp struct {
	Mode           FlagMode
	Flags          Flags
	UnchangedSince ModSeq
	IfAbsent       bool
}

// FlagResult: UIDs that really changed, and those refused by a condition.
type FlagResult struct {
	Commit
	Changed, Modified UIDSet
}

// CopyOptions: Move removes the source in the same step.
type CopyOptions struct{ Move bool }

// Copied is index-aligned: the n-th UID of Source became the n-th of Dest.
type Copied struct {
	From, To     Commit
	UIDValidity  uint32 // of the destination
	Source, Dest UIDSet
}

// ExpungeOptions: OnlyDeleted leaves messages without \Deleted.
type ExpungeOptions struct{ OnlyDeleted bool }

// Expunged says what was removed.
type Expunged struct {
	Commit
	UIDs UIDSet
}
