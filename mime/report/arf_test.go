package report_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/smtp"
)

func complaint() *report.ARF {
	a := &report.ARF{
		Type:                  report.FeedbackAuthFailure,
		UserAgent:             "Postrider/1.0",
		Version:               "1",
		EnvelopeID:            "QQ314159",
		MailFrom:              "<>",
		RcptTo:                []string{"bob@example.net", "carol@example.net"},
		Arrival:               time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC),
		ReportingMTA:          "mx.example.net",
		SourceIP:              netip.MustParseAddr("2001:db8::1"),
		SourcePort:            52525,
		Incidents:             7,
		AuthenticationResults: []string{"mx.example.net; dmarc=fail header.from=example.org"},
		ReportedDomains:       []string{"example.org"},
		ReportedURIs:          []string{"https://example.org/a", "mailto:x@example.org"},
		OriginalHeader:        mime.ParseHeader([]byte(original)),
		Original:              func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(original)), nil },
	}
	a.Fields.Add("Auth-Failure", "dmarc")
	a.Fields.Add("Identity-Alignment", "dkim, spf")
	a.Fields.Add("Delivery-Result", "reject")
	a.Fields.Add("SPF-DNS", `txt : example.org : "v=spf1 -all"`)
	a.Fields.Add("SPF-DNS", `txt : example.net : "v=spf1 -all"`)
	return a
}

