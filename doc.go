// Package postrider is the overview of a library of composable mail
// components. Import one package, wire several into a mail system of your
// own, or copy a program out of examples/.
//
// # The journey of an e-mail
//
//	compose ─► submit ─► sign ─► queue ─► resolve MX ─► transfer ─► check ─► store ─► read
//	 mime     smtpclient  submission  queue    mx         smtpclient   auth    store   pop3server
//	          smtpserver  dkim        memqueue resolver   smtpserver   spf     memstore imapserver
//	                                                      starttls     dkim    delivery
//	                                                                   dmarc
//
// # Packages
//
//   - [github.com/postrider/postrider/mime] composes and reads messages;
//     mime/report writes and reads delivery, disposition and feedback reports,
//     mime/mbox and mime/maildir mailbox files.
//   - [github.com/postrider/postrider/smtp] has the values of SMTP;
//     smtp/smtpserver and smtp/smtpclient are its roles, smtp/smtptest is a kit
//     for your own tests.
//   - [github.com/postrider/postrider/mx] finds the host that takes a domain's
//     mail and delivers to it, under DANE (mx/dane) and MTA-STS (mx/mtasts);
//     mx/tlsrpt reports how TLS went, mx/resolver asks DNS, mx/mxtest fakes it.
//   - [github.com/postrider/postrider/queue] keeps outgoing mail until its fate
//     is known: lanes, leases, retries, bounces. queue/memqueue,
//     queue/diskqueue and queue/pgqueue are storages, queue/submission is the
//     way in, queue/feedback reads what comes back, queue/webhook tells of it,
//     and queue/queuetest proves a storage of your own.
//   - [github.com/postrider/postrider/auth] authenticates messages: auth/spf,
//     auth/dkim, auth/dmarc, auth/arc, and auth/verify that runs them in one pass;
//     auth/login authenticates users for every server.
//   - [github.com/postrider/postrider/store] is the seam between the servers and
//     whatever keeps the mail; store/memstore, store/diskstore
//     and store/pgstore are stores, store/textindex makes SEARCH in any of them
//     fast, store/delivery is the way in, store/transfer moves mail between
//     stores, store/storetest proves a store of your own.
//   - [github.com/postrider/postrider/imap] and
//     [github.com/postrider/postrider/pop3] serve it and read it: imapserver and
//     pop3server work over any store, imapclient and pop3client talk to any
//     server.
//
// # How the parts fit
//
// Interfaces are small, take a context first, and are shaped like the
// standard library's, so that *net.Resolver, *bytes.Reader, net.Conn and
// *tls.Config fit without adapters. Configuration is a struct literal whose
// zero value works. Results for several recipients come as slices that are
// index-aligned with them.
//
// Implement [github.com/postrider/postrider/store.Account], eleven methods,
// over your own database, and you have IMAP, POP3 and delivery for it.
// Implement [github.com/postrider/postrider/queue.Storage], seven methods, and
// the queue runs on it, on any number of nodes.
//
// Nothing relays, accepts, or shows a password on the wire unless you say so.
//
// examples/journey shows the whole way in one program. To copy:
// examples/mailserver, examples/relay, examples/passwordreset, examples/bulk,
// examples/queuectl, examples/webhook, examples/storecopy, examples/imapfront
// and examples/dmarcreport.
package postrider
