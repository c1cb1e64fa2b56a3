package store

import (
	"context"
	"io"
)

// What follows is optional: a Store or Account that has it, or wraps one that
// has (see As), is asked for it. Where a helper of this package stands beside
// an interface, call the helper: it falls back when the interface is not there.

// Admin is a [Store] that makes and removes accounts.
type Admin interface {
	// CreateAccount makes an account with an empty Inbox; ErrExist.
	CreateAccount(ctx context.Context, id string) error
	// DeleteAccount removes it with its mail; ErrNotExist. Handles to it
	// return ErrNotExist from then on, also when it is created again.
	DeleteAccount(ctx context.Context, id string) error
}

// Stager is a [Store] that keeps a body before it is known where it goes, so
// that it is written once. See [Stage].
type Stager interface {
	// Stage opens a place for one body; size is a hint in octets, -1 unknown.
	Stage(ctx context.Context, size int64) (Staged, error)
}

// Staged is a body on its way into a Store: written once from one goroutine,
// then given to any number of Appends as Draft.Body, and read like any Body.
// Close gives the place back; what was appended stays. It may be called more
// than once.
type Staged interface {
	io.Writer
	Body
	Close() error
}

// Deliverer is a [Store] that adds one message to many accounts in one step.
// See [Deliver].
type Deliverer interface {
	// Deliver appends d to each target; the errors are index-aligned with
	// the targets, and each target succeeds or fails alone. Target.Once is
	// tested inside the write.
	Deliver(ctx context.Context, d Draft, targets []Target) []error
}

// Target is one mailbox that a message is delivered to.
type Target struct {
	Account string
	Mailbox MailboxID // "" = Inbox
	Flags   Flags     // added to the Draft's
	Head    []byte    // goes before the Draft's Head and Body
	// Once names this delivery: an account that has taken one of the same
	// name within the store's memory (a day or more where it can be told)
	// takes no second copy, and no error is reported. "" = always deliver.
	Once string
	// Summary covers Head, the Draft's Head and Body together; nil = none.
	// The Draft's own Summary is used when Head is empty.
	Summary []byte
}

// Watcher is an [Account] that tells of commits. See [Watch].
type Watcher interface {
	// Watch calls f after every commit to the account, from whatever handle
	// or node, soon; calls may come without reason, and several commits may
	// share one. f must not block and must not call stop. Once stop has
	// returned f is not called any more.
	Watch(f func()) (stop func())
}

// Subscriber is an [Account] that keeps the list of subscribed names (RFC
// 9051 §6.3.7). A name needs no mailbox, and outlives it.
type Subscriber interface {
	Subscriptions(ctx context.Context) ([]string, error) // sorted
	Subscribe(ctx context.Context, name string) error    // again is no error
	Unsubscribe(ctx context.Context, name string) error  // nor is this
}

// RecentClaimer is an [Account] that tracks IMAP4rev1's \Recent (RFC 3501
// §2.3.2): each message is recent to the first session that claims it.
type RecentClaimer interface {
	// ClaimRecent claims what nobody has claimed yet: the messages with
	// from <= UID < to are recent to the caller alone. It changes no ModSeq.
	ClaimRecent(ctx context.Context, box MailboxID) (from, to UID, err error)
}

// Quoter is an [Account] with a quota on its storage (RFC 9208).
type Quoter interface {
	Quota(ctx context.Context) (Quota, error)
}

// Quota is what is used and what may be, in octets of messages; Limit 0 is no
// limit.
type Quota struct{ Used, Limit int64 }

// SummaryWriter is an [Account] that takes a Summary computed later.
type SummaryWriter interface {
	// WriteSummary keeps a Summary for message m, found by m.ID; ErrNotExist.
	// It changes no ModSeq.
	WriteSummary(ctx context.Context, m Message, summary []byte) error
}

// Importer is an [Account] that takes mail over with the UIDs it had elsewhere,
// so that what IMAP clients hold of it stays true.
type Importer interface {
	// ImportMailbox makes the mailbox m.Name with m.SpecialUse if there is
	// none, gives it m.UIDValidity, and raises its UIDNext to m.UIDNext and
	// its ModSeq above m.ModSeq, so that each later change is news to whoever
	// knows the old place. A mailbox that had no message gets its Horizon
	// raised too. UIDs passed over, here and by Import, count as expunged:
	// clients may have met them at the old place. ErrExist: it has another UIDVALIDITY, and had messages.
	ImportMailbox(ctx context.Context, m Mailbox) (Mailbox, error)
	// Import is Append with UIDs, index-aligned with d. They ascend, and none
	// is below UIDNext; else ErrExist, and nothing is appended.
	Import(ctx context.Context, box MailboxID, uids []UID, d []Draft) (Appended, error)
}

// Draft returns d as it goes to t: with t's Head, Flags and Summary.
func (t *Target) Draft(d Draft) Draft {
	if len(t.Head) > 0 {
		d.Head = append(append(make([]byte, 0, len(t.Head)+len(d.Head)), t.Head...), d.Head...)
		d.Summary = t.Summary
	}
	d.Flags = d.Flags.With(t.Flags)
	return d
}

// Searcher is an [Account] that narrows a search in the text of messages down.
// Servers look through what it gives, so it may give too much; whoever asks
// does without it when it fails.
type Searcher interface {
	// Candidates finds messages of box by what is in them. Every message
	// with a UID of at most through that has all the terms is in uids; those
	// above through count as found, so an index may lag behind. through 0 =
	// nothing is known.
	Candidates(ctx context.Context, box MailboxID, terms []Term) (uids UIDSet, through UID, err error)
}

// Term is a text, not empty, that a message has in it: somewhere in what
// mime/searchtext makes of it, and found as that says, without regard to case.
type Term struct {
	// Field is the header field that has it in its value; "" = the text is
	// anywhere. Who has no fields looks everywhere for those too.
	Field string
	Text  string
}
