// Package dmarcreport makes and reads the reports of DMARC: aggregate reports
// (RFC 9990, and RFC 7489 when reading) and failure reports (RFC 9991, in the
// format of RFC 6591).
//
// A receiver counts what it saw, and sends the reports of the periods that are
// over:
//
//	c := &dmarcreport.Collector{Storage: storage}
//	c.Add(ctx, dmarcreport.FromResult(r).Message) // r is that of auth/verify
//	…
//	s := &dmarcreport.Sender{Storage: storage, Submitter: "mx.example.org", From: from, Send: send}
//	n, err := s.SendDue(ctx, time.Now()) // now and then
//
// Memory is a Storage that forgets when the program ends.
//
// A domain owner reads the reports that come in, and asks who sends in the name
// of the domain, and what fails:
//
//	report, err := dmarcreport.ReadMessage(file, size, dmarcreport.Limits{})
//	summary := dmarcreport.Summarize([]*dmarcreport.Report{report})
//	summary.WriteText(os.Stdout)
//	summary.WriteHTML(w)
//
// Reports come from strangers: sizes, depth and counts are bounded, compressed
// or not, and no entity is ever expanded. What a report says may be invented.
//
// Failure reports hold what people wrote to each other. Think twice before
// sending any (RFC 9991 §7); a FailureReporter sends the header alone, redacted, unless
// told otherwise, and only so many.
package dmarcreport
