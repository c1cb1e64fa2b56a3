package mime_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	stdmime "mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/postrider/postrider/mime"
)

// outline shows the structure with the octets of each header and body.
func outline(p *mime.Part, b []byte) string {
	var out strings.Builder
	walk(p, func(p *mime.Part, depth int) {
		fmt.Fprintf(&out, "%s%s/%s %q %q %d", strings.Repeat(" ", depth), p.Type, p.Subtype,
			b[p.HeaderOffset:p.BodyOffset], b[p.BodyOffset:p.BodyOffset+p.Size], p.Lines)
		for _, d := range p.Defects {
			fmt.Fprintf(&out, " [%d %s]", d.Offset, d)
		}
		out.WriteByte('\n')
	})
	return out.String()
}

// lines joins the lines of an outline.
func lines(s ...string) string { return strings.Join(s, "\n") + "\n" }

func TestParserOffsets(t *testing.T) {
	const mixed = "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
	for _, c := range []struct{ name, in, want string }{
		{"plain", "A: 1\r\n\r\nx\r\ny", lines(`text/plain "A: 1\r\n\r\n" "x\r\ny" 1`)},
		{"empty", "", lines(`text/plain "" "" 0`)},
		{"no body", "A: 1", lines(`text/plain "A: 1" "" 0 [4 header without the empty line at its end]`)},
		{"no header", "\r\nx", lines(`text/plain "\r\n" "x" 0`)},
		{"only body", "just text\r\nA: 1\r\n", lines(`text/plain "" "just text\r\nA: 1\r\n" 2 [0 body without the empty line before it]`)},
		{"bare LF", "A: 1\n\nx\n", lines(`text/plain "A: 1\n\n" "x\n" 1 [4 bare LF in a header]`)},
		{"two parts", mixed + "pre\r\n--b\r\n\r\none\r\n--b\r\nA: 1\r\n\r\ntwo\r\n\r\n--b--\r\npost",
			lines(`multipart/mixed "Content-Type: multipart/mixed; boundary=b\r\n\r\n" "pre\r\n--b\r\n\r\none\r\n--b\r\nA: 1\r\n\r\ntwo\r\n\r\n--b--\r\npost" 10`,
				` text/plain "\r\n" "one" 0`,
				` text/plain "A: 1\r\n\r\n" "two\r\n" 1`)},
		{"empty parts", mixed + "--b\r\n\r\n--b\r\nA: 1\r\n--b--",
			lines(`multipart/mixed "Content-Type: multipart/mixed; boundary=b\r\n\r\n" "--b\r\n\r\n--b\r\nA: 1\r\n--b--" 4`,
				` text/plain "\r\n" "" 0`,
				` text/plain "A: 1\r\n" "" 0 [63 header without the empty line at its end]`)},
		{"no last delimiter", mixed + "--b\r\n\r\none\r\n",
			lines(`multipart/mixed "Content-Type: multipart/mixed; boundary=b\r\n\r\n" "--b\r\n\r\none\r\n" 3 [57 multipart without its last delimiter]`,
				` text/plain "\r\n" "one\r\n" 1`)},
		{"white space after delimiters, others", mixed + "--b \t\r\n\r\n--bb\r\n--b-\r\n --b\r\nx--b\r\n--b-- \r\n",
			lines(`multipart/mixed "Content-Type: multipart/mixed; boundary=b\r\n\r\n" "--b \t\r\n\r\n--bb\r\n--b-\r\n --b\r\nx--b\r\n--b-- \r\n" 7`,
				` text/plain "\r\n" "--bb\r\n--b-\r\n --b\r\nx--b" 3`)},
		{"nested", mixed + "--b\nContent-Type: multipart/mixed; boundary=bb\n\n--bb\n\none\n--b\n\ntwo\n--b--\n",
			lines(`multipart/mixed "Content-Type: multipart/mixed; boundary=b\r\n\r\n" "--b\nContent-Type: multipart/mixed; boundary=bb\n\n--bb\n\none\n--b\n\ntwo\n--b--\n" 10`,
				` multipart/mixed "Content-Type: multipart/mixed; boundary=bb\n\n" "--bb\n\none" 2 [91 bare LF in a header] [102 multipart without its last delimiter]`,
				`  text/plain "\n" "one" 0`,
				` text/plain "\n" "two" 0`)},
		{"message", mixed + "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nbody\r\n\r\n--b--\r\n",
			lines(`multipart/mixed "Content-Type: multipart/mixed; boundary=b\r\n\r\n" "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nbody\r\n\r\n--b--\r\n" 8`,
				` message/rfc822 "Content-Type: message/rfc822\r\n\r\n" "Subject: x\r\n\r\nbody\r\n" 3`,
				`  text/plain "Subject: x\r\n\r\n" "body\r\n" 1`)},
		{"encoded message", "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nU3ViamVjdDogeA==\r\n",
			lines(`message/rfc822 "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" "U3ViamVjdDogeA==\r\n" 1 [0 message with a transfer encoding: not looked into]`)},
		{"text behind the last delimiter", mixed + "--b\r\n\r\none\r\n--b-->\r\nmore\r\n--b\r\n\r\ntwo\r\n",
			lines(`multipart/mixed "Content-Type: multipart/mixed; boundary=b\r\n\r\n" "--b\r\n\r\none\r\n--b-->\r\nmore\r\n--b\r\n\r\ntwo\r\n" 8 [57 text behind the last delimiter]`,
				` text/plain "\r\n" "one" 0`)},
		{"a boundary that ends in another's last delimiter", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/mixed; boundary=b--c\r\n\r\n--b--c\r\n\r\none\r\n--b--c--\r\n--b--\r\n",
			lines(`multipart/mixed "Content-Type: multipart/mixed; boundary=b\r\n\r\n" "--b\r\nContent-Type: multipart/mixed; boundary=b--c\r\n\r\n--b--c\r\n\r\none\r\n--b--c--\r\n--b--\r\n" 8`,
				` multipart/mixed "Content-Type: multipart/mixed; boundary=b--c\r\n\r\n" "--b--c\r\n\r\none\r\n--b--c--" 3`,
				`  text/plain "\r\n" "one" 0`)},
		{"digest", "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: x\r\n\r\ny\r\n--b--",
			lines(`multipart/digest "Content-Type: multipart/digest; boundary=b\r\n\r\n" "--b\r\n\r\nSubject: x\r\n\r\ny\r\n--b--" 5`,
				` message/rfc822 "\r\n" "Subject: x\r\n\r\ny" 2`,
				`  text/plain "Subject: x\r\n\r\n" "y" 0`)},
		{"no boundary", "Content-Type: multipart/mixed\r\n\r\n--b\r\n",
			lines(`multipart/mixed "Content-Type: multipart/mixed\r\n\r\n" "--b\r\n" 1 [0 multipart without a usable boundary]`)},
		{"empty line missing", "Content-Type: multipart/mixed; boundary=b\r\nhello there\r\n--b\r\n\r\none\r\n--b--\r\n",
			lines(`multipart/mixed "Content-Type: multipart/mixed; boundary=b\r\nhello there\r\n" "--b\r\n\r\none\r\n--b--\r\n" 4 [43 header line without a field name and colon] [56 body without the empty line before it]`,
				` text/plain "\r\n" "one" 0`)},
		{"mbox line", "From ann Sat\r\nA: 1\r\n\r\nx", lines(`text/plain "From ann Sat\r\nA: 1\r\n\r\n" "x" 0 [0 header line without a field name and colon]`)},
	} {
		p := parse([]byte(c.in))
		if got := outline(p, []byte(c.in)); got != c.want {
			t.Errorf("%s:\n%swant\n%s", c.name, got, c.want)
		}
		checkStructure(t, p, []byte(c.in))
	}
}

