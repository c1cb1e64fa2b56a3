package mx

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/postrider/postrider/internal/dnserr"
	"github.com/postrider/postrider/mx/dane"
)

// Resolver is the DNS that routes need; *net.Resolver is one. Names are given
// with a final dot. It is used from many goroutines.
//
// An error may say more through errors.As: *net.DNSError's IsNotFound that
// there is no such record, and interface{ NXDomain() bool } that there is
// (true) no such name either, or (false) only no such record, which a
// *net.Resolver cannot tell apart. Any other error means: ask again later.
type Resolver interface {
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	// LookupNetIP is asked for the networks "ip", "ip4" and "ip6".
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Querier is what a Resolver may also have: answers with their time to live,
// and with DNSSEC's word on them. The Answer may be shared, and is not to be
// changed.
type Querier interface {
	// Query asks for one type of record (RFC 1035 §3.2.2 and its
	// successors): A, AAAA, CNAME, MX, TXT, PTR or TLSA. No such record is an
	// error, as in Resolver. Of a CNAME, only whether it is there is told.
	Query(ctx context.Context, name string, qtype uint16) (*Answer, error)
}

// Answer is the records of one name and type.
type Answer struct {
	// Name is the owner of the records, with a final dot: the name asked
	// for, or where its CNAME records lead.
	Name string
	// Secure says that DNSSEC proves the whole answer, and that the word of
	// the server which says so can be relied on (RFC 4035 §4.9.3).
	Secure bool
	// TTL is how long the answer may be kept.
	TTL time.Duration

	MX   []*net.MX
	Addr []netip.Addr
	TXT  []string // the strings of each record joined
	// Strings are those of each TXT record before they were joined.
	Strings [][]string
	PTR     []string
	TLSA    []TLSA
}

// TLSA is a record that binds a certificate to a name (RFC 6698 §2.1).
type TLSA = dane.Record

// nxDomain reports whether err says that there is no such name, as far as
// the resolver can tell.
func nxDomain(err error) bool {
	var nx interface{ NXDomain() bool }
	if errors.As(err, &nx) {
		return nx.NXDomain()
	}
	return dnserr.NotFound(err)
}

// Errors of the security of a host, wrapped in Attempt.TLS.
var (
	// ErrBogus: DNSSEC says that an answer is forged, or cannot say
	// (RFC 7672 §2.1.1).
	ErrBogus = errors.New("mx: TLSA records cannot be looked up")
	// ErrNotInPolicy: the MTA-STS policy does not name the host (RFC 8461
	// §4.1).
	ErrNotInPolicy = errors.New("mx: host is not in the MTA-STS policy")
)
