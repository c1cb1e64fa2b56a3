// Package report builds and reads the reports that mail systems send about
// mail, each in a multipart/report (RFC 6522):
//
//   - [DSN], delivery status notifications (RFC 3464, with UTF-8 as in
//     RFC 6533): not delivered, delivered, or late;
//   - [MDN], disposition notifications (RFC 8098): read, deleted …;
//   - [ARF], feedback reports (RFC 5965): complaints, and failures of
//     authentication (RFC 6591).
//
// Each is both what its Message method writes and what [Parse], [ParseMDN] and
// [ParseARF] give for one that came in. Reading is lenient: what real servers
// send is taken as far as it can be understood. Writing is strict.
//
// [Classify] reads whatever came back, also the bounces that follow no
// standard, and says why in one word: a [Class], hard or soft. [ClassOf] does
// so for a single answer of a host.
package report
