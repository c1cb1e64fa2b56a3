package store

import "context"

// View is a shared columnar index of one mailbox: UID, ModSeq, flags and size
// of each message, about 20 octets a message. It is safe for concurrent use.
// Sessions hold an immutable Snapshot of it and compare it with a newer one.
type View struct{}

// OpenView lists the mailbox.
func OpenView(ctx context.Context, acc Account, box MailboxID) (*View, error) { panic("todo") }

// Sync pulls what changed and returns the newest Snapshot.
func (v *View) Sync(ctx context.Context) (*Snapshot, error) { panic("todo") }

// Snapshot returns the newest known state without I/O.
func (v *View) Snapshot() *Snapshot { panic("todo") }

// Snapshot is one state of a mailbox. It never changes.
type Snapshot struct{}

// Len returns the number of messages; i below goes from 0 to Len-1 in
// ascending UID, so i+1 is IMAP's sequence number.
func (s *Snapshot) Len() int                   { panic("todo") }
func (s *Snapshot) UID(i int) UID              { panic("todo") }
func (s *Snapshot) Flags(i int) Flags          { panic("todo") }
func (s *Snapshot) MessageModSeq(i int) ModSeq { panic("todo") }
func (s *Snapshot) Size(i int) int64           { panic("todo") }

// Index returns the index of uid, or where it would stand and false.
func (s *Snapshot) Index(uid UID) (int, bool) { panic("todo") }

// ModSeq is the cursor: everything up to it is in the Snapshot.
func (s *Snapshot) ModSeq() ModSeq { panic("todo") }
func (s *Snapshot) UIDNext() UID   { panic("todo") }

// Keywords lists the keywords in use.
func (s *Snapshot) Keywords() []string { panic("todo") }
