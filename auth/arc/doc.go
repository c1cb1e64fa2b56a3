// Package arc validates and extends the Authenticated Received Chain of a
// message (RFC 8617): what each host that passed it on found out about it,
// sealed, so that a receiver who trusts those hosts can go by that when a
// mailing list or a forwarder has broken SPF and DKIM.
//
// ARC is an experiment on its way to Historic
// (draft-ietf-dmarc-arc-to-historic), and a chain proves nothing about a
// sealer that one does not know. Nothing here is done unless it is asked for.
//
// Both sides are an io.Writer with a final call, like those of
// [github.com/postrider/postrider/auth/dkim]:
//
//	v := &arc.Verifier{}
//	p := v.Begin(ctx)
//	defer p.Close()
//	io.Copy(p, message)            // as it was received
//	chain, err := p.Result()
//
//	s, err := arc.NewSealer(arc.SealOptions{Domain: "example.org", Selector: "s1", Key: key})
//	io.Copy(s, message)            // as it will be sent, with CRLF line ends
//	fields, err := s.Seal(results) // three fields, to be put in front
//
// The results are what one has found out about the message, ARC included.
// Keys are those of DKIM, and published the same way.
package arc
