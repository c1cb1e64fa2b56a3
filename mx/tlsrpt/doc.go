// Package tlsrpt is SMTP TLS Reporting (RFC 8460): it counts how TLS went with
// each domain that mail was sent to, reports it to those who ask for that, and
// reads the reports of others.
//
//	store := new(tlsrpt.Memory)
//	sender := &mx.Sender{OnAttempt: func(a mx.Attempt) { store.Add(ctx, a.Time, tlsrpt.Outcomes(a)...) }}
//	reporter := &tlsrpt.Reporter{Store: store, Resolver: resolver, Organization: "Example", Contact: contact, Send: send}
//	go reporter.Run(ctx) // each day, what was counted the day before
//
// [ReadReport] takes what others send, as JSON or gzip; [ReadMessage] finds it
// in their mail.
package tlsrpt