// TestNested: a message within a message is opened also where an encoding hides
// it.
func TestNested(t *testing.T) {
	const inner = "Subject: inner\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe\r\n"
	encoded := map[string]string{
		"7bit":             inner,
		"base64":           base64.StdEncoding.EncodeToString([]byte(inner)),
		"quoted-printable": strings.ReplaceAll(inner, "=", "=3D"),
	}
	for encoding, body := range encoded {
		for _, subtype := range []string{"rfc822", "global"} {
			msg := []byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/" + subtype + "\r\nContent-Transfer-Encoding: " + encoding + "\r\n\r\n" + body + "\r\n--b--\r\n")
			p := parse(msg).Parts[0]
			if (p.Message != nil) != (encoding == "7bit") {
				t.Fatalf("%s: %+v", encoding, p.Message)
			}
			m, r, err := p.Nested(bytes.NewReader(msg), mime.Limits{})
			if err != nil {
				t.Fatal(encoding, err)
			}
			b, err := io.ReadAll(m.Text(r))
			if m.Header.Get("Subject") != "inner" || m.Envelope == nil || string(bytes.TrimSpace(b)) != "Grüße" || err != nil {
				t.Errorf("%s: %q %q %v", encoding, m.Header.Get("Subject"), b, err)
			}
		}
	}
	deep := []byte("Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nx")
	p := mime.ParseBytes(deep, mime.Limits{Depth: 1})
	if m, _, err := p.Nested(bytes.NewReader(deep), mime.Limits{}); err != nil || m.Header.Get("Subject") != "inner" {
		t.Errorf("beyond a limit: %v", err)
	}
	if _, _, err := parse([]byte("Subject: x\r\n\r\ny")).Nested(bytes.NewReader(nil), mime.Limits{}); !errors.Is(err, mime.ErrNoMessage) {
		t.Errorf("of a text: %v", err)
	}
	if _, _, err := parse([]byte("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nU3ViamVjdDogeA==\r\n")).Nested(brokenAt{}, mime.Limits{}); !errors.Is(err, errBroken) {
		t.Errorf("of a broken reader: %v", err)
	}
}