func writeARF(t testing.TB, a *report.ARF) []byte {
	t.Helper()
	m, err := a.Message(postmaster, mime.Address{Address: smtp.Address{Local: "ruf", Domain: "example.org"}})
	if err != nil {
		t.Fatal(err)
	}
	m.Date, m.MessageID = time.Date(2024, 2, 3, 4, 7, 0, 0, time.UTC), "2@mx.example.com"
	var b bytes.Buffer
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func readARF(t testing.TB, b []byte) *report.ARF {
	t.Helper()
	a, err := report.ParseARF(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return a
}

func fieldsOf(h mime.Header) (all []string) {
	for f := range h.Fields() {
		all = append(all, f.Name+": "+f.Value)
	}
	return all
}

func TestARFRoundTrip(t *testing.T) {
	want := complaint()
	b := writeARF(t, want)
	got := readARF(t, b)
	if !got.Arrival.Equal(want.Arrival) {
		t.Errorf("arrival %v", got.Arrival)
	}
	if a, b := fieldsOf(got.Fields), fieldsOf(want.Fields); !slices.Equal(a, b) {
		t.Errorf("fields %q, want %q", a, b)
	}
	if r, _ := got.Original(); r != nil {
		if back, _ := io.ReadAll(r); string(back) != original {
			t.Errorf("original %q", back)
		}
	}
	if !strings.Contains(got.Text, "authentication failure") || !strings.Contains(got.Text, "2001:db8::1") {
		t.Errorf("text %q", got.Text)
	}
	for _, a := range []*report.ARF{got, want} {
		a.Arrival, a.Fields, a.Text = time.Time{}, mime.Header{}, ""
		a.OriginalHeader, a.Original = mime.Header{}, nil
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	// RFC 5965 §2: the three parts in their order, and the subject.
	p, _ := mime.Parse(bytes.NewReader(b), int64(len(b)), mime.Limits{})
	if p.Subtype != "report" || p.Params["report-type"] != "feedback-report" || len(p.Parts) != 3 ||
		p.Parts[1].Subtype != "feedback-report" || p.Parts[1].Encoding != "7bit" || p.Parts[2].Message == nil {
		t.Errorf("%s", b)
	}
	if s := p.Header.Text("Subject"); s != "FW: Grüße" {
		t.Errorf("subject %q", s)
	}
}

func TestARFHeaderOnly(t *testing.T) {
	a := complaint()
	a.Original = nil
	got := readARF(t, writeARF(t, a))
	if got.Original != nil || got.OriginalHeader.Text("Subject") != "Grüße" {
		t.Errorf("%q", got.OriginalHeader.Bytes())
	}
}

func TestARFIncomplete(t *testing.T) {
	for name, f := range map[string]func(a *report.ARF){
		"type":    func(a *report.ARF) { a.Type = "" },
		"token":   func(a *report.ARF) { a.Type = "a b" },
		"agent":   func(a *report.ARF) { a.UserAgent = " \r\n" },
		"failure": func(a *report.ARF) { a.Fields.Del("Auth-Failure") },
		"results": func(a *report.ARF) { a.AuthenticationResults = nil },
		"message": func(a *report.ARF) { a.OriginalHeader, a.Original = mime.Header{}, nil },
	} {
		a := complaint()
		f(a)
		if _, err := a.Content(); !errors.Is(err, report.ErrIncomplete) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a := complaint()
	a.Fields.Add("Source-IP", "192.0.2.1")
	if _, err := a.Content(); err == nil {
		t.Error("a field written twice")
	}
	// Only authentication failures must have those two.
	a = complaint()
	a.Type, a.Fields, a.AuthenticationResults = report.FeedbackAbuse, mime.Header{}, nil
	if got := readARF(t, writeARF(t, a)); got.Type != "abuse" || !strings.Contains(got.Text, "abuse") {
		t.Errorf("%+v", got)
	}
	if _, err := report.ParseARF(strings.NewReader(original), int64(len(original))); !errors.Is(err, report.ErrNoFeedback) {
		t.Errorf("%v", err)
	}
}

func TestARFInjection(t *testing.T) {
	a := complaint()
	a.UserAgent = "x/1\r\nFeedback-Type: abuse\r\n\r\n"
	a.MailFrom = "a@b>\r\nSource-IP: 192.0.2.9"
	a.ReportedURIs = []string{"http://x/\r\nIncidents: 99"}
	got := readARF(t, writeARF(t, a))
	if got.Type != report.FeedbackAuthFailure || got.SourceIP != a.SourceIP || got.Incidents != 7 {
		t.Errorf("%+v", got)
	}
}

// TestARFLenient reads what the grammar does not have.
func TestARFLenient(t *testing.T) {
	const head = "Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/feedback-report\n\n"
	const tail = "\n--b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogaGkKCmhv\n--b--\n"
	for _, c := range []struct {
		fields string
		want   report.ARF
	}{
		{"Feedback-Type: Abuse (really)\nVersion: 0.1\n", report.ARF{Type: "abuse", Version: "0.1"}},
		{"\n\nfeedback-type:fraud\n\n\nSOURCE-IP: 192.0.2.1 (a.example)\n", report.ARF{Type: "fraud", SourceIP: netip.MustParseAddr("192.0.2.1")}},
		{"Source-IP: [IPv6:2001:db8::1]\n", report.ARF{SourceIP: netip.MustParseAddr("2001:db8::1")}},
		{"Source-IP: unknown\nSource-Port: 99999\nIncidents: -1\n", report.ARF{}},
		{"Feedback-Type: abuse\nFeedback-Type: fraud\nOriginal-Mail-From: <a@b>\nOriginal-Mail-From: c@d\n", report.ARF{Type: "abuse", MailFrom: "a@b"}},
		{"Original-Mail-From:\nOriginal-Rcpt-To:\nOriginal-Rcpt-To: x@y\n", report.ARF{RcptTo: []string{"x@y"}}},
		{"Received-Date: Thu, 8 Mar 2005 14:00:00 EDT\n", report.ARF{Arrival: time.Date(2005, 3, 8, 18, 0, 0, 0, time.UTC)}},
	} {
		got := readARF(t, []byte(head+c.fields+tail))
		if got.OriginalHeader.Get("Subject") != "hi" {
			t.Errorf("%q: original %q", c.fields, got.OriginalHeader.Bytes())
		}
		if r, err := got.Original(); err != nil {
			t.Error(err)
		} else if b, _ := io.ReadAll(r); string(b) != "Subject: hi\n\nho" {
			t.Errorf("%q", b)
		}
		got.OriginalHeader, got.Original = mime.Header{}, nil
		got.Arrival = got.Arrival.UTC()
		if !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%q:\n got %+v\nwant %+v", c.fields, *got, c.want)
		}
	}
	// Many fields cost no more than the limit.
	big := head + strings.Repeat("Reported-URI: x\n", 1<<18) + tail
	if got := readARF(t, []byte(big)); len(got.ReportedURIs) != 1<<20/len("Reported-URI: x\n") {
		t.Errorf("%d URIs", len(got.ReportedURIs))
	}
}

// TestARFCorpus compares with what mail-auth reads.
func TestARFCorpus(t *testing.T) {
	names, _ := filepath.Glob(filepath.Join(conformance.Path(t, "reports", "arf"), "*.eml"))
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		j, err := os.ReadFile(strings.TrimSuffix(name, "eml") + "json")
		if err != nil {
			t.Fatal(err)
		}
		var want struct {
			Type    string   `json:"feedback_type"`
			Arrival int64    `json:"arrival_date"`
			Results []string `json:"authentication_results"`
			ID      string   `json:"original_envelope_id"`
			From    string   `json:"original_mail_from"`
			To      string   `json:"original_rcpt_to"`
			Domains []string `json:"reported_domain"`
			URIs    []string `json:"reported_uri"`
			MTA     string   `json:"reporting_mta"`
			IP      string   `json:"source_ip"`
			Agent   string   `json:"user_agent"`
			Domain  string   `json:"dkim_domain"`
			Failure string   `json:"auth_failure"`
		}
		if err := json.Unmarshal(j, &want); err != nil {
			t.Fatal(err)
		}
		a := readARF(t, b)
		var ip string
		if a.SourceIP.IsValid() {
			ip = a.SourceIP.String()
		}
		if failure := a.Fields.Get("Auth-Failure"); failure != "" || want.Failure != "Unspecified" {
			if !strings.EqualFold(failure, want.Failure) {
				t.Errorf("%s: failure %q", name, failure)
			}
		}
		if strings.ReplaceAll(string(a.Type), "-", "") != strings.ToLower(want.Type) || a.EnvelopeID != want.ID || a.MailFrom != strings.Trim(want.From, "<>") ||
			strings.Join(a.RcptTo, " ") != strings.Trim(want.To, "<>") || !slices.Equal(a.ReportedDomains, want.Domains) && len(want.Domains) > 0 ||
			!slices.Equal(a.ReportedURIs, want.URIs) && len(want.URIs) > 0 || a.ReportingMTA != want.MTA || ip != want.IP ||
			a.UserAgent != want.Agent || len(a.AuthenticationResults) != len(want.Results) || a.Fields.Get("DKIM-Domain") != want.Domain {
			t.Errorf("%s:\n%+v\nwant %+v", name, a, want)
		}
		if want.Arrival != 0 && a.Arrival.Unix() != want.Arrival {
			t.Errorf("%s: arrival %v", name, a.Arrival)
		}
		if a.OriginalHeader.Get("From") == "" || (a.Original == nil) == (want.Type == "Abuse") {
			t.Errorf("%s: original %q", name, a.OriginalHeader.Bytes())
		}
	}
	more, _ := filepath.Glob(filepath.Join(conformance.Path(t, "reports", "parsedmarc", "failure"), "*.eml"))
	for _, name := range append(more, conformance.Path(t, "mime", "mimekit", "feedback-report.eml")) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if a := readARF(t, b); a.Type == "" || a.Arrival.IsZero() || !a.SourceIP.IsValid() || a.OriginalHeader.Get("From") == "" {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func FuzzReadARF(f *testing.F) {
	f.Add(writeARF(f, complaint()))
	f.Add([]byte("Content-Type: message/feedback-report\n\nFeedback-Type: abuse\nSource-IP: [::1]\nX: y\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := report.ParseARF(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		c, err := a.Content()
		if err != nil {
			return
		}
		m := mime.Message{From: []mime.Address{postmaster}, Parts: []mime.Content{c}}
		var out bytes.Buffer
		if _, err := m.WriteTo(&out); err != nil {
			if !errors.Is(err, mime.ErrLineLength) && !errors.Is(err, mime.ErrInjection) {
				t.Fatal(err)
			}
			return
		}
		back := readARF(t, out.Bytes())
		if back.Type != a.Type || back.SourceIP.Unmap() != a.SourceIP.Unmap() || back.Incidents != a.Incidents || back.Fields.Len() != a.Fields.Len() {
			t.Fatalf("%+v\nwas %+v\n%s", back, a, out.Bytes())
		}
	})
}

func BenchmarkParseARF(b *testing.B) {
	msg := writeARF(b, complaint())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := report.ParseARF(bytes.NewReader(msg), int64(len(msg))); err != nil {
			b.Fatal(err)
		}
	}
}
