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
// Rates are a [Limiter]'s: in all, and by tenant, site, destination and sender.
// Queues that share a Storage share the limits on concurrency, each its part.
//
// Bounces (RFC 3464, RFC 3461) are written in the same step as the outcome
// that causes them; package feedback reads those of others. Whom a [Suppressor]
// names is not written to. Each step is an [Event]: for OnEvent at most once,
// from an [EventLog], as package webhook reads it, at least once. Hold, Drop,
// Reroute, Suspend and the like control what is queued, from any process.
//
// Any number of queues may share one Storage. Package memqueue is one in memory,
// diskqueue one on disk; package queuetest checks any other.
package queue
