package mime_test

import (
	"bytes"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	texttemplate "text/template"
	"time"

	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/smtp"
)

func TestTemplates(t *testing.T) {
	m := &mime.Message{From: []mime.Address{ann}, Text: "before"}
	if err := m.SetText(texttemplate.Must(texttemplate.New("").Parse("Hi {{.Name}}\n")), map[string]string{"Name": "Bob & Eve"}); err != nil {
		t.Fatal(err)
	}
	if err := m.SetHTML(htmltemplate.Must(htmltemplate.New("").Parse("<p>Hi {{.Name}}")), map[string]string{"Name": "Bob & Eve"}); err != nil {
		t.Fatal(err)
	}
	if m.Text != "Hi Bob & Eve\n" || m.HTML != "<p>Hi Bob &amp; Eve" {
		t.Errorf("%q %q", m.Text, m.HTML)
	}
	if err := m.SetText(texttemplate.Must(texttemplate.New("").Parse("{{.X}}")), struct{}{}); err == nil || m.Text != "Hi Bob & Eve\n" {
		t.Errorf("%v %q", err, m.Text)
	}
}

func TestFiles(t *testing.T) {
	fsys := fstest.MapFS{"d/report.pdf": {Data: []byte("pdf\x00")}}
	once := mime.FileReader("once.bin", struct{ io.Reader }{strings.NewReader("only once")})
	seek := strings.NewReader("..again and again")
	io.ReadFull(seek, make([]byte, 2))
	eml := mime.FileReader("x.eml", struct{ io.Reader }{strings.NewReader("Subject: x\r\n\r\n")})
	m := &mime.Message{From: []mime.Address{ann}, Text: "x", Attachments: []mime.File{
		mime.FileFS(fsys, "d/report.pdf"), once, mime.FileReader("again.txt", seek), eml}}
	b := write(t, m)
	p := parse(b)
	for i, want := range []string{"report.pdf application/pdf pdf\x00", "once.bin application/octet-stream only once",
		"again.txt text/plain again and again", "x.eml application/octet-stream Subject: x\r\n\r\n"} {
		q := p.Parts[i+1]
		got, _ := io.ReadAll(q.Decoded(bytes.NewReader(b)))
		if s := fmt.Sprintf("%s %s/%s %s", q.FileName(), q.Type, q.Subtype, got); s != want {
			t.Errorf("%q, want %q", s, want)
		}
	}
	if _, err := m.WriteTo(io.Discard); err == nil {
		t.Error("a reader was read twice")
	}
	m.Attachments = []mime.File{mime.FileFS(fsys, "none"), m.Attachments[2]}
	if _, err := m.WriteTo(io.Discard); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	m.Attachments = m.Attachments[1:]
	if a, b := write(t, m), write(t, m); !bytes.Equal(a, b) {
		t.Error("written again differently")
	}
}

func TestAllow(t *testing.T) {
	long := strings.Repeat("ü", 600) + "\n"
	m := &mime.Message{
		From: []mime.Address{ann}, To: []mime.Address{bob}, Subject: "Grüße =?utf-8?q?x?=", Text: "Größe\n", HTML: long,
		Attachments: []mime.File{{Name: "naïve.bin", Data: []byte("\r\n\x00\xff")}},
	}
	for _, c := range []struct {
		allow             mime.Allow
		text, html, file  string
		utf8              bool
		body              smtp.BodyType
		subject, fileName string
	}{
		{mime.Allow{}, "quoted-printable", "base64", "base64", false, "", "Subject: =?utf-8?", "filename*="},
		{mime.Allow{EightBit: true}, "8bit", "base64", "base64", false, smtp.Body8Bit, "Subject: =?utf-8?", "filename*="},
		{mime.Allow{Binary: true}, "8bit", "binary", "binary", false, smtp.BodyBinary, "Subject: =?utf-8?", "filename*="},
		{mime.Allow{UTF8: true}, "quoted-printable", "base64", "base64", true, smtp.Body8Bit, "Subject: Grüße =?utf-8?", `filename="naïve.bin"`},
	} {
		m.Allow = c.allow
		var out bytes.Buffer
		if _, err := m.WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		b := out.Bytes()
		p := parse(b)
		text, html, file := p.Parts[0].Parts[0], p.Parts[0].Parts[1], p.Parts[1]
		data, _ := io.ReadAll(file.Decoded(bytes.NewReader(b)))
		htmlText, _ := io.ReadAll(html.Text(bytes.NewReader(b)))
		if text.Encoding != c.text || html.Encoding != c.html || file.Encoding != c.file || string(data) != "\r\n\x00\xff" ||
			strings.TrimRight(string(htmlText), "\r\n") != strings.TrimRight(long, "\n") {
			t.Errorf("%+v: %s %s %s %q %q", c.allow, text.Encoding, html.Encoding, file.Encoding, data, htmlText)
		}
		if p.Header.Text("Subject") != m.Subject || file.FileName() != "naïve.bin" || !bytes.Contains(b, []byte(c.subject)) || !bytes.Contains(b, []byte(c.fileName)) {
			t.Errorf("%+v: %q %q\n%s", c.allow, p.Header.Text("Subject"), file.FileName(), b)
		}
		if from, _ := p.Header.Addresses("From"); len(from) != 1 || from[0] != ann {
			t.Errorf("%+v: %v", c.allow, from)
		}
		env, err := m.Envelope()
		if err != nil || env.UTF8 != c.utf8 || env.Body != c.body {
			t.Errorf("%+v: %v %v %v", c.allow, env.UTF8, env.Body, err)
		}
	}
	// What is no UTF-8 is not let through.
	m = &mime.Message{From: []mime.Address{{Name: "\xff", Address: ann.Address}}, Subject: "\xff", Text: "x", Allow: mime.Allow{UTF8: true},
		Attachments: []mime.File{{Name: "\xff"}}}
	if b := write(t, m); bytes.ContainsRune(b, 0xff) || bytes.IndexByte(b, 0xff) >= 0 {
		t.Errorf("%q", b)
	}
}

