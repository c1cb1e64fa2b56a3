package verify_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/netip"
	"os"

	"github.com/postrider/postrider/auth/dmarc"
	"github.com/postrider/postrider/auth/verify"
	"github.com/postrider/postrider/smtp"
)

func ExampleVerifier() {
	v := &verify.Verifier{AuthServID: "mx.example.org"} // with the system's resolver

	p := v.Begin(context.Background(), verify.Source{
		IP:    netip.MustParseAddr("192.0.2.1"),
		Hello: "mail.example.net",
		From:  smtp.Address{Local: "alice", Domain: "example.net"},
	})
	defer p.Close()
	if _, err := io.Copy(p, os.Stdin); err != nil {
		log.Fatal(err)
	}
	r, err := p.Result()
	if err != nil {
		log.Fatal(err)
	}
	if r.DMARC.Disposition == dmarc.Reject {
		log.Fatal("550 5.7.1 refused by the policy of ", r.DMARC.Domain)
	}
	fmt.Print(&r.AuthenticationResults)
}
