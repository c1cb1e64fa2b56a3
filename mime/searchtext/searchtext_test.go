package searchtext_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/searchtext"
)

func fold(s string) string { return string(searchtext.AppendFolded(nil, []byte(s))) }

func TestAppendFolded(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""}, {"ABC xyz 09", "abc xyz 09"}, {"GRÜSSE Straße", "grüsse straße"}, {"ΣΊΣΥΦΟΣ", "σίσυφοσ"}, {"σίσυφος", "σίσυφοσ"},
		{"ſtK", "stk"}, {"a\xffB\xe2\x82", "a\ufffdb\ufffd\ufffd"}, {"日本", "日本"},
	} {
		if got := fold(c.in); got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
	if got := string(searchtext.AppendFolded([]byte("X"), []byte("Y"))); got != "Xy" {
		t.Errorf("%q", got)
	}
}

// FuzzFolder: a text in pieces folds as it does in one.
func FuzzFolder(f *testing.F) {
	f.Add([]byte("Grüße\xff 日本\xe2\x82"), byte(3))
	f.Fuzz(func(t *testing.T, text []byte, n byte) {
		var x searchtext.Folder
		var got []byte
		for rest := text; len(rest) > 0; {
			k := min(len(rest), 1+int(n)%7)
			got = x.Append(got, rest[:k])
			rest = rest[k:]
		}
		got = x.End(got)
		if want := fold(string(text)); string(got) != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
		if again := fold(string(got)); again != string(got) {
			t.Errorf("%q folds again to %q", got, again)
		}
	})
}

// visitor keeps texts, and stops after some octets.
type visitor struct {
	texts []string
	max   int
	n     int
	body  bool // only the body is wanted
}

func (v *visitor) Wants(inBody bool) bool { return (v.max == 0 || v.n < v.max) && (inBody || !v.body) }

func (v *visitor) Begin(inBody bool) {
	place := "head "
	if inBody {
		place = "body "
	}
	v.texts = append(v.texts, place)
}

func (v *visitor) Write(p []byte) {
	v.n += len(p)
	v.texts[len(v.texts)-1] += string(p)
}

const nested = "Subject: =?utf-8?q?=C3=84?=\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\nX-Part: 1\r\n\r\nplain\r\n--b\r\n" +
	"Content-Type: text/html; charset=iso-8859-1\r\n\r\ncaf\xe9\r\n--b\r\nContent-Type: image/png\r\n\r\npicture\r\n--b\r\n" +
	"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ndeep\r\n--b--\r\n"

func TestScan(t *testing.T) {
	r := strings.NewReader(nested)
	root, err := mime.Parse(r, r.Size(), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	all := []string{
		"head Subject: Ä", "head Content-Type: multipart/mixed; boundary=b", "head X-Part: 1", "body plain",
		"head Content-Type: text/html; charset=iso-8859-1", "body ", "body café", "head Content-Type: image/png",
		"head Content-Type: message/rfc822", "body Subject: inner", "body deep",
	}
	inBody := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return strings.HasPrefix(s, "head") })
	summary, err := mime.DecodeSummary(root.Summary())
	if err != nil {
		t.Fatal(err)
	}
	var s searchtext.Scanner
	for _, root := range []*mime.Part{root, summary} {
		v := visitor{}
		if err := s.Scan(root, r, &v); err != nil || !slices.Equal(v.texts, all) {
			t.Errorf("%v\ngot  %q\nwant %q", err, v.texts, all)
		}
		v = visitor{body: true}
		if err := s.Scan(root, r, &v); err != nil || !slices.Equal(v.texts, inBody) {
			t.Errorf("%v\ngot  %q\nwant %q", err, v.texts, inBody)
		}
	}
	v := visitor{max: 1}
	if err := s.Scan(root, r, &v); err != nil || len(v.texts) != 2 {
		t.Errorf("%v: it went on after enough: %q", err, v.texts)
	}
}

// TestScanErrors: what cannot be read is an error, not a message without text.
func TestScanErrors(t *testing.T) {
	r := strings.NewReader(nested)
	root, err := mime.Parse(r, r.Size(), mime.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	damaged := errors.New("damaged")
	var s searchtext.Scanner
	for cut := range len(nested) {
		err := s.Scan(root, failAt{r, int64(cut), damaged}, &visitor{})
		if cut < len(nested)-len("\r\n--b--\r\n") && !errors.Is(err, damaged) {
			t.Errorf("damaged from %d on: %v", cut, err)
		}
	}
	if err := s.Scan(root, strings.NewReader(nested[:10]), &visitor{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut: %v", err)
	}
	s.Header = func(*mime.Part) (*mime.Header, error) { return nil, iotest.ErrTimeout }
	if err := s.Scan(root, r, &visitor{}); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("Header: %v", err)
	}
}

// failAt fails for what lies beyond an offset.
type failAt struct {
	r   io.ReaderAt
	at  int64
	err error
}

func (f failAt) ReadAt(p []byte, off int64) (int, error) {
	if off >= f.at {
		return 0, f.err
	}
	if n := f.at - off; n < int64(len(p)) {
		k, _ := f.r.ReadAt(p[:n], off)
		return k, f.err
	}
	return f.r.ReadAt(p, off)
}

// FuzzScan: no message makes it fail, and what a search finds in the one case
// it finds in the other.
func FuzzScan(f *testing.F) {
	f.Add([]byte(nested))
	f.Add([]byte("Content-Type: text/plain; charset=utf-7\n\n+AGE- \xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		root, err := mime.Parse(r, r.Size(), mime.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		var s searchtext.Scanner
		var v, w visitor
		if err := s.Scan(root, r, &v); err != nil {
			t.Fatal(err)
		}
		summary, err := mime.DecodeSummary(root.Summary())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Scan(summary, r, &w); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(v.texts, w.texts) {
			t.Errorf("parsed %q\nfrom the Summary %q", v.texts, w.texts)
		}
	})
}

func BenchmarkScan(b *testing.B) {
	text := []byte("Subject: x\r\n\r\n" + strings.Repeat("The quick brown fox jumps over the lazy dog.\r\n", 100))
	r := bytes.NewReader(text)
	root, err := mime.Parse(r, r.Size(), mime.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(r.Size())
	b.ReportAllocs()
	var s searchtext.Scanner
	var v folding
	for b.Loop() {
		if err := s.Scan(root, r, &v); err != nil {
			b.Fatal(err)
		}
	}
}

type folding struct {
	f   searchtext.Folder
	buf []byte
}

func (v *folding) Wants(bool) bool { return true }
func (v *folding) Begin(bool)      { v.f.End(nil) }
func (v *folding) Write(p []byte)  { v.buf = v.f.Append(v.buf[:0], p) }
