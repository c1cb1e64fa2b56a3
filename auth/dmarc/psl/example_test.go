package psl_test

import (
	"fmt"

	"github.com/postrider/postrider/auth/dmarc"
	"github.com/postrider/postrider/auth/dmarc/psl"
)

func ExampleOrganizational() {
	e := &dmarc.Evaluator{Organizational: psl.Organizational} // as RFC 7489 had it
	_ = e
	fmt.Println(psl.Organizational("news.example.co.uk"))
	// Output: example.co.uk
}
