package delivery_test

import (
	"context"
	"log"

	"github.com/postrider/postrider/auth/verify"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpserver"
	"github.com/postrider/postrider/store"
	"github.com/postrider/postrider/store/delivery"
	"github.com/postrider/postrider/store/memstore"
)

// An MX host for one domain: mail is checked, and what its author's domain
// does not vouch for is refused or goes to the junk.
func ExampleBackend() {
	s := memstore.New()
	if err := s.CreateAccount(context.Background(), "alice"); err != nil {
		log.Fatal(err)
	}
	b := &delivery.Backend{
		Recipients: func(ctx context.Context, to smtp.Address) ([]store.Target, error) {
			switch {
			case to.Domain != "example.org":
				return nil, delivery.ErrRelay
			case to.Local == "alice", to.Local == "postmaster":
				return []store.Target{{Account: "alice"}}, nil
			}
			return nil, delivery.ErrNoUser
		},
		Target:   delivery.To(s),
		Verifier: &verify.Verifier{},
		Policy:   delivery.DMARC,
	}
	srv := &smtpserver.Server{Hostname: "mx.example.org", Backend: b}
	defer srv.Close()
	// l, err := net.Listen("tcp", ":25"); …; err = srv.Serve(l)
}

// A Target of one's own: anything that can be told about a message.
type printer struct{}

func (printer) Deliver(ctx context.Context, in *delivery.Inbound) []error {
	errs := make([]error, len(in.Recipients)) // nil: done
	for i := range in.Recipients {
		log.Printf("%d octets for %v: %s", in.Body.Size(), in.Recipients[i].Address, in.Message.Header.Text("Subject"))
	}
	return errs
}

func ExampleTarget() {
	b := &delivery.Backend{
		Recipients: func(ctx context.Context, to smtp.Address) ([]store.Target, error) {
			return []store.Target{{Account: to.Local}}, nil
		},
		Target: printer{},
	}
	_ = &smtpserver.Server{Backend: b, LMTP: true}
}
