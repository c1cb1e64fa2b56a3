// Package pgstore keeps mail in PostgreSQL, for any number of nodes at once.
//
//	pool, err := pgxpool.New(ctx, "postgres://…")
//	…
//	s, err := pgstore.Open(ctx, pool, pgstore.Options{})
//	…
//	defer s.Close()
//
// The tables are plain ones in a schema of their own beside the adopter's, and
// are described in schema.sql, which Open brings up to date. PostgreSQL 14 or
// later is needed. Behind PgBouncer in transaction mode the pool's connection
// string says default_query_exec_mode=exec, and Options.Listen how to connect
// past it.
//
// Each write is one transaction that locks the account's row: that makes
// ModSeqs visible in order and counts and quotas exact, and lets one account
// take one write at a time, many accounts as many as the server can. Appends to
// one account that come at the same time go together, each with its own
// outcome; an Append is one round trip, and so is a delivery to 50 accounts.
// Bodies are stored once for all recipients of a delivery, and go away an hour
// after the last message that has them was expunged. Large ones can be objects
// in an object store: see Options.Blobs and the package s3blobs.
//
// Every call ends within Options.Timeout, and one that gets no connection of
// the pool within ten seconds fails: both are store.ErrUnavailable, which is
// temporary.
//
// With a replica, name both hosts in the connection string and add
// target_session_attrs=read-write: nodes find the new primary by themselves.
// With a synchronous one a failover loses nothing. With an asynchronous one
// mail that was acknowledged in the last moment before may be lost: end the
// nodes, promote, and call Store.Reissue before any node serves again, as after
// a backup was restored, or UIDs would come to mean other messages.
//
// With Options.Search the text of messages is kept beside them, indexed by the
// extension pg_trgm, and SEARCH looks only into messages that may match.
//
// Commits are told to other nodes by NOTIFY, a few at a time and outside of the
// transactions; a query every few seconds makes sure that none is missed.
package pgstore