type brokenAt struct{}

var errBroken = errors.New("broken")

func (brokenAt) ReadAt([]byte, int64) (int, error) { return 0, errBroken }

func TestParserLimits(t *testing.T) {
	nested := func(n int) []byte {
		var b bytes.Buffer
		for i := range n {
			fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
		}
		b.WriteString("\r\ndeep")
		return b.Bytes()
	}
	many := []byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nx\r\n", 100) + "--b--\r\n")
	long := []byte("A: 1\r\nB: " + strings.Repeat("x", 1000) + "\r\nC: 3\r\n\r\nbody")
	for _, c := range []struct {
		name   string
		in     []byte
		l      mime.Limits
		parts  int
		defect string
	}{
		{"depth by default", nested(2000), mime.Limits{}, 250, "nested too deep"},
		{"depth", nested(20), mime.Limits{Depth: 3}, 3, "nested too deep"},
		{"no depth", nested(2000), mime.Limits{Depth: -1}, 2001, ""},
		{"parts", many, mime.Limits{Parts: 10}, 10, "too many parts"},
		{"header", long, mime.Limits{HeaderBytes: 100}, 1, "header too long"},
	} {
		p := mime.Parser{Limits: c.l}
		p.Write(c.in)
		root := p.Close()
		checkStructure(t, root, c.in)
		parts, found := 0, c.defect == ""
		walk(root, func(p *mime.Part, _ int) {
			parts++
			for _, d := range p.Defects {
				found = found || strings.HasPrefix(d.Text, c.defect)
			}
		})
		if parts != c.parts || !found {
			t.Errorf("%s: %d parts, want %d; defect %v", c.name, parts, c.parts, found)
		}
	}
	p := mime.Parser{Limits: mime.Limits{HeaderBytes: 100}}
	p.Write(long)
	root := p.Close()
	if got := string(root.Header.Bytes()); got != "A: 1\r\n" || text(root, long) != "body" {
		t.Errorf("%q %q", got, text(root, long))
	}
	// Boundaries within each other, all of them looked for in each line.
	hostile := append(nested(240), bytes.Repeat([]byte("\r\n--b"), 1<<20)...)
	parse(hostile)
}

