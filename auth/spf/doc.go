// Package spf finds out whether a client may send mail in the name of a
// domain: the check_host function of the Sender Policy Framework (RFC 7208),
// with all mechanisms, macros, modifiers and limits.
//
//	c := &spf.Checker{Resolver: net.DefaultResolver, Receiver: "mx.example.org"}
//	e := c.Check(ctx, spf.Source{IP: ip, Hello: "mail.example.net", From: from})
//	if e.Result == auth.Fail {
//		// refuse, perhaps with e.Explanation
//	}
//	header := e.Received().String() // or e.MethodResult(), for Authentication-Results
//
// There is no error beside the result: whatever goes wrong is one of the
// results of RFC 7208 §2.6, and Evaluation.Err says why. Only TXT records
// count; those of type SPF are historic.
//
// For those who publish records, Lint says what is wrong with the text of one,
// Checker.Survey with all that it refers to, and Survey.Flatten makes a record
// that needs no lookups of others.
package spf
