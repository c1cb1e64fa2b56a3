// Package dmarc finds out what the domain of a message's author asks receivers
// to do with mail that is not authenticated as its own (DMARC, RFC 9989), and
// whether a message is.
//
//	e := &dmarc.Evaluator{Resolver: net.DefaultResolver}
//	ev := e.Evaluate(ctx, "example.org", dmarc.Identifiers{
//		SPF:  dmarc.Identifier{Result: auth.Pass, Domain: "bounce.example.org"},
//		DKIM: []dmarc.Identifier{{Result: auth.Fail, Domain: "example.org"}},
//	})
//	switch ev.Disposition {
//	case dmarc.Reject: …
//
// The policy record and the organizational domain are found by the DNS tree
// walk of RFC 9989 §4.10, at most eight queries for each domain in question,
// and not with a public suffix list as in RFC 7489 (package psl has that, for
// comparison). The tags pct, rf and ri of RFC 7489 are ignored. Lint says what
// is wrong with a record, or could be better.
//
// A message with several author domains, or none, is outside the RFC, which
// makes it a way around every policy: EvaluateAll evaluates each domain and
// returns the strictest outcome.
//
// Reports are made and read by package dmarcreport.
//
// The np tag speaks of domains that do not exist. Only a resolver whose errors
// have a method NXDomain() bool can tell; a plain *net.Resolver says "not
// found" of names that exist too, so np falls back to sp with it.
//
// Where the DNS fails, the result is TempError and never Pass or Fail: answer
// with a 4yz reply, or decide otherwise. ("Fail open" is what an attacker
// who can disturb the DNS would like.)
package dmarc
