// Package authtest has what tests of message authentication need: domains with
// everything published, messages that they signed, and the DNS that says so,
// all of it in memory.
//
//	w := authtest.New("example.org", "example.net")
//	msg, err := w.Sign(w.Message("example.org"), "example.org")
//	v := &verify.Verifier{Resolver: w.Zone}
//	p := v.Begin(ctx, verify.Source(w.Source("example.org")))
//	io.WriteString(p, msg)
//	r, err := p.Result() // SPF, DKIM, DMARC and iprev pass
//
// Then the test breaks what it is about:
//
//	w.Zone["_dmarc.example.org"] = []string{"SERVFAIL"}
package authtest
