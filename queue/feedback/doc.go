// Package feedback reads what comes back of mail that was sent: bounces, delays,
// automatic replies and complaints, of all the forms that mime/report knows. It
// finds which message of the queue they are about, and whom.
//
//	m := &feedback.Matcher{Base: bounces, Key: secret} // bounces@mail.example
//	q := &queue.Queue{Storage: st, Transport: tr, ReturnPath: m.ReturnPath}
//
// Each recipient's mail then has a reverse-path of its own, such as
// "bounces+0u6…v4e-9d2f…+ann=example.org@mail.example" (VERP). Mail to those
// addresses is given to [Matcher.Read]. Anybody can write a bounce: one is
// believed that came to such an address, since nobody else can make it, and else
// only if its Message-ID is known.
package feedback
