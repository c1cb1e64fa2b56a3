package detect_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/detect"
)

func ExampleCharset() {
	const msg = "Subject: x\r\nContent-Type: text/plain\r\n\r\n\xcf\xf0\xe8\xe2\xe5\xf2, \xea\xe0\xea \xe4\xe5\xeb\xe0? \xc2\xf1\xb8 \xf5\xee\xf0\xee\xf8\xee.\r\n"
	r := strings.NewReader(msg)
	p, _ := mime.Parse(r, r.Size(), mime.Limits{})
	text, _ := io.ReadAll(mime.Reading{Detect: detect.Charset}.Text(p, r))
	fmt.Printf("%s", text)
	// Output: Привет, как дела? Всё хорошо.
}

var reading = mime.Reading{Detect: detect.Charset}

func read(t *testing.T, b []byte) (*mime.Part, string) {
	t.Helper()
	r := bytes.NewReader(b)
	p, err := mime.Parse(r, r.Size(), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for p.IsMultipart() && len(p.Parts) > 0 {
		p = p.Parts[0]
	}
	text, err := io.ReadAll(reading.Text(p, r))
	if err != nil {
		t.Fatal(err)
	}
	return p, string(text)
}

// TestCorpus reads messages of other projects whose charset is missing or
// wrong.
func TestCorpus(t *testing.T) {
	for name, want := range map[string]string{
		"parts_chardet-success-big-5":      "夫九州之人，言語不同",
		"parts_chardet-success-iso-8859-1": "DIE Drachenköpfe unserer Boote",
		"parts_chardet-detection":          "öoöo",
		"low-quality_incorrect-charset":    "∮ E⋅da = Q",
	} {
		b, err := os.ReadFile(conformance.Path(t, "mime", "enmime", name+".eml"))
		if err != nil {
			t.Fatal(err)
		}
		if _, text := read(t, b); !strings.Contains(text, want) {
			t.Errorf("%s: %.100q has no %q", name, text, want)
		}
	}
}

// TestRight reads what declares its charset rightly: nothing may change it.
func TestRight(t *testing.T) {
	var cases []struct{ ID, File, Subject, Text, Charset string }
	b, err := os.ReadFile(conformance.Path(t, "mime", "charsets", "expect.json"))
	if err == nil {
		err = json.Unmarshal(b, &cases)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		b, err := os.ReadFile(filepath.Join(conformance.Path(t, "mime", "charsets"), c.File))
		if err != nil {
			t.Fatal(err)
		}
		p, text := read(t, b)
		if text = strings.ReplaceAll(text, "\r\n", "\n"); text != c.Text {
			t.Errorf("%s: %q, want %q", c.ID, text, c.Text)
		}
		if got := reading.DecodeText(p.Header.Get("Subject")); got != c.Subject {
			t.Errorf("%s: subject %q, want %q", c.ID, got, c.Subject)
		}
	}
}

func TestWrong(t *testing.T) {
	const russian = "\xcf\xf0\xe8\xe2\xe5\xf2, \xea\xe0\xea \xe4\xe5\xeb\xe0? \xc2\xf1\xb8 \xf5\xee\xf0\xee\xf8\xee."
	for _, c := range []struct{ name, charset, in, want string }{
		{"utf-8 that is windows-1251", "utf-8", russian, "Привет, как дела? Всё хорошо."},
		{"nothing declared", "", russian, "Привет, как дела? Всё хорошо."},
		{"nobody knows", "x-nothing", russian, "Привет, как дела? Всё хорошо."},
		{"latin that is utf-8", "iso-8859-1", "Grüße aus Köln", "Grüße aus Köln"},
		{"ascii that is utf-8", "us-ascii", "Grüße aus Köln", "Grüße aus Köln"},
		{"latin", "iso-8859-1", "Gr\xfc\xdfe aus K\xf6ln", "Grüße aus Köln"},
		{"utf-8", "utf-8", "Grüße aus Köln", "Grüße aus Köln"},
		{"utf-8 with one wrong octet", "utf-8", "Grüße aus \xff Köln und noch viel mehr Text", ""},
		{"short", "", "\xfc", "ü"},
		{"empty", "utf-8", "", ""},
	} {
		_, text := read(t, []byte("Content-Type: text/plain; charset=\""+c.charset+"\"\r\n\r\n"+c.in))
		if c.want != "" && text != c.want || c.in == "" && text != "" {
			t.Errorf("%s: %q, want %q", c.name, text, c.want)
		}
	}
}

func FuzzCharset(f *testing.F) {
	f.Add([]byte("\xcf\xf0\xe8\xe2\xe5\xf2"), "utf-8")
	f.Fuzz(func(t *testing.T, b []byte, declared string) {
		detect.Charset(b, declared)
		read(t, append([]byte("Content-Type: text/plain; charset=koi8-r\r\n\r\n"), b...))
	})
}

func BenchmarkCharset(b *testing.B) {
	text := bytes.Repeat([]byte("\xcf\xf0\xe8\xe2\xe5\xf2, \xea\xe0\xea \xe4\xe5\xeb\xe0? "), 100)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		detect.Charset(text, "")
	}
}
