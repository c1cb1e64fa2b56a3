package delivery_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/postrider/postrider/auth/dmarc/dmarcreport"
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

// Each message is counted for the reports that its author's domain may ask for,
// as what was decided about it. A dmarcreport.Sender over the same storage sends
// them.
func ExampleBackend_Policy() {
	reports := &dmarcreport.Collector{Storage: new(dmarcreport.Memory)}
	b := &delivery.Backend{
		Recipients: func(ctx context.Context, to smtp.Address) ([]store.Target, error) {
			return []store.Target{{Account: to.Local}}, nil
		},
		Target:   delivery.To(memstore.New()),
		Verifier: &verify.Verifier{}, // its Policy decides; without one, the author's domain does
		Policy: func(ctx context.Context, in *delivery.Inbound) error {
			m := dmarcreport.FromResult(in.Auth)
			m.EnvelopeTo = in.Recipients[0].Address.Domain
			if err := reports.Add(ctx, m.Message); err != nil {
				log.Print(err) // no reason to refuse mail
			}
			return delivery.DMARC(ctx, in)
		},
	}
	_ = &smtpserver.Server{Backend: b}
}

// Aliases, lists, addresses with details and a catch-all are a few lines of
// Recipients; what a user wants done with mail is Filter's.
func ExampleBackend_Recipients() {
	aliases := map[string][]string{"postmaster": {"alice"}, "team": {"alice", "bob"}}
	users := map[string]bool{"alice": true, "bob": true}
	b := &delivery.Backend{
		Recipients: func(ctx context.Context, to smtp.Address) ([]store.Target, error) {
			local, detail, _ := strings.Cut(strings.ToLower(to.Local), "+") // alice+shop
			members := aliases[local]
			if users[local] {
				members = []string{local}
			}
			if members == nil {
				members = []string{"catchall"}
			}
			var targets []store.Target
			for _, m := range members {
				t := store.Target{Account: m}
				if detail != "" {
					t.Flags = store.NewFlags(0, detail)
				}
				targets = append(targets, t)
			}
			return targets, nil
		},
		Filter: func(ctx context.Context, in *delivery.Inbound, i int) error {
			r := &in.Recipients[i]
			if in.Message.Header.Get("List-Id") != "" && r.Address.Local == "alice" {
				r.Targets[0].Mailbox = "lists" // the ID of a mailbox of hers
			}
			return nil
		},
	}
	targets, err := b.Recipients(context.Background(), smtp.Address{Local: "Team+urgent", Domain: "example.org"})
	for _, t := range targets {
		fmt.Println(t.Account, t.Flags.Keywords)
	}
	fmt.Println(err)
	// Output:
	// alice [urgent]
	// bob [urgent]
	// <nil>
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
