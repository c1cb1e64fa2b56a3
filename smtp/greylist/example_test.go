package greylist_test

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/greylist"
	"github.com/postrider/postrider/smtp/smtpserver"
)

func ExampleGreylist_Wrap() {
	var backend smtpserver.Backend // yours
	g := &greylist.Greylist{
		Exempt: func(ctx context.Context, c *smtpserver.Conn, from, to smtp.Address) bool {
			return to.Local == "postmaster"
		},
	}
	s := &smtpserver.Server{Backend: smtpserver.Wrap(backend, g.Wrap)}
	_ = s
}

func ExampleGreylist_Check() {
	g := &greylist.Greylist{Delay: 5 * time.Minute}
	peer := netip.MustParseAddr("192.0.2.1")
	wait, err := g.Check(context.Background(), peer, smtp.Address{Local: "ann", Domain: "example.com"}, smtp.Address{Local: "bob", Domain: "example.org"})
	fmt.Println(wait, err)
	// Output: 5m0s <nil>
}
