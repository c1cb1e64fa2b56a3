// Package resolver is a stub resolver for mail: it asks recursive DNS servers
// over UDP with EDNS0 (RFC 6891) and over TCP, keeps answers for their time to
// live, and tells a name that does not exist from one without such records.
//
//	r := &resolver.Resolver{} // servers from /etc/resolv.conf
//	mxs, err := r.LookupMX(ctx, "example.org.")
//
// Its Lookup methods are those of *net.Resolver, so it fits wherever one does;
// Query is mx.Querier, with time to live and DNSSEC's word. Names are absolute
// with or without a final dot: there is no search list.
package resolver
