// Package smtptest tests programs that send mail.
//
// A [Server] takes mail and keeps it for you to look at:
//
//	srv := smtptest.New(t)
//	app.SMTPAddr = srv.Addr
//	app.SignUp("alice@example.org")
//	m := srv.Wait(ctx, 1)[0]
//	link := m.Links()[0]
//
// and misbehaves when told to, one line for each [Fault]:
//
//	srv.Inject(smtptest.Fault{At: smtptest.Rcpt, Match: "bob@", Reply: "550 No such user"})
//	srv.Inject(smtptest.Fault{At: smtptest.Rcpt, Reply: "450 Greylisted", Times: 1})
//	srv.Inject(smtptest.Fault{At: smtptest.Dot, Drop: true})
//	srv.Inject(smtptest.Fault{At: smtptest.TLS})
//	srv.Inject(smtptest.Fault{At: smtptest.Mail, Delay: time.Minute})
//
// Settings come before the start:
//
//	srv := (&smtptest.Server{STARTTLS: true, Users: map[string]string{"app": "secret"}}).Run(t)
//
// A [Peer] plays a [Script], octet for octet, for what no real server says.
// Both also serve connections in memory, so that a whole delivery runs inside
// a testing/synctest bubble.
package smtptest
