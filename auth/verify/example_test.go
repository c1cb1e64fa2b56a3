package verify_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/netip"
	"os"

	"github.com/postrider/postrider/auth/arc"
	"github.com/postrider/postrider/auth/authtest"
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
	if r.Verdict.Action == verify.Reject {
		log.Fatal("550 5.7.1 ", r.Verdict.Reason)
	}
	fmt.Print(&r.AuthenticationResults)
}

// A policy that takes what a forwarder has broken when the forwarder is trusted
// and says that all was well, and puts with the junk what others would reject.
func ExampleVerifier_policy() {
	trusted := func(sealer string) bool { return sealer == "lists.example.net" }
	v := &verify.Verifier{ARC: &arc.Verifier{}, Policy: func(ctx context.Context, r *verify.Result) verify.Verdict {
		v := verify.DMARCPolicy(ctx, r)
		if v.Action == verify.Accept {
			return v
		}
		if r.ARC.Vouches(r.DMARC.Domain, trusted) {
			return verify.Verdict{Action: verify.Accept, Reason: "sealed by a list we trust", Override: "trusted_forwarder"}
		}
		return verify.Verdict{Action: verify.Quarantine, Reason: v.Reason}
	}}

	w := authtest.New("example.org") // p=reject
	v.Resolver = w.Zone
	p := v.Begin(context.Background(), verify.Source(w.Source("stranger.example")))
	defer p.Close()
	io.WriteString(p, w.Message("example.org"))
	r, err := p.Result()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Verdict.Action, "because", r.Verdict.Reason)
	// Output: quarantine because DMARC failed for example.org
}
