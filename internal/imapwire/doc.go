// Package imapwire reads and writes the formal syntax of IMAP (RFC 9051 §9).
//
// [Decoder] has pairs of methods: X takes an element when it is next and says
// whether it did, ExpectX makes its absence an error. The first error sticks:
// every method does nothing and returns false after it, so that a parser is a
// straight line with one check at its end. [Encoder] keeps its first error
// too and reports it at CRLF.
package imapwire
