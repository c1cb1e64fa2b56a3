// Package smtpserver is an ESMTP and LMTP server (RFC 5321, RFC 2033). The
// protocol is done here; what to accept is a [Session]'s to say, and one that
// accepts every recipient is an open relay: nothing is accepted by default.
//
//	s := &smtpserver.Server{Hostname: "mx.example.org", Backend: backend}
//	l, err := net.Listen("tcp", ":25")
//	…
//	err = s.Serve(l)
//
// It speaks PIPELINING, SIZE, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES, DSN,
// CHUNKING and LIMITS, with a TLS configuration and a login.Authenticator
// STARTTLS and AUTH, and what Server.Extensions names beside. VRFY, EXPN, HELP
// and ETRN are there when the session has their methods; see [Wrap] for
// sessions around sessions. An [ExtensionSession] can decline some of these.
//
// # Line ends
//
// Only CRLF.CRLF, or the last BDAT, ends a message. One with a bare CR, a bare
// LF or a NUL (but see LineEnds), or a line over MaxTextLine, is read to its
// real end and refused with 554 5.6.0.
//
// # Replies that the server gives by itself
//
//	214      HELP
//	220 221  banner, STARTTLS; QUIT
//	235      login done
//	250 252  done; VRFY, which tells nothing
//	334 354  go on with a login; with a message
//	421      shutdown, a timeout, a limit, a panic: the connection closes then
//	451 452  an internal failure; too many recipients (4.5.3)
//	454      the login database cannot be asked, or login has to wait (4.7.0)
//	500 501  unknown command, malformed line; malformed argument
//	502 503  not offered here; out of sequence
//	504 555  unknown mechanism; unknown parameter
//	530 535  login needed; login failed (5.7.8)
//	538 550  this mechanism needs TLS first (5.7.11); no XCLIENT for strangers
//	552      message over MaxMessageBytes, header over MaxHeaderBytes (5.3.4)
//	553      address needs SMTPUTF8 (5.6.7)
//	554      no valid recipients; malformed message (5.6.0); no service (banner)
package smtpserver
