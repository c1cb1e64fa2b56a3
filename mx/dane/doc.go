// Package dane authenticates mail hosts by TLSA records (RFC 6698, RFC 7671)
// as SMTP uses them (RFC 7672): which records count, and whether a TLS
// connection meets them.
//
//	usable := dane.Usable(records) // proven by DNSSEC, else they mean nothing
//	matched, err := dane.Verify(usable, []string{"mx.example.org"}, tlsState, time.Now())
//
// mx.Sender looks the records up and applies them by itself when its Resolver
// is an mx.Querier; this package is for other clients, and for those who
// publish records: [New] makes one from a certificate.
package dane
