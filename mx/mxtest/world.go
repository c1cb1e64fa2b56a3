package mxtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/postrider/postrider/smtp/smtptest"
)

// World is a small Internet in memory: domains, the DNS that leads to their
// mail hosts, the hosts, and one DialContext that reaches them all. It runs
// inside a synctest bubble too.
//
//	w, err := mxtest.NewWorld(map[string][]string{"a.test": {"mx1.a.test", "mx2.a.test"}})
//	defer w.Close()
//	sender := &mx.Sender{Resolver: w.DNS, Dialer: smtpclient.Dialer{DialContext: w.DialContext, TLS: w.ClientTLS()}}
//	w.Cut("mx1.a.test")
//	w.Host("mx2.a.test").Inject(smtptest.Fault{At: smtptest.Rcpt, Reply: "450 4.7.1 Greylisted", Times: 1})
//
// Each host has an address, a certificate of CA for its name, and STARTTLS.
// What a host is may be changed before the first connection to it:
// Host(n).STARTTLS = false strips TLS, Host(n).Certificate is a bad one.
type World struct {
	// DNS has MX and A records for all of it, which may be changed.
	DNS *DNS
	CA  *CA

	mu    sync.Mutex
	hosts map[string]*host // by name
	addrs map[string]*host // by IP address
}

type host struct {
	*smtptest.Server
	cut bool
}

// NewWorld makes the hosts of domains, which are given in the order of their
// preference; several domains may share one.
func NewWorld(domains map[string][]string) (*World, error) {
	ca, err := NewCA()
	if err != nil {
		return nil, err
	}
	w := &World{DNS: NewDNS(nil), CA: ca, hosts: map[string]*host{}, addrs: map[string]*host{}}
	for domain, names := range domains {
		var records []string
		for i, n := range names {
			if err := w.add(n); err != nil {
				return nil, err
			}
			records = append(records, fmt.Sprintf("MX %d %s", 10*(i+1), n))
		}
		if err := w.DNS.Set(domain, records...); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *World) add(name string) error {
	if w.hosts[name] != nil {
		return nil
	}
	cert, err := w.CA.Issue(name)
	if err != nil {
		return err
	}
	n := len(w.hosts) + 1
	addr := fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255)
	h := &host{Server: &smtptest.Server{Hostname: name, STARTTLS: true, Certificate: cert}}
	w.hosts[name], w.addrs[addr] = h, h
	return w.DNS.Set(name, "A "+addr)
}

// Host returns a host by its name, nil if there is none.
func (w *World) Host(name string) *smtptest.Server {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.hosts[name]; h != nil {
		return h.Server
	}
	return nil
}

// Cut makes hosts refuse connections from now on; those that are open stay.
func (w *World) Cut(names ...string) { w.set(true, names) }

// Mend makes hosts reachable again.
func (w *World) Mend(names ...string) { w.set(false, names) }

func (w *World) set(cut bool, names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, h := range w.hosts {
		if slices.Contains(names, name) {
			h.cut = cut
		}
	}
}

var errRefused = errors.New("connection refused")

// DialContext connects to the host with the address of addr, at any port. It
// fits where a net.Dialer's does.
func (w *World) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	ip, _, err := net.SplitHostPort(addr)
	w.mu.Lock()
	h := w.addrs[ip]
	refused := h == nil || h.cut
	w.mu.Unlock()
	if err != nil || refused {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errRefused}
	}
	return h.DialContext(ctx, network, addr)
}

// ClientTLS returns a configuration that trusts CA. ServerName is left to the
// client.
func (w *World) ClientTLS() *tls.Config { return &tls.Config{RootCAs: w.CA.Pool()} }

// Close closes the hosts. What they kept stays.
func (w *World) Close() error {
	w.mu.Lock()
	hosts := make([]*host, 0, len(w.hosts))
	for _, h := range w.hosts {
		hosts = append(hosts, h)
	}
	w.mu.Unlock()
	var errs []error
	for _, h := range hosts {
		errs = append(errs, h.Close())
	}
	return errors.Join(errs...)
}
