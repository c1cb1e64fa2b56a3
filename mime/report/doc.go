// Package report builds and reads delivery status notifications: what tells
// a sender that a message could not be delivered, was delivered, or is late
// (RFC 3464, in a multipart/report of RFC 6522, with UTF-8 as in RFC 6533).
//
// A [DSN] is both what [DSN.Message] writes and what [Parse] and [Read] give
// for a notice that came in. Reading is lenient: what real servers send is
// taken as far as it can be understood.
package report
