package smtpclient

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
)

// Body is a message: header, empty line and text, with CRLF line ends.
// *bytes.Reader, *strings.Reader and *io.SectionReader are bodies. ReadAt may
// be called after a failed attempt again, from the beginning.
type Body = interface {
	io.ReaderAt
	Size() int64
}

// Security is what a connection must offer before mail is sent on it, and
// what it has proven.
type Security uint8

const (
	// Opportunistic uses STARTTLS where it is offered, with whatever
	// certificate the peer has, and plain text where it is not or where the
	// handshake fails (RFC 7435). A Target with Auth asks for Verified
	// instead, unless Auth.Insecure is set.
	Opportunistic Security = iota
	// Plain never uses STARTTLS.
	Plain
	// Encrypted needs TLS, with any certificate.
	Encrypted
	// Verified needs TLS and a certificate that the Dialer's TLS
	// configuration accepts for the Target's Name.
	Verified
)

func (s Security) String() string {
	switch s {
	case Opportunistic:
		return "opportunistic"
	case Plain:
		return "plain"
	case Encrypted:
		return "encrypted"
	case Verified:
		return "verified"
	}
	return "unknown"
}

// enough reports whether a connection that has proven s may serve need.
func (s Security) enough(need Security) bool {
	return need <= Plain || s >= need
}

// Target says where to connect and what to insist on. It is comparable.
type Target struct {
	// Addr is host:port, or the absolute path of a Unix socket.
	Addr string
	// Name is the peer's name: it is asked for in TLS, its certificate is
	// verified against it, and results name it. "" = the host of Addr.
	Name string
	// Source is the local IP address to connect from; the zero Addr leaves
	// the choice to the system. It cannot be used with Dialer.DialContext.
	Source netip.Addr
	// Group names the connections that share Pool.MaxGroup; "" = Addr.
	Group string
	// Need is the security to insist on.
	Need Security
	// Verifier decides in place of the Dialer's TLS configuration what
	// Verified means; nil = that does.
	Verifier *Verifier
	// ImplicitTLS begins with the TLS handshake, as port 465 does (RFC 8314).
	ImplicitTLS bool
	// LMTP speaks LMTP (RFC 2033) instead of SMTP.
	LMTP bool
	// Auth logs in; nil = no login.
	Auth *Auth
}

// Verifier says whether a connection is to whom it should be, by other means
// than certificate authorities: DANE (RFC 7672), a pinned key.
type Verifier struct {
	// Key names what is verified: a connection that was verified for a Key is
	// used again for targets whose Verifier has an equal one.
	Key string
	// Auth is what results say of it, in smtp.Hop.Auth: "dane".
	Auth string
	// Verify returns nil if the connection is good. It is called in the
	// handshake, for each connection that Verifier is set for.
	Verify func(tls.ConnectionState) error
}

func (v *Verifier) key() string {
	if v == nil {
		return ""
	}
	return v.Key
}

// need is Need, raised when a password would be shown.
func (t *Target) need() Security {
	if t.Need == Opportunistic && t.Auth != nil && !t.Auth.Insecure {
		return Verified
	}
	return t.Need
}

func (t *Target) network() string {
	if strings.HasPrefix(t.Addr, "/") {
		return "unix"
	}
	return "tcp"
}

func (t *Target) name() string {
	if t.Name != "" {
		return strings.TrimSuffix(t.Name, ".")
	}
	host, _, err := net.SplitHostPort(t.Addr)
	if err != nil {
		return t.Addr
	}
	return strings.TrimSuffix(host, ".")
}

func (t *Target) group() string {
	if t.Group != "" {
		return t.Group
	}
	return t.Addr
}
