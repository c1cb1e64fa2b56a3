// Package dnsbl asks DNS block lists and white lists (RFC 5782) about a peer
// and wraps a server's backend with the answer:
//
//	c := &dnsbl.Checker{Lists: []dnsbl.List{
//		{Zone: "zen.example", Weight: 2},
//		{Zone: "bl.example"},
//		{Zone: "dbl.example", Of: dnsbl.Hello | dnsbl.Sender},
//		{Zone: "list.dnswl.example", Weight: -3},
//	}}
//	s := &smtpserver.Server{Backend: smtpserver.Wrap(backend, c.Wrap)}
//
// Lists are asked beside one another, about the address as soon as the peer
// connects. RCPT waits for them: it is refused when the weights of the lists
// that know the peer come to Threshold. Who has logged in is not asked about,
// and Postmaster can always be written to (RFC 5321 §4.5.1).
//
// A list that does not answer in time, and an answer that means trouble
// (outside 127.0.0.0/8, or in 127.255.255.0/24 as many lists say "ask
// less"), counts as not listed and is logged. Answers are not kept here: use
// a caching resolver. Many lists refuse public resolvers and high volume.
package dnsbl
