package dmarc

import (
	"errors"
	"strings"
	"testing"

	"github.com/postrider/postrider/smtp"
)

func TestLint(t *testing.T) {
	const rua = "; rua=mailto:r@example.org"
	for text, want := range map[string]string{ // tags, those that are wrong with a !
		"v=DMARC1; p=none" + rua:                                                          "",
		"v=DMARC1; p=reject; sp=reject; adkim=s" + rua:                                    "",
		"v=DMARC1; p=reject; t=y; np=reject; psd=u; fo=1; ruf=mailto:f@example.org" + rua: "",
		"v=spf1 -all":                                              "!",
		"v=dmarc1; p=none" + rua:                                   "!",
		"v=DMARC1; p=none":                                         "rua",
		"v=DMARC1" + rua:                                           "! p",
		"v=DMARC1":                                                 "! p rua",
		"v=DMARC1; p=bounce" + rua:                                 "!p !",
		"v=DMARC1; adkim=s; p=none" + rua:                          "p",
		"v=DMARC1; p=none; p=reject" + rua:                         "!p",
		"v=DMARC1; p=none; v=DMARC1" + rua:                         "!v",
		"v=DMARC1; p=reject; sp=none" + rua:                        "sp",
		"v=DMARC1; p=reject; np=none" + rua:                        "np",
		"v=DMARC1; p=none; t=y" + rua:                              "t",
		"v=DMARC1; p=none; adkim=x; aspf=y; psd=z; t=1" + rua:      "!adkim !aspf !psd !t",
		"v=DMARC1; p=none; pct=50; rf=afrf; ri=3600; x=y" + rua:    "pct rf ri x",
		"v=DMARC1; p=none; pct=0" + rua:                            "pct",
		"v=DMARC1; p=none; fo=1" + rua:                             "!fo",
		"v=DMARC1; p=none; fo=0:1; ruf=mailto:f@example.org" + rua: "!fo",
		"v=DMARC1; p=none; psd=y; ruf=mailto:f@example.org" + rua:  "!ruf",
		"v=DMARC1; p=none; rua=mailto:r@example.org!10m":           "rua",
		"v=DMARC1; p=none; rua=https://example.org/":               "rua",
		"v=DMARC1; p=none; rua=r@example.org, mailto:example.org":  "!rua !rua",
		"v=DMARC1; p=none; broken; =x; a1=2; adkim=" + rua:         "! ! ! !adkim",
		"v=DMARC1; p=none\x00" + rua:                               "!p !p !",
		"v=DMARC1; p=none; x=" + strings.Repeat("y", 300) + rua:    " x",
	} {
		var got []string
		for _, p := range Lint(text) {
			tag := p.Tag
			if p.Wrong {
				tag = "!" + tag
			}
			got = append(got, tag)
			if p.Text == "" || p.String() == "" {
				t.Errorf("%q: no text for %q", text, tag)
			}
		}
		// Order is not promised for what concerns the whole record.
		if g := strings.Join(got, " "); !sameWords(g, want) {
			t.Errorf("%q: %q, want %q: %v", text, g, want, Lint(text))
		}
	}
}

