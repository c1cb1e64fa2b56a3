package mxtest_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/postrider/postrider/mx/mxtest"
)

func ExampleNewDNS() {
	dns := mxtest.NewDNS(mxtest.Zone{
		"example.test":    {"MX 10 mx.example.test", "TXT v=spf1 mx -all"},
		"mx.example.test": {"A 127.0.0.1"},
	})
	ctx := context.Background()
	txt, err := dns.LookupTXT(ctx, "example.test.")
	fmt.Println(txt, err)

	dns.Set("example.test", "SERVFAIL")
	_, err = dns.LookupTXT(ctx, "example.test.")
	fmt.Println(err)
	// Output:
	// [v=spf1 mx -all] <nil>
	// lookup TXT example.test. on 127.0.0.1:53: server failure: SERVFAIL
}

func ExampleParseZone() {
	zone, err := mxtest.ParseZone(strings.NewReader(`
$TTL 1h
@   MX 10 mx
    TXT "v=spf1 mx -all"
mx  A 127.0.0.1
`), "example.test")
	if err != nil {
		fmt.Println(err)
		return
	}
	zone["broken.example.test"] = []string{"SERVFAIL"}
	mxs, err := mxtest.NewDNS(zone).LookupMX(context.Background(), "example.test.")
	fmt.Println(mxs[0].Host, mxs[0].Pref, err)
	// Output: mx.example.test. 10 <nil>
}
