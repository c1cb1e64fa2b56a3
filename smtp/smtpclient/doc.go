// Package smtpclient is the sending side of SMTP (RFC 5321) and LMTP
// (RFC 2033), with pipelining, STARTTLS, AUTH, SMTPUTF8, 8BITMIME, CHUNKING
// with BINARYMIME, SIZE, DSN, REQUIRETLS, LIMITS, DELIVERBY, FUTURERELEASE,
// MT-PRIORITY, NO-SOLICITING and RRVS.
//
// A [Relay] sends envelopes through one host, such as a provider's submission
// service. A [Pool] keeps connections to many hosts and reuses them. A
// [Dialer] opens one [Conn], whose Send transfers one envelope after another.
// All of them answer with one [smtp.Result] for each recipient, in the order of
// the envelope, whose error is an [*smtp.Error]:
//
//	relay := &smtpclient.Relay{
//		Addr: "smtp.example.com:587",
//		Auth: &smtpclient.Auth{User: "alice", Password: secret},
//	}
//	for i, res := range relay.Deliver(ctx, env, strings.NewReader(message)) {
//		if res.Err != nil {
//			log.Printf("%v: %v", env.To[i], res.Err)
//		}
//	}
//
// A connection carries one message for each round trip when two senders share
// it: the commands of the next go out behind a message that is not answered
// yet.
//
// Nothing is weakened silently: a password is not shown to a peer whose
// certificate was not verified, and a message that needs an extension is
// refused, with the reason, where the peer lacks it.
package smtpclient
