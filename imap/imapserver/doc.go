// Package imapserver serves IMAP4rev2 (RFC 9051) and IMAP4rev1 (RFC 3501) over
// any [store.Store]: whoever implements store.Account has a complete server.
//
//	s := &imapserver.Server{Store: st, Auth: auth, TLS: tlsConfig}
//	err := s.Serve(listener)
//
// Sequence numbers, structure, search and unsolicited updates are done here,
// once, above the store: sessions share one [store.View] of a mailbox and
// hold Snapshots of it, messages stream from the store with bounded memory,
// and what another session or another node changes is pulled when the store
// says that something happened, at NOOP, and during IDLE.
//
// Beside the base protocols it speaks LITERAL+, SASL-IR, ID, ENABLE, IDLE,
// NAMESPACE, UNSELECT, UIDPLUS, MOVE, MULTIAPPEND, APPENDLIMIT, BINARY,
// ESEARCH, SEARCHRES, CHILDREN, LIST-EXTENDED, LIST-STATUS, SPECIAL-USE,
// CREATE-SPECIAL-USE, STATUS=SIZE and UTF8=ACCEPT.
package imapserver
