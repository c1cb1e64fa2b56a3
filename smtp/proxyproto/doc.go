// Package proxyproto gives a server behind HAProxy, nginx or a cloud's load
// balancer the addresses of its real peers: a [Listener] reads the PROXY
// protocol's header, version 1 or 2, before the first octet of SMTP.
//
//	l, err := net.Listen("tcp", ":25")
//	…
//	err = s.Serve(&proxyproto.Listener{
//		Listener: l,
//		Trusted:  []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
//	})
//
// Only a trusted proxy is believed, and it must send a header; anybody else
// is served as who they are, and a header from them is a malformed command.
// Headers are awaited beside one another, so that a silent proxy holds
// nobody up, and each within Timeout. TLS comes after the header.
//
// A [Header] can also be written, for a client that leaves through a proxy.
package proxyproto
