package mime_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

var (
	ann = mime.Address{Name: "Ann Ödmann", Address: smtp.Address{Local: "ann", Domain: "example.com"}}
	bob = mime.Address{Name: "Bob", Address: smtp.Address{Local: "bob", Domain: "example.org"}}
	eve = mime.Address{Address: smtp.Address{Local: "eve", Domain: "example.net"}}
)

func write(t testing.TB, m *mime.Message) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := m.WriteTo(&b)
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(b.Len()) {
		t.Fatalf("WriteTo says %d, wrote %d", n, b.Len())
	}
	checkWire(t, b.Bytes())
	return b.Bytes()
}

// checkWire tests what every message that we write must be.
func checkWire(t testing.TB, b []byte) {
	t.Helper()
	for _, line := range bytes.SplitAfter(b, []byte("\n")) {
		if len(line) > 0 && !bytes.HasSuffix(line, []byte("\r\n")) {
			t.Fatalf("line without CRLF: %q", line)
		}
		if len(line) > 1000 {
			t.Fatalf("line of %d octets", len(line))
		}
		if bytes.ContainsAny(line[:max(0, len(line)-2)], "\r\n\x00") {
			t.Fatalf("line with CR, LF or NUL in it: %q", line)
		}
	}
	p := parse(b)
	walk(p, func(p *mime.Part, _ int) {
		if p.Defects != nil {
			t.Fatalf("written with defects: %v\n%s", p.Defects, b)
		}
	})
}

func TestMessagePlain(t *testing.T) {
	m := &mime.Message{
		From:      []mime.Address{ann},
		To:        []mime.Address{bob, eve},
		Bcc:       []mime.Address{{Address: smtp.Address{Local: "secret", Domain: "example.com"}}},
		Subject:   "Grüße aus Köln",
		Date:      time.Date(2024, 2, 3, 4, 5, 6, 0, time.FixedZone("", 3600)),
		MessageID: "1@example.com",
		Text:      "Hi Bob,\nall well.\n",
	}
	const want = "Date: Sat, 3 Feb 2024 04:05:06 +0100\r\n" +
		"From: =?utf-8?q?Ann_=C3=96dmann?= <ann@example.com>\r\n" +
		"To: Bob <bob@example.org>, eve@example.net\r\n" +
		"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= aus =?utf-8?q?K=C3=B6ln?=\r\n" +
		"Message-ID: <1@example.com>\r\n" +
		"MIME-Version: 1.0\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\n" +
		"Content-Transfer-Encoding: 7bit\r\n" +
		"\r\n" +
		"Hi Bob,\r\nall well.\r\n"
	got := write(t, m)
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if bytes.Contains(got, []byte("secret")) {
		t.Error("Bcc was written")
	}
	env, err := m.Envelope()
	if err != nil {
		t.Fatal(err)
	}
	if env.From != ann.Address || len(env.To) != 3 || env.UTF8 || env.Body != "" {
		t.Errorf("envelope %+v", env)
	}
	if n, err := m.Size(); err != nil || n != int64(len(want)) {
		t.Errorf("size %d %v", n, err)
	}
}

