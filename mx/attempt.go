package mx

import (
	"net/netip"
	"time"

	"github.com/postrider/postrider/mx/mtasts"
	"github.com/postrider/postrider/smtp"
)

// Attempt is one try at a host, or at finding one: what a log and TLS reports
// (package tlsrpt) take.
type Attempt struct {
	Time time.Time
	// Domain is that of the recipients, an A-label or a literal.
	Domain string
	// Host is the mail exchanger's name; "" when none was reached for.
	Host string
	// Addr is where the connection went; invalid when there was none.
	Addr netip.AddrPort
	// Hop is what answered, nil when nothing did.
	Hop *smtp.Hop
	// STS is the MTA-STS policy that was in force, nil = none. STSErr says
	// why a policy that is announced could not be had, an *mtasts.Error.
	STS    *mtasts.Policy
	STSErr error
	// TLSA are the usable records that were in force, nil = none; an empty
	// list says that there were none usable.
	TLSA []TLSA
	// TLS says what was wrong with the security of the connection: the
	// policy was not met, or, without one, TLS failed. nil = nothing, or it
	// did not come to that.
	TLS error
	// Err is the first error of a recipient, nil when all were taken.
	Err error
}
