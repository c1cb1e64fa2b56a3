package resolver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
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

// ask goes through the servers until one answers NOERROR or NXDOMAIN. secure
// says that the server vouches for the answer and may be believed.
func (r *Resolver) ask(ctx context.Context, name string, qtype uint16) (msg *dns.Msg, from string, secure bool, err error) {
	if err := r.start(); err != nil {
		return nil, "", false, err
	}
	attempts := r.Attempts
	if attempts <= 0 {
		attempts = 2
	}
	for range attempts {
		for _, s := range r.order() {
			from = s.text
			if s.via == "udp" {
				from = s.addr
			}
			if ctx.Err() != nil {
				return nil, from, false, ctx.Err()
			}
			m, e := r.exchange(ctx, s, name, qtype, true)
			if e == nil && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) {
				// A server from before EDNS0 (RFC 6891 §7).
				m, e = r.exchange(ctx, s, name, qtype, false)
			}
			if ctx.Err() == nil || e == nil {
				s.heed(e)
			}
			switch {
			case e == nil && isLame(m):
				err = fmt.Errorf("%w: lame", ErrServer)
			case e == nil && (m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError):
				return m, from, m.AuthenticatedData && (r.trustAD || s.loopback()), nil
			case e == nil && isBogus(m):
				// Another server may not have looked, and would be believed.
				return nil, from, false, ErrBogus
			case e == nil:
				err = fmt.Errorf("%w: %s", ErrServer, dns.RcodeToString[m.Rcode])
			case ctx.Err() != nil:
				return nil, from, false, ctx.Err()
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
	return nil, from, false, err
}

// isBogus reports whether a server says that DNSSEC found the answer forged
// or broken: the extended errors 5 to 12 (RFC 8914 §4).
func isBogus(m *dns.Msg) bool {
	if m.Rcode != dns.RcodeServerFailure {
		return false
	}
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok && e.InfoCode >= dns.ExtendedErrorCodeDNSSECIndeterminate && e.InfoCode <= dns.ExtendedErrorCodeNSECMissing {
				return true
			}
		}
	}
	return false
}

// isLame reports whether a server that does not recurse answered with a hint
// at others: that says nothing of the name.
func isLame(m *dns.Msg) bool {
	return m.Rcode == dns.RcodeSuccess && len(m.Answer) == 0 && !m.Authoritative && !m.RecursionAvailable
}

// exchange asks one server, over TCP when the answer does not fit UDP.
func (r *Resolver) exchange(ctx context.Context, s *server, name string, qtype uint16, edns bool) (*dns.Msg, error) {
	timeout := r.Timeout
	if timeout <= 0 {
		timeout = 3 * time.Second
	}
	q := &dns.Msg{}
	if r.MixCase {
		name = mixCase(name)
	}
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
	if s.via != "udp" {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		if s.via == "tls" {
			return r.overTLS(ctx, s, q, wire)
		}
		return r.overHTTPS(ctx, s, q, wire)
	}
	m, err := r.roundTrip(ctx, timeout, "udp", s.addr, q, wire)
	if err == nil && m.Truncated {
		m, err = r.roundTrip(ctx, timeout, "tcp", s.addr, q, wire)
		if err == nil && m.Truncated {
			err = fmt.Errorf("%w: truncated over TCP", ErrMalformed)
		}
	}
	return m, err
}

// roundTrip sends one question over one connection of its own, so that the
// system chooses a new source port for each (RFC 5452 §4.5).
func (r *Resolver) roundTrip(ctx context.Context, timeout time.Duration, network, addr string, q *dns.Msg, wire []byte) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	nc, err := r.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if network == "tcp" {
		return overTCP(nc, q, wire)
	}
	return overUDP(nc, q, wire, r.MixCase)
}

func (r *Resolver) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if r.DialContext != nil {
		return r.DialContext(ctx, network, addr)
	}
	return (&net.Dialer{}).DialContext(ctx, network, addr)
}

// mixCase gives the letters of name a random case, which the answer has to
// repeat: that makes it harder to forge (draft-vixie-dnsext-dns0x20).
func mixCase(name string) string {
	b := []byte(name)
	bits := make([]byte, len(b))
	rand.Read(bits)
	for i, c := range b {
		if c >= 'a' && c <= 'z' && bits[i]&1 == 1 {
			b[i] = c - 32
		}
	}
	return string(b)
}

func overUDP(nc net.Conn, q *dns.Msg, wire []byte, exact bool) (*dns.Msg, error) {
	if _, err := nc.Write(wire); err != nil {
		return nil, err
	}
	buf := make([]byte, udpSize+1)
	for range maxStray {
		n, err := nc.Read(buf)
		if err != nil {
			return nil, err
		}
		m, err := unpack(buf[:n], q, exact)
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
	m, err := unpack(buf, q, false)
	if errors.Is(err, errStray) {
		err = fmt.Errorf("%w: answer to another question", ErrMalformed)
	}
	return m, err
}

var errStray = errors.New("not the answer to this question")

// unpack reads an answer to q. One with another id or question is a stray,
// whoever sent it (RFC 5452 §9.1); exact says that the case of letters counts.
func unpack(b []byte, q *dns.Msg, exact bool) (*dns.Msg, error) {
	if len(b) < 12 || binary.BigEndian.Uint16(b) != q.Id || b[2]&0x80 == 0 {
		return nil, errStray
	}
	m := &dns.Msg{}
	err := m.Unpack(b)
	if len(m.Question) == 1 {
		if got, want := m.Question[0], q.Question[0]; got.Qtype != want.Qtype || got.Qclass != want.Qclass || !strings.EqualFold(got.Name, want.Name) || exact && got.Name != want.Name {
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
