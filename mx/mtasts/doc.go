// Package mtasts is SMTP MTA Strict Transport Security (RFC 8461) from both
// sides.
//
// A [Client] finds and keeps the policies of recipient domains; mx.Sender
// applies them:
//
//	sts := &mtasts.Client{Resolver: resolver, Cache: mtasts.Dir("/var/lib/mail/mta-sts")}
//	go sts.Run(ctx) // renews what is kept, so that nobody can wait for it to expire
//	sender := &mx.Sender{Resolver: resolver, STS: sts}
//
// A [Handler] serves the policy of one's own domains, and Policy.Record is
// what their "_mta-sts" TXT says.
package mtasts