func TestParseError(t *testing.T) {
	gone := errors.New("gone")
	p, err := mime.Parse(failing{gone}, 100, mime.Limits{})
	if !errors.Is(err, gone) || p == nil {
		t.Errorf("%v %v", p, err)
	}
	if _, err := mime.Parse(strings.NewReader("short"), 100, mime.Limits{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

func TestEnvelope(t *testing.T) {
	p := parse([]byte("Date: d\r\nSubject: =?utf-8?q?x?=\r\n y\r\nFrom: \"Ann \\\"A\\\"\" <ann@a.example> (c)\r\nSender: \r\n" +
		"To: G: =?utf-8?q?b?= <b@b.example>, c@c.example (Cee);, root\r\nTO: <\"q q\"@d.example>\r\nBcc: x:;\r\n" +
		"Message-ID: <1@a>\r\nIn-Reply-To: <2@a> <3@a>\r\n\r\n"))
	from := []mime.EnvelopeAddress{{Name: `Ann "A"`, Mailbox: "ann", Host: "a.example"}}
	want := &mime.Envelope{
		Date: "d", Subject: "=?utf-8?q?x?= y", MessageID: "<1@a>", InReplyTo: "<2@a> <3@a>",
		From: from, Sender: from, ReplyTo: from,
		To: []mime.EnvelopeAddress{{Mailbox: "G"}, {Name: "=?utf-8?q?b?=", Mailbox: "b", Host: "b.example"},
			{Name: "Cee", Mailbox: "c", Host: "c.example"}, {}, {Mailbox: "root", Host: "MISSING_DOMAIN"},
			{Mailbox: "q q", Host: "d.example"}},
		Bcc: []mime.EnvelopeAddress{{Mailbox: "x"}, {}},
	}
	if !reflect.DeepEqual(p.Envelope, want) {
		t.Errorf("%+v\nwant\n%+v", p.Envelope, want)
	}
}

func TestPartFields(t *testing.T) {
	p := parse([]byte("Content-Type: IMAGE/Png (c); Name=\"a b\"; name*=utf-8''better.png; x=1; x=2\r\nContent-Disposition: Attachment;\r\n" +
		" filename*1=\"c.png\"; filename*0=../b\r\nContent-ID: <i@d>\r\nContent-Description: d\r\nContent-MD5: m\r\nContent-Location: l\r\n" +
		"Content-Language: en, de\r\nContent-Transfer-Encoding: BASE64\r\nContent-Type: text/html\r\n\r\n"))
	if p.Type != "image" || p.Subtype != "png" || p.Encoding != "base64" || p.Disposition != "attachment" || p.ID != "<i@d>" ||
		p.Description != "d" || p.MD5 != "m" || p.Location != "l" || !reflect.DeepEqual(p.Language, []string{"en", "de"}) {
		t.Errorf("%+v", p)
	}
	if !reflect.DeepEqual(p.Params, map[string]string{"name": "better.png", "x": "1"}) || p.DispositionParams["filename"] != "../bc.png" || p.FileName() != "bc.png" {
		t.Errorf("%q %q %q", p.Params, p.DispositionParams, p.FileName())
	}
}

// TestSummaryCorpus takes every message of the corpus through its summary.
func TestSummaryCorpus(t *testing.T) {
	size, n := 0, 0
	for name, b := range corpus(t) {
		p := parse(b)
		s := p.Summary()
		if !bytes.Equal(s, parse(b).Summary()) {
			t.Errorf("%s: two summaries differ", name)
		}
		q, err := mime.DecodeSummary(s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sameStructure(t, p, q)
		size, n = size+len(s), n+1
		for i := range s[:min(len(s), 300)] {
			if _, err := mime.DecodeSummary(s[:i]); !errors.Is(err, mime.ErrSummary) {
				t.Fatalf("%s: cut at %d: %v", name, i, err)
			}
		}
		if _, err := mime.DecodeSummary(append(s, 0)); !errors.Is(err, mime.ErrSummary) {
			t.Errorf("%s: octets behind: %v", name, err)
		}
	}
	t.Logf("%d summaries, %d octets on average", n, size/n)
	if _, err := mime.DecodeSummary(nil); !errors.Is(err, mime.ErrSummary) {
		t.Error(err)
	}
}

func TestDecoders(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"YWJj", "abc"}, {"YWJ", "ab"}, {"YW", "a"}, {"Y", ""}, {"YQ==YWJj", "aabc"}, {"Y W\r\nJ-j\n", "abc"},
		{strings.Repeat("YWJj\n", 20000), strings.Repeat("abc", 20000)},
	} {
		for _, r := range []io.Reader{strings.NewReader(c.in), iotest.HalfReader(strings.NewReader(c.in))} {
			if got, err := io.ReadAll(mime.NewBase64Reader(r)); string(got) != c.want || err != nil {
				t.Errorf("%.20q: %.20q %v", c.in, got, err)
			}
		}
	}
	long := strings.Repeat("a=3D ", 20000)
	for _, c := range []struct{ in, want string }{
		{"a=3Db", "a=b"}, {"a=\r\nb", "ab"}, {"a= \t\r\nb", "ab"}, {"a  \r\nb\t", "a\r\nb"}, {"=zz=4", "=zz=4"}, {"a\nb=", "a\nb"}, {"=e9", "\xe9"},
		{long, strings.TrimRight(strings.ReplaceAll(long, "=3D", "="), " ")},
	} {
		for _, r := range []io.Reader{strings.NewReader(c.in), iotest.DataErrReader(strings.NewReader(c.in))} {
			if got, err := io.ReadAll(mime.NewQuotedPrintableReader(r)); string(got) != c.want || err != nil {
				t.Errorf("%.20q: %.20q %v", c.in, got, err)
			}
		}
	}
	gone := errors.New("gone")
	if _, err := io.ReadAll(mime.NewBase64Reader(iotest.ErrReader(gone))); !errors.Is(err, gone) {
		t.Error(err)
	}
}

// TestReadBack has the standard library read what the builder writes.
func TestReadBack(t *testing.T) {
	data := bytes.Repeat([]byte("\x00\xffdata"), 3000)
	m := &mime.Message{From: []mime.Address{ann}, To: []mime.Address{bob, eve}, Subject: "Grüße: " + strings.Repeat("ein längerer Betreff ", 10),
		Text: "Tschüß\n", HTML: "<p>Tschüß\n", Attachments: []mime.File{{Name: "naïve.bin", Data: data}}}
	b := write(t, m)
	msg, err := mail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	var dec stdmime.WordDecoder
	if s, err := dec.DecodeHeader(msg.Header.Get("Subject")); err != nil || s != strings.TrimSpace(m.Subject) {
		t.Errorf("%q %v", s, err)
	}
	if l, err := msg.Header.AddressList("From"); err != nil || l[0].Name != ann.Name {
		t.Errorf("%v %v", l, err)
	}
	_, params, err := stdmime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	r := multipart.NewReader(msg.Body, params["boundary"])
	alt, err := r.NextRawPart()
	if err != nil {
		t.Fatal(err)
	}
	_, params, _ = stdmime.ParseMediaType(alt.Header.Get("Content-Type"))
	inner := multipart.NewReader(alt, params["boundary"])
	for _, want := range []string{m.Text, m.HTML} {
		p, err := inner.NextRawPart()
		if err != nil {
			t.Fatal(err)
		}
		var body io.Reader = p
		switch p.Header.Get("Content-Transfer-Encoding") {
		case "base64":
			body = base64.NewDecoder(base64.StdEncoding, p)
		case "quoted-printable":
			body = quotedprintable.NewReader(p)
		}
		got, err := io.ReadAll(body)
		if err != nil || strings.ReplaceAll(string(got), "\r\n", "\n") != want {
			t.Errorf("%q %v", got, err)
		}
	}
	file, err := r.NextRawPart()
	if err != nil || file.FileName() != "naïve.bin" {
		t.Fatal(file.FileName(), err)
	}
	got, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, file))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d octets, %v", len(got), err)
	}
}

