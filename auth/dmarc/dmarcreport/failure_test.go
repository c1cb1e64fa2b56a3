package dmarcreport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/dmarc"
	"github.com/postrider/postrider/auth/spf"
	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/smtp"
)

// TestFailureSamples reads all ARF and failure reports there are.
func TestFailureSamples(t *testing.T) {
	passed, total := 0, 0
	for _, dir := range []string{"arf", "parsedmarc/failure"} {
		files, err := os.ReadDir(conformance.Path(t, "reports", dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			path := conformance.Path(t, "reports", dir, file.Name())
			if filepath.Ext(path) != ".eml" {
				continue
			}
			total++
			if t.Run(file.Name(), func(t *testing.T) {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				f, err := ReadFailure(bytes.NewReader(b), int64(len(b)))
				if err != nil {
					t.Fatal(err)
				}
				if dir != "arf" {
					if f.Type != report.FeedbackAuthFailure || f.AuthFailure != "dmarc" || f.SourceIP.String() != "10.10.10.10" || len(f.ReportedDomains) != 1 ||
						len(f.RcptTo) != 1 || f.Arrival.IsZero() || len(f.AuthenticationResults) != 1 || !f.OriginalHeader.Has("Subject") {
						t.Errorf("%+v", f)
					}
					return
				}
				compare(t, f, strings.TrimSuffix(path, ".eml")+".json")
			}) {
				passed++
			}
		}
	}
	t.Logf("reports: %d of %d failure reports", passed, total)
}

func compare(t *testing.T, f *Failure, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		Type      string   `json:"feedback_type"`
		Arrival   *int64   `json:"arrival_date"`
		Results   []string `json:"authentication_results"`
		Incidents int64
		ID        *string  `json:"original_envelope_id"`
		From      *string  `json:"original_mail_from"`
		To        *string  `json:"original_rcpt_to"`
		Domains   []string `json:"reported_domain"`
		URIs      []string `json:"reported_uri"`
		MTA       *string  `json:"reporting_mta"`
		IP        *string  `json:"source_ip"`
		Agent     *string  `json:"user_agent"`
		Port      int      `json:"source_port"`
		Auth      string   `json:"auth_failure"`
		Delivery  string   `json:"delivery_result"`
		Domain    *string  `json:"dkim_domain"`
		Identity  *string  `json:"dkim_identity"`
		Selector  *string  `json:"dkim_selector"`
		SPF       *string  `json:"spf_dns"`
		Alignment string   `json:"identity_alignment"`
	}
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	word := func(s string) string { // AuthFailure, BodyHash, Unspecified
		s = strings.ToLower(s)
		if s == "unspecified" {
			return ""
		}
		return s
	}
	plain := func(s string) string {
		return strings.ToLower(strings.Join(strings.Fields(strings.Trim(s, "<>")), " "))
	}
	ip := ""
	if f.SourceIP.IsValid() {
		ip = f.SourceIP.String()
	}
	mta := strings.TrimPrefix(plain(str(e.MTA)), "dns; ")
	for what, pair := range map[string][2]any{
		"Feedback-Type":   {strings.ReplaceAll(string(f.Type), "-", ""), word(e.Type)},
		"Auth-Failure":    {f.AuthFailure, word(e.Auth)},
		"Delivery-Result": {f.DeliveryResult, word(e.Delivery)},
		"results":         {len(f.AuthenticationResults), len(e.Results)},
		"incidents":       {int64(max(f.Incidents, 1)), e.Incidents},
		"envelope id":     {f.EnvelopeID, str(e.ID)},
		"from":            {plain(f.MailFrom), plain(str(e.From))},
		"to":              {plain(strings.Join(f.RcptTo, ", ")), plain(str(e.To))},
		"domains":         {fmt.Sprint(f.ReportedDomains), fmt.Sprint(e.Domains)},
		"URIs":            {fmt.Sprint(f.ReportedURIs), fmt.Sprint(e.URIs)},
		"MTA":             {plain(f.ReportingMTA), mta},
		"IP":              {ip, str(e.IP)},
		"port":            {int(f.SourcePort), e.Port},
		"agent":           {f.UserAgent, str(e.Agent)},
		"d=":              {f.DKIMDomain, str(e.Domain)},
		"i=":              {f.DKIMIdentity, str(e.Identity)},
		"s=":              {f.DKIMSelector, str(e.Selector)},
		"SPF-DNS":         {strings.Join(f.SPFDNS, ""), str(e.SPF)},
		"alignment":       {strings.Join(f.Unaligned, ""), strings.TrimPrefix(word(e.Alignment), "none")},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %v, want %v", what, pair[0], pair[1])
		}
	}
	if e.Arrival != nil && f.Arrival.Unix() != *e.Arrival {
		t.Errorf("arrival %v, want %v", f.Arrival, time.Unix(*e.Arrival, 0))
	}
	if f.DKIMBody != nil && !bytes.HasPrefix(f.DKIMBody, []byte("This is a message body")) {
		t.Errorf("body %q", f.DKIMBody)
	}
}