// TestBoundary composes a message around content that knows the boundaries
// that would be chosen.
func TestBoundary(t *testing.T) {
	m := func(eml string) *mime.Message {
		return &mime.Message{From: []mime.Address{ann}, Text: "x", Date: time.Unix(1e9, 0), MessageID: "1@example.com",
			Attachments: []mime.File{{Name: "x.eml", Data: []byte(eml)}}}
	}
	first := parse(write(t, m("Subject: x\n\n")))
	evil := "Subject: x\n\nmore\n--" + first.Params["boundary"] + "\nContent-Type: text/html\n\nevil\n"
	for _, open := range []func(string) io.Reader{
		func(s string) io.Reader { return strings.NewReader(s) },
		func(s string) io.Reader { return &oneByte{s: s} },
	} {
		msg := m("")
		msg.Attachments[0] = mime.File{Name: "x.eml", Open: func() (io.ReadCloser, error) { return io.NopCloser(open(evil)), nil }}
		b := write(t, msg)
		p := parse(b)
		if len(p.Parts) != 2 || p.Params["boundary"] == first.Params["boundary"] {
			t.Errorf("%s", b)
		}
	}
	many := "Subject: x\n\n" + strings.Repeat("--=_0123456789abcdef0123456789abcd\n", 3)
	if p := parse(write(t, m(many))); len(p.Parts) != 2 {
		t.Error(p)
	}
	var lots strings.Builder
	lots.WriteString("Subject: x\n\n")
	for i := range 100_010 {
		fmt.Fprintf(&lots, "--=_%030d\n", i)
	}
	if _, err := m(lots.String()).WriteTo(io.Discard); !errors.Is(err, mime.ErrMessage) {
		t.Error(err)
	}
}

type oneByte struct{ s string }

func (o *oneByte) Read(b []byte) (int, error) {
	if o.s == "" {
		return 0, io.EOF
	}
	b[0] = o.s[0]
	o.s = o.s[1:]
	return 1, nil
}

func TestUnsubscribe(t *testing.T) {
	m := &mime.Message{From: []mime.Address{ann}, Text: "x", OneClick: true,
		Unsubscribe: []string{"mailto:leave@example.com?subject=x", "https://example.com/u?" + strings.Repeat("a", 100)}}
	p := parse(write(t, m))
	l := p.Header.List()
	if l.OneClick != m.Unsubscribe[1] || len(l.Unsubscribe) != 2 || p.Header.Get("List-Unsubscribe-Post") != "List-Unsubscribe=One-Click" {
		t.Errorf("%+v\n%s", l, p.Header.Bytes())
	}
	for uri, want := range map[string]error{
		"mailto:x@y":              mime.ErrMessage, // One-Click needs https
		"https://x/>\r\nBcc: <y>": mime.ErrInjection,
		"https://x/\xc3\xbc":      mime.ErrInjection,
		"https://x/ y":            mime.ErrInjection,
		"javascript:x":            mime.ErrMessage,
	} {
		m.Unsubscribe = []string{uri}
		if _, err := m.WriteTo(io.Discard); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", uri, err, want)
		}
	}
}

