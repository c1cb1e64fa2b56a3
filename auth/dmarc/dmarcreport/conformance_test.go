package dmarcreport

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postrider/postrider/internal/conformance"
)

// expected is the neutral form that the feedback samples have beside them.
type expected struct {
	Metadata struct {
		Org     string                     `json:"org_name"`
		Email   string                     `json:"email"`
		Contact *string                    `json:"extra_contact_info"`
		ID      string                     `json:"report_id"`
		Range   struct{ Begin, End int64 } `json:"date_range"`
		Error   []string
	} `json:"report_metadata"`
	Policy struct {
		Domain, ADKIM, ASPF, P, SP string
		Testing                    bool
		FO                         *string
	} `json:"policy_published"`
	Record []struct {
		Row struct {
			IP     string `json:"source_ip"`
			Count  int64
			Policy struct {
				Disposition, DKIM, SPF string
				Reason                 []struct {
					Type    string
					Comment *string
				}
			} `json:"policy_evaluated"`
		}
		Identifiers struct {
			To   *string `json:"envelope_to"`
			From *string `json:"envelope_from"`
			Head string  `json:"header_from"`
		}
		Results struct {
			DKIM []struct {
				Domain, Selector, Result string
				Human                    *string `json:"human_result"`
			}
			SPF []struct {
				Domain, Scope, Result string
				Human                 *string `json:"human_result"`
			}
		} `json:"auth_results"`
	}
}

func str(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// flat turns the names of the neutral form into ours.
func flat(s string) string {
	s = strings.ToLower(s)
	switch s {
	case "unspecified":
		return ""
	case "relaxed":
		return "r"
	case "strict":
		return "s"
	case "mailfrom":
		return "mfrom"
	}
	return s
}

// lines are a report as text, one fact a line, to be compared.
func (e *expected) lines() string {
	var b strings.Builder
	m := e.Metadata
	fmt.Fprintf(&b, "%q %q %q %q %d %d %q\n", m.Org, m.Email, str(m.Contact), m.ID, m.Range.Begin, m.Range.End, m.Error)
	p := e.Policy
	fmt.Fprintf(&b, "%s %s %s %s %s %v %q\n", p.Domain, flat(p.ADKIM), flat(p.ASPF), flat(p.P), flat(p.SP), p.Testing, str(p.FO))
	for _, r := range e.Record {
		fmt.Fprintf(&b, "%s %d %s %s %s", r.Row.IP, r.Row.Count, flat(r.Row.Policy.Disposition), flat(r.Row.Policy.DKIM), flat(r.Row.Policy.SPF))
		for _, x := range r.Row.Policy.Reason {
			fmt.Fprintf(&b, " %s %q", strings.ReplaceAll(flat(x.Type), "_", ""), str(x.Comment))
		}
		fmt.Fprintf(&b, "\n%s %s %s\n", r.Identifiers.Head, str(r.Identifiers.From), str(r.Identifiers.To))
		for _, d := range r.Results.DKIM {
			fmt.Fprintf(&b, "dkim %s %s %s %q\n", d.Domain, d.Selector, flat(d.Result), str(d.Human))
		}
		for _, d := range r.Results.SPF {
			fmt.Fprintf(&b, "spf %s %s %s %q\n", d.Domain, flat(d.Scope), flat(d.Result), str(d.Human))
		}
	}
	return b.String()
}

func lines(r *Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q %q %q %d %d %q\n", r.Organization, r.Email, r.Contact, r.ID, r.Begin.Unix(), r.End.Unix(), strings.Fields(strings.Join(r.Errors, "; ")))
	p := r.Policy
	fmt.Fprintf(&b, "%s %s %s %s %s %v %q\n", p.Domain, p.DKIM, p.SPF, p.Policy, p.Subdomain, p.Testing, p.FailureOptions)
	for _, r := range r.Records {
		fmt.Fprintf(&b, "%s %d %s %s %s", r.Source, r.Count, r.Disposition, r.DKIM, r.SPF)
		for _, x := range r.Reasons {
			kind := x.Type
			if kind == "sampled_out" || kind == "forwarded" {
				kind = "" // of RFC 7489; the expectations have only those of RFC 9990
			}
			fmt.Fprintf(&b, " %s %q", strings.ReplaceAll(string(kind), "_", ""), x.Comment)
		}
		fmt.Fprintf(&b, "\n%s %s %s\n", r.HeaderFrom, r.EnvelopeFrom, r.EnvelopeTo)
		for _, d := range r.Signatures {
			fmt.Fprintf(&b, "dkim %s %s %s %q\n", d.Domain, d.Selector, d.Result, d.Comment)
		}
		for _, d := range r.Hosts {
			fmt.Fprintf(&b, "spf %s %s %s %q\n", d.Domain, d.Scope, d.Result, d.Comment)
		}
	}
	return b.String()
}

func readFile(path string) (*Report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if filepath.Ext(path) == ".eml" {
		return ReadMessage(bytes.NewReader(b), int64(len(b)), Limits{})
	}
	return Read(bytes.NewReader(b), Limits{})
}

// TestReports reads every aggregate report there is.
func TestReports(t *testing.T) {
	passed, total, compared := 0, 0, 0
	for _, dir := range []string{"dmarc-feedback", "mox-dmarc", "parsedmarc/aggregate", "parsedmarc/aggregate_invalid"} {
		files, err := os.ReadDir(conformance.Path(t, "reports", dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			path := conformance.Path(t, "reports", dir, f.Name())
			if filepath.Ext(path) == ".json" {
				continue
			}
			total++
			if t.Run(dir+"/"+f.Name(), func(t *testing.T) {
				r, err := readFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if r.ID == "" || r.Policy.Domain == "" || len(r.Records) == 0 || r.Begin.IsZero() || r.End.Before(r.Begin) {
					t.Errorf("incomplete: %+v", r)
				}
				for i := range r.Records {
					if rec := &r.Records[i]; !rec.Source.IsValid() || rec.Count == 0 || rec.HeaderFrom == "" || rec.Disposition == "" {
						t.Errorf("incomplete record: %+v", rec)
					}
				}
				if len(r.Defects) > 0 {
					t.Logf("defects: %q", r.Defects)
				}
				if b, err := os.ReadFile(strings.TrimSuffix(path, filepath.Ext(path)) + ".json"); err == nil {
					var e expected
					if err := json.Unmarshal(b, &e); err != nil {
						t.Fatal(err)
					}
					compared++
					if got, want := lines(r), e.lines(); got != want {
						t.Errorf("got\n%swant\n%s", got, want)
					}
				}
				again(t, r)
			}) {
				passed++
			}
		}
	}
	t.Logf("reports: %d of %d aggregate reports read, %d compared with what is expected of them", passed, total, compared)
	if total < 20 || compared < 7 {
		t.Errorf("only %d reports, %d with expectations", total, compared)
	}
}

// again writes a report and reads it: nothing is lost but what RFC 9990 has no
// place for.
func again(t *testing.T, r *Report) {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteXML(&b); err != nil {
		t.Fatal(err)
	}
	second, err := Read(&b, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if second.Namespace != Namespace || second.Version != "1.0" {
		t.Errorf("written as %q, version %q", second.Namespace, second.Version)
	}
	if got, want := lines(second), lines(r); got != want {
		t.Errorf("written and read again\n%swant\n%s", got, want)
	}
}
