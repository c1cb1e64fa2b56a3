// Package ratelimit bounds how many connections, messages and recipients a
// peer may bring in a time. It wraps a server's backend:
//
//	l := &ratelimit.Limiter{
//		Connections: ratelimit.Rate{N: 60, Per: time.Minute},
//		Messages:    ratelimit.Rate{N: 100, Per: time.Hour},
//	}
//	s := &smtpserver.Server{Backend: smtpserver.Wrap(backend, l.Wrap)}
//
// A peer is the user once there was a login, and the network of the address
// before (a whole IPv6 /64). Counting is by the generic cell rate algorithm:
// one time per peer and rate. It is kept in a bounded [Memory], or in what
// implements [Storage], so that several servers count together.
//
// How many connections there may be at one time is smtpserver.Server's to
// say (MaxConnectionsPerIP); this package says how many may come.
package ratelimit
