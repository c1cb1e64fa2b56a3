// Package login answers one question for every server: who is this user?
//
// An [Authenticator] runs SASL mechanisms (RFC 4422) and yields an
// [Identity]; the same value serves SMTP, IMAP and POP3. Servers see the
// identity and never a password. [Passwords] runs PLAIN, LOGIN, SCRAM with and
// without channel binding, and CRAM-MD5; [Tokens] OAUTHBEARER and XOAUTH2;
// [Certificates] EXTERNAL; [Anonymous] is for guests, and [All] makes one of
// several. [Credentials] is the client's side of all of them.
package login

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"time"

	"github.com/emersion/go-sasl"
)

// Conn is what a mechanism may know of the connection it runs on.
type Conn struct {
	Protocol      string // "smtp", "imap" or "pop3"
	Local, Remote netip.AddrPort
	TLS           *tls.ConnectionState // nil = plain text
	Cert          *x509.Certificate    // the certificate that we sent, for channel binding
}

// Identity is who logged in.
type Identity struct {
	User      string    // the account that the session acts as (authorization identity)
	Login     string    // the name that proved itself (authentication identity)
	Mechanism string    // "PLAIN", "SCRAM-SHA-256", …
	Expires   time.Time // end of a token's life; zero = none
	Value     any       // the adopter's own, passed through untouched
}

// Authenticator starts exchanges. It is used from many goroutines.
type Authenticator interface {
	// Mechanisms lists what is offered on c, best first. It is a pure
	// function of c: with or without TLS, certificate, protocol.
	Mechanisms(c *Conn) []string
	// Start begins one exchange. ctx bounds every look-up made by it.
	// ErrMechanism when mech is not offered on c.
	Start(ctx context.Context, mech string, c *Conn) (Exchange, error)
}

// Exchange is one run of a mechanism. Next takes the client's response (nil =
// none was sent, which differs from an empty one) as sasl.Server says.
type Exchange interface {
	sasl.Server
	// Identity is valid once Next returned done and no error.
	Identity() Identity
}

// Errors of an exchange. Servers translate them to their protocol's replies;
// any other error means that the user database could not be asked, and the
// client may try again later.
var (
	ErrCredentials = errors.New("login: invalid credentials")   // wrong user or password; which, is not told
	ErrMechanism   = errors.New("login: mechanism not offered") // unknown, or not on this connection
	ErrMalformed   = errors.New("login: malformed response")    // the client broke the mechanism's syntax
	ErrTooMany     = errors.New("login: too many attempts")     // this user or address has to wait
)