// TestMessageNesting writes every combination of contents and reads it back.
func TestMessageNesting(t *testing.T) {
	file := mime.File{Name: "naïve £.pdf", Data: bytes.Repeat([]byte("pdf\x00\xff"), 5000)}
	inline := mime.File{Name: "logo.png", ContentID: "logo@x", Open: func() (io.ReadCloser, error) {
		return io.NopCloser(iotest.OneByteReader(strings.NewReader(strings.Repeat("png", 1000)))), nil
	}}
	for i := range 16 {
		m := &mime.Message{From: []mime.Address{ann}, To: []mime.Address{bob}}
		want := ""
		if i&1 != 0 {
			m.Text = "Text ist hier – lang\n"
			want = "plain"
		}
		if i&2 != 0 {
			m.HTML = "<p>HTML\n"
			html := "html"
			if i&4 != 0 {
				m.Inline = []mime.File{inline}
				html = "related(html png)"
			}
			if want != "" {
				want = "alternative(plain " + html + ")"
			} else {
				want = html
			}
		} else if i&4 != 0 {
			continue
		}
		if i&8 != 0 {
			m.Attachments = []mime.File{file, inline}
			want = strings.TrimSpace("mixed(" + want)
			want = strings.Replace(want+" pdf png)", "( ", "(", 1)
		}
		if want == "" {
			want = "plain"
		}
		b := write(t, m)
		if again := write(t, m); !bytes.Equal(b, again) {
			t.Errorf("%d: written again differently", i)
		}
		p := parse(b)
		var shape func(p *mime.Part) string
		shape = func(p *mime.Part) string {
			var in []string
			for _, c := range p.Parts {
				in = append(in, shape(c))
			}
			if in == nil {
				return p.Subtype
			}
			return p.Subtype + "(" + strings.Join(in, " ") + ")"
		}
		if got := shape(p); got != want {
			t.Errorf("%d: %s, want %s", i, got, want)
		}
		walk(p, func(q *mime.Part, _ int) {
			body, _ := io.ReadAll(q.Decoded(bytes.NewReader(b)))
			switch q.Subtype {
			case "plain":
				if got := text(q, b); got != m.Text {
					t.Errorf("text %q", got)
				}
			case "html":
				if got := text(q, b); got != m.HTML {
					t.Errorf("html %q", got)
				}
			case "pdf":
				if !bytes.Equal(body, file.Data) || q.FileName() != file.Name || q.Params["name"] != file.Name {
					t.Errorf("attachment differs: %d octets, %q, %q", len(body), q.FileName(), q.Params["name"])
				}
			case "png":
				if string(body) != strings.Repeat("png", 1000) || q.ID != "<logo@x>" {
					t.Errorf("inline differs: %d octets, %q", len(body), q.ID)
				}
			}
		})
	}
}

// TestTextEncoding writes texts that are not easy to carry.
func TestTextEncoding(t *testing.T) {
	for _, c := range []struct{ name, text, encoding string }{
		{"ascii", "a\nb\n", "7bit"},
		{"from", "x\nFrom here\n", "quoted-printable"},
		{"dashes", "--=_x\n-- \n", "7bit"},
		{"long line", strings.Repeat("0123456789", 120) + "\n", "quoted-printable"},
		{"latin", "Das ist ein längerer Text mit wenigen Umlauten.\n", "quoted-printable"},
		{"cjk", strings.Repeat("我能吞下玻璃而不伤身体", 20) + "\n", "base64"},
		{"nul", "a text with one NUL\x00 in it\n", "quoted-printable"},
		{"trailing space", "wö \n\tb\t\n \n", "quoted-printable"},
		{"dots", ".\n..ä\n.x" + strings.Repeat(" yyy", 30) + "\n", "quoted-printable"},
		{"soft breaks", strings.Repeat("é long words ", 50) + "\n", "quoted-printable"},
	} {
		m := &mime.Message{From: []mime.Address{ann}, Text: c.text}
		b := write(t, m)
		p := parse(b)
		if p.Encoding != c.encoding {
			t.Errorf("%s: %s, want %s", c.name, p.Encoding, c.encoding)
		}
		if got := text(p, b); got != c.text {
			t.Errorf("%s: %q, want %q", c.name, got, c.text)
		}
		if p.Encoding == "quoted-printable" {
			for line := range strings.Lines(string(b[p.BodyOffset:])) {
				if len(line) > 78 || strings.HasPrefix(line, "From ") || line == ".\r\n" {
					t.Errorf("%s: line %q", c.name, line)
				}
			}
		}
	}
	// Line ends of every kind become CRLF.
	m := &mime.Message{From: []mime.Address{ann}, Text: "a\r\nb\rc\n\r\n\nend"}
	b := write(t, m)
	if got := string(b[parse(b).BodyOffset:]); got != "a\r\nb\r\nc\r\n\r\n\r\nend\r\n" {
		t.Errorf("line ends: %q", got)
	}
}

