// Package imap has the values of the Internet Message Access Protocol that
// client and server share: flags, number sets, capabilities, response codes,
// and the data of FETCH, SEARCH, LIST and STATUS, as IMAP4rev2 (RFC 9051) and
// IMAP4rev1 (RFC 3501) with their extensions define them.
//
// It opens no sockets: see imapserver and imapclient. Mailbox names are UTF-8
// here; the wire's modified UTF-7 is [EncodeUTF7] and [DecodeUTF7].
package imap