func sameWords(a, b string) bool {
	count := make(map[string]int)
	for w := range strings.SplitSeq(a, " ") {
		count[w]++
	}
	for w := range strings.SplitSeq(b, " ") {
		count[w]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

func TestMailbox(t *testing.T) {
	for uri, want := range map[string]struct {
		addr smtp.Address
		err  error
	}{
		"mailto:r@example.org":                     {smtp.Address{Local: "r", Domain: "example.org"}, nil},
		"MAILTO:r%2Bx@Example.ORG":                 {smtp.Address{Local: "r+x", Domain: "example.org"}, nil},
		"mailto:r@example.org?subject=x":           {smtp.Address{Local: "r", Domain: "example.org"}, nil},
		"https://example.org/":                     {smtp.Address{}, ErrScheme},
		"mailto:":                                  {smtp.Address{}, ErrURI},
		"mailto:r":                                 {smtp.Address{}, ErrURI},
		"mailto:a@example.org%0D%0ABcc:b@evil.org": {smtp.Address{}, ErrURI},
		"mailto:%zz@example.org":                   {smtp.Address{}, ErrURI},
	} {
		got, err := Mailbox(uri)
		if got != want.addr || !errors.Is(err, want.err) {
			t.Errorf("%s: %v, %v", uri, got, err)
		}
	}
}

// TestPublicSuffixList: with a list, the walk is not made, and alignment and
// policy go by the list.
func TestPublicSuffixList(t *testing.T) {
	z := txtZone("_dmarc.example.org", "v=DMARC1; p=reject", "_dmarc.sub.example.org", "v=DMARC1; p=none; psd=n", "_dmarc.org", "v=DMARC1; p=reject; psd=y")
	last2 := func(d string) string {
		labels := strings.Split(d, ".")
		return strings.Join(labels[max(0, len(labels)-2):], ".")
	}
	list := &Evaluator{Resolver: z, Organizational: last2}
	walk := &Evaluator{Resolver: z}

	ids := Identifiers{SPF: pass("other.example.org")}
	ev := list.Evaluate(t.Context(), "a.sub.example.org", ids)
	if ev.Result != "pass" || ev.PolicyDomain != "example.org" || ev.Method != PublicSuffixList || len(ev.Queries) != 2 {
		t.Errorf("list: %v, %+v", ev, ev)
	}
	ev = walk.Evaluate(t.Context(), "a.sub.example.org", ids)
	if ev.Result != "fail" || ev.PolicyDomain != "sub.example.org" || ev.Method != TreeWalk {
		t.Errorf("walk: %v, %+v", ev, ev)
	}
	if ev := list.Evaluate(t.Context(), "x.example.net", ids); ev.Result != "none" || ev.Record != nil {
		t.Errorf("none: %v", ev)
	}
	for e, want := range map[*Evaluator]string{list: "example.org", walk: "sub.example.org"} {
		if org, err := e.OrganizationalDomain(t.Context(), "A.sub.Example.org"); org != want || err != nil {
			t.Errorf("%q, %v, want %q", org, err, want)
		}
	}
	if _, err := walk.OrganizationalDomain(t.Context(), "a b"); err == nil {
		t.Error("no error for a broken domain")
	}
}

func TestString(t *testing.T) {
	z := txtZone("_dmarc.example.org", "v=DMARC1; p=reject; sp=quarantine; np=reject; t=y", "_dmarc.broken.example", "v=DMARC1; rua=mailto:a@b.example")
	e := &Evaluator{Resolver: z}
	for author, want := range map[string]string{
		"example.org":    "fail for example.org: neither SPF nor DKIM passed for an aligned domain; p=reject of example.org, which t=y weakens to quarantine",
		"no.example.org": "fail for no.example.org: neither SPF nor DKIM passed for an aligned domain; np=reject of example.org, the domain does not exist, which t=y weakens to quarantine",
		"spf.example":    "none for spf.example: no policy is published",
		"broken.example": "fail for broken.example: neither SPF nor DKIM passed for an aligned domain; the record of broken.example is broken and counts as p=none",
	} {
		if got := e.Evaluate(t.Context(), author, Identifiers{}).String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	both := e.Evaluate(t.Context(), "example.org", Identifiers{SPF: pass("example.org"), DKIM: []Identifier{pass("x.example.org")}})
	if got := both.String(); got != "pass for example.org: SPF and DKIM are aligned; p=reject of example.org" {
		t.Error(got)
	}
}

func FuzzLint(f *testing.F) {
	f.Add("v=DMARC1; p=reject; sp=none; fo=1:d:s; rua=mailto:a@b!10m,https://x/; pct=0; =; x")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := ParseRecord(text)
		for _, p := range Lint(text) {
			if p.Text == "" {
				t.Fatal("no text")
			}
			if strings.ContainsAny(p.Tag, " ;=") {
				t.Fatalf("tag %q", p.Tag)
			}
		}
		if err != nil && len(Lint(text)) != 1 {
			t.Fatal("not a record, but problems beside that")
		}
	})
}
