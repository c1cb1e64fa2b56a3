package report

import (
	"errors"
	"io"
	"time"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

// ErrNoReport says that a message holds no delivery status (RFC 3464).
var ErrNoReport = errors.New("report: message has no delivery status")

// ErrIncomplete says that a report cannot be written because it lacks
// something that it must have, such as the reporting MTA of a DSN and at least
// one recipient with an action.
var ErrIncomplete = errors.New("report: something required is missing")

// Action is what was done for a recipient (RFC 3464 §2.3.3).
type Action string

// The actions.
const (
	Failed    Action = "failed"    // not delivered, and given up
	Delayed   Action = "delayed"   // not delivered yet
	Delivered Action = "delivered" // in the mailbox
	Relayed   Action = "relayed"   // handed to a host that sends no notices
	Expanded  Action = "expanded"  // delivered and sent on to more addresses
)

// DSN is a delivery status notification (RFC 3464). The comments name its
// fields.
type DSN struct {
	// ReportingMTA is the host that made the notice (Reporting-MTA); it must
	// be set. Names of hosts are of the type "dns", which is not written
	// here; of other types the whole is kept: "x-local; box".
	ReportingMTA string
	// ReceivedFrom is the host the message came from (Received-From-MTA).
	ReceivedFrom string
	// Arrival is when it came (Arrival-Date); zero = not told.
	Arrival time.Time
	// EnvelopeID is the ENVID of the message, decoded
	// (Original-Envelope-Id).
	EnvelopeID string
	// DeliverBy is when the sender wanted it delivered (Deliver-By-Date,
	// RFC 2852 §5); zero = not told.
	DeliverBy time.Time
	// FutureRelease is how the sender asked to have it held
	// (Future-Release-Request, RFC 4865 §5.1.2): "for;3600".
	FutureRelease string
	// Recipients are told of one by one.
	Recipients []Recipient

	// UTF8 writes the notice as RFC 6533 has it, for a sender who takes
	// SMTPUTF8: as message/global-delivery-status with addresses in UTF-8.
	// Without it such addresses are escaped.
	UTF8 bool
	// Text is what people read; "" = a text made from the rest. Read sets it
	// to the first part that is plain text.
	Text string

	// OriginalHeader is the header of the message that the notice is about.
	OriginalHeader mime.Header
	// Original opens that message in full; nil = only its header is
	// returned. So it is when the message has lines that cannot be carried
	// within another one. It may be called more than once.
	Original func() (io.ReadCloser, error)
}

// Recipient is what became of one recipient (RFC 3464 §2.3).
type Recipient struct {
	// Final is the address that the reporting MTA used (Final-Recipient);
	// FinalType is its type in lower case, "" = rfc822, or utf-8 when it is
	// not ASCII.
	Final, FinalType string
	// Original is the address as the sender gave it (Original-Recipient),
	// "" = not known; the type is as above.
	Original, OriginalType string
	Action                 Action
	// Status is the enhanced code (Status); the zero one is written as
	// "x.0.0" of the class that Action has.
	Status smtp.EnhancedCode
	// RemoteMTA is the host that gave the answer (Remote-MTA), "" = none.
	RemoteMTA string
	// Diagnostic is the answer itself (Diagnostic-Code), and its type in
	// lower case, "" = smtp.
	Diagnostic, DiagnosticType string
	// LastAttempt (Last-Attempt-Date) and RetryUntil (Will-Retry-Until) are
	// zero when not told.
	LastAttempt, RetryUntil time.Time
}
