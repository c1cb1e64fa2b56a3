// Package store is the seam between mail servers and whatever keeps the mail.
// Implement [Store] and the eleven methods of [Account] over your own
// database, and imapserver, pop3server and delivery serve it; storetest
// proves it right. memstore and diskstore are implementations.
//
// # For implementers
//
// The contract stands on [Account]. What a store can leave out is an interface
// of its own ([Watcher], [Stager], [Deliverer], [Subscriber], [RecentClaimer],
// [Quoter], [SummaryWriter], [Searcher], [Importer], [Admin]): servers find it with [As],
// also behind a wrapper, and do without it else. A store without history sets
// Mailbox.Horizon to Mailbox.ModSeq; one that only reads embeds [ReadOnly].
//
// # For servers
//
// [View] is the index of an open mailbox that sessions share, [Views] a cache
// of them; a [Snapshot] is one immutable state, and [Snapshot.Diff] tells what
// happened between two. [Stage], [Deliver] and [Watch] use what the store has,
// or fall back. Truth is pulled from the store, wake-ups are only hints, so
// any number of processes may serve one account.
package store