const failedMessage = "Received: from x (x [192.0.2.9]) by mx.example.net\r\n\tfor <bob@example.net>; Mon, 4 May 2026 12:00:00 +0000\r\n" +
	"X-Secret: bob@example.net\r\nDelivered-To: bob@example.net\r\n" +
	"From: Alice <alice@example.org>\r\nTo: Bob <bob@example.net>, \"Carol\" <carol@example.com>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nSecret body\r\n"

func failed(t *testing.T, z zone) FailedMessage {
	header, _, _ := strings.Cut(failedMessage, "\r\n\r\n")
	return FailedMessage{
		Message: Message{Time: noon, IP: netip.MustParseAddr("192.0.2.9"),
			DMARC: evaluate(t, z, "example.org", dmarc.Identifiers{}),
			SPF: &spf.Evaluation{Result: auth.Fail, Identity: spf.MailFrom, Domain: "example.org", Sender: "alice@example.org", Lookups: []spf.Lookup{
				{Type: "TXT", Name: "example.org", Answers: 1, Record: `v=spf1 include:"x".example.org -all`}, {Type: "TXT", Name: "a b.example.org", Answers: 1, Record: "v=spf1"},
				{Type: "A", Name: "x.example.org"}, {Type: "TXT", Name: "x.example.org", Answers: 1, Record: "v=spf1 ip4:192.0.2.1"}}},
			DKIM: []dkim.Verification{{Result: auth.Fail, Err: dkim.ErrBodyHash, Signature: &dkim.Signature{Domain: "example.org", Selector: "s1", Identity: "@example.org"}}}},
		Header:     mime.ParseHeader([]byte(header + "\r\n")),
		Original:   func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(failedMessage)), nil },
		EnvelopeID: "QQ314159", DeliveryResult: "reject",
	}
}

