// Package mbox reads and writes mbox files (RFC 4155 and its relatives).
//
// A [Reader] yields the messages of mboxrd, mboxo, mboxcl and mboxcl2 files one
// by one, as streams: memory does not depend on the size of a message. A
// [Writer] writes mboxrd and mboxcl2.
//
//	for m, err := range mbox.NewReader(f).Messages() {
//		if err != nil {
//			return err
//		}
//		fmt.Println(m.From, m.Date, m.Flags)
//		io.Copy(dst, m) // CRLF line ends, quoting undone
//	}
//
// Locking is not done: no two programs agree on how. Work on a file that
// nobody else writes to.
package mbox
