package resolver

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/postrider/postrider/mx"
)

// Resolver asks DNS servers. The zero Resolver is ready. Its fields are
// read-only once it is in use, and it may be used from many goroutines.
type Resolver struct {
	// Servers are recursive servers: an IP address, perhaps with a port,
	// "tls://192.0.2.1#dns.example" for DNS over TLS (RFC 7858) with the name
	// that the certificate must be for, or "https://dns.example/dns-query" for
	// DNS over HTTPS (RFC 8484). nil = those of /etc/resolv.conf, read once;
	// where there is none, as on Windows, they must be named.
	//
	// They are asked in their order; one that gave no answer lately comes
	// last.
	Servers []string
	// Rotate begins with another server for each question.
	Rotate bool
	// MixCase asks for names in random case and takes no answer over UDP that
	// does not repeat it ("0x20"); a few servers never do.
	MixCase bool
	// TLS is the configuration for DNS over TLS; nil = the zero tls.Config.
	TLS *tls.Config
	// HTTP is the client for DNS over HTTPS; nil = http.DefaultClient.
	HTTP *http.Client
	// Timeout is how long one server is waited for; 0 = 3 s.
	Timeout time.Duration
	// Attempts is how often the list of servers is gone through; 0 = 2.
	Attempts int
	// CacheSize is how many answers are kept; 0 = 10,000, negative = none.
	// Those over 8 KiB are not: a stranger chooses them.
	CacheSize int
	// TrustAD believes the AD bit of servers that are not on loopback,
	// because the path to them is safe. Without it only those on loopback,
	// or all if /etc/resolv.conf has "options trust-ad", are believed.
	TrustAD bool
	// DialContext opens "udp" and "tcp" connections to servers, as
	// net.Dialer's does; nil = a net.Dialer. DNS over HTTPS has its own.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	once     sync.Once
	startErr error
	servers  []*server
	trustAD  bool
	rotate   bool
	turn     atomic.Uint32
	cache    cache
	flights  flights
}

var _ interface {
	mx.Resolver
	mx.Querier
} = (*Resolver)(nil)

// maxCNAME bounds a chain of aliases, over all questions it takes.
const maxCNAME = 12

// Query asks for the records of one name and type: A, AAAA, CNAME, MX, TXT, PTR
// or TLSA. Without records it gives an *Error. The Answer may be shared with
// others: it is not to be changed. Questions for the same that come while one
// is on its way wait for its answer.
func (r *Resolver) Query(ctx context.Context, name string, qtype uint16) (*mx.Answer, error) {
	fqdn, err := absolute(name)
	if err != nil {
		return nil, &Error{Name: name, Type: typeName(qtype), Err: err}
	}
	key := cacheKey{fqdn, qtype}
	for {
		if a, err, ok := r.cache.get(key, time.Now()); ok {
			return a, err
		}
		f, lead := r.flights.join(key)
		if lead {
			a, err := r.query(ctx, key)
			r.flights.done(key, f, a, err, ctx.Err() != nil)
			return a, err
		}
		select {
		case <-f.ended:
			if !f.abandoned {
				return f.answer, f.err
			}
			// The one that led gave up for a reason of its own: ask again.
		case <-ctx.Done():
			return nil, &Error{Name: name, Type: typeName(qtype), Err: ctx.Err()}
		}
	}
}

// query asks the servers, follows aliases, and keeps the outcome.
func (r *Resolver) query(ctx context.Context, key cacheKey) (*mx.Answer, error) {
	a := &mx.Answer{Name: key.name, Secure: true}
	var ttl uint32 = maxTTL
	for hops := 0; ; {
		msg, server, secure, err := r.ask(ctx, a.Name, key.qtype)
		if err != nil {
			return nil, &Error{Name: key.name, Type: typeName(key.qtype), Server: server, Err: err}
		}
		a.Secure = a.Secure && secure
		before := a.Name
		found, err := collect(msg, a, key.qtype, &ttl, &hops)
		if err == nil && !found {
			switch {
			case msg.Rcode == dns.RcodeNameError:
				err = ErrNXDomain
			case a.Name != before && hops <= maxCNAME:
				continue // the server did not follow the alias
			default:
				err = ErrNoData
			}
		}
		if err != nil {
			e := &Error{Name: key.name, Type: typeName(key.qtype), Server: server, Err: err}
			if neg, ok := negativeTTL(msg); ok && e.NotFound() {
				r.cache.put(key, nil, e, min(ttl, neg), r.cacheSize())
			}
			return nil, e
		}
		a.TTL = time.Duration(ttl) * time.Second
		if msg.Len() <= maxKept {
			r.cache.put(key, a, nil, ttl, r.cacheSize())
		}
		return a, nil
	}
}

