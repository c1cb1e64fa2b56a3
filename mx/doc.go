// Package mx finds the hosts that take mail for a domain (RFC 5321 §5.1) and
// delivers to them.
//
// [Lookup] gives a domain's [Route]: MX hosts in order of preference with
// chance among equals, the domain itself when it has no MX, or the error that
// a null MX (RFC 7505), a missing domain or a failing DNS stands for. A
// [Sender] delivers an envelope along it, and is a transport for a queue:
//
//	sender := &mx.Sender{Pool: &smtpclient.Pool{Dialer: smtpclient.Dialer{Hello: "mx.example.org"}}}
//	results := sender.Deliver(ctx, env, body)
//
// A *net.Resolver is a [Resolver]; package resolver has one with a cache,
// which also tells NXDOMAIN from no data, and package mxtest has one for
// tests, with a real DNS server.
//
// A Resolver that is a [Querier] too turns DANE on (RFC 7672); Sender.STS does so
// for MTA-STS (RFC 8461), and Sender.OnAttempt feeds package tlsrpt.
package mx