func TestCalendar(t *testing.T) {
	const ics = "BEGIN:VCALENDAR\nMETHOD:REQUEST\nSUMMARY:Grüße\nEND:VCALENDAR\n"
	m := &mime.Message{From: []mime.Address{ann}, Text: "Please come", HTML: "<p>Please come", Calendar: &mime.Calendar{Data: []byte(ics)}}
	b := write(t, m)
	p := parse(b)
	if p.Subtype != "alternative" || len(p.Parts) != 3 {
		t.Fatalf("%s", b)
	}
	c := p.Parts[2]
	if c.Subtype != "calendar" || c.Params["method"] != "REQUEST" || c.Params["charset"] != "utf-8" || text(c, b) != ics {
		t.Errorf("%s", b)
	}
	m = &mime.Message{From: []mime.Address{ann}, Calendar: &mime.Calendar{Method: "reply", Data: []byte("METHOD:REPLY")}}
	if p := parse(write(t, m)); p.Subtype != "calendar" {
		t.Errorf("%+v", p)
	}
	for _, c := range []mime.Calendar{{Method: "REPLY", Data: []byte(ics)}, {}, {Data: []byte("METHOD:A B\n")}, {Method: "a\r\nb"}} {
		m.Calendar = &c
		if _, err := m.WriteTo(io.Discard); !errors.Is(err, mime.ErrMessage) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestFlowedMessage(t *testing.T) {
	text := strings.Repeat("All the figures are in the table. ", 10) + "\n> quoted\n From here\n-- \nAnn\n"
	m := &mime.Message{From: []mime.Address{ann}, Text: text, Flowed: true}
	b := write(t, m)
	p := parse(b)
	if p.Params["format"] != "flowed" || p.Encoding != "7bit" {
		t.Errorf("%v %s", p.Params, p.Encoding)
	}
	for line := range strings.Lines(string(b[p.BodyOffset:])) {
		if len(line) > 80 {
			t.Errorf("line %q", line)
		}
	}
	got, _ := io.ReadAll(mime.Reading{}.Plain(p, bytes.NewReader(b)))
	if want := strings.Replace(text, ". \n", ".\n", 1); string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestEntity makes a multipart/signed by hand: what is signed goes out as it
// was when it was signed.
func TestEntity(t *testing.T) {
	inner := &mime.Message{From: []mime.Address{ann}, Text: "Größe\n", Attachments: []mime.File{{Name: "a.bin", Data: []byte{0}}}}
	var entity bytes.Buffer
	n, err := inner.WriteContent(&entity)
	if err != nil || n != int64(entity.Len()) || !strings.HasPrefix(entity.String(), "Content-Type: multipart/mixed;") {
		t.Fatalf("%v %q", err, entity.String())
	}
	var h mime.Header
	h.Add("Content-Type", `multipart/signed; protocol="application/pgp-signature"; micalg=pgp-sha256`)
	m := &mime.Message{From: []mime.Address{ann}, Subject: "signed", Parts: []mime.Content{{Header: h, Parts: []mime.Content{
		{Entity: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(entity.Bytes())), nil }},
		{Body: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("sig")), nil }},
	}}}}
	b := write(t, m)
	p := parse(b)
	s := p.Parts[0]
	// RFC 3156 §5: the signature covers the part up to the line end before
	// the delimiter.
	if got := b[s.HeaderOffset : s.BodyOffset+s.Size]; !bytes.Equal(got, entity.Bytes()) || len(s.Parts) != 2 {
		t.Errorf("%q, want %q", got, entity.Bytes())
	}
	m.Parts = []mime.Content{{Entity: m.Parts[0].Parts[0].Body, Header: h}}
	if _, err := m.WriteTo(io.Discard); err == nil {
		t.Error("Entity beside Header")
	}
}

