// Package imapclient is an IMAP client (RFC 9051 and RFC 3501). A [Dialer]
// opens a [Client], which runs one command at a time on the caller's
// goroutine; a refusal by the server is an *imap.Error with its response code.
//
//	c, err := new(imapclient.Dialer).Dial(ctx, "imap.example.com:143")
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	if err := c.Login(ctx, "alice", password); err != nil {
//		return err
//	}
//	box, err := c.Select(ctx, "INBOX")
//	…
//	for m, err := range c.Fetch(ctx, imap.UIDs(set), imap.FetchAll()) {
//		…
//	}
//
// What a server sends is bounded in memory; bodies can be streamed with
// [Client.FetchBodies]. What it sends unasked goes to the Dialer's [Handler].
package imapclient
