// Package pop3 holds the values that POP3 servers and clients share: response
// codes and errors, capabilities, scan listings and unique-ids (RFC 1939,
// RFC 2449, RFC 3206). The server is pop3server, the client pop3client.
package pop3
