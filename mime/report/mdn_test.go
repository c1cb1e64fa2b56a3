package report_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/report"
	"github.com/postrider/postrider/smtp"
)

func receipt() *report.MDN {
	return &report.MDN{
		ReportingUA:    "pc.example.net; Reader 1.0",
		Gateway:        "gw.example.net",
		Final:          "jörg@example.net",
		FinalType:      "utf-8",
		Original:       "Bob@Example.NET",
		OriginalType:   "rfc822",
		MessageID:      "1@example.org",
		Automatic:      true,
		Disposition:    report.Deleted,
		Modifiers:      []string{"error", "x-odd"},
		Errors:         []string{"disk full", "twice"},
		OriginalHeader: mime.ParseHeader([]byte(original)),
		OriginalMessage: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(original)), nil
		},
	}
}

func writeMDN(t testing.TB, d *report.MDN) []byte {
	t.Helper()
	m, err := d.Message(postmaster, mime.Address{Address: smtp.Address{Local: "ann", Domain: "example.org"}})
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

func readMDN(t testing.TB, b []byte) *report.MDN {
	t.Helper()
	m, err := report.ParseMDN(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return m
}

func TestMDNRoundTrip(t *testing.T) {
	for _, global := range []bool{false, true} {
		want := receipt()
		want.UTF8 = global
		b := writeMDN(t, want)
		got := readMDN(t, b)
		r, _ := got.OriginalMessage()
		if back, _ := io.ReadAll(r); string(back) != original {
			t.Errorf("original %q", back)
		}
		if got.OriginalHeader.Text("Subject") != "Grüße" || !strings.Contains(got.Text, "deleted") {
			t.Errorf("%+v", got)
		}
		for _, m := range []*report.MDN{got, want} {
			m.Text, m.OriginalHeader, m.OriginalMessage = "", mime.Header{}, nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
		p, _ := mime.Parse(bytes.NewReader(b), int64(len(b)), mime.Limits{})
		if p.Params["report-type"] != p.Parts[1].Subtype || len(p.Parts) != 3 ||
			p.Header.Get("Auto-Submitted") != "auto-replied" || p.Header.Get("In-Reply-To") != "<1@example.org>" ||
			p.Header.Has("Disposition-Notification-To") {
			t.Errorf("%s", b)
		}
		if eight := bytes.ContainsFunc(b, func(r rune) bool { return r > 127 }); eight != global {
			t.Errorf("UTF8 %v, 8-bit octets %v", global, eight)
		}
	}
}

// TestMDNDefaults writes what RFC 8098 §3.2.6.1 asks to be the default, and
// takes the identifier from the original (§3.2.5).
func TestMDNDefaults(t *testing.T) {
	d := &report.MDN{Final: "bob@example.net", Disposition: report.Displayed, OriginalHeader: mime.ParseHeader([]byte(original))}
	b := writeMDN(t, d)
	for _, s := range []string{"\r\nDisposition: manual-action/MDN-sent-manually; displayed\r\n", "\r\nOriginal-Message-ID: <1@example.org>\r\n"} {
		if !bytes.Contains(b, []byte(s)) {
			t.Errorf("no %q in\n%s", s, b)
		}
	}
	d.OriginalHeader = mime.Header{}
	if b := writeMDN(t, d); bytes.Contains(b, []byte("Original-Message-ID")) {
		t.Errorf("%s", b)
	}
}

func TestMDNIncomplete(t *testing.T) {
	for _, f := range []func(m *report.MDN){
		func(m *report.MDN) { m.Final = "" },
		func(m *report.MDN) { m.Disposition = "" },
		func(m *report.MDN) { m.Disposition = "displayed\r\nFinal-Recipient: rfc822; x" },
		func(m *report.MDN) { m.Modifiers = []string{"a b"} },
	} {
		m := receipt()
		f(m)
		if _, err := m.Content(); !errors.Is(err, report.ErrIncomplete) {
			t.Errorf("%v", err)
		}
	}
	if _, err := report.ParseMDN(strings.NewReader(original), int64(len(original))); !errors.Is(err, report.ErrNoDisposition) {
		t.Errorf("%v", err)
	}
	gone := errors.New("gone")
	m := receipt()
	m.OriginalMessage = func() (io.ReadCloser, error) { return nil, gone }
	if _, err := m.Content(); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
}

func TestMDNLenient(t *testing.T) {
	b, err := os.ReadFile(conformance.Path(t, "mime", "mimekit", "disposition-notification.eml"))
	if err != nil {
		t.Fatal(err)
	}
	m := readMDN(t, b)
	if m.Final != "Joe_Recipient@example.com" || m.MessageID != "199509192301.23456@example.org" || m.Disposition != report.Displayed ||
		m.Automatic || m.SentAutomatically || m.OriginalMessage == nil || m.ReportingUA != "joes-pc.cs.example.com; Foomail 97.1" {
		t.Errorf("%+v", m)
	}
	const head = "Content-Type: message/disposition-notification\n\n"
	for value, want := range map[string]report.MDN{
		"displayed": {Disposition: "displayed"},
		"Automatic-Action / MDN-Sent-Automatically ; Deleted / Error , x": {Disposition: "deleted", Automatic: true, SentAutomatically: true, Modifiers: []string{"error", "x"}},
		"manual-action/mdn-sent-manually;processed (odd)":                 {Disposition: "processed"},
		"": {},
	} {
		if got := readMDN(t, []byte(head+"Disposition: "+value+"\n")); !reflect.DeepEqual(*got, want) {
			t.Errorf("%q: %+v", value, got)
		}
	}
}

func FuzzReadMDN(f *testing.F) {
	f.Add(writeMDN(f, receipt()))
	f.Add([]byte("Content-Type: message/disposition-notification\n\nFinal-Recipient: x\nDisposition: a/b; c/d,e\nError: f\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := report.ParseMDN(bytes.NewReader(b), int64(len(b)))
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
		back := readMDN(t, out.Bytes())
		if back.Disposition != d.Disposition || back.Automatic != d.Automatic || len(back.Modifiers) != len(d.Modifiers) {
			t.Fatalf("%+v\nwas %+v\n%s", back, d, out.Bytes())
		}
	})
}