func TestReply(t *testing.T) {
	h := mime.ParseHeader([]byte("From: Eve <eve@example.net>\r\nTo: ann@example.com, Bob <bob@example.org>, eve@example.net\r\n" +
		"Cc: carol@example.com, Bob <bob@example.org>, me@example.com\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n" +
		"Message-ID: <3@x>\r\nReferences: <1@x> <2@x>\r\n"))
	show := func(m *mime.Message) string {
		return fmt.Sprintf("%v %v %v %v %v %v", m.From, m.To, m.Cc, m.Subject, m.InReplyTo, m.References)
	}
	me := mime.Address{Address: smtp.Address{Local: "me", Domain: "example.com"}}
	for _, c := range []struct {
		name string
		m    *mime.Message
		want string
	}{
		{"reply", mime.Reply(&h, ann), "[=?utf-8?q?Ann_=C3=96dmann?= <ann@example.com>] [Eve <eve@example.net>] [] Re: Grüße [3@x] [1@x 2@x 3@x]"},
		{"all", mime.ReplyAll(&h, ann, me), "[=?utf-8?q?Ann_=C3=96dmann?= <ann@example.com>] [Eve <eve@example.net> Bob <bob@example.org>] [carol@example.com] Re: Grüße [3@x] [1@x 2@x 3@x]"},
		{"to oneself", mime.ReplyAll(&h, mime.Address{Address: eve.Address}), "[eve@example.net] [ann@example.com Bob <bob@example.org>] [carol@example.com me@example.com] Re: Grüße [3@x] [1@x 2@x 3@x]"},
	} {
		if got := show(c.m); got != c.want {
			t.Errorf("%s: %s\nwant %s", c.name, got, c.want)
		}
		write(t, c.m)
	}
	h = mime.ParseHeader([]byte("From: a@x.example\r\nReply-To: list@x.example\r\nSubject: RE: x\r\nIn-Reply-To: <1@x>\r\nMessage-ID: <2@x>\r\n"))
	if got := show(mime.Reply(&h, bob)); got != "[Bob <bob@example.org>] [list@x.example] [] RE: x [2@x] [1@x 2@x]" {
		t.Error(got)
	}
	// Whatever stands in a message can be answered.
	var long strings.Builder
	for i := range 300 {
		fmt.Fprintf(&long, " <%d@x>", i)
	}
	h = mime.ParseHeader([]byte("From: a@x.example\r\nSubject: a\x00b =?utf-8?q?=0D=0ABcc:_x?=\r\nMessage-ID: <a b\x01@x>\r\nReferences:" + long.String() + " <" + strings.Repeat("x", 2000) + "@y>\r\n"))
	m := mime.Reply(&h, ann)
	write(t, m)
	if n := len(m.References); n != 50 || m.References[0] != "0@x" || m.References[n-1] != "299@x" {
		t.Errorf("%d %v", n, m.References)
	}
	if q := mime.Quote("a\n\n> b\nc "); q != "> a\n>\n>> b\n> c\n" {
		t.Errorf("%q", q)
	}
}

func TestForward(t *testing.T) {
	for name, b := range corpus(t) {
		root := parse(b)
		m := mime.Forward(root, bytes.NewReader(b), ann)
		m.Text = "see below"
		var out bytes.Buffer
		if _, err := m.WriteTo(&out); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p := parse(out.Bytes())
		if len(p.Parts) != 2 {
			t.Errorf("%s: %d parts", name, len(p.Parts))
		}
		if q := p.Parts[1]; q.Encoding == "base64" {
			if got, _ := io.ReadAll(q.Decoded(bytes.NewReader(out.Bytes()))); !bytes.Equal(got, b) {
				t.Errorf("%s: differs", name)
			}
		}
		write(t, mime.Reply(&root.Header, ann))
		write(t, mime.ReplyAll(&root.Header, ann, bob))
	}
	r := strings.NewReader("Subject: x\r\nMessage-ID: <1@y>\r\n\r\nbody\r\n")
	root, _ := mime.Parse(r, r.Size(), mime.Limits{})
	m := mime.Forward(root, r, ann)
	m.Text = "see below"
	b := write(t, m)
	p := parse(b)
	if q := p.Parts[1].Message; q == nil || q.Header.Get("Subject") != "x" || text(q, b) != "body\n" || m.Subject != "Fwd: x" || m.References[0] != "1@y" {
		t.Errorf("%s", b)
	}
}

// TestDeterministic: date and message identifier are all that makes two
// messages differ.
func TestDeterministic(t *testing.T) {
	m := func() *mime.Message {
		return &mime.Message{From: []mime.Address{ann}, To: []mime.Address{bob}, Subject: "x", Date: time.Unix(1e9, 0), MessageID: "seed@example.com",
			Text: "a", HTML: "b", Attachments: []mime.File{{Name: "c", Data: []byte("c")}}}
	}
	a, b := write(t, m()), write(t, m())
	if !bytes.Equal(a, b) {
		t.Error("written differently")
	}
	other := m()
	other.MessageID = "another@example.com"
	if bytes.Equal(a, write(t, other)) || parse(a).Params["boundary"] == parse(write(t, other)).Params["boundary"] {
		t.Error("another seed gives the same")
	}
}
