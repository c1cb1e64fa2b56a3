package dmarc_test

import (
	"context"
	"fmt"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dmarc"
)

// fixed stands in for a *net.Resolver.
type fixed map[string][]string

func (f fixed) LookupTXT(_ context.Context, name string) ([]string, error) { return f[name], nil }

func ExampleEvaluator() {
	e := &dmarc.Evaluator{Resolver: fixed{
		"_dmarc.example.org.": {"v=DMARC1; p=reject; sp=quarantine; rua=mailto:reports@example.org"},
	}}
	ev := e.Evaluate(context.Background(), "news.example.org", dmarc.Identifiers{
		SPF:  dmarc.Identifier{Result: auth.Pass, Domain: "bounces.example.net"},
		DKIM: []dmarc.Identifier{{Result: auth.Fail, Domain: "example.org"}},
	})
	fmt.Println(ev.Result, "by the policy of", ev.PolicyDomain, "which asks for", ev.Disposition)
	// Output:
	// fail by the policy of example.org which asks for quarantine
}
