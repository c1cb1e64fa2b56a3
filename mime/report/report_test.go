package report_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/smtp"
)

var postmaster = mime.Address{Name: "Mail Delivery System", Address: smtp.Address{Local: "postmaster", Domain: "mx.example.com"}}

const original = "From: ann@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@example.org>\r\n\r\nHi\r\n"

func notice() *report.DSN {
	return &report.DSN{
		ReportingMTA: "mx.example.com",
		ReceivedFrom: "client.example.org",
		Arrival:      time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC),
		DeliverBy:    time.Date(2024, 2, 3, 5, 5, 6, 0, time.UTC), FutureRelease: "for;60",
		EnvelopeID: "QQ314159",
		Recipients: []report.Recipient{
			{
				Final: "bob@example.net", Original: "Bob@Example.NET", OriginalType: "rfc822", FinalType: "rfc822",
				Action: report.Failed, Status: smtp.EnhancedCode{5, 1, 1}, RemoteMTA: "in.example.net",
				Diagnostic: "550 5.1.1 User unknown; sorry", DiagnosticType: "smtp",
				LastAttempt: time.Date(2024, 2, 3, 4, 6, 0, 0, time.UTC),
			},
			{
				Final: "jörg@example.net", FinalType: "utf-8", Action: report.Delayed, Status: smtp.EnhancedCode{4, 4, 1},
				RetryUntil: time.Date(2024, 2, 8, 4, 5, 6, 0, time.UTC),
			},
		},
		OriginalHeader: mime.ParseHeader([]byte(original)),
		Original:       func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(original)), nil },
	}
}

func write(t testing.TB, d *report.DSN) []byte {
	t.Helper()
	m, err := d.Message(postmaster, smtp.Address{Local: "ann", Domain: "example.org"})
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

func read(t testing.TB, b []byte) *report.DSN {
	t.Helper()
	d, err := report.Parse(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return d
}

func TestRoundTrip(t *testing.T) {
	for _, global := range []bool{false, true} {
		d := notice()
		d.UTF8 = global
		b := write(t, d)
		got := read(t, b)
		if got.UTF8 != global || got.ReportingMTA != d.ReportingMTA || got.ReceivedFrom != d.ReceivedFrom ||
			!got.Arrival.Equal(d.Arrival) || !got.DeliverBy.Equal(d.DeliverBy) || got.FutureRelease != d.FutureRelease || got.EnvelopeID != d.EnvelopeID {
			t.Errorf("%+v", got)
		}
		if len(got.Recipients) != len(d.Recipients) {
			t.Fatalf("recipients %+v", got.Recipients)
		}
		for i := range d.Recipients {
			a, b := got.Recipients[i], d.Recipients[i]
			if !a.LastAttempt.Equal(b.LastAttempt) || !a.RetryUntil.Equal(b.RetryUntil) {
				t.Errorf("times %+v, want %+v", a, b)
			}
			a.LastAttempt, a.RetryUntil, b.LastAttempt, b.RetryUntil = time.Time{}, time.Time{}, time.Time{}, time.Time{}
			if !reflect.DeepEqual(a, b) {
				t.Errorf("recipient %+v, want %+v", a, b)
			}
		}
		if !strings.Contains(got.Text, "bob@example.net") || !strings.Contains(got.Text, "User unknown") || !strings.Contains(got.Text, "Grüße") {
			t.Errorf("text %q", got.Text)
		}
		if got.OriginalHeader.Get("Message-ID") != "<1@example.org>" || got.Original == nil {
			t.Error("the original is lost")
		}
		r, _ := got.Original()
		if back, _ := io.ReadAll(r); string(back) != original {
			t.Errorf("original %q", back)
		}
		p, _ := mime.Parse(bytes.NewReader(b), int64(len(b)), mime.Limits{})
		if p.Header.Get("Auto-Submitted") != "auto-replied" || p.Header.Get("In-Reply-To") != "<1@example.org>" {
			t.Errorf("%s", p.Header.Bytes())
		}
		eight := bytes.ContainsFunc(b, func(r rune) bool { return r > 127 })
		if eight != global {
			t.Errorf("UTF8 %v, 8-bit octets %v", global, eight)
		}
	}
}

func TestOriginalHeaderOnly(t *testing.T) {
	d := notice()
	d.Original = nil
	got := read(t, write(t, d))
	if got.Original != nil || got.OriginalHeader.Text("Subject") != "Grüße" {
		t.Errorf("%q", got.OriginalHeader.Bytes())
	}
	// A message that cannot stand in another one gives its header.
	for _, body := range []string{strings.Repeat("x", 1200), "nul\x00", "lone\rCR"} {
		d.Original = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(original + body)), nil }
		if got := read(t, write(t, d)); got.Original != nil || got.OriginalHeader.Text("Subject") != "Grüße" {
			t.Errorf("%.10q: %q", body, got.OriginalHeader.Bytes())
		}
	}
	d.OriginalHeader, d.Original = mime.Header{}, nil
	if got := read(t, write(t, d)); got.OriginalHeader.Len() != 0 {
		t.Errorf("%q", got.OriginalHeader.Bytes())
	}
}

