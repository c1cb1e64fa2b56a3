package mxtest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/resolver"
)

// DNS answers from its zone, in memory and, after Listen, on loopback. All
// methods may be called from many goroutines.
type DNS struct {
	resolver *resolver.Resolver

	mu        sync.Mutex
	nodes     map[string]*node
	err       error // a record that cannot be parsed
	questions []Question
	servers   []*dns.Server
	ends      []chan struct{} // closed by Close
	wg        sync.WaitGroup
}

// Question is something that was asked.
type Question struct {
	Name    string // lower case, with a final dot
	Type    string // "MX", "A", …
	Network string // "udp" or "tcp" of the server, "memory" otherwise
}

// NewDNS returns a DNS with the records of z. A record that cannot be parsed
// makes every answer an error that names it; Err returns that too.
func NewDNS(z Zone) *DNS {
	d := &DNS{nodes: map[string]*node{}}
	d.resolver = &resolver.Resolver{
		Servers:     []string{"127.0.0.1:53"}, // loopback: its AD bit counts
		CacheSize:   -1,
		Attempts:    1,
		DialContext: d.DialContext,
	}
	for name, records := range z {
		d.Set(name, records...)
	}
	return d
}

// Err returns the first record's error, nil if all are good.
func (d *DNS) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// Set replaces all records of a name; without records the name is removed.
func (d *DNS) Set(name string, records ...string) error {
	name = canonical(name)
	n, err := parseNode(name, records)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		if d.err == nil {
			d.err = err
		}
		return err
	}
	if len(records) == 0 {
		delete(d.nodes, name)
	} else {
		d.nodes[name] = n
	}
	return nil
}

// Questions returns what was asked so far, in order.
func (d *DNS) Questions() []Question {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Question(nil), d.questions...)
}

// LookupMX, and the methods after it, are those of *net.Resolver.
func (d *DNS) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	return d.resolver.LookupMX(ctx, name)
}

// LookupTXT returns the TXT records of name, the strings of each joined.
func (d *DNS) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return d.resolver.LookupTXT(ctx, name)
}

// LookupNetIP returns the addresses of host; network is "ip", "ip4" or "ip6".
func (d *DNS) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return d.resolver.LookupNetIP(ctx, network, host)
}

// LookupHost returns the addresses of host as strings.
func (d *DNS) LookupHost(ctx context.Context, host string) ([]string, error) {
	return d.resolver.LookupHost(ctx, host)
}

// LookupAddr returns the names of an IP address.
func (d *DNS) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	return d.resolver.LookupAddr(ctx, addr)
}

// Query is that of mx.Querier.
func (d *DNS) Query(ctx context.Context, name string, qtype uint16) (*mx.Answer, error) {
	return d.resolver.Query(ctx, name, qtype)
}

// DialContext opens a connection in memory to the DNS, whatever the address:
// for a resolver.Resolver, or a net.Resolver with PreferGo.
func (d *DNS) DialContext(_ context.Context, network, _ string) (net.Conn, error) {
	if err := d.Err(); err != nil {
		return nil, err
	}
	return &memory{d: d, tcp: strings.HasPrefix(network, "tcp")}, nil
}

// Listen serves the zone over UDP and TCP on addr, which is host:port, until
// Close; "" = a free port of 127.0.0.1. It returns the address to ask.
func (d *DNS) Listen(addr string) (string, error) {
	if err := d.Err(); err != nil {
		return "", err
	}
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	// A port that is free for UDP may be taken for TCP: try some.
	var pc net.PacketConn
	var l net.Listener
	var err error
	for range 20 {
		if pc, err = net.ListenPacket("udp", addr); err != nil {
			return "", err
		}
		if l, err = net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			break
		}
		pc.Close()
	}
	if err != nil {
		return "", err
	}
	end := make(chan struct{})
	udp := &dns.Server{PacketConn: pc, Handler: d.handler("udp", end)}
	tcp := &dns.Server{Listener: l, Handler: d.handler("tcp", end)}
	var up sync.WaitGroup
	for _, s := range []*dns.Server{udp, tcp} {
		up.Add(1)
		s.NotifyStartedFunc = up.Done
		d.wg.Go(func() { s.ActivateAndServe() })
	}
	up.Wait()
	d.mu.Lock()
	d.servers, d.ends = append(d.servers, udp, tcp), append(d.ends, end)
	d.mu.Unlock()
	return pc.LocalAddr().String(), nil
}

