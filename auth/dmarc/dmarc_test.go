package dmarc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/mime"
)

func txtZone(pairs ...string) zone {
	z := zone{}
	for i := 0; i < len(pairs); i += 2 {
		text, err := json.Marshal(pairs[i+1])
		if err != nil {
			panic(err)
		}
		z[pairs[i]] = append(z[pairs[i]], json.RawMessage(fmt.Sprintf(`{"TXT":%s}`, text)))
	}
	return z
}

func pass(domain string) Identifier { return Identifier{auth.Pass, domain} }

// TestTempError: what the DNS does not say is never a pass, and a fail only
// when it could not matter.
func TestTempError(t *testing.T) {
	z := txtZone("_dmarc.example.org", "v=DMARC1; p=reject")
	z["_dmarc.down.example.org"] = []json.RawMessage{[]byte(`"SERVFAIL"`)}
	e := &Evaluator{Resolver: z}
	for name, c := range map[string]struct {
		author string
		ids    Identifiers
		want   auth.Result
	}{
		"policy":               {"down.example.org", Identifiers{SPF: pass("down.example.org")}, auth.TempError},
		"walk of identifier":   {"example.org", Identifiers{SPF: pass("down.example.org")}, auth.TempError},
		"the other one passes": {"example.org", Identifiers{SPF: pass("down.example.org"), DKIM: []Identifier{pass("example.org")}}, auth.Pass},
		"SPF open, aligned":    {"example.org", Identifiers{SPF: Identifier{auth.TempError, "example.org"}}, auth.TempError},
		"DKIM open, aligned":   {"example.org", Identifiers{DKIM: []Identifier{{auth.TempError, "a.example.org"}, {auth.Fail, "example.org"}}}, auth.TempError},
		"DKIM open, unaligned": {"example.org", Identifiers{DKIM: []Identifier{{auth.TempError, "example.net"}}}, auth.Fail},
	} {
		ev := e.Evaluate(t.Context(), c.author, c.ids)
		if ev.Result != c.want || (c.want == auth.TempError) != errors.Is(ev.Err, ErrLookup) {
			t.Errorf("%s: %s, %v", name, ev.Result, ev.Err)
		}
		if (ev.Disposition == Reject) != (c.want == auth.Fail) {
			t.Errorf("%s: disposition %s", name, ev.Disposition)
		}
	}
}

// plain is a *net.Resolver's view of a zone: it cannot tell NXDOMAIN.
type plain struct{ zone }

func (p plain) LookupTXT(ctx context.Context, name string) ([]string, error) {
	txts, err := p.zone.LookupTXT(ctx, name)
	if err != nil && errors.As(err, new(nxdomain)) || err == nil && len(txts) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return txts, err
}

func TestNonExistent(t *testing.T) {
	z := txtZone("_dmarc.example.org", "v=DMARC1; p=none; sp=quarantine; np=reject")
	if ev := (&Evaluator{Resolver: z}).Evaluate(t.Context(), "no.example.org", Identifiers{}); ev.Disposition != Reject || !ev.NonExistent {
		t.Errorf("%+v", ev)
	}
	if ev := (&Evaluator{Resolver: plain{z}}).Evaluate(t.Context(), "no.example.org", Identifiers{}); ev.Disposition != Quarantine || ev.NonExistent {
		t.Errorf("plain: %+v", ev)
	}
}

func TestSeveralAuthors(t *testing.T) {
	z := txtZone("_dmarc.none.example", "v=DMARC1; p=none", "_dmarc.reject.example", "v=DMARC1; p=reject", "_dmarc.pass.example", "v=DMARC1; p=reject")
	z["_dmarc.down.example"] = []json.RawMessage{[]byte(`"SERVFAIL"`)}
	ids := Identifiers{SPF: pass("pass.example")}
	for _, c := range []struct {
		authors     string
		result      auth.Result
		disposition Policy
	}{
		{"", auth.PermError, NoPolicy},
		{"pass.example", auth.Pass, NoPolicy},
		{"pass.example Pass.Example", auth.Pass, NoPolicy},
		{"pass.example none.example", auth.Fail, NoPolicy},
		{"pass.example reject.example none.example", auth.Fail, Reject},
		{"down.example reject.example", auth.Fail, Reject},
		{"down.example none.example", auth.TempError, NoPolicy},
		{"pass.example absent.example", auth.None, NoPolicy},
		{"a.example b.example c.example d.example e.example", auth.PermError, Reject},
		{"[192.0.2.1]", auth.PermError, NoPolicy},
	} {
		ev := (&Evaluator{Resolver: z}).EvaluateAll(t.Context(), strings.Fields(c.authors), ids)
		if ev.Result != c.result || ev.Disposition != c.disposition {
			t.Errorf("%s: %s, %s", c.authors, ev.Result, ev.Disposition)
		}
	}
}

