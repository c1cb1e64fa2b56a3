package resolver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// server is one that can be asked.
type server struct {
	text string // as it was given, for errors
	via  string // "udp", "tls" or "https"
	addr string // host:port
	name string // that its certificate must be for
	url  string // of DNS over HTTPS

	mu    sync.Mutex
	fails int       // in a row
	until time.Time // it comes last until then
	idle  []net.Conn
}

// A server that gave no answer comes last for a while: the more often, the
// longer.
const (
	firstPause   = 2 * time.Second
	longestPause = time.Minute
)

func (s *server) heed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.fails, s.until = 0, time.Time{}
		return
	}
	s.until = time.Now().Add(min(firstPause<<min(s.fails, 10), longestPause))
	s.fails++
}

func (s *server) well(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !now.Before(s.until)
}

// loopback reports whether nothing but this machine is on the way to s.
func (s *server) loopback() bool {
	ap, err := netip.ParseAddrPort(s.addr)
	return err == nil && ap.Addr().IsLoopback()
}

// system is what /etc/resolv.conf says.
type system struct {
	servers []string
	trustAD bool
	rotate  bool
}

var errNoServers = errors.New("resolver: no servers are set, and there is no /etc/resolv.conf")

func readSystem(path string) (system, error) {
	var s system
	b, err := os.ReadFile(path)
	if err != nil {
		return s, errNoServers // as on Windows
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) > 1 && f[0] == "nameserver" && len(s.servers) < 3:
			s.servers = append(s.servers, f[1])
		case len(f) > 1 && f[0] == "options":
			for _, o := range f[1:] {
				s.trustAD = s.trustAD || o == "trust-ad"
				s.rotate = s.rotate || o == "rotate"
			}
		}
	}
	if s.servers == nil {
		s.servers = []string{"127.0.0.1"} // resolv.conf(5)
	}
	return s, nil
}

// start reads the settings once.
func (r *Resolver) start() error {
	r.once.Do(func() {
		names := r.Servers
		r.trustAD, r.rotate = r.TrustAD, r.Rotate
		if names == nil {
			s, err := readSystem("/etc/resolv.conf")
			if err != nil {
				r.startErr = err
				return
			}
			names = s.servers
			r.trustAD, r.rotate = r.trustAD || s.trustAD, r.rotate || s.rotate
		}
		for _, n := range names {
			s, err := parseServer(n)
			if err != nil {
				r.startErr = err
				return
			}
			r.servers = append(r.servers, s)
		}
		if len(r.servers) == 0 {
			r.startErr = errNoServers
		}
	})
	return r.startErr
}

// parseServer reads one of Resolver.Servers.
func parseServer(s string) (*server, error) {
	out := &server{text: s, via: "udp", addr: s}
	port := "53"
	if u, err := url.Parse(s); err == nil && u.Host != "" {
		switch u.Scheme {
		case "https":
			out.via, out.url = "https", s
			out.addr = u.Host
			return out, nil
		case "tls":
			out.via, out.addr, out.name, port = "tls", u.Host, u.Fragment, "853"
			if out.name == "" {
				out.name = u.Hostname()
			}
		default:
			return nil, fmt.Errorf("resolver: server %q: unknown scheme", s)
		}
	}
	if ip, err := netip.ParseAddr(strings.Trim(out.addr, "[]")); err == nil {
		out.addr = net.JoinHostPort(ip.String(), port)
	} else if _, _, err := net.SplitHostPort(out.addr); err != nil {
		out.addr = net.JoinHostPort(out.addr, port)
	}
	return out, nil
}

// order returns the servers as they are asked: in turn for Rotate, and those
// that gave no answer lately last.
func (r *Resolver) order() []*server {
	if len(r.servers) == 1 {
		return r.servers
	}
	list := slices.Clone(r.servers)
	if r.rotate {
		n := int(r.turn.Add(1)-1) % len(list)
		list = append(list[n:len(list):len(list)], list[:n]...)
	}
	now := time.Now()
	slices.SortStableFunc(list, func(a, b *server) int {
		switch x, y := a.well(now), b.well(now); {
		case x == y:
			return 0
		case x:
			return -1
		}
		return 1
	})
	return list
}
