// Package smtp holds the values that the parts of an SMTP system exchange:
// addresses, envelopes, replies, errors and results (RFC 5321 and its
// extensions). It opens no socket: see smtpserver and smtpclient for the two
// roles, and smtptest for a kit to test your own program with.
package smtp
