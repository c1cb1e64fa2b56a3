package mxtest_test

import (
	"context"
	"fmt"

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
