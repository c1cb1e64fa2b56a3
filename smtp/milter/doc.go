// Package milter puts mail filters that speak Sendmail's milter protocol
// (version 6) into the path of a server: rspamd, OpenDKIM, OpenDMARC, ClamAV
// and the like. A [Client] wraps a server's backend:
//
//	m := &milter.Client{Network: "unix", Address: "/run/rspamd/milter.sock"}
//	s := &smtpserver.Server{Backend: smtpserver.Wrap(backend, m.Wrap)}
//
// One connection to the filter is opened at a peer's first MAIL and kept for
// its session. A message is spooled (in memory, then in a file), shown to the
// filter, changed as it says, and handed to the backend. The filter can
// refuse or discard at each step, change, add and remove header fields,
// replace the body, and change sender and recipients. The backend is asked
// first about sender and recipients, so that the filter hears of those only
// who are accepted; when sender or recipients change after all, the backend
// gets Reset, Mail and Rcpt anew before Data.
//
// Several filters are several wrappers; the outermost sees the message first.
//
// When a filter is away or breaks the protocol, the peer gets 451 4.7.1,
// unless FailOpen lets mail pass without it.
package milter
