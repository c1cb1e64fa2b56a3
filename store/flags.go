package store

// SystemFlags is a set of IMAP's system flags (RFC 9051 §2.3.2).
type SystemFlags uint8

// The system flags. \Recent is not one of them: see RecentClaimer.
const (
	Seen SystemFlags = 1 << iota
	Answered
	Flagged
	Deleted
	DraftFlag
)

// Flags are the flags and keywords of a message. Keywords are sorted, unique
// without regard to ASCII case, shared and read-only.
type Flags struct {
	System   SystemFlags
	Keywords []string
}