func TestAuthorDomains(t *testing.T) {
	for header, want := range map[string]struct {
		domains string
		ok      bool
	}{
		"From: a@example.org\r\n":                                        {"example.org", true},
		"From: \"x@evil.example\" <a@Example.ORG>\r\n":                   {"example.org", true},
		"From: a@example.org, B <b@example.net>\r\n":                     {"example.org example.net", true},
		"From: a@example.org\r\nFROM: b@example.net\r\n":                 {"example.org example.net", true},
		"From: g: a@example.org, b@example.net;\r\n":                     {"example.org example.net", true},
		"From: a@m\u00fcnchen.example\r\n":                               {"xn--mnchen-3ya.example", true},
		"From: (x@evil.example) a@\r\n example.org (y@evil.example)\r\n": {"example.org", true},
		"Subject: x\r\n":                         {"", false},
		"From: \r\n":                             {"", false},
		"From: nobody\r\n":                       {"", false},
		"From: a@example.org, nobody at all\r\n": {"example.org", false},
	} {
		h := mime.ParseHeader([]byte(header))
		got, err := AuthorDomains(&h)
		if strings.Join(got, " ") != want.domains || (err == nil) != want.ok || err != nil && !errors.Is(err, ErrNoAuthor) {
			t.Errorf("%q: %v, %v", header, got, err)
		}
	}
}

func TestMethodResult(t *testing.T) {
	z := txtZone("_dmarc.example.org", "v=DMARC1; p=reject; t=y")
	m := (&Evaluator{Resolver: z}).Evaluate(t.Context(), "example.org", Identifiers{}).MethodResult()
	if m.Result != auth.Fail || m.Comment != "p=reject" || m.Prop("header", "from") != "example.org" || m.Prop("policy", "dmarc") != "quarantine" {
		t.Errorf("%+v", m)
	}
}

// anything answers every question with the same texts.
type anything []string

func (a anything) LookupTXT(context.Context, string) ([]string, error) { return a, nil }

func FuzzRecord(f *testing.F) {
	f.Add("v=DMARC1; p=reject; sp=none; np=quarantine; adkim=s; aspf=s; psd=n; t=y; fo=1:d:s; rua=mailto:a@b!10m,https://x/; ruf=mailto:c@d", "a.b.c.d.e.f.g.h.i.j.example.org")
	f.Add("v = DMARC1 ;p= x", "org")
	f.Fuzz(func(t *testing.T, text, domain string) {
		ev := (&Evaluator{Resolver: anything{text}}).Evaluate(t.Context(), domain, Identifiers{SPF: pass("x." + domain)})
		if len(ev.Queries) > 18 {
			t.Fatalf("%d queries", len(ev.Queries))
		}
		if (ev.Err != nil) != (ev.Result == auth.PermError) {
			t.Fatalf("%s with %v", ev.Result, ev.Err)
		}
		r, err := ParseRecord(text)
		if err != nil {
			return
		}
		again, err := ParseRecord(r.String())
		if err != nil || again.String() != r.String() || !slices.Equal(again.AggregateReports, r.AggregateReports) {
			t.Fatalf("%q is printed as %q, and parsed again: %v", text, r, err)
		}
	})
}

func BenchmarkEvaluate(b *testing.B) {
	z := txtZone("_dmarc.example.org", "v=DMARC1; p=reject; rua=mailto:d@example.org")
	e := &Evaluator{Resolver: z}
	for _, author := range []string{"example.org", "a.b.example.org"} {
		b.Run(author, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if ev := e.Evaluate(b.Context(), author, Identifiers{SPF: pass("bounce.example.org")}); ev.Result != auth.Pass {
					b.Fatal(ev)
				}
			}
		})
	}
}