func TestIncomplete(t *testing.T) {
	for _, f := range []func(d *report.DSN){
		func(d *report.DSN) { d.ReportingMTA = "" },
		func(d *report.DSN) { d.Recipients = nil },
		func(d *report.DSN) { d.Recipients[0].Final = "" },
		func(d *report.DSN) { d.Recipients[1].Action = "" },
	} {
		d := notice()
		f(d)
		if _, err := d.Content(); !errors.Is(err, report.ErrIncomplete) {
			t.Errorf("%v", err)
		}
	}
	if _, err := report.Parse(strings.NewReader(original), int64(len(original))); !errors.Is(err, report.ErrNoReport) {
		t.Errorf("%v", err)
	}
	gone := errors.New("gone")
	d := notice()
	d.Original = func() (io.ReadCloser, error) { return nil, gone }
	if _, err := d.Content(); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
}

// TestInjection writes values of a peer that would add fields.
func TestInjection(t *testing.T) {
	d := notice()
	d.Recipients[0].Diagnostic = "550 no\r\nAction: delivered\r\n\r\nFinal-Recipient: rfc822; x@y\n" + strings.Repeat("z", 5000)
	d.EnvelopeID = "a\r\nReporting-MTA: dns; evil"
	got := read(t, write(t, d))
	if len(got.Recipients) != 2 || got.Recipients[0].Action != report.Failed || got.ReportingMTA != "mx.example.com" {
		t.Errorf("%+v", got)
	}
}

// TestCorpus reads every notice of the corpus.
func TestCorpus(t *testing.T) {
	root := conformance.Path(t, "mime")
	notices, recipients := 0, 0
	names, _ := filepath.Glob(filepath.Join(root, "*", "*.eml"))
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		d, err := report.Parse(bytes.NewReader(b), int64(len(b)))
		if errors.Is(err, report.ErrNoReport) {
			if strings.Contains(string(b), "\nContent-Type: message/delivery-status") {
				t.Errorf("%s: notice not found", name)
			}
			continue
		}
		if err != nil {
			t.Fatal(name, err)
		}
		notices++
		if len(d.Recipients) == 0 {
			t.Errorf("%s: no recipients", name)
		}
		for _, r := range d.Recipients {
			recipients++
			if r.Final == "" && r.Original == "" || r.Action == "" && r.Status == (smtp.EnhancedCode{}) {
				t.Errorf("%s: recipient %+v", name, r)
			}
		}
	}
	t.Logf("%d notices with %d recipients read", notices, recipients)

	var cases []struct {
		File string
		DSN  *struct {
			MTA        string `json:"reporting_mta"`
			Recipients []struct{ Final, Action, Status string }
		}
	}
	j, err := os.ReadFile(filepath.Join(root, "torture", "expect.json"))
	if err == nil {
		err = json.Unmarshal(j, &cases)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if c.DSN == nil {
			continue
		}
		b, _ := os.ReadFile(filepath.Join(root, "torture", c.File))
		d := read(t, b)
		if d.ReportingMTA != c.DSN.MTA || len(d.Recipients) != len(c.DSN.Recipients) {
			t.Fatalf("%+v", d)
		}
		for i, want := range c.DSN.Recipients {
			r := d.Recipients[i]
			if r.Final != want.Final || string(r.Action) != want.Action || r.Status.String() != want.Status {
				t.Errorf("%+v, want %+v", r, want)
			}
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(write(f, notice()))
	f.Add([]byte("Content-Type: message/delivery-status\n\nReporting-MTA: dns; a\n\nFinal-Recipient: utf-8; \\x{e9}@b\nStatus: 5.1\nAction: Failed (x)\nFinal-Recipient: c\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := report.Parse(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		c, err := d.Content()
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
		back := read(t, out.Bytes())
		if len(back.Recipients) != len(d.Recipients) {
			t.Fatalf("%d recipients, were %d\n%s", len(back.Recipients), len(d.Recipients), out.Bytes())
		}
	})
}

func BenchmarkMessage(b *testing.B) {
	d := notice()
	b.ReportAllocs()
	for b.Loop() {
		m, err := d.Message(postmaster, smtp.Address{Local: "ann", Domain: "example.org"})
		if err != nil {
			b.Fatal(err)
		}
		m.WriteTo(io.Discard)
	}
}

func BenchmarkParse(b *testing.B) {
	msg := write(b, notice())
	b.ReportAllocs()
	for b.Loop() {
		report.Parse(bytes.NewReader(msg), int64(len(msg)))
	}
}
