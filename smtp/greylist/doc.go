// Package greylist answers the first attempt of an unknown peer with "try
// again later" (RFC 6647): mail servers do, and much of what sends spam does
// not. It wraps a server's backend:
//
//	g := &greylist.Greylist{}
//	s := &smtpserver.Server{Backend: smtpserver.Wrap(backend, g.Wrap)}
//
// What is unknown is the triplet of the peer's network, the sender and the
// recipient, as RFC 6647 §2.2 has it. A triplet that comes again after Delay
// and within Window passes, and its whole network is known from then on, so
// that only the first mail from somewhere is late. Recipients that the backend refuses are refused as
// ever. Who has logged in, and who connects without an IP address, is not
// asked to wait.
//
// What was seen is kept in a bounded [Memory], or in what implements
// [Storage], so that several hosts of a domain share it and a restart forgets
// nothing.
package greylist
