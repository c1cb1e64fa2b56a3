package dmarc

import (
	"slices"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth"
)

// TestWalkQueries is the example of RFC 9989 §4.10: eight queries, whatever
// the author domain, and eight for each domain it is held against.
func TestWalkQueries(t *testing.T) {
	z := txtZone("_dmarc.com", "v=DMARC1; p=none; psd=u")
	ev := (&Evaluator{Resolver: z}).Evaluate(t.Context(), "a.b.c.d.e.f.g.h.i.j.mail.example.com", Identifiers{})
	want := []string{"a.b.c.d.e.f.g.h.i.j.mail.example.com", "g.h.i.j.mail.example.com", "h.i.j.mail.example.com", "i.j.mail.example.com",
		"j.mail.example.com", "mail.example.com", "example.com", "com"}
	for i, d := range want {
		want[i] = "_dmarc." + d
	}
	if !slices.Equal(ev.Queries, want) || ev.PolicyDomain != "com" {
		t.Errorf("%v: %v", ev, ev.Queries)
	}
	deep := strings.Repeat("x.", 120)
	ev = (&Evaluator{Resolver: z}).Evaluate(t.Context(), deep+"example.com", Identifiers{SPF: pass(deep + "other.com"), DKIM: []Identifier{pass(deep + "more.com"), pass(deep + "more.com"), pass("example.org")}})
	if ev.Result != auth.Pass && ev.Result != auth.Fail || len(ev.Queries) > 3*8 {
		t.Errorf("%v: %d queries", ev, len(ev.Queries))
	}
	for i, q := range ev.Queries {
		if slices.Contains(ev.Queries[:i], q) {
			t.Errorf("%s was asked for twice", q)
		}
	}
}

// TestRecordsAtOneName: of several records at one name none counts, and what is
// no record does not count as one (RFC 9989 §4.10).
func TestRecordsAtOneName(t *testing.T) {
	for name, c := range map[string]struct {
		txts []string
		want auth.Result
	}{
		"one":         {[]string{"v=DMARC1; p=reject"}, auth.Fail},
		"with others": {[]string{"v=spf1 -all", "v=DMARC1; p=reject", "p=reject", "v=DMARC2; p=none"}, auth.Fail},
		"two":         {[]string{"v=DMARC1; p=reject", "v=DMARC1; p=none"}, auth.None},
		"two alike":   {[]string{"v=DMARC1; p=reject", "v=DMARC1; p=reject"}, auth.None},
		"none":        {[]string{"p=reject"}, auth.None},
	} {
		var pairs []string
		for _, txt := range c.txts {
			pairs = append(pairs, "_dmarc.example.org", txt)
		}
		if ev := (&Evaluator{Resolver: txtZone(pairs...)}).Evaluate(t.Context(), "example.org", Identifiers{}); ev.Result != c.want {
			t.Errorf("%s: %v", name, ev)
		}
	}
}
