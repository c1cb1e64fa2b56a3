package dmarcreport

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dmarc"
)

var page = flag.String("page", "", "write the summary page of the sample reports to this file")

// samples are reports of three weeks: the domain's own mail, a service that is
// not aligned, and forgeries, also of the page itself.
func samples() []*Report {
	begin := time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC)
	var out []*Report
	for d := range int64(21) {
		r := &Report{Organization: "mx.example.net", ID: "id-" + string(rune('a'+d)), Begin: begin.AddDate(0, 0, int(d)), End: begin.AddDate(0, 0, int(d)+1).Add(-time.Second),
			Policy: Published{Domain: "example.org", Policy: dmarc.Quarantine}}
		if d%3 == 1 {
			r.Organization = "<script>alert(1)</script>"
		}
		r.Records = []Record{
			{Source: netip.MustParseAddr("192.0.2.25"), Count: 900 + 37*(d%7), Disposition: "pass", DKIM: auth.Pass, SPF: auth.Pass, HeaderFrom: "example.org",
				Signatures: []Signature{{Domain: "example.org", Selector: "s", Result: auth.Pass}}, Hosts: []Host{{Domain: "example.org", Result: auth.Pass}}},
			{Source: netip.MustParseAddr("198.51.100.7"), Count: 220 - 9*d, Disposition: "none", DKIM: auth.Fail, SPF: auth.Fail, HeaderFrom: "example.org",
				Hosts: []Host{{Domain: "bounce.newsletter.example", Result: auth.Pass}}},
			{Source: netip.MustParseAddr("2001:db8:1:2::9"), Count: 30 * (d % 5), Disposition: "quarantine", DKIM: auth.Fail, SPF: auth.Fail, HeaderFrom: "example.org",
				Hosts: []Host{{Domain: "example.org", Result: auth.Fail}}, Signatures: []Signature{{Domain: "<img src=x onerror=alert(1)>\x1b[31m", Result: auth.Fail}}},
			{Source: netip.MustParseAddr("203.0.113.4"), Count: 3, Disposition: "reject", DKIM: auth.Fail, SPF: auth.Fail, HeaderFrom: "example.org",
				Signatures: []Signature{{Domain: "example.org", Result: auth.Fail}}},
		}
		out = append(out, r, r) // twice, as reports come
	}
	return out
}

func TestSummary(t *testing.T) {
	s := Summarize(samples())
	if s.Reports != 21 || len(s.Days) != 21 || len(s.Sources) != 4 || len(s.Reporters) != 2 {
		t.Fatalf("%+v", s)
	}
	var sum Tally
	for _, d := range s.Days {
		sum.Messages += d.Messages
		sum.Passed += d.Passed
		sum.Blocked += d.Blocked
	}
	if sum.Messages != s.Messages || sum.Passed != s.Passed || sum.Blocked != s.Blocked || s.Delivered()+s.Blocked != s.Failed() || s.Failed() == 0 {
		t.Errorf("days add up to %+v, not %+v", sum, s.Tally)
	}
	var text, html bytes.Buffer
	if err := s.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	want := `DMARC of example.org, 2026-05-04 to 2026-05-24, 21 reports
25224 messages: 84 % passed, 2730 failed and were delivered, 1263 were quarantined or rejected

SENDER                     MESSAGES  PASS   DKIM   SPF    DELIVERED  BLOCKED  WHAT FAILS
example.org                21231     100 %  100 %  100 %  0          0        
bounce.newsletter.example  2730      0 %    0 %    0 %    2730       0        not signed; SPF pass for bounce.newsletter.example, not aligned
2001:db8:1::/48            1200      0 %    0 %    0 %    0          1200     signed by <img src=x onerror=alert(1)>?[31m only; SPF fail for example.org
203.0.113.0/24             63        0 %    0 %    0 %    0          63       signature of example.org: fail; SPF not checked
`
	if got := text.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if err := s.WriteHTML(&html); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"<script", "<img", "http:", "https:", "url("} {
		if strings.Contains(html.String(), bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	for _, good := range []string{"&lt;script&gt;", "bounce.newsletter.example", `class="delivered"`, "25\u202f224", "<title>2026-05-04: "} {
		if !strings.Contains(html.String(), good) {
			t.Errorf("the page lacks %s", good)
		}
	}
	if *page != "" {
		if err := os.WriteFile(*page, html.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSummaryOfNothing and of times that nobody lives in.
func TestSummaryBounds(t *testing.T) {
	for name, reports := range map[string][]*Report{
		"none":  nil,
		"empty": {{}},
		"ages": {
			{ID: "1", Begin: time.Unix(0, 0), End: time.Unix(1, 0), Records: []Record{{Count: maxCount, DKIM: auth.Pass}}},
			{ID: "2", Begin: time.Unix(1<<36, 0), End: time.Unix(1<<37, 0), Records: []Record{{Count: 1, SourceText: "x"}}},
		},
	} {
		s := Summarize(reports)
		if len(s.Days) > maxBars {
			t.Errorf("%s: %d days", name, len(s.Days))
		}
		if len(reports) == 2 && (s.Days[0].Messages != maxCount || s.Days[len(s.Days)-1].Messages != 1) {
			t.Errorf("%s: %+v", name, s.Days)
		}
		var b bytes.Buffer
		if err := s.WriteHTML(&b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "ZgotmplZ") {
			t.Errorf("%s: %s", name, b.String())
		}
		if n := len(s.chart().Lines); n < 2 || n > 7 {
			t.Errorf("%s: %d lines", name, n)
		}
	}
}

func TestPercent(t *testing.T) {
	for want, c := range map[string][2]int64{"–": {0, 0}, "0 %": {0, 3}, "100 %": {3, 3}, "<1 %": {1, 1000}, ">99 %": {999, 1000}, "50 %": {1, 2}, "67 %": {2, 3}} {
		if got := percent(c[0], c[1]); got != want {
			t.Errorf("%v: %s, want %s", c, got, want)
		}
	}
}

func BenchmarkSummarize(b *testing.B) {
	reports := samples()
	b.ReportAllocs()
	for b.Loop() {
		Summarize(reports)
	}
}