// Close stops the servers that Listen started. The resolver in memory goes on.
func (d *DNS) Close() error {
	d.mu.Lock()
	servers, ends := d.servers, d.ends
	d.servers, d.ends = nil, nil
	d.mu.Unlock()
	for _, c := range ends {
		close(c)
	}
	for _, s := range servers {
		s.Shutdown()
	}
	d.wg.Wait()
	return nil
}

func (d *DNS) handler(network string, end <-chan struct{}) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m, delay := d.answer(q, network, network == "udp")
		if m == nil {
			return
		}
		if delay > 0 {
			t := time.NewTimer(delay)
			defer t.Stop()
			select {
			case <-t.C:
			case <-end:
				return
			}
		}
		w.WriteMsg(m)
	}
}

// answer returns nil when there is to be no answer. limited says that it must
// fit a datagram.
func (d *DNS) answer(q *dns.Msg, network string, limited bool) (m *dns.Msg, delay time.Duration) {
	m = &dns.Msg{}
	m.SetReply(q)
	m.RecursionAvailable = true
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery {
		m.Rcode = dns.RcodeFormatError
		return m, delay
	}
	opt := q.IsEdns0()
	if opt != nil {
		m.SetEdns0(1232, false)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	qtype := q.Question[0].Qtype
	name := canonical(q.Question[0].Name)
	d.questions = append(d.questions, Question{Name: name, Type: dns.Type(qtype).String(), Network: network})
	if d.err != nil {
		m.Rcode = dns.RcodeServerFailure
		return m, delay
	}
	m.AuthenticatedData = true
	for range 16 {
		n, exists := d.find(name)
		if n == nil {
			m.AuthenticatedData = false
			if !exists {
				m.Rcode = dns.RcodeNameError
			}
			break
		}
		m.AuthenticatedData = m.AuthenticatedData && n.secure
		delay += n.delay
		switch {
		case n.fault("TIMEOUT", qtype):
			return nil, 0
		case n.fault("SERVFAIL", qtype):
			m.Rcode = dns.RcodeServerFailure
		case n.fault("BOGUS", qtype):
			m.Rcode = dns.RcodeServerFailure
			if o := m.IsEdns0(); o != nil {
				o.Option = append(o.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus})
			}
		case n.fault("REFUSED", qtype):
			m.Rcode = dns.RcodeRefused
		case n.fault("NXDOMAIN", qtype):
			m.Rcode = dns.RcodeNameError
		case n.fault("LAME", qtype):
			ns, _ := dns.NewRR(fmt.Sprintf(". %d IN NS ns.test.", defaultTTL))
			m.RecursionAvailable, m.AuthenticatedData, m.Answer, m.Ns = false, false, nil, []dns.RR{ns}
			return m, delay
		case n.fault("TRUNCATE", qtype) && limited:
			m.Truncated = true
			return m, delay
		}
		if m.Rcode != dns.RcodeSuccess {
			m.AuthenticatedData = false
			break
		}
		alias := ""
		for _, rr := range n.records {
			rr = dns.Copy(rr)
			rr.Header().Name = name // a wildcard's owner is the name asked for
			c, isAlias := rr.(*dns.CNAME)
			if rr.Header().Rrtype == qtype || isAlias {
				m.Answer = append(m.Answer, rr)
			}
			if isAlias && qtype != dns.TypeCNAME {
				alias = canonical(c.Target)
			}
		}
		if alias == "" {
			break
		}
		name = alias
	}
	if len(m.Answer) == 0 && m.Rcode != dns.RcodeServerFailure && m.Rcode != dns.RcodeRefused || m.Rcode == dns.RcodeNameError {
		soa, _ := dns.NewRR(fmt.Sprintf(". %d IN SOA ns.test. hostmaster.test. 1 3600 600 86400 %d", defaultTTL, defaultTTL))
		m.Ns = append(m.Ns, soa)
	}
	if limited {
		size := dns.MinMsgSize
		if opt != nil {
			size = max(size, min(int(opt.UDPSize()), 1232))
		}
		m.Truncate(size)
	}
	return m, delay
}

// find returns what is known of name, through a wildcard if need be; exists
// says that there is something at or below it.
func (d *DNS) find(name string) (n *node, exists bool) {
	if n := d.nodes[name]; n != nil {
		return n, true
	}
	for other := range d.nodes {
		if strings.HasSuffix(other, "."+name) {
			return nil, true // an empty non-terminal
		}
	}
	for rest := name; ; {
		i := strings.IndexByte(rest, '.')
		if i < 0 || i+1 == len(rest) {
			return nil, false
		}
		rest = rest[i+1:]
		if n := d.nodes["*."+rest]; n != nil {
			return n, true
		}
		if d.nodes[rest] != nil {
			return nil, false
		}
	}
}