func (r *Resolver) cacheSize() int {
	if r.CacheSize == 0 {
		return 10_000
	}
	return r.CacheSize
}

// LookupMX returns the MX records of name, by preference, as *net.Resolver
// does. Names have a final dot; a null MX (RFC 7505) is one with Host ".".
func (r *Resolver) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	a, err := r.Query(ctx, name, dns.TypeMX)
	if err != nil {
		return nil, err
	}
	list := make([]*net.MX, len(a.MX))
	copies := make([]net.MX, len(a.MX))
	for i, m := range a.MX {
		copies[i] = *m
		list[i] = &copies[i]
	}
	return list, nil
}

// LookupTXT returns the TXT records of name, the strings of each joined.
func (r *Resolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	a, err := r.Query(ctx, name, dns.TypeTXT)
	if err != nil {
		return nil, err
	}
	return slices.Clone(a.TXT), nil
}

// LookupTXTStrings returns the strings of each TXT record as they stand there.
func (r *Resolver) LookupTXTStrings(ctx context.Context, name string) ([][]string, error) {
	a, err := r.Query(ctx, name, dns.TypeTXT)
	if err != nil {
		return nil, err
	}
	out := make([][]string, len(a.Strings))
	for i, s := range a.Strings {
		out[i] = slices.Clone(s)
	}
	return out, nil
}

// LookupNetIP returns the addresses of host; network is "ip", "ip4" or "ip6".
// For "ip" both families are asked for at the same time, and one is enough.
// An IP address in place of a name is returned as it is.
func (r *Resolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		if network == "ip4" && !ip.Unmap().Is4() || network == "ip6" && ip.Unmap().Is4() {
			return nil, &Error{Name: host, Type: "A", Err: ErrNoData}
		}
		return []netip.Addr{ip}, nil
	}
	switch network {
	case "ip4":
		return r.addrs(ctx, host, dns.TypeA)
	case "ip6":
		return r.addrs(ctx, host, dns.TypeAAAA)
	case "ip", "":
	default:
		return nil, net.UnknownNetworkError(network)
	}
	var six []netip.Addr
	var err6 error
	var wg sync.WaitGroup
	wg.Go(func() { six, err6 = r.addrs(ctx, host, dns.TypeAAAA) })
	four, err4 := r.addrs(ctx, host, dns.TypeA)
	wg.Wait()
	if len(four)+len(six) > 0 {
		return append(four, six...), nil
	}
	// No data in one family says nothing while the other is unknown.
	if e, ok := err4.(*Error); ok && e.NotFound() {
		return nil, err6
	}
	return nil, err4
}

func (r *Resolver) addrs(ctx context.Context, host string, qtype uint16) ([]netip.Addr, error) {
	a, err := r.Query(ctx, host, qtype)
	if err != nil {
		return nil, err
	}
	return slices.Clone(a.Addr), nil
}

// LookupHost is LookupNetIP with addresses as strings.
func (r *Resolver) LookupHost(ctx context.Context, host string) ([]string, error) {
	list, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.String()
	}
	return out, nil
}

// LookupCNAME returns where the aliases of host lead, with a final dot: host
// itself when it has none. As with *net.Resolver, there must be an address.
func (r *Resolver) LookupCNAME(ctx context.Context, host string) (string, error) {
	a, err := r.Query(ctx, host, dns.TypeA)
	if e, ok := err.(*Error); ok && e.NotFound() {
		a, err = r.Query(ctx, host, dns.TypeAAAA)
	}
	if err != nil {
		return "", err
	}
	return a.Name, nil
}

// LookupAddr returns the names that the PTR records of an IP address give.
func (r *Resolver) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	name, err := dns.ReverseAddr(addr)
	if err != nil {
		return nil, &Error{Name: addr, Type: "PTR", Err: ErrName}
	}
	a, err := r.Query(ctx, name, dns.TypePTR)
	if err != nil {
		return nil, err
	}
	return slices.Clone(a.PTR), nil
}

// absolute returns name in lower case with its final dot.
func absolute(name string) (string, error) {
	if name == "" || len(name) > 254 {
		return "", ErrName
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return "", ErrName // A-labels only, and none of master files' escapes
		}
	}
	name = strings.ToLower(dns.Fqdn(name))
	if _, ok := dns.IsDomainName(name); !ok {
		return "", ErrName
	}
	return name, nil
}

func typeName(t uint16) string { return dns.Type(t).String() }

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
