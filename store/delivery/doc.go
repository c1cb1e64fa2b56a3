// Package delivery takes inbound mail from an SMTP or LMTP server to the
// mailboxes of a store, or to any other [Target].
//
//	b := &delivery.Backend{
//		Recipients: func(ctx context.Context, to smtp.Address) ([]store.Target, error) {
//			if to.Domain != "example.org" {
//				return nil, delivery.ErrRelay
//			}
//			if !known(to.Local) {
//				return nil, delivery.ErrNoUser
//			}
//			return []store.Target{{Account: to.Local}}, nil
//		},
//		Target: delivery.To(s),
//	}
//	srv := &smtpserver.Server{Backend: b}
//
// A message is read once: on its way to where the store keeps it, it is
// checked (SPF, DKIM, DMARC), its structure is found for the store's Summary,
// forged Authentication-Results of our own name are taken out, and loops are
// noticed. Then Policy may refuse it or mark it as junk, Filter may file,
// flag, discard or redirect it for each recipient, trace fields go on top, and
// Target stores it. Nothing is stored before the whole message is
// here. A message that is no good MIME is stored as it is.
//
// # Replies
//
//	550 5.1.1  ErrNoUser                 452 4.2.2  the mailbox is over quota, or at a limit
//	550 5.7.1  ErrRelay; refused by DMARC 552 5.3.4  too big for the store, or too long a header
//	554 5.4.6  a loop                    451 4.3.0  the store failed; try again
//
// # Several recipients
//
// LMTP answers for each of them. SMTP has one answer for all: 250 only when
// all have the message, else the first temporary failure, else the first
// permanent one. So nobody's mail is lost: after a temporary failure the
// sender tries again, and those who have the message already do not get it
// twice, because a store that is a store.Deliverer recognises it by recipient,
// Message-ID and content. A message without a Message-ID is never taken for a
// repeated one.
package delivery
