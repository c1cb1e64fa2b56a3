package smtpclient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// HAProxy connects through a proxy that is told by the PROXY protocol where
// to connect to, and from which of its addresses: HAProxy with "source
// 0.0.0.0 usesrc clientip" does so. Its DialContext goes into
// Dialer.DialContext; one HAProxy stands for one source address. A SOCKS5
// proxy needs nothing of ours: golang.org/x/net/proxy has a DialContext.
type HAProxy struct {
	// Addr is the proxy's host:port.
	Addr string
	// Source is the address that the proxy connects from, of the same
	// family as the destinations; the zero Addr stands for our own.
	Source netip.Addr
	// V1 sends the header as text, of the protocol's version 1.
	V1 bool
	// Dialer connects to the proxy.
	Dialer net.Dialer
}

// DialContext connects to addr through the proxy, and looks it up here if it
// is a name.
func (h *HAProxy) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("through HAProxy: %w", err)}
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fail(err)
	}
	n, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return fail(err)
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		family := "ip"
		if h.Source.Is4() {
			family = "ip4"
		} else if h.Source.IsValid() {
			family = "ip6"
		}
		ips, err := net.DefaultResolver.LookupNetIP(ctx, family, host)
		if err != nil {
			return fail(err)
		}
		ip = ips[0]
	}
	nc, err := h.Dialer.DialContext(ctx, "tcp", h.Addr)
	if err != nil {
		return nil, err
	}
	source := h.Source
	if !source.IsValid() {
		if a, ok := nc.LocalAddr().(*net.TCPAddr); ok {
			source = a.AddrPort().Addr()
		}
	}
	header, err := proxyHeader(netip.AddrPortFrom(source.Unmap(), 0), netip.AddrPortFrom(ip.Unmap(), uint16(n)), h.V1)
	if err != nil {
		nc.Close()
		return fail(err)
	}
	if t, ok := ctx.Deadline(); ok {
		nc.SetWriteDeadline(t)
	}
	if _, err := nc.Write(header); err != nil {
		nc.Close()
		return fail(err)
	}
	nc.SetWriteDeadline(time.Time{})
	return nc, nil
}

// proxyHeader is the header of the PROXY protocol. Port 0 of the source
// leaves its choice to the proxy.
func proxyHeader(src, dst netip.AddrPort, v1 bool) ([]byte, error) {
	s, d := src.Addr().WithZone(""), dst.Addr().WithZone("")
	if !s.IsValid() || s.Is4() != d.Is4() {
		return nil, errors.New("source and destination are of different families")
	}
	if v1 {
		family := "TCP6"
		if s.Is4() {
			family = "TCP4"
		}
		return fmt.Appendf(nil, "PROXY %s %s %s %d %d\r\n", family, s, d, src.Port(), dst.Port()), nil
	}
	// Version 2, command PROXY, then the family with TCP, and the length.
	b := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x24")
	if s.Is4() {
		b[13], b[15] = 0x11, 12
	}
	b = append(append(b, s.AsSlice()...), d.AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	return binary.BigEndian.AppendUint16(b, dst.Port()), nil
}
