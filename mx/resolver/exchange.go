package resolver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// udpSize is what avoids fragments on nearly every path (RFC 9715).
	udpSize = 1232
	// maxStray is how many datagrams that answer something else are read
	// away: more is an attempt at forging.
	maxStray = 64
)

// system is what /etc/resolv.conf says.
type system struct {
	servers []string
	trustAD bool
}

func (r *Resolver) servers() ([]string, bool) {
	r.once.Do(func() {
		if r.Servers == nil {
			r.system = readSystem("/etc/resolv.conf")
			return
		}
		for _, s := range r.Servers {
			r.system.servers = append(r.system.servers, withPort(s))
		}
	})
	return r.system.servers, r.system.trustAD || r.TrustAD
}

func readSystem(path string) system {
	var s system
	if b, err := os.ReadFile(path); err == nil {
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			switch {
			case len(f) > 1 && f[0] == "nameserver" && len(s.servers) < 3:
				s.servers = append(s.servers, withPort(f[1]))
			case len(f) > 1 && f[0] == "options":
				for _, o := range f[1:] {
					s.trustAD = s.trustAD || o == "trust-ad"
				}
			}
		}
	}
	if s.servers == nil {
		s.servers = []string{"127.0.0.1:53"}
	}
	return s
}

func withPort(s string) string {
	if ip, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(ip, 53).String()
	}
	if _, _, err := net.SplitHostPort(s); err != nil {
		return net.JoinHostPort(s, "53")
	}
	return s
}

func loopback(server string) bool {
	ap, err := netip.ParseAddrPort(server)
	return err == nil && ap.Addr().IsLoopback()
}

// ask goes through the servers until one answers NOERROR or NXDOMAIN. secure
// says that the server vouches for the answer and may be believed.
func (r *Resolver) ask(ctx context.Context, name string, qtype uint16) (msg *dns.Msg, server string, secure bool, err error) {
	servers, trustAD := r.servers()
	attempts := r.Attempts
	if attempts <= 0 {
		attempts = 2
	}
	for range attempts {
		for _, server = range servers {
			if ctx.Err() != nil {
				return nil, server, false, ctx.Err()
			}
			var m *dns.Msg
			var e error
			m, e = r.exchange(ctx, server, name, qtype, true)
			if e == nil && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) {
				// A server from before EDNS0 (RFC 6891 §7).
				m, e = r.exchange(ctx, server, name, qtype, false)
			}
			switch {
			case e == nil && (m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError):
				return m, server, m.AuthenticatedData && (trustAD || loopback(server)), nil
			case e == nil:
				err = fmt.Errorf("%w: %s", ErrServer, dns.RcodeToString[m.Rcode])
			case ctx.Err() != nil:
				return nil, server, false, ctx.Err()
			case isTimeout(e):
				if err == nil || !errors.Is(err, ErrServer) {
					err = ErrTimeout
				}
			case err == nil || errors.Is(e, ErrMalformed):
				err = e
			}
		}
	}
	if err == nil {
		err = ErrTimeout
	}
	return nil, server, false, err
}

// exchange asks one server, over TCP when the answer does not fit UDP.
func (r *Resolver) exchange(ctx context.Context, server, name string, qtype uint16, edns bool) (*dns.Msg, error) {
	q := &dns.Msg{}
	q.SetQuestion(name, qtype)
	var id [2]byte
	rand.Read(id[:])
	q.Id = binary.BigEndian.Uint16(id[:])
	q.AuthenticatedData = true // tell us whether it is secure (RFC 6840 §5.7)
	if edns {
		q.SetEdns0(udpSize, false)
	}
	wire, err := q.Pack()
	if err != nil {
		return nil, ErrName
	}
	m, err := r.roundTrip(ctx, "udp", server, q, wire)
	if err == nil && m.Truncated {
		m, err = r.roundTrip(ctx, "tcp", server, q, wire)
		if err == nil && m.Truncated {
			err = fmt.Errorf("%w: truncated over TCP", ErrMalformed)
		}
	}
	return m, err
}

// roundTrip sends one question over one connection of its own, so that the
// system chooses a new source port for each (RFC 5452 §4.5).
func (r *Resolver) roundTrip(ctx context.Context, network, server string, q *dns.Msg, wire []byte) (*dns.Msg, error) {
	timeout := r.Timeout
	if timeout <= 0 {
		timeout = 3 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	dial := r.DialContext
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	nc, err := dial(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if network == "tcp" {
		return overTCP(nc, q, wire)
	}
	return overUDP(nc, q, wire)
}

func overUDP(nc net.Conn, q *dns.Msg, wire []byte) (*dns.Msg, error) {
	if _, err := nc.Write(wire); err != nil {
		return nil, err
	}
	buf := make([]byte, udpSize+1)
	for range maxStray {
		n, err := nc.Read(buf)
		if err != nil {
			return nil, err
		}
		m, err := unpack(buf[:n], q)
		if errors.Is(err, errStray) {
			continue
		}
		return m, err
	}
	return nil, fmt.Errorf("%w: too many stray datagrams", ErrMalformed)
}

func overTCP(nc net.Conn, q *dns.Msg, wire []byte) (*dns.Msg, error) {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(wire)), uint16(len(wire)))
	if _, err := nc.Write(append(framed, wire...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(nc, size[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(nc, buf); err != nil {
		return nil, err
	}
	m, err := unpack(buf, q)
	if errors.Is(err, errStray) {
		err = fmt.Errorf("%w: answer to another question", ErrMalformed)
	}
	return m, err
}

var errStray = errors.New("not the answer to this question")

// unpack reads an answer to q. One with another id or question is a stray,
// whoever sent it (RFC 5452 §9.1).
func unpack(b []byte, q *dns.Msg) (*dns.Msg, error) {
	if len(b) < 12 || binary.BigEndian.Uint16(b) != q.Id || b[2]&0x80 == 0 {
		return nil, errStray
	}
	m := &dns.Msg{}
	err := m.Unpack(b)
	if len(m.Question) == 1 {
		if got, want := m.Question[0], q.Question[0]; got.Qtype != want.Qtype || got.Qclass != want.Qclass || !strings.EqualFold(got.Name, want.Name) {
			return nil, errStray
		}
	}
	switch {
	case err != nil && m.Truncated:
		return m, nil // cut within a record: TCP has the whole
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	case len(m.Question) != 1 && m.Rcode != dns.RcodeFormatError && m.Rcode != dns.RcodeNotImplemented:
		return nil, errStray
	}
	return m, nil
}