// TestHostileHeaders reads headers that are cheap to send and would be dear
// to read if any step took more than linear time.
func TestHostileHeaders(t *testing.T) {
	const size = 1 << 18
	for _, unit := range []string{
		"To: a@b.example\r\n", "To: a,", "To: \"\\\"", "\\\"", "\"", "(", "<", "@", "a@b ", "a:", "a:;", "=?a?q?<", "=?a?q?", "=?utf-8?b?YQ==?= ",
		"=?utf-8?q?a?= =?us-ascii?q?b?= ", "-", "+1:", "a=b;", "a*1=b;", "a ", "x=y ", "; ", "a:\r\n", "\r\n ", ".", " .", "--b\r\n", "=?", "?=", "[", "=\"", "%41",
	} {
		for _, field := range []string{"To: ", "Subject: ", "Date: ", "Content-Type: a/b; ", "Content-Type: multipart/mixed; boundary=b\r\nReferences: "} {
			b := []byte(field + strings.Repeat(unit, size/len(unit)) + "\r\n\r\nbody")
			start := time.Now()
			p := parse(b)
			p.Header.Text("Subject")
			p.Header.Addresses("To")
			p.Header.Date()
			p.Header.MessageIDs("References")
			if _, err := mime.DecodeSummary(p.Summary()); err != nil {
				t.Errorf("%q in %q: %v", unit, field, err)
			}
			if len(p.Envelope.To) > 20_002 {
				t.Errorf("%q in %q: %d addresses", unit, field, len(p.Envelope.To))
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("%q in %q took %v", unit, field, d)
			}
		}
	}
}
