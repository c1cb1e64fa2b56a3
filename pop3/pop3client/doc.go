// Package pop3client reads mail over POP3 (RFC 1939), with CAPA, STLS, SASL,
// UIDL and TOP. A [Dialer] opens a [Client]; a refusal by the server is a
// *pop3.Error with its response code.
//
//	c, err := new(pop3client.Dialer).Dial(ctx, "pop.example.com:110")
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	if err := c.Login(ctx, "alice", password); err != nil {
//		return err
//	}
//	msg, err := c.Retr(ctx, 1)
//
// Replies are bounded, whatever the server sends; messages are streamed.
package pop3client
