// Package mxtest is the DNS for tests: zones as literals or master files, a
// resolver over them in memory, and a real DNS server on loopback over the same
// zones, which may change, fail and be late while they are used.
//
//	dns := mxtest.NewDNS(mxtest.Zone{
//		"example.test":    {"MX 10 mx.example.test", "TXT v=spf1 mx -all"},
//		"mx.example.test": {"A 127.0.0.1"},
//		"broken.test":     {"SERVFAIL"},
//	})
//	sender := &mx.Sender{Resolver: dns}
//
// A *DNS has the lookup methods of *net.Resolver and is a mx.Resolver and
// mx.Querier. Listen serves it over UDP and TCP to programs that ask a server. A
// World has mail hosts too.
package mxtest
