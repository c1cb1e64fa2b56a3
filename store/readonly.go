package store

import "context"

// ReadOnly is embedded by an [Account] that has nothing to write: its methods
// return ErrPermission.
type ReadOnly struct{}

// CreateMailbox returns ErrPermission.
func (ReadOnly) CreateMailbox(context.Context, NewMailbox) (Mailbox, error) {
	return Mailbox{}, ErrPermission
}

// UpdateMailboxes returns ErrPermission.
func (ReadOnly) UpdateMailboxes(context.Context, ...MailboxUpdate) error { return ErrPermission }

// DeleteMailbox returns ErrPermission.
func (ReadOnly) DeleteMailbox(context.Context, MailboxID) error { return ErrPermission }

// Append returns ErrPermission.
func (ReadOnly) Append(context.Context, MailboxID, []Draft, AppendOptions) (Appended, error) {
	return Appended{}, ErrPermission
}

// SetFlags returns ErrPermission.
func (ReadOnly) SetFlags(context.Context, MailboxID, UIDSet, FlagOp) (FlagResult, error) {
	return FlagResult{}, ErrPermission
}

// Copy returns ErrPermission.
func (ReadOnly) Copy(context.Context, MailboxID, UIDSet, MailboxID, CopyOptions) (Copied, error) {
	return Copied{}, ErrPermission
}

// Expunge returns ErrPermission.
func (ReadOnly) Expunge(context.Context, MailboxID, UIDSet, ExpungeOptions) (Expunged, error) {
	return Expunged{}, ErrPermission
}