func TestFailureReporter(t *testing.T) {
	z := zone{
		"_dmarc.example.org":                        "v=DMARC1; p=reject; ruf=mailto:f@example.org,mailto:x@third.example,mailto:y@agreed.example",
		"example.org._report._dmarc.agreed.example": "v=DMARC1; ruf=mailto:z@agreed.example",
	}
	box := new(outbox)
	fr := &FailureReporter{Submitter: "mx.example.net", From: reporter, Send: box.send, Evaluator: &dmarc.Evaluator{Resolver: z}, PerHour: 2, RedactionKey: []byte("k")}
	if n, err := fr.Report(t.Context(), failed(t, z)); n != 2 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if a, b := box.mails[0].To[0].Address.String(), box.mails[1].To[0].Address.String(); a != "f@example.org" || b != "z@agreed.example" {
		t.Errorf("sent to %s and %s", a, b)
	}
	text := raw(t, box.mails[0])
	for _, secret := range []string{"bob", "carol", "Secret", "Bob"} {
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("the report tells %s: %s", secret, text)
		}
	}
	f, err := ReadFailure(bytes.NewReader(text), int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	if f.Type != report.FeedbackAuthFailure || f.AuthFailure != "dmarc" || strings.Join(f.Unaligned, " ") != "dkim spf" || !bytes.Contains(text, []byte("Identity-Alignment: dkim, spf\r\n")) ||
		f.DKIMDomain != "example.org" || f.DKIMSelector != "s1" || f.DKIMIdentity != "@example.org" ||
		strings.Join(f.SPFDNS, "\n") != `txt : example.org : "v=spf1 include:\"x\".example.org -all"`+"\n"+`txt : x.example.org : "v=spf1 ip4:192.0.2.1"` ||
		f.MailFrom != "alice@example.org" || f.SourceIP.String() != "192.0.2.9" || !f.Arrival.Equal(noon) || f.ReportingMTA != "mx.example.net" ||
		f.EnvelopeID != "QQ314159" || f.DeliveryResult != "reject" || f.ReportedDomains[0] != "example.org" || len(f.AuthenticationResults) != 1 || f.Incidents != 0 {
		t.Errorf("%+v\n%s", f, text)
	}
	if got := f.OriginalHeader.Get("Subject"); got != "=?utf-8?q?Gr=C3=BC=C3=9Fe?=" || f.OriginalHeader.Get("From") != "Alice <alice@example.org>" || f.Original != nil {
		t.Errorf("%q, %+v", got, f.OriginalHeader)
	}
	if to, err := f.OriginalHeader.Addresses("To"); err != nil || len(to) != 2 || to[0].Domain != "example.net" || to[0].Local == to[1].Local {
		t.Errorf("redacted To: %v, %v", to, err)
	}

	// The rate is limited, and what was not told of is counted.
	late := failed(t, z)
	for range 5 {
		if _, err := fr.Report(t.Context(), late); err != nil {
			t.Fatal(err)
		}
	}
	if len(box.mails) != 4 {
		t.Errorf("%d mails within the hour", len(box.mails))
	}
	late.Time = noon.Add(time.Hour)
	fr.Report(t.Context(), late)
	text = raw(t, box.mails[len(box.mails)-1])
	if f, err := ReadFailure(bytes.NewReader(text), int64(len(text))); err != nil || f.Incidents != 5 || len(box.mails) != 6 {
		t.Errorf("%+v, %v", f, err)
	}

	// All of it, when the receiver says so.
	fr = &FailureReporter{Submitter: "mx.example.net", From: reporter, Send: box.send, Evaluator: &dmarc.Evaluator{Resolver: z}, Unredacted: true}
	fr.Report(t.Context(), failed(t, z))
	text = raw(t, box.mails[len(box.mails)-1])
	f, err = ReadFailure(bytes.NewReader(text), int64(len(text)))
	if err != nil || f.Original == nil {
		t.Fatalf("%+v, %v", f, err)
	}
	r, err := f.Original()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || !bytes.Contains(b, []byte("Secret body")) {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := new(FailureReporter).Report(t.Context(), failed(t, z)); !errors.Is(err, ErrSender) {
		t.Error(err)
	}
	if _, err := new(Failure).Message(reporter, smtp.Address{}); !errors.Is(err, ErrIncomplete) {
		t.Error(err)
	}
}

// TestWanted: fo decides (RFC 9989 §4.7).
func TestWanted(t *testing.T) {
	for _, c := range []struct {
		fo        string
		spf, dkim bool // aligned
		results   string
		want      bool
	}{
		{"", false, false, "", true},
		{"", true, false, "", false},
		{"; fo=0", false, true, "", false},
		{"; fo=1", true, false, "", true},
		{"; fo=1", true, true, "", false},
		{"; fo=d", true, true, "dkim", true},
		{"; fo=d", false, false, "", false},
		{"; fo=s", true, true, "spf", true},
		{"; fo=s", true, true, "dkim", false},
		{"; fo=0:d:s", true, true, "spf", true},
		{"; psd=y", false, false, "", false},
	} {
		z := zone{"_dmarc.example.org": "v=DMARC1; p=none; ruf=mailto:f@example.org" + c.fo}
		var ids dmarc.Identifiers
		if c.spf {
			ids.SPF = pass("example.org")
		}
		if c.dkim {
			ids.DKIM = append(ids.DKIM, pass("example.org"))
		}
		m := Message{DMARC: evaluate(t, z, "example.org", ids), SPF: &spf.Evaluation{Result: auth.Pass}, DKIM: []dkim.Verification{{Result: auth.TempError}}}
		if strings.Contains(c.results, "spf") {
			m.SPF.Result = auth.SoftFail
		}
		if strings.Contains(c.results, "dkim") {
			m.DKIM[0].Result = auth.Fail
		}
		if got := Wanted(&m); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if Wanted(&Message{}) || Wanted(&Message{DMARC: &dmarc.Evaluation{}}) {
		t.Error("wanted without a policy")
	}
}

func TestDestinations(t *testing.T) {
	var cases []struct {
		ID, Description string
		Policy          string `json:"policy_domain"`
		URI             string
		Zone            map[string][]json.RawMessage
		Allowed         bool
		Use             []string
	}
	b, err := os.ReadFile(conformance.Path(t, "dmarc", "external-reporting.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	passed := 0
	for _, c := range cases {
		if t.Run(c.ID, func(t *testing.T) {
			z := zone{}
			for name, rrs := range c.Zone {
				var rr struct{ TXT string }
				if json.Unmarshal(rrs[0], &rr) != nil {
					rr.TXT = "SERVFAIL"
				}
				z[name] = rr.TXT
			}
			got, err := Destinations(t.Context(), &dmarc.Evaluator{Resolver: z}, c.Policy, []string{c.URI})
			if (len(got) > 0) != c.Allowed || (err != nil) != (c.ID == "servfail") || err != nil && !errors.Is(err, dmarc.ErrLookup) {
				t.Errorf("%s: %v, %v", c.Description, got, err)
			}
			for i, u := range c.Use {
				if "mailto:"+got[i].String() != u {
					t.Errorf("%v, want %v", got, c.Use)
				}
			}
		}) {
			passed++
		}
	}
	t.Logf("dmarc/external-reporting.json: %d of %d", passed, len(cases))

	z := zone{
		"_dmarc.example.org":                      "v=DMARC1; p=none",
		"example.org._report._dmarc.loop.example": "v=DMARC1; rua=mailto:x@loop.example,mailto:victim@example.net",
		"example.org._report._dmarc.v.example":    "v=DMARC2; rua=mailto:x@v.example",
	}
	long := strings.Repeat(strings.Repeat("x", 60)+".", 4) + "example"
	uris := []string{"mailto:a@loop.example", "mailto:a@v.example", "mailto:a@[192.0.2.1]", "mailto:a@" + long, "https://example.org/", "mailto:a@example.org", "mailto:a@sub.example.org", "mailto:a@example.org"}
	got, err := Destinations(t.Context(), &dmarc.Evaluator{Resolver: z}, "example.org", uris)
	if err != nil || fmt.Sprint(got) != "[a@example.org a@sub.example.org]" {
		t.Errorf("%v, %v", got, err)
	}
	many := make([]string, 40)
	for i := range many {
		many[i] = fmt.Sprintf("mailto:a%d@example.org", i)
	}
	if got, _ := Destinations(t.Context(), &dmarc.Evaluator{Resolver: z}, "example.org", many); len(got) != maxDestinations {
		t.Errorf("%d destinations", len(got))
	}
}

func FuzzReadFailure(f *testing.F) {
	f.Add([]byte("Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: auth-failure\r\nAuth-Failure: dmarc\r\nIdentity-Alignment: dkim, spf\r\nSource-IP: 192.0.2.1\r\nReported-Domain: example.org\r\nDKIM-Canonicalized-Body: QQ==\r\nSPF-DNS: txt : x : \"y\"\r\n\r\n--b\r\nContent-Type: text/rfc822-headers\r\n\r\nFrom: a@example.org\r\n\r\n--b--\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ReadFailure(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		m, err := r.Message(reporter, smtp.Address{Local: "f", Domain: "example.org"})
		if err != nil {
			return
		}
		var out bytes.Buffer
		if _, err := m.WriteTo(&out); err != nil {
			return
		}
		again, err := ReadFailure(bytes.NewReader(out.Bytes()), int64(out.Len()))
		if err != nil {
			t.Fatalf("written, but not read again: %v\n%s", err, out.Bytes())
		}
		if again.SourceIP != r.SourceIP || again.AuthFailure != r.AuthFailure && strings.TrimSpace(r.AuthFailure) != "" && mimeClean(r.AuthFailure) {
			t.Fatalf("%v %q, then %v %q", r.SourceIP, r.AuthFailure, again.SourceIP, again.AuthFailure)
		}
	})
}

func mimeClean(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

var benchReport = func() *Report {
	r := &Report{Organization: "mx.example.net", Email: "dmarc@mx.example.net", ID: "1", Begin: noon, End: noon.Add(time.Hour), Policy: Published{Domain: "example.org", Policy: dmarc.Reject}}
	for i := range 1000 {
		r.Records = append(r.Records, Record{Source: netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), Count: int64(i), Disposition: "none", DKIM: auth.Pass, SPF: auth.Fail,
			HeaderFrom: "example.org", EnvelopeFrom: "bounce.example.org", Signatures: []Signature{{Domain: "example.org", Selector: "s", Result: auth.Pass}},
			Hosts: []Host{{Domain: "bounce.example.org", Scope: "mfrom", Result: auth.SoftFail}}})
	}
	return r
}()

func BenchmarkWriteXML(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if err := benchReport.WriteXML(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	var x bytes.Buffer
	if err := benchReport.WriteXML(&x); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(x.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(bytes.NewReader(x.Bytes()), Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCollect(b *testing.B) {
	z := zone{"_dmarc.example.org": "v=DMARC1; p=reject; rua=mailto:r@example.org"}
	c := &Collector{Storage: new(Memory)}
	m := Message{Time: noon, IP: netip.MustParseAddr("192.0.2.1"), DMARC: evaluate(b, z, "example.org", dmarc.Identifiers{SPF: pass("example.org")}),
		SPF: &spf.Evaluation{Result: auth.Pass, Identity: spf.MailFrom, Domain: "example.org"}}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Add(context.Background(), m); err != nil {
			b.Fatal(err)
		}
	}
}
