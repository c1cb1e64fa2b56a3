// Package queue is an outbound mail engine to embed: it takes messages, keeps
// them in a [Storage], hands them to a [Transport], tries again what failed
// for now, and reports what failed for good.
//
//	q := &queue.Queue{Storage: new(memqueue.Storage), Transport: sender}
//	go q.Run(ctx)
//	id, err := q.Enqueue(ctx, queue.Mail{Envelope: env, Body: r})
//
// Work is ordered by [Lane]: a destination, a tenant and a priority. Capacity
// is taken first (in all, per tenant, per site, per lane) and entries are
// leased second, so a million entries for a dead host cost the others nothing.
// Tenants take turns, and so do the lanes of each. A site's concurrency grows
// while it answers and is halved when the host fails; a host that is down is
// asked again with one delivery. What condemns one recipient only, such as
// greylisting, changes nothing for its site: see smtp.Error.Scope.
//
// Bounces (RFC 3464, RFC 3461) are written in the same step as the outcome
// that causes them. Any number of queues may share one Storage. Package
// memqueue is a Storage in memory; package queuetest checks any other.
package queue
