package imap

import "strings"

// Flag is a system flag (\Seen) or a keyword ($Forwarded). Flags are compared
// without regard to ASCII case: see [Flag.Equal].
type Flag string

// System flags (RFC 9051 §2.3.2).
const (
	FlagSeen     Flag = `\Seen`
	FlagAnswered Flag = `\Answered`
	FlagFlagged  Flag = `\Flagged`
	FlagDeleted  Flag = `\Deleted`
	FlagDraft    Flag = `\Draft`
	FlagRecent   Flag = `\Recent` // IMAP4rev1 only; never settable
	// FlagAny in PERMANENTFLAGS says that new keywords can be made.
	FlagAny Flag = `\*`
)

// Keywords with a registered meaning (RFC 9051 §2.3.2).
const (
	FlagForwarded Flag = "$Forwarded"
	FlagMDNSent   Flag = "$MDNSent"
	FlagJunk      Flag = "$Junk"
	FlagNotJunk   Flag = "$NotJunk"
	FlagPhishing  Flag = "$Phishing"
)

// Equal compares without regard to ASCII case.
func (f Flag) Equal(g Flag) bool { return strings.EqualFold(string(f), string(g)) }

// IsKeyword tells keywords from system flags.
func (f Flag) IsKeyword() bool { return f != "" && f[0] != '\\' }

// StoreMode says how STORE changes flags (RFC 9051 §6.4.6).
type StoreMode uint8

// The modes.
const (
	StoreReplace StoreMode = iota // FLAGS
	StoreAdd                      // +FLAGS
	StoreRemove                   // -FLAGS
)

// String returns the data item name without .SILENT.
func (m StoreMode) String() string {
	switch m {
	case StoreAdd:
		return "+FLAGS"
	case StoreRemove:
		return "-FLAGS"
	}
	return "FLAGS"
}
