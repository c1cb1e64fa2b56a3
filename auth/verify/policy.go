package verify

import (
	"context"
	"errors"

	"github.com/postrider/postrider/auth/dmarc"
)

// Action is what is to be done with a message.
type Action string

// The actions.
const (
	Accept     Action = "accept"
	Quarantine Action = "quarantine" // take it, and put it with the junk
	Reject     Action = "reject"     // refuse it before it is ours
)

// Verdict is what a Policy says of a message. The zero Verdict accepts it.
type Verdict struct {
	Action Action // "" = Accept
	// Reason is why, in a few words; they may reach the peer and the
	// reports.
	Reason string
	// Override says for the reports why Action is not what the domain in From
	// asks for, in the words of dmarcreport.ReasonType (RFC 9990 §3.1.6):
	// trusted_forwarder, mailing_list, other; "" = local_policy. It means
	// nothing when Action is what the domain asks for.
	Override string
}

// DMARCPolicy is the Policy of a Verifier that has none: what the domain in
// From asks for is done (RFC 9989 §5.3). Others fall back on it. RFC 9989 §5.4 advises
// receivers to know better than to reject on that ground alone.
func DMARCPolicy(ctx context.Context, r *Result) Verdict {
	ev := r.DMARC
	reason := "DMARC failed for " + ev.Domain
	if errors.Is(ev.Err, dmarc.ErrManyAuthors) {
		reason = "Too many author domains in From"
	}
	switch ev.Disposition {
	case dmarc.Quarantine:
		return Verdict{Action: Quarantine, Reason: reason}
	case dmarc.Reject:
		return Verdict{Action: Reject, Reason: reason}
	}
	return Verdict{Action: Accept}
}
