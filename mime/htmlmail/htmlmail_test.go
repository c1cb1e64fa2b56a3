package htmlmail_test

import (
	"bytes"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/postrider/postrider/internal/conformance"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/htmlmail"
	"github.com/postrider/postrider/smtp"
)

var ann = mime.Address{Name: "Ann", Address: smtp.Address{Local: "ann", Domain: "example.com"}}

// A message from a template with a picture beside it.
func ExampleEmbed() {
	files := fstest.MapFS{"img/logo.png": {Data: []byte("png")}}
	page := template.Must(template.New("").Parse(`<p>Hello {{.}}</p><img src="img/logo.png" alt="Our logo">`))
	m := &mime.Message{
		From:      []mime.Address{ann},
		Date:      time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC),
		MessageID: "1@example.com",
	}
	if err := m.SetHTML(page, "Bob & <Eve>"); err != nil {
		fmt.Println(err)
		return
	}
	m.Text = htmlmail.Alternative(m.HTML)
	if err := htmlmail.Embed(m, files); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%q\n%s\n%s <%s>\n", m.Text, m.HTML, m.Inline[0].Name, m.Inline[0].ContentID)
	// Output:
	// "Hello Bob & <Eve>\n\nOur logo\n"
	// <p>Hello Bob &amp; &lt;Eve&gt;</p><img src="cid:b6317eb3bb22c5c7871b67a4@example.com" alt="Our logo">
	// logo.png <b6317eb3bb22c5c7871b67a4@example.com>
}

func TestText(t *testing.T) {
	for _, c := range []struct{ in, text, links string }{
		{"", "", ""},
		{"plain", "plain\n", ""},
		{"<p>one\n two</p><p>three</p>", "one two\n\nthree\n", ""},
		{"a<br>b<br/>c<br><br>d", "a\nb\nc\n\nd\n", ""},
		{"<style>x{}</style><script>if(a<b)</script><title>T</title>x<!-- c -->y", "xy\n", ""},
		{"&uuml;&nbsp;&nbsp;&#8364; a&zwnj;&shy;b", "ü € ab\n", ""},
		{"<ul><li>a<li>b<ol><li>c<li>d</ol></ul>e", "- a\n- b\n  1. c\n  2. d\n\ne\n", ""},
		{"a<blockquote>b<blockquote>c</blockquote>d</blockquote>e", "a\n\n> b\n>\n> > c\n>\n> d\n\ne\n", ""},
		{"<pre>a\n  b\n\nc</pre>d", "a\n  b\n\nc\n\nd\n", ""},
		{"<table><tr><td>a<td>b<tr><td>c</table>", "a b\nc\n", ""},
		{`x <img src=a.png alt="a  picture"> y`, "x a picture y\n", ""},
		{`see <a href="https://example.com/x">here</a>.`, "see here.\n", "see here <https://example.com/x>.\n"},
		{`<a href="https://example.com/">example.com</a> <a href="mailto:a@b">a@b</a> <a href="#x">y</a> <a href="javascript:x">z</a> <a href="https://q"><img></a>`,
			"example.com a@b y z\n", "example.com a@b y z <https://q>\n"},
		{"a<hr>b", "a\n---\nb\n", ""},
		{"un<b>bro</b>ken <i>w</i> ords", "unbroken w ords\n", ""},
		{"<p>\xff \x00", "\ufffd\n", ""},
		{"<a href=x", "", ""},
	} {
		var b strings.Builder
		if err := htmlmail.WriteText(&b, strings.NewReader(c.in)); err != nil || b.String() != c.text {
			t.Errorf("%q: %q, want %q (%v)", c.in, b.String(), c.text, err)
		}
		if c.links == "" {
			c.links = c.text
		}
		if got := htmlmail.Alternative(c.in); got != c.links {
			t.Errorf("%q with links: %q, want %q", c.in, got, c.links)
		}
	}
	broken := errors.New("gone")
	var b strings.Builder
	if err := htmlmail.WriteText(&b, io.MultiReader(strings.NewReader("<p>abc"), iotest.ErrReader(broken))); !errors.Is(err, broken) || b.String() != "abc\n" {
		t.Errorf("%q %v", b.String(), err)
	}
}

// TestHostile reads HTML that is made to cost.
func TestHostile(t *testing.T) {
	for name, unit := range map[string]string{
		"quotations": "<blockquote>", "lists": "<ul><li>", "tags": "<", "attributes": "<a b=c d", "entities": "&am",
		"links": "<a href=x:y>z", "comments": "<!--", "breaks": "<br>",
	} {
		in := strings.Repeat(unit, 100_000) + "x"
		var b strings.Builder
		if err := htmlmail.WriteText(&b, strings.NewReader(in)); err != nil || b.Len() > 40*len(in) {
			t.Errorf("%s: %d octets of %d, %v", name, b.Len(), len(in), err)
		}
	}
}

