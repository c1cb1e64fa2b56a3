package dnsbl_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/smtp/dnsbl"
	"github.com/postrider/postrider/smtp/smtpserver"
)

func ExampleChecker_Wrap() {
	var backend smtpserver.Backend // yours
	c := &dnsbl.Checker{Lists: []dnsbl.List{
		{Zone: "bl.example", Weight: 2},
		{Zone: "wl.example", Weight: -2},
	}, Threshold: 2}
	s := &smtpserver.Server{Backend: smtpserver.Wrap(backend, c.Wrap)}
	_ = s
}

func ExampleChecker_LookupAddr() {
	c := &dnsbl.Checker{
		Lists: []dnsbl.List{{Zone: "bl.example"}},
		Resolver: mxtest.NewDNS(mxtest.Zone{
			"1.2.0.192.bl.example": {"A 127.0.0.2", "TXT open relay"},
		}),
	}
	r := c.LookupAddr(context.Background(), netip.MustParseAddr("192.0.2.1"))
	fmt.Println(r.Score, r.Hits[0].Answers, c.Refuse(r))
	// Output: 1 [127.0.0.2] 554 5.7.1 192.0.2.1 is listed by bl.example: open relay
}
