package dmarc

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/internal/conformance"
)

// zone is a resolver over what evaluate.json calls a zone: a name to a list of
// records {TYPE: data} or one of the words NXDOMAIN and SERVFAIL. A name that
// is absent and has nothing below it does not exist.
type zone map[string][]json.RawMessage

type nxdomain struct{ name string }

func (e nxdomain) Error() string  { return "no such domain: " + e.name }
func (e nxdomain) NXDomain() bool { return true }

func (z zone) LookupTXT(_ context.Context, name string) ([]string, error) {
	name, absolute := strings.CutSuffix(name, ".")
	if !absolute {
		return nil, &net.DNSError{Err: "name is not absolute", Name: name}
	}
	rrs, ok := z[name]
	if !ok {
		for other := range z {
			if strings.HasSuffix(other, "."+name) {
				return nil, nil
			}
		}
		return nil, nxdomain{name}
	}
	var txts []string
	for _, rr := range rrs {
		var word string
		var data struct{ TXT json.RawMessage }
		switch {
		case json.Unmarshal(rr, &word) == nil:
			if word == "NXDOMAIN" {
				return nil, nxdomain{name}
			}
			return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
		case json.Unmarshal(rr, &data) == nil && data.TXT != nil:
			var parts []string
			if json.Unmarshal(data.TXT, &parts) != nil {
				parts = []string{""}
				if err := json.Unmarshal(data.TXT, &parts[0]); err != nil {
					return nil, err
				}
			}
			txts = append(txts, strings.Join(parts, ""))
		}
	}
	return txts, nil
}

func readJSON(t testing.TB, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(conformance.Path(t, "dmarc", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

func TestEvaluate(t *testing.T) {
	type id struct {
		Result auth.Result
		Domain string
	}
	var cases []struct {
		ID, Description, From string
		SPF                   *id
		DKIM                  []id
		Zone                  zone
		Expect                struct {
			Result       auth.Result
			AlignedDKIM  *bool  `json:"aligned_dkim"`
			AlignedSPF   *bool  `json:"aligned_spf"`
			PolicyDomain string `json:"policy_domain"`
			Policy       Policy
			Applied      Policy
			FirstQueries []string `json:"first_queries"`
		}
	}
	readJSON(t, "evaluate.json", &cases)
	passed := 0
	for _, c := range cases {
		if t.Run(c.ID, func(t *testing.T) {
			var ids Identifiers
			if c.SPF != nil {
				ids.SPF = Identifier(*c.SPF)
			}
			for _, d := range c.DKIM {
				ids.DKIM = append(ids.DKIM, Identifier(d))
			}
			e := &Evaluator{Resolver: c.Zone}
			ev := e.Evaluate(t.Context(), c.From, ids)
			want := c.Expect
			if ev.Result != want.Result || ev.PolicyDomain != want.PolicyDomain || ev.Policy != want.Policy {
				t.Errorf("%s: %s by %q of %q (%v), want %s by %q of %q", c.Description,
					ev.Result, ev.Policy, ev.PolicyDomain, ev.Err, want.Result, want.Policy, want.PolicyDomain)
			}
			if want.Applied != "" && ev.Disposition != want.Applied {
				t.Errorf("%s: disposition %s, want %s", c.Description, ev.Disposition, want.Applied)
			}
			if want.AlignedDKIM != nil && ev.DKIMAligned != *want.AlignedDKIM {
				t.Errorf("DKIMAligned %v", ev.DKIMAligned)
			}
			if want.AlignedSPF != nil && ev.SPFAligned != *want.AlignedSPF {
				t.Errorf("SPFAligned %v", ev.SPFAligned)
			}
			var walked []string
			for _, q := range ev.Queries {
				if strings.HasPrefix(q, "_dmarc.") {
					walked = append(walked, q)
				}
			}
			if want.FirstQueries != nil && !slices.Equal(walked, want.FirstQueries) {
				t.Errorf("queries %v, want %v", ev.Queries, want.FirstQueries)
			}
			if (ev.Err != nil) != (ev.Result == auth.TempError || ev.Result == auth.PermError) {
				t.Errorf("%s with error %v", ev.Result, ev.Err)
			}
		}) {
			passed++
		}
	}
	t.Logf("dmarc/evaluate.json: %d of %d", passed, len(cases))
}

func TestRecords(t *testing.T) {
	var cases []struct {
		ID, Record, Ref string
		Valid           bool
		Fields          map[string]json.RawMessage
	}
	readJSON(t, "records.json", &cases)
	passed := 0
	for _, c := range cases {
		if t.Run(c.ID, func(t *testing.T) {
			r, err := ParseRecord(c.Record)
			if (err == nil) != c.Valid {
				t.Fatalf("%q: error %v, want valid %v", c.Record, err, c.Valid)
			}
			if err != nil {
				return
			}
			if again, err := ParseRecord(r.String()); err != nil || again.String() != r.String() {
				t.Errorf("%q printed and parsed again: %v, %v", r, again, err)
			}
			testing := "n"
			if r.Testing {
				testing = "y"
			}
			got := map[string]any{"p": r.Policy, "sp": r.Subdomain, "np": r.NonExistent, "adkim": r.DKIM, "aspf": r.SPF,
				"psd": r.PSD, "t": testing, "fo": r.FailureOptions, "rua": r.AggregateReports, "ruf": r.FailureReports}
			for name, want := range c.Fields {
				have, err := json.Marshal(got[name])
				if err != nil {
					t.Fatal(err)
				}
				var compact bytes.Buffer
				if err := json.Compact(&compact, want); err != nil {
					t.Fatal(err)
				}
				a, b := string(have), compact.String()
				if a == `""` {
					a = "null" // absent
				}
				if a == "null" && b == "[]" {
					a = b
				}
				if a != b {
					t.Errorf("%q: %s is %s, want %s (%s)", c.Record, name, a, b, c.Ref)
				}
			}
		}) {
			passed++
		}
	}
	t.Logf("dmarc/records.json: %d of %d", passed, len(cases))
}
