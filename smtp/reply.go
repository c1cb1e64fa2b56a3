package smtp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// EnhancedCode is an enhanced status code such as 5.1.1 (RFC 3463). The zero
// value means that there is none.
type EnhancedCode [3]uint16

func (e EnhancedCode) String() string {
	if e == (EnhancedCode{}) {
		return ""
	}
	return strconv.Itoa(int(e[0])) + "." + strconv.Itoa(int(e[1])) + "." + strconv.Itoa(int(e[2]))
}

// Reply is one reply of a server (RFC 5321 §4.2). The zero Reply means "the
// usual reply here"; after a message that is 250 2.0.0 OK.
type Reply struct {
	Code     int
	Enhanced EnhancedCode
	// Text may have several lines, separated by \n, and has neither the
	// code nor the enhanced code in it.
	Text string
}

// String returns the reply on one line for logs and notices.
func (r Reply) String() string {
	s := strconv.Itoa(r.Code)
	if r.Enhanced != (EnhancedCode{}) {
		s += " " + r.Enhanced.String()
	}
	if r.Text != "" {
		s += " " + strings.ReplaceAll(r.Text, "\n", " ")
	}
	return s
}

// Positive reports a 2xx or 3xx reply.
func (r Reply) Positive() bool { return r.Code >= 200 && r.Code < 400 }

// Scope is what an error condemns, so that a queue knows what to hold back:
// greylisting speaks of one recipient, a refused connection of the host.
type Scope uint8

// The scopes, from narrow to wide.
const (
	ScopeRecipient Scope = iota // this recipient only
	ScopeMessage                // this message, for every recipient
	ScopeHost                   // the host that answered, or did not
	ScopeRoute                  // every host of the destination
)

func (s Scope) String() string {
	switch s {
	case ScopeRecipient:
		return "recipient"
	case ScopeMessage:
		return "message"
	case ScopeHost:
		return "host"
	case ScopeRoute:
		return "route"
	}
	return "scope " + strconv.Itoa(int(s))
}

// Error is a negative answer. Text goes to the peer; Err is the private
// cause and only goes to the log.
type Error struct {
	Code     int          // 4xx or 5xx
	Enhanced EnhancedCode // zero = none
	Text     string
	Scope    Scope
	// Unsure says that the final dot was sent and no reply came: the
	// message may or may not have been accepted (RFC 1047).
	Unsure bool
	Err    error
}

func (e *Error) Error() string {
	s := Reply{e.Code, e.Enhanced, e.Text}.String()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the private cause.
func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether trying again later may succeed (4xx).
func (e *Error) Temporary() bool { return e.Code < 500 }

// Reply returns what the peer may see of e.
func (e *Error) Reply() Reply { return Reply{e.Code, e.Enhanced, e.Text} }

// Errorf returns an *Error with a public text; an %w in format also becomes
// the private cause, so use it only for causes whose text the peer may read.
func Errorf(code int, enhanced EnhancedCode, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Enhanced: enhanced, Text: err.Error(), Err: errors.Unwrap(err)}
}

// ReplyFor turns any error into a reply: an *Error (also a wrapped one) gives
// its own, a done context 421, and anything else a neutral 451, so that
// nothing private reaches the wire. It is the only place that does so;
// servers translate the sentinels of other packages to *Error first.
func ReplyFor(err error) Reply {
	var e *Error
	switch {
	case err == nil:
		return Reply{250, EnhancedCode{2, 0, 0}, "OK"}
	case errors.As(err, &e):
		r := e.Reply()
		if r.Code < 400 || r.Code > 599 {
			r = Reply{451, EnhancedCode{4, 3, 0}, "Local error, try again later"}
		}
		if r.Text == "" {
			r.Text = "Refused"
			if r.Code < 500 {
				r.Text = "Try again later"
			}
		}
		return r
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Reply{421, EnhancedCode{4, 3, 2}, "Service not available, closing transmission channel"}
	}
	return Reply{451, EnhancedCode{4, 3, 0}, "Local error, try again later"}
}

// Result is the fate of one recipient at one hop. Results are index-aligned
// with the recipients they speak of.
type Result struct {
	// Err nil: whoever Hop names is responsible for the message now.
	Err error
	// Reply is the hop's own words, zero when it said nothing.
	Reply Reply
	// Hop is nil when no host was reached.
	Hop *Hop
}

// Hop is a host that was talked to.
type Hop struct {
	Name string         // the name it was looked up by
	Addr netip.AddrPort // the address reached
	TLS  uint16         // tls.VersionTLS13 …; 0 = plain text
	Auth string         // what was proven of its name: "", "pkix" or "dane"
	// TLSErr is why TLS, which was offered, was not used: the handshake
	// failed, and the message went in plain text.
	TLSErr error
	// AuthErr is why nothing was proven of its name although TLS is used.
	AuthErr error
	// DSN and DeliverBy say that the hop announced those extensions, so
	// that notices are its duty now (RFC 3461 §5.2.2, RFC 2852 §4.1.4).
	DSN, DeliverBy bool
}