func TestCorpus(t *testing.T) {
	reading := mime.Reading{HTML: htmlmail.WriteText}
	htmls, previews, files := 0, 0, 0
	err := filepath.WalkDir(conformance.Path(t, "mime"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(p) != ".eml" {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		files++
		r := bytes.NewReader(b)
		root, err := mime.Parse(r, r.Size(), mime.Limits{})
		if err != nil {
			return err
		}
		for q := range root.All() {
			if q.Subtype != "html" {
				continue
			}
			text, err := io.ReadAll(reading.Plain(q, r))
			if err != nil || bytes.Contains(text, []byte("<body")) || !utf8.Valid(text) {
				t.Errorf("%s: %v %q", p, err, text)
			}
			htmls++
		}
		s, err := reading.Preview(root, r)
		if err != nil || utf8.RuneCountInString(s) > mime.PreviewLength || strings.ContainsAny(s, "\r\n") || !utf8.ValidString(s) {
			t.Errorf("%s: preview %q %v", p, s, err)
		}
		if s != "" {
			previews++
		}
		return nil
	})
	if err != nil || htmls < 10 || previews < files/2 {
		t.Errorf("%d HTML parts, %d previews of %d, %v", htmls, previews, files, err)
	}
}

func TestEmbed(t *testing.T) {
	files := fstest.MapFS{"a.png": {Data: []byte("a")}, "d/b c.jpg": {Data: []byte("b")}}
	const in = `<!DOCTYPE html><!-- src="a.png" --><body background='./a.png'><IMG SRC="d/b%20c.jpg?v=1" alt="x &amp; y">` +
		`<p style="background: URL( 'a.png' ) no-repeat">t</p><img src="https://e.example/x.png"><img src="cid:x"><img src="//h/x"><img src="/abs.png"><img src=""><a href="a.png">l</a>`
	m := &mime.Message{From: []mime.Address{ann}, HTML: in}
	if err := htmlmail.Embed(m, files); err != nil {
		t.Fatal(err)
	}
	if len(m.Inline) != 2 || m.Inline[0].Name != "a.png" || m.Inline[1].Name != "b c.jpg" {
		t.Fatalf("%+v", m.Inline)
	}
	a, b := m.Inline[0].ContentID, m.Inline[1].ContentID
	want := `<!DOCTYPE html><!-- src="a.png" --><body background="cid:` + a + `"><img src="cid:` + b + `" alt="x &amp; y">` +
		`<p style="background: URL(&#39;cid:` + a + `&#39;) no-repeat">t</p><img src="https://e.example/x.png"><img src="cid:x"><img src="//h/x"><img src="/abs.png"><img src=""><a href="a.png">l</a>`
	if m.HTML != want {
		t.Errorf("%s\nwant\n%s", m.HTML, want)
	}
	// Once more changes nothing.
	if err := htmlmail.Embed(m, files); err != nil || len(m.Inline) != 2 || m.HTML != want {
		t.Errorf("%v %s", err, m.HTML)
	}
	var out bytes.Buffer
	if _, err := m.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(out.Bytes())
	root, _ := mime.Parse(r, r.Size(), mime.Limits{})
	if p := root.Find("cid:" + b); p == nil || p.Type != "image" || len(root.Bodies().Inline) != 2 {
		t.Errorf("%s", out.Bytes())
	}
	for in, want := range map[string]error{
		`<img src="none.png">`:      fs.ErrNotExist,
		`<img src="../secret.png">`: htmlmail.ErrPicture,
		`<img src="d">`:             htmlmail.ErrPicture,
		`<i style="x:url(none)">`:   fs.ErrNotExist,
	} {
		m := &mime.Message{HTML: in}
		if err := htmlmail.Embed(m, files); !errors.Is(err, want) || m.HTML != in || m.Inline != nil {
			t.Errorf("%s: %v, want %v", in, err, want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("<p>a<blockquote><ul><li>x</ul></blockquote><pre>\n\n a</pre><a href=x:y>z</a>")
	f.Fuzz(func(t *testing.T, in string) {
		s := htmlmail.Alternative(in)
		if !utf8.ValidString(s) || strings.HasPrefix(s, "\n") {
			t.Fatalf("%q", s)
		}
		m := &mime.Message{HTML: in}
		if htmlmail.Embed(m, fstest.MapFS{}) == nil && len(m.Inline) > 0 {
			t.Fatal("a file that is not there")
		}
	})
}

func BenchmarkText(b *testing.B) {
	in := strings.Repeat("<tr><td class=\"a\">All the <b>figures</b> are in the table that I sent you</td></tr>\n", 1000)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		htmlmail.WriteText(io.Discard, strings.NewReader(in))
	}
}
