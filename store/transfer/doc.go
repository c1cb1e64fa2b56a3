// Package transfer moves mail between stores, and between a store and mbox
// files or Maildirs.
//
// Copy makes one account like another, UIDs and UIDVALIDITY kept where the
// destination is a [store.Importer], so that IMAP clients need not fetch
// anything again. It may be called while the source is in use, and again: then
// it brings over what has changed. To move a server, copy once at leisure,
// stop the old one, copy once more, start the new one.
//
//	report, err := transfer.Copy(ctx, to, from, transfer.Options{
//		Progress: func(p transfer.Progress) { fmt.Println(p.Mailbox, p.Messages, "of", p.MessagesTotal) },
//	})
//
// FromMbox and FromMaildir append to one mailbox, ToMbox and ToMaildir write
// one out. Everything streams: memory depends neither on the number of messages nor
// on their size.
package transfer
