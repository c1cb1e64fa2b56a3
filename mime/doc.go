// Package mime reads and writes Internet messages (RFC 5322, RFC 2045-2049,
// RFC 2231, RFC 6532).
//
// Reading never refuses a message. [Parse] and [Parser] turn one into a tree
// of [Part] values with exact octet offsets, the numbers that IMAP answers
// with; what is wrong with a message becomes a [Defect] of the part it was
// found in, and limits that are always on bound what a hostile one can cost.
// No body is copied: [Part.Raw], [Part.Decoded] and [Part.Text] read it from
// the message when asked.
//
// A [Header] keeps a header block byte for byte: order, spelling and folding
// survive, so that signatures do.
//
// Writing is [Message]: fill in From, To, Subject, Text, HTML and files, and
// WriteTo nests the parts, chooses encodings and streams the result.
//
// Package mime/report builds and reads delivery status notifications.
package mime
