// Package pop3server is a POP3 server (RFC 1939) with CAPA (RFC 2449), STLS
// (RFC 2595), SASL (RFC 5034), TOP, UIDL, pipelining and response codes
// (RFC 3206), over any mail store.
//
// A [Server] needs a store.Store, or a function that returns one's own
// [Maildrop] of three methods, and a login.Authenticator:
//
//	srv := &pop3server.Server{Store: st, Auth: users, TLS: config}
//	err := srv.Serve(listener)
package pop3server
