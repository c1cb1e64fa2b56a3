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
// [Stream] reads a message that comes by only once. [Part.Bodies] sorts the
// parts as people see them; [Reading] reads their text with more charsets, the
// guesses of mime/detect, and HTML as text by mime/htmlmail.
//
// Writing is [Message]: fill in From, To, Subject, Text, HTML and files, and
// WriteTo nests the parts, chooses encodings and streams the result. [Reply],
// [ReplyAll] and [Forward] begin one. [Edit] changes a message and leaves every
// other octet as it was.
//
// Package mime/report builds and reads reports about mail, mime/mbox and
// mime/maildir read and write mailbox files.
package mime
