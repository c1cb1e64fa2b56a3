// Package pgqueue keeps a queue in PostgreSQL, for any number of nodes at once.
//
//	pool, err := pgxpool.New(ctx, "postgres://…")
//	…
//	s, err := pgqueue.Open(ctx, pool, pgqueue.Options{})
//	…
//	q := &queue.Queue{Storage: s, Transport: …}
//
// Storage.PutTx stores a message within a transaction of the adopter's own: it
// is queued if, and only if, that transaction commits. PutSQL does the same for
// database/sql.
//
//	sub, err := q.Prepare(ctx, queue.Mail{…, Key: "order 17"})
//	…
//	err = s.PutTx(ctx, tx, sub)
//
// The tables are plain ones beside the adopter's, and are described in
// schema.sql, which Open brings up to date. Nodes share the work by leases: a
// node that stops renewing is dead, and its entries are taken over. Times are by
// the database's clock. No transaction is held during a delivery. Large bodies
// can be objects in an object store: see Options.Blobs and the package s3blobs.
//
// With a replica, name both hosts in the connection string and add
// target_session_attrs=read-write: nodes find the new primary by themselves.
// With a synchronous one a failover loses nothing. With an asynchronous one
// mail that was acknowledged in the last moment before may be lost, and mail
// whose outcome was is delivered again; entries are never in two hands.
//
// PostgreSQL 14 or later is needed. Behind PgBouncer in transaction mode the
// pool's connection string says default_query_exec_mode=exec, and
// Options.Listen how to connect past it.
package pgqueue
