package dmarcreport

import (
	"strings"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dmarc"
	"github.com/postrider/postrider/auth/verify"
)

// FromResult makes a message for the reports of what auth/verify found out and
// decided, as if that was done: its Message for a Collector, all of it for a
// FailureReporter. EnvelopeTo, EnvelopeID and Original are the caller's to add.
func FromResult(r *verify.Result) FailedMessage {
	m := FailedMessage{
		Message: Message{IP: r.Source.IP, DMARC: r.DMARC, SPF: r.SPF, DKIM: r.DKIM},
		Header:  r.Header,
	}
	switch r.Verdict.Action {
	case verify.Reject:
		m.Applied, m.DeliveryResult = dmarc.Reject, "reject"
	case verify.Quarantine:
		m.Applied, m.DeliveryResult = dmarc.Quarantine, "spam"
	default:
		m.Applied, m.DeliveryResult = dmarc.NoPolicy, "delivered"
	}
	if r.DMARC.Result != auth.Fail || m.Applied == r.DMARC.Disposition {
		return m
	}
	reason := Reason{ReasonType(r.Verdict.Override), r.Verdict.Reason}
	switch reason.Type {
	case LocalPolicy, MailingList, Other, TrustedForwarder:
	case "":
		reason.Type = LocalPolicy
	default:
		reason.Type = Other
	}
	if r.ARC != nil && r.ARC.Result == auth.Pass {
		// RFC 8617 §7.2.2.
		reason.Comment = strings.TrimSpace(reason.Comment + " " + r.ARC.String())
	}
	m.Reasons = []Reason{reason}
	return m
}