func TestMessageRefused(t *testing.T) {
	base := func() *mime.Message { return &mime.Message{From: []mime.Address{ann}, To: []mime.Address{bob}} }
	with := func(f func(m *mime.Message)) *mime.Message {
		m := base()
		f(m)
		return m
	}
	body := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("x")), nil }
	for i, c := range []struct {
		m    *mime.Message
		want error
	}{
		{&mime.Message{}, mime.ErrMessage},
		{with(func(m *mime.Message) { m.From = append(m.From, bob) }), mime.ErrMessage},
		{with(func(m *mime.Message) { m.Subject = "a\r\nBcc: x@y" }), mime.ErrInjection},
		{with(func(m *mime.Message) { m.MessageID = "a>\r\nX: <b" }), mime.ErrInjection},
		{with(func(m *mime.Message) { m.References = []string{"a b"} }), mime.ErrInjection},
		{with(func(m *mime.Message) { m.To[0].Local = "a\r\nX: y" }), mime.ErrInjection},
		{with(func(m *mime.Message) { m.To[0].Domain = "x>, <evil@y.example" }), mime.ErrAddress},
		{with(func(m *mime.Message) { m.Bcc = []mime.Address{{}} }), mime.ErrAddress},
		{with(func(m *mime.Message) { m.Header.Add("Subject", "x"); m.Subject = "y" }), mime.ErrMessage},
		{with(func(m *mime.Message) { m.Header.Add("Content-Type", "text/html") }), mime.ErrMessage},
		{with(func(m *mime.Message) { m.Parts = []mime.Content{{Body: body}}; m.Text = "x" }), mime.ErrMessage},
		{with(func(m *mime.Message) { m.Inline = []mime.File{{Name: "x"}} }), mime.ErrMessage},
		{with(func(m *mime.Message) { m.HTML = "x"; m.Inline = []mime.File{{}} }), mime.ErrMessage},
		{with(func(m *mime.Message) { m.Attachments = []mime.File{{Type: "a\r\nb"}} }), mime.ErrMessage},
		{with(func(m *mime.Message) { m.Attachments = []mime.File{{ContentID: "a\r\nb"}} }), mime.ErrInjection},
	} {
		var b bytes.Buffer
		if _, err := c.m.WriteTo(&b); !errors.Is(err, c.want) || b.Len() > 0 {
			t.Errorf("%d: %v and %d octets, want %v", i, err, b.Len(), c.want)
		}
	}
	if _, err := (&mime.Message{From: []mime.Address{ann}}).Envelope(); !errors.Is(err, mime.ErrMessage) {
		t.Errorf("envelope without recipients: %v", err)
	}
	broken := errors.New("disk gone")
	m := with(func(m *mime.Message) {
		m.Attachments = []mime.File{{Name: "x", Open: func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken))), nil
		}}}
	})
	if _, err := m.WriteTo(io.Discard); !errors.Is(err, broken) {
		t.Errorf("a file that fails: %v", err)
	}
}

func TestMessageUTF8(t *testing.T) {
	m := &mime.Message{
		From: []mime.Address{ann},
		To:   []mime.Address{{Name: "Jörg", Address: smtp.Address{Local: "jörg", Domain: "example.com"}}, bob},
		Cc:   []mime.Address{bob},
		Text: "x",
	}
	env, err := m.Envelope()
	if err != nil || !env.UTF8 || env.Body != smtp.Body8Bit || len(env.To) != 2 {
		t.Errorf("%+v %v", env, err)
	}
	b := write(t, m)
	p := parse(b)
	to, err := p.Header.Addresses("To")
	if err != nil || fmt.Sprint(to) != fmt.Sprint(m.To) {
		t.Errorf("%v %v", to, err)
	}
}

func TestMessageOwnParts(t *testing.T) {
	var h, rfc822 mime.Header
	h.Add("Content-Type", `multipart/signed; micalg="sha-256"; protocol="application/x"`)
	h.Add("Content-Description", "Überschrift")
	rfc822.Add("Content-Type", "message/rfc822")
	open := func(s string) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
	}
	m := &mime.Message{From: []mime.Address{ann}, Parts: []mime.Content{{Header: h, Parts: []mime.Content{
		{Body: open("hello\n")},
		{Header: rfc822, Body: open("Subject: in\n\nbödy")},
	}}}}
	b := write(t, m)
	p := parse(b)
	if p.Subtype != "signed" || p.Params["micalg"] != "sha-256" || len(p.Parts) != 2 || p.Parts[1].Message == nil {
		t.Fatalf("%s", b)
	}
	if got := text(p.Parts[1].Message, b); got != "bödy\n" || p.Parts[1].Encoding != "8bit" {
		t.Errorf("%q in %s", got, p.Parts[1].Encoding)
	}
	if env, _ := (&mime.Message{From: m.From, To: m.From, Parts: m.Parts}).Envelope(); env.Body != smtp.Body8Bit {
		t.Errorf("envelope %+v", env)
	}
}
