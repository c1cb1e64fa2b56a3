// Package interop proves examples/mailserver with programs that nobody here
// wrote: swaks, curl, msmtp, mpop, fetchmail, getmail, mbsync, offlineimap,
// neomutt, nodemailer, imapflow, OpenDKIM, python3-dkim and python3-spf; and the
// SMTP packages with Postfix, Exim, smtp-source, smtp-sink, rspamd, smtplib,
// npm's smtp-server and mox; and MIME with Dovecot, Python, enmime and
// mailparser. It is a module of its own, so that nothing of it reaches an
// importer.
//
//	cd internal/interop && (cd node && npm ci) && go test ./...
//
// mox's server is built by "go build -o /usr/local/bin/mox
// github.com/mjl-/mox" in the folder mox, which pins its version.
//
// A program that is not installed is a skipped test, and a failed one when
// POSTRIDER_REQUIRE is set.
package interop
