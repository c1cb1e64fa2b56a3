// Package maildir reads and writes Maildirs: folders with tmp, new and cur in
// them and a file for each message.
//
// [Dir.Messages] yields the messages with their flags, keywords as Dovecot
// keeps them included; [Dir.Deliver] adds one so that it is there in full or
// not at all, also after a crash. Both stream.
//
//	for m, err := range maildir.Dir("/var/mail/ann").Messages() {
//		if err != nil {
//			return err
//		}
//		r, err := m.Open() // CRLF line ends
//		…
//	}
package maildir
