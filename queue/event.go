package queue

import (
	"time"

	"github.com/postrider/postrider/smtp"
)

// EventKind says what happened.
type EventKind uint8

// The kinds of events. Those of an entry have no To, all others speak of one
// recipient.
const (
	EventQueued     EventKind = iota + 1 // an entry was stored
	EventDelivered                       // the hop took it
	EventDeferred                        // it failed for now and is tried again
	EventFailed                          // it failed for good
	EventExpired                         // it became too old, or was tried too often
	EventDelayed                         // it is late: notices are sent if wanted
	EventHeld                            // an entry was set aside, by a rule or by hand
	EventReleased                        // a held entry goes on
	EventMoved                           // an entry was rerouted, or its recipient To was redirected
	EventDropped                         // an entry was removed by hand
	EventSuppressed                      // it must not be written to: it was not tried
)

func (k EventKind) String() string {
	switch k {
	case EventQueued:
		return "queued"
	case EventDelivered:
		return "delivered"
	case EventDeferred:
		return "deferred"
	case EventFailed:
		return "failed"
	case EventExpired:
		return "expired"
	case EventDelayed:
		return "delayed"
	case EventHeld:
		return "held"
	case EventReleased:
		return "released"
	case EventMoved:
		return "moved"
	case EventDropped:
		return "dropped"
	case EventSuppressed:
		return "suppressed"
	}
	return "unknown"
}

// Event is one step of a message's way.
type Event struct {
	ID      ID
	Kind    EventKind
	Time    time.Time
	Message *Message
	Entry   ID
	Lane    Lane
	From    smtp.Address
	// To is the recipient; zero = the event speaks of the entry.
	To smtp.Address
	// Attempt counts from 1; 0 = none was made yet.
	Attempt int
	// Result is the last result. When its error is Unsure, the message may
	// have been delivered although it is tried again.
	Result smtp.Result
	// Next is when it is tried again, in EventDeferred.
	Next time.Time
}
