package smtp

import "time"

// Envelope is what SMTP transfers beside the message: one reverse-path with
// its parameters, and the recipients with theirs (RFC 5321 §2.3.1).
type Envelope struct {
	From Address
	MailOptions
	To []Recipient
}

// Recipient is one forward-path with its parameters.
type Recipient struct {
	Address
	RcptOptions
}

// BodyType is the BODY parameter of MAIL (RFC 6152, RFC 3030).
type BodyType string

// The body types.
const (
	Body7Bit   BodyType = "7BIT"
	Body8Bit   BodyType = "8BITMIME"
	BodyBinary BodyType = "BINARYMIME"
)

// MailOptions are the parameters of MAIL. The zero value has none.
type MailOptions struct {
	// Size is the announced size in octets (RFC 1870); 0 = not given.
	Size int64
	// Body is "" when not given.
	Body BodyType
	// UTF8 says that the message needs SMTPUTF8 (RFC 6531): an address or
	// the header has 8-bit text.
	UTF8 bool
	// Auth is the decoded AUTH parameter (RFC 4954 §5): who submitted the
	// message first; "" = not given, "<>" = unknown. What a client claims is
	// to be believed of those only who may speak for others.
	Auth string
	// Return is RET: which part of the message a failure notice carries.
	Return DSNReturn
	// EnvelopeID is the decoded ENVID (RFC 3461 §4.4), at most 100 octets.
	EnvelopeID string
	// RequireTLS is REQUIRETLS (RFC 8689 §2): every hop must be verified.
	RequireTLS bool
	// TLSOptional is the header's "TLS-Required: No" (RFC 8689 §3); it is
	// never a parameter on the wire.
	TLSOptional bool
	// DeliverBy is the absolute time of DELIVERBY (RFC 2852); zero = none.
	DeliverBy time.Time
	// ByReturn is DELIVERBY's mode R: return the message when the time is
	// over; without it the mode is N, notify and go on. ByTrace asks each
	// hop for a notice that it relayed the message.
	ByReturn, ByTrace bool
	// HoldUntil is when a message may be released at the earliest
	// (FUTURERELEASE, RFC 4865); zero = at once. HoldRequest is how it was
	// asked for, "for;3600" or "until;2026-…": the Future-Release-Request of
	// a notice (RFC 4865 §5.1.2).
	HoldUntil   time.Time
	HoldRequest string
	// Priority is MT-PRIORITY (RFC 6710), -9 to 9; 0 = normal, or not given.
	// Whoever takes a positive one from a stranger breaks its §4.1.
	Priority int8
	// Solicit is SOLICIT (RFC 3865 §2.3): the solicitation class keywords,
	// separated by commas.
	Solicit string
}

// DSNReturn is the RET parameter (RFC 3461 §4.3).
type DSNReturn string

// What a failure notice returns.
const (
	ReturnFull    DSNReturn = "FULL"
	ReturnHeaders DSNReturn = "HDRS"
)

// Notify is the NOTIFY parameter (RFC 3461 §4.1) as a set; 0 = not given,
// which means failure (and, at the host's choice, delay).
type Notify uint8

// When the sender wants to hear of a recipient.
const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// RcptOptions are the parameters of RCPT. The zero value has none.
type RcptOptions struct {
	Notify Notify
	// OriginalType and Original are ORCPT (RFC 3461 §4.2), xtext decoded:
	// "rfc822" or "utf-8", and the address as it was first given.
	OriginalType, Original string
	// ValidSince is RRVS (RFC 7293): refuse when the mailbox may have
	// changed hands after that time; zero = not given. RelayUnchecked is its
	// ";C": a hop without RRVS may be given the message all the same.
	ValidSince     time.Time
	RelayUnchecked bool
}
