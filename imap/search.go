package imap

import "time"

// SearchCriteria is a conjunction of search keys (RFC 9051 §6.4.4); the zero
// value is ALL. Only the date of times counts, whatever their zone.
type SearchCriteria struct {
	Seqs, UIDs []NumSet
	Saved      bool // "$" (RFC 5182)

	Flags, NotFlags []Flag // \Recent is RECENT; NEW is RECENT UNSEEN

	Since, Before         time.Time // INTERNALDATE: on or after, before; zero = no condition
	SentSince, SentBefore time.Time // the Date field likewise

	Larger, Smaller int64 // octets, exclusive; 0 = no condition

	Header     []SearchHeader // FROM, TO, CC, BCC and SUBJECT too
	Body, Text []string

	Not []SearchCriteria
	Or  [][2]SearchCriteria
}

// SearchHeader matches messages with a field Name that contains Value; with
// Value "" those that have the field at all.
type SearchHeader struct{ Name, Value string }

// SearchOptions are the return options of SEARCH (RFC 9051 §6.4.4). The zero
// value asks for the form that the server's revision has by default.
type SearchOptions struct {
	ReturnMin, ReturnMax, ReturnAll, ReturnCount bool
	ReturnSave                                   bool // RFC 5182
	// Return tells RETURN () from no RETURN at all.
	Return bool
}

// SearchData is the SEARCH or ESEARCH response.
type SearchData struct {
	UID      bool
	All      NumSet // resolved
	Min, Max uint32 // 0 = not told
	Count    uint32
	HasCount bool
}
