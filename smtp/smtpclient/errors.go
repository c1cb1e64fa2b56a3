package smtpclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/postrider/postrider/smtp"
)

// Causes that a caller may look for with errors.Is in the *smtp.Error of a
// result or of Dial.
var (
	// ErrTLSRequired: the target needs TLS, and the peer does not offer it.
	ErrTLSRequired = errors.New("smtpclient: peer does not offer STARTTLS")
	// ErrInsecureAuth: the mechanism would show the password, and the
	// connection is not TLS with a verified certificate.
	ErrInsecureAuth = errors.New("smtpclient: refusing to show the password on an unverified connection")
	// ErrNoMechanism: the peer announces no mechanism that Auth can use.
	ErrNoMechanism = errors.New("smtpclient: no usable authentication mechanism")
	// ErrAuth: the peer refused the login.
	ErrAuth = errors.New("smtpclient: login refused")
	// ErrProtocol: the peer's answer is not SMTP, or is beyond the limits.
	ErrProtocol = errors.New("smtpclient: protocol violation")
	// ErrExtension: the message needs an extension that the peer lacks.
	ErrExtension = errors.New("smtpclient: extension not offered")
	// ErrClosed: the Conn or the Pool was closed.
	ErrClosed = errors.New("smtpclient: closed")
)

// TLSError is a TLS handshake that failed.
type TLSError struct{ Err error }

func (e *TLSError) Error() string { return "smtpclient: TLS handshake: " + e.Err.Error() }

// Unwrap returns what crypto/tls said.
func (e *TLSError) Unwrap() error { return e.Err }

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)
}

// lost turns an I/O error into the error of whoever waited for the peer. The
// text is public (it ends up in notices), the cause is not.
func lost(ctx context.Context, err error) *smtp.Error {
	e := &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 4, 2}, Text: "Connection lost", Scope: smtp.ScopeHost, Err: err}
	switch {
	case ctx.Err() != nil:
		e.Text = "Delivery was interrupted"
		e.Err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		if errors.Is(ctx.Err(), context.Canceled) {
			e.Scope = smtp.ScopeRecipient // the host is not to blame
		}
	case errors.Is(err, ErrClosed):
		e.Text, e.Scope = "Delivery was interrupted", smtp.ScopeRecipient
	case errors.Is(err, ErrProtocol):
		e.Enhanced, e.Text = smtp.EnhancedCode{4, 5, 0}, "Host does not follow the protocol"
	case isTimeout(err):
		e.Text = "Timed out waiting for host"
	}
	return e
}

// interrupted is for what waited for its turn, not for the host.
func interrupted(ctx context.Context) *smtp.Error {
	e := lost(ctx, ctx.Err())
	e.Scope = smtp.ScopeRecipient // the host is not to blame for our queue
	return e
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// refusal is the error for a negative reply. scope is what the command speaks
// of; the enhanced code and 421 can show that it is the host itself.
func refusal(r smtp.Reply, scope smtp.Scope) *smtp.Error {
	e := &smtp.Error{Code: r.Code, Enhanced: r.Enhanced, Text: r.Text, Scope: scope}
	switch {
	case r.Code == 421:
		e.Scope = smtp.ScopeHost
	case r.Code < 500 && r.Enhanced[1] == 3 && r.Enhanced[2] != 4 && scope < smtp.ScopeHost:
		e.Scope = smtp.ScopeHost // X.3.X: mail system status (RFC 3463 §3.4)
	}
	return e
}

// hostRefusal is the error for a reply that ends the connection's use.
func hostRefusal(r smtp.Reply) *smtp.Error {
	if r.Code < 400 || r.Code > 599 {
		return lost(context.Background(), violation("unexpected reply %v", r))
	}
	return refusal(r, smtp.ScopeHost)
}

func fill(results []smtp.Result, idx []int, r smtp.Result) {
	for _, i := range idx {
		results[i] = r
	}
}

// unsent is the results of n recipients when no connection came about. hop is
// nil if no host was reached; a bare error, without a cause, is its own words.
func unsent(n int, hop *smtp.Hop, err error) []smtp.Result {
	res := smtp.Result{Err: err, Hop: hop}
	var e *smtp.Error
	if hop != nil && errors.As(err, &e) && e.Err == nil {
		res.Reply = e.Reply()
	}
	results := make([]smtp.Result, n)
	for i := range results {
		results[i] = res
	}
	return results
}
