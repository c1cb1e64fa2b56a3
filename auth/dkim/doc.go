// Package dkim signs messages and verifies their signatures (RFC 6376), with
// RSA-SHA256 and Ed25519-SHA256 (RFC 8301, RFC 8463).
//
// Both sides are an io.Writer with a final call, so that one pass over a
// message can serve them beside a spool or a parser (io.MultiWriter), in
// constant memory and without goroutines of the caller's:
//
//	s, err := dkim.NewSigner(dkim.SignOptions{Domain: "example.org", Selector: "s1", Key: key})
//	io.Copy(s, message)          // as it will be sent, with CRLF line ends
//	field, err := s.Signature()  // "DKIM-Signature: …\r\n", to be put in front
//
//	v := &dkim.Verifier{Resolver: net.DefaultResolver}
//	p := v.Begin(ctx)
//	defer p.Close()
//	io.Copy(p, message)          // as it was received
//	results, err := p.Results()
//
// Nothing is repaired: a line ends with CRLF, and a lone LF or CR is an octet
// like any other. Convert a file with LF line ends before.
//
// The author-domain signing practices of RFC 5617 are historic and not here;
// policy is DMARC's.
package dkim
