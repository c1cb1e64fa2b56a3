package authtest_test

import (
	"context"
	"fmt"
	"io"
	"log"

	"github.com/postrider/postrider/auth/authtest"
	"github.com/postrider/postrider/auth/verify"
)

func Example() {
	w := authtest.New("example.org")
	msg, err := w.Sign(w.Message("example.org"), "example.org")
	if err != nil {
		log.Fatal(err)
	}
	check := func() {
		v := &verify.Verifier{Resolver: w.Zone}
		p := v.Begin(context.Background(), verify.Source(w.Source("example.org")))
		defer p.Close()
		io.WriteString(p, msg)
		r, err := p.Result()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(r.SPF.Result, r.DKIM[0].Result, r.DMARC.Result, r.IPRev.Result)
	}
	check()
	w.Zone["_dmarc.example.org"] = []string{"SERVFAIL"}
	check()
	// Output:
	// pass pass pass pass
	// pass pass temperror pass
}
