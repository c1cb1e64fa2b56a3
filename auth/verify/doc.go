// Package verify checks who a message is from, by everything there is: SPF,
// DKIM, DMARC and the client's reverse name, over one message in a single
// pass.
//
//	v := &verify.Verifier{Resolver: resolver, AuthServID: "mx.example.org"}
//
//	p := v.Begin(ctx, verify.Source{IP: ip, Hello: hello, From: from})  // at MAIL
//	defer p.Close()
//	io.Copy(io.MultiWriter(spool, p), message)                          // at DATA
//	r, err := p.Result()
//
// SPF and the reverse name are looked up from Begin on, keys and policies
// from the end of the header on, all concurrently; Write never waits for the
// DNS. Result has the parts, the Authentication-Results field to add
// (RFC 8601), and a Verdict: accept, quarantine or reject, and why. Without a
// Policy that is what the author's domain asks for.
//
// The reports that the author's domain may have asked for are those of
// auth/dmarc/dmarcreport, which take the Result as it is (FromResult).
package verify
