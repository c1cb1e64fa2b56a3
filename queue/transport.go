package queue

import (
	"context"

	"github.com/postrider/postrider/smtp"
)

// Transport delivers. It is used from many goroutines.
type Transport interface {
	// Deliver sends body to the recipients of env and returns one result for
	// each, aligned. They share a domain, by which a Transport may choose
	// among others. env, which must not be changed, and body are the
	// caller's again at return.
	//
	// A result without an error says who is responsible now: its Hop, or
	// without one this host, as after delivery to a mailbox of its own.
	//
	// ctx may end it up to the last octet before the final dot; after that
	// the reply is awaited, within a bound of the transport's own, and its
	// absence is an error that is Unsure.
	//
	// An error that is an *smtp.Error is final when its code is 5xx, and its
	// Scope says what it condemns; any other error is temporary and says
	// nothing of the host.
	Deliver(ctx context.Context, env *smtp.Envelope, body Body) []smtp.Result
}

// Grouper is a Transport that knows which destinations share hosts.
type Grouper interface {
	// Group returns the name of the site that serves domain. Limits and
	// failures of hosts are counted by site. It is asked before entries of a
	// lane are leased; it should remember its answers.
	Group(ctx context.Context, domain string) (site string, err error)
}
