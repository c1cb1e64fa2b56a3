package mime_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/postrider/postrider/mime"
)

// TestBodies has the examples of RFC 8621 §4.1.4 and cases around them. A
// part is written as its subtype, or as name=subtype.
func TestBodies(t *testing.T) {
	// The tree in RFC 8621 §4.1.4, letters as there.
	rfc := "mixed(A=plain mixed(alternative(mixed(B=plain C=jpeg! D=plain) related(E=html F=jpeg)) G=jpeg* H=x-excel* J=rfc822) K=plain)"
	for _, c := range []struct{ tree, text, html, attachments string }{
		{rfc, "A B C D K", "A E K", "C F G H J"},
		{"A=plain", "A", "A", ""},
		{"A=html", "A", "A", ""},
		{"A=pdf", "", "", "A"},
		{"A=jpeg", "A", "A", ""},
		{"alternative(A=plain B=html)", "A", "B", ""},
		{"alternative(A=plain)", "A", "A", ""},
		{"alternative(B=html)", "B", "B", ""},
		{"alternative(A=plain B=html C=calendar)", "A", "B", "C"},
		{"mixed(A=plain B=plain)", "A B", "A B", ""},
		{"mixed(A=plain B=plain@)", "A", "A", "B"},
		{"mixed(A=plain@ B=plain)", "A B", "A B", ""},
		{"mixed(A=plain* B=plain)", "B", "B", "A"},
		{"related(A=html B=jpeg C=plain)", "A", "A", "B C"},
		{"alternative(A=plain related(B=html C=png))", "A", "B", "C"},
		{"related(alternative(A=plain B=html) C=png)", "A", "B", "C"},
		{"mixed(A=html B=jpeg C=html)", "A B C", "A B C", ""},
		{"alternative(A=plain mixed(B=html C=jpeg))", "A", "B C", "C"},
		{"report(A=plain B=delivery-status C=rfc822)", "A", "A", "B C"},
	} {
		msg := buildTree(c.tree)
		root := parse([]byte(msg))
		b := root.Bodies()
		show := func(l []*mime.Part) string {
			var s []string
			for _, p := range l {
				s = append(s, p.Description)
			}
			return strings.Join(s, " ")
		}
		if show(b.Text) != c.text || show(b.HTML) != c.html || show(b.Attachments) != c.attachments {
			t.Errorf("%s: text %s, html %s, attachments %s; want %s, %s, %s", c.tree,
				show(b.Text), show(b.HTML), show(b.Attachments), c.text, c.html, c.attachments)
		}
	}
}

// buildTree writes the message of a tree of TestBodies.
func buildTree(tree string) string {
	n := 0
	var node func() string
	node = func() string {
		end := strings.IndexAny(tree, "( )")
		if end < 0 {
			end = len(tree)
		}
		word := tree[:end]
		tree = tree[end:]
		if strings.HasPrefix(tree, "(") {
			n++
			b := fmt.Sprint("b", n)
			out := "Content-Type: multipart/" + word + "; boundary=" + b + "\r\n\r\n"
			for tree[0] != ')' {
				tree = tree[1:]
				out += "--" + b + "\r\n" + node() + "\r\n"
			}
			tree = tree[1:]
			return out + "--" + b + "--\r\n"
		}
		name, kind, _ := strings.Cut(word, "=")
		main := map[string]string{"plain": "text", "html": "text", "calendar": "text", "jpeg": "image", "png": "image", "rfc822": "message", "delivery-status": "message"}
		k := strings.TrimRight(kind, "!*@")
		m := main[k]
		if m == "" {
			m = "application"
		}
		out := "Content-Type: " + m + "/" + k + "\r\nContent-Description: " + name + "\r\n"
		switch kind[len(k):] {
		case "!":
			out += "Content-Disposition: inline\r\n"
		case "*":
			out += "Content-Disposition: attachment\r\n"
		case "@":
			out += "Content-Disposition: inline; filename=x\r\n"
		}
		return out + "\r\nbody\r\n"
	}
	return node()
}

// TestBodiesCorpus: nothing of a message is lost.
func TestBodiesCorpus(t *testing.T) {
	for name, b := range corpus(t) {
		root := parse(b)
		v := root.Bodies()
		seen := slices.Concat(v.Text, v.HTML, v.Attachments)
		var visit func(p *mime.Part)
		visit = func(p *mime.Part) {
			if p.Parts == nil && p.Size > 0 && !slices.Contains(seen, p) {
				t.Errorf("%s: %s/%s at %d is in no list", name, p.Type, p.Subtype, p.HeaderOffset)
			}
			for _, c := range p.Parts {
				visit(c)
			}
		}
		visit(root)
		for _, p := range v.Inline {
			if root.Find(p.ID) == nil || root.Find("cid:"+strings.ReplaceAll(p.ContentID(), "@", "%40")) == nil {
				t.Errorf("%s: %s not found", name, p.ID)
			}
		}
	}
}

func TestBaseSubject(t *testing.T) {
	for in, want := range map[string]string{
		"":                                 "",
		"Hello":                            "Hello",
		"Re: Hello":                        "Hello re",
		"RE : Hello":                       "Hello re",
		"re[2]: Hello":                     "Hello re",
		"Fwd: Re: fw: Hello":               "Hello re",
		"[list] Re: Hello (fwd)":           "Hello re",
		"[a] [b] Hello":                    "Hello",
		"[only]":                           "[only]",
		"Re: [only]":                       "[only] re",
		"[Fwd: Hello]":                     "Hello re",
		"[Fwd: Re: [x] Hello (fwd)] (FWD)": "Hello re",
		"  many \t\r\n  spaces ":           "many spaces",
		"Reply: x":                         "Reply: x",
		"Re:":                              " re",
		"Re: [a]: Hello":                   ": Hello re",
		"Re [a]: Hello":                    "Hello re",
		"[a [b] Hello":                     "[a [b] Hello",
		"Re:Re:[x]":                        "[x] re",
		"Fw: Grüße":                        "Grüße re",
	} {
		base, re := mime.BaseSubject(in)
		if re {
			base += " re"
		}
		if base != want {
			t.Errorf("%q: %q, want %q", in, base, want)
		}
	}
}

func FuzzBaseSubject(f *testing.F) {
	f.Add("[Fwd: Re: [x] Hello (fwd)] (FWD)")
	f.Fuzz(func(t *testing.T, s string) {
		base, _ := mime.BaseSubject(s)
		if again, re := mime.BaseSubject(base); again != base || re {
			t.Fatalf("%q: %q, then %q", s, base, again)
		}
	})
}

func TestList(t *testing.T) {
	h := mime.ParseHeader([]byte("List-Id: =?utf-8?q?Gr=C3=BC=C3=9Fe?= and more <list.example.com>\r\n" +
		"List-Help: <ftp://ftp.example.com/list.txt> (FTP), <mailto:list@example.com?subject=help>\r\n" +
		"List-Unsubscribe: (Use this <mailto:no@example.com>) <mailto:list@example.com?subject=unsubscribe>,\r\n <https://example.com/\r\n  u/opaque>\r\n" +
		"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" +
		"List-Post: NO (announcements only)\r\n" +
		"List-Owner: <mailto:a@example.com>, <mailto:b@example.com\r\n"))
	got := fmt.Sprintf("%+v", h.List())
	want := "{ID:list.example.com Name:Grüße and more " +
		"Help:[ftp://ftp.example.com/list.txt mailto:list@example.com?subject=help] " +
		"Unsubscribe:[mailto:list@example.com?subject=unsubscribe https://example.com/u/opaque] Subscribe:[] Post:[] " +
		"Owner:[mailto:a@example.com] Archive:[] NoPost:true OneClick:https://example.com/u/opaque}"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	for in, want := range map[string]string{
		"List-Id: <a.b>":              "a.b|",
		"List-Id: \"A, \\\"B\" <a.b>": `a.b|A, "B`,
		"List-Id: a.b":                "a.b|",
		"List-Id: x <a.b":             "a.b|x",
		"X: y":                        "|",
	} {
		h := mime.ParseHeader([]byte(in + "\r\n"))
		if l := h.List(); l.ID+"|"+l.Name != want {
			t.Errorf("%s: %s|%s, want %s", in, l.ID, l.Name, want)
		}
	}
	// One-Click needs https and its own field.
	h = mime.ParseHeader([]byte("List-Unsubscribe: <http://example.com/x>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"))
	if l := h.List(); l.OneClick != "" || len(l.Unsubscribe) != 1 {
		t.Errorf("%+v", l)
	}
}

func TestGroupsAndPhrases(t *testing.T) {
	h := mime.ParseHeader([]byte("To: a@x.example, \"My, Group\": b@x.example (Bob), c@x.example;, d@x.example,\r\n Empty:;\r\nTo: e@x.example, <broken\r\n"))
	groups, err := h.Groups("to")
	var got []string
	for _, g := range groups {
		got = append(got, fmt.Sprint(g.Name, g.Addresses))
	}
	if want := "[a@x.example]|My, Group[Bob <b@x.example> c@x.example]|[d@x.example]|Empty[]|[e@x.example]"; strings.Join(got, "|") != want || err == nil {
		t.Errorf("%s %v, want %s", strings.Join(got, "|"), err, want)
	}
	var cases []struct {
		Header   string
		Expected []string
	}
	readJSON(t, &cases, "mime", "header-fields", "list.json")
	for _, c := range cases {
		h := mime.ParseHeader([]byte("Keywords: " + c.Header))
		if got := h.Phrases("keywords"); !slices.Equal(got, c.Expected) {
			t.Errorf("%q: %q, want %q", c.Header, got, c.Expected)
		}
	}
}

func TestFlowed(t *testing.T) {
	for _, c := range []struct {
		in    string
		delsp bool
		want  string
	}{
		{"one \r\ntwo\r\nthree\r\n", false, "one two\nthree\n"},
		{"on \r\ne \r\n", true, "one\n"},
		{" stuffed\r\n From x\r\n >y\r\n", false, "stuffed\nFrom x\n>y\n"},
		{"> a \r\n> b\r\n>> c \r\n> d\r\ne\r\n", false, "> a b\n>> c \n> d\ne\n"},
		{"text\r\n-- \r\nAnn \r\nEve", false, "text\n-- \nAnn Eve"},
		{"text \r\n-- \r\nAnn", false, "text \n-- \nAnn"},
		{"open ", false, "open "},
		{"open \r\n", false, "open \n"},
		{"", false, ""},
	} {
		b, err := io.ReadAll(mime.NewFlowedReader(strings.NewReader(c.in), c.delsp))
		if string(b) != c.want || err != nil {
			t.Errorf("%q: %q, want %q (%v)", c.in, b, c.want, err)
		}
	}
}

func FuzzFlowed(f *testing.F) {
	f.Add("a long line that has to be wrapped because it has more than eighty columns, which is what there is\n> quoted\n From\n-- \nx")
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsAny(s, "\r\x00") || !utf8.ValidString(s) {
			return
		}
		m := &mime.Message{From: []mime.Address{ann}, Text: s, Flowed: true}
		var b bytes.Buffer
		if _, err := m.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		p := parse(b.Bytes())
		got, _ := io.ReadAll(mime.Reading{}.Plain(p, bytes.NewReader(b.Bytes())))
		// What it may change: the space at the end of lines, that behind the
		// mark of a quotation, and the last line end.
		norm := func(s string) string {
			var out []string
			for line := range strings.Lines(s) {
				line = strings.TrimRight(line, " \n")
				rest := strings.TrimLeft(line, ">")
				if len(rest) < len(line) {
					line = line[:len(line)-len(rest)] + strings.TrimPrefix(rest, " ")
				}
				out = append(out, strings.TrimRight(line, " "))
			}
			return strings.TrimRight(strings.Join(out, "\n"), "\n")
		}
		if norm(string(got)) != norm(s) {
			t.Fatalf("%q, was %q by %q", got, s, b.String()[p.BodyOffset:])
		}
	})
}

func TestPreview(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"Subject: x\r\n\r\nHello,\r\n\r\nthis is it.\r\n-- \r\nAnn\r\n", "Hello, this is it."},
		{"\r\nOn Monday Bob wrote:\r\n> old\r\n> text\r\nnew\r\n", "On Monday Bob wrote: new"},
		{"\r\n> only\r\n> old\r\n", "> only > old"},
		{"\r\n-----\r\n  a\tb\x00\r\n", "a b"},
		{"Content-Type: image/png\r\n\r\nxxx", ""},
		{"Content-Type: text/html\r\n\r\n<p>x", ""},
		{"Content-Type: text/plain; format=flowed; delsp=yes\r\n\r\nwo \r\nrd\r\n", "word"},
		{"\r\n" + strings.Repeat("ü234567890 ", 30), strings.TrimSpace(strings.Repeat("ü234567890 ", 18))},
		{"\r\n" + strings.Repeat("x", 300), strings.Repeat("x", 200)},
		{"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe", "Grüße"},
	} {
		r := strings.NewReader(c.in)
		p, _ := mime.Parse(r, r.Size(), mime.Limits{})
		if got, err := (mime.Reading{}).Preview(p, r); got != c.want || err != nil {
			t.Errorf("%.40q: %q, want %q (%v)", c.in, got, c.want, err)
		}
	}
}

// TestReading reads by way of the seams.
func TestReading(t *testing.T) {
	upper := func(charset string, r io.Reader) (io.Reader, error) {
		if charset != "x-upper" {
			return nil, fmt.Errorf("charset %q", charset)
		}
		b, err := io.ReadAll(r)
		return bytes.NewReader(bytes.ToUpper(b)), err
	}
	d := mime.Reading{
		Charset: upper,
		Detect: func(b []byte, declared string) string {
			if bytes.Contains(b, []byte("\xe7\xe8")) {
				return "koi8-r"
			}
			return ""
		},
		HTML: func(w io.Writer, r io.Reader) error {
			b, err := io.ReadAll(r)
			w.Write(bytes.ReplaceAll(b, []byte("<p>"), nil))
			return err
		},
	}
	for _, c := range []struct{ field, body, want string }{
		{"text/plain; charset=X-Upper", "abc", "ABC"},
		{"text/plain; charset=x-other", "abc", "abc"},
		{"text/plain; charset=utf-8", "\xe7\xe8", "ГХ"},
		{"text/plain; charset=utf-8", "\xe7\xe9", "\ufffd\ufffd"},
		{"text/plain", "\xe7\xe9", "çé"},
		{"text/html; charset=utf-8", "<p>x", "x"},
		{"image/png", "x", ""},
	} {
		r := strings.NewReader("Content-Type: " + c.field + "\r\n\r\n" + c.body)
		p, _ := mime.Parse(r, r.Size(), mime.Limits{})
		b, err := io.ReadAll(d.Plain(p, r))
		if string(b) != c.want || err != nil {
			t.Errorf("%s %q: %q, want %q (%v)", c.field, c.body, b, c.want, err)
		}
	}
	if got := d.DecodeText("=?x-upper?q?abc?= =?utf-8?q?=e7=e8?= \xe7\xe8"); got != "ABCГХ ГХ" {
		t.Errorf("%q", got)
	}
	if s := mime.NewStream(strings.NewReader("Content-Type: text/plain; charset=x-upper\r\n\r\nabc"), mime.Limits{}); true {
		p, _ := s.Next()
		if b, _ := io.ReadAll(d.TextFrom(p, s.Decoded())); string(b) != "ABC" {
			t.Errorf("%q", b)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []mime.DefectKind
	}{
		{"A: 1\r\n\r\nfine\r\n", nil},
		{"A: 1\r\n\r\nbare\n", []mime.DefectKind{mime.DefectLineEnd}},
		{"A: 1\r\n\r\na\rb\r", []mime.DefectKind{mime.DefectLineEnd}},
		{"A: 1\r\n\r\n\x00", []mime.DefectKind{mime.DefectNUL}},
		{"A: 1\r\n\r\n" + strings.Repeat("x", 998) + "\r\n", nil},
		{"A: 1\r\n\r\n" + strings.Repeat("x", 999) + "\r\n", []mime.DefectKind{mime.DefectLineLength}},
		{"A: 1\r\n\r\n\xfc", []mime.DefectKind{mime.DefectEncoding, mime.DefectCharset}},
		{"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nü", nil},
		{"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xfc", []mime.DefectKind{mime.DefectCharset}},
		{"Content-Type: text/plain; charset=x-nobody\r\n\r\nx", []mime.DefectKind{mime.DefectCharset}},
		{"Content-Type: x/y\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\xff\n\r", nil},
		{"Content-Transfer-Encoding: base64\r\n\r\nYWJj\r\nYQ==\r\n", nil},
		{"Content-Transfer-Encoding: base64\r\n\r\nYW!j\r\n", []mime.DefectKind{mime.DefectEncoding}},
		{"Content-Transfer-Encoding: base64\r\n\r\nYQ==YQ==\r\n", []mime.DefectKind{mime.DefectEncoding}},
		{"Content-Transfer-Encoding: base64\r\n\r\nYWJjY\r\n", []mime.DefectKind{mime.DefectEncoding}},
		{"Content-Transfer-Encoding: quoted-printable\r\n\r\na=3D=3d= \t\r\n=\r\n", nil},
		{"Content-Transfer-Encoding: quoted-printable\r\n\r\na=3\r\n", []mime.DefectKind{mime.DefectEncoding}},
		{"Content-Transfer-Encoding: quoted-printable\r\n\r\na=xy\r\n", []mime.DefectKind{mime.DefectEncoding}},
		{"Content-Transfer-Encoding: quoted-printable\r\n\r\na= 3\r\n", []mime.DefectKind{mime.DefectEncoding}},
		{"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\na\nb\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\n%\r\n--b--",
			[]mime.DefectKind{mime.DefectLineEnd, mime.DefectEncoding}},
	} {
		p := parse([]byte(c.in))
		found, err := p.Check(strings.NewReader(c.in))
		var got []mime.DefectKind
		for _, d := range found {
			got = append(got, d.Kind)
			if d.Offset < 0 || d.Offset > int64(len(c.in)) || d.String() == "" {
				t.Errorf("%q: %+v", c.in, d)
			}
		}
		if !slices.Equal(got, c.want) || err != nil {
			t.Errorf("%.60q: %v, want kinds %v (%v)", c.in, found, c.want, err)
		}
	}
	total := 0
	for _, b := range corpus(t) {
		found, err := parse(b).Check(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		total += len(found)
	}
	t.Logf("%d defects in the bodies of the corpus", total)
}

// TestDefects has one message for each kind that Parse itself finds.
func TestDefects(t *testing.T) {
	for _, c := range []struct {
		in     string
		l      mime.Limits
		kind   mime.DefectKind
		offset int64
	}{
		{"A: 1\r\nB\r\n\r\n", mime.Limits{}, mime.DefectHeaderLine, 6},
		{"A: \xff\r\n\r\n", mime.Limits{}, mime.DefectHeaderOctets, 3},
		{"A: 1\r\nB: 2\n\r\n", mime.Limits{}, mime.DefectLineEnd, 10},
		{"A: 1\r\nbody", mime.Limits{}, mime.DefectHeaderLine, 6},
		{"body", mime.Limits{}, mime.DefectEmptyLine, 0},
		{"A: 1\r\nContent-Type: text\r\n\r\n", mime.Limits{}, mime.DefectContentField, 6},
		{"Content-Type: text/plain; a=b c; d\r\n\r\n", mime.Limits{}, mime.DefectContentField, 0},
		{"Content-Type: text/plain; a=\"b\r\n\r\n", mime.Limits{}, mime.DefectContentField, 0},
		{"Content-Type: text/plain; a=b; a=c\r\n\r\n", mime.Limits{}, mime.DefectContentField, 0},
		{"Content-Disposition: ; a=b\r\n\r\n", mime.Limits{}, mime.DefectContentField, 0},
		{"Content-Type: text/plain; a*x=b\r\n\r\n", mime.Limits{}, mime.DefectContentField, 0},
		{"Content-Type: multipart/mixed\r\n\r\n", mime.Limits{}, mime.DefectBoundary, 0},
		{"Content-Type: multipart/mixed; boundary=b\r\n\r\n", mime.Limits{}, mime.DefectBoundary, 45},
		{"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n", mime.Limits{}, mime.DefectTruncated, 52},
		{"Content-Transfer-Encoding: x-strange\r\n\r\n", mime.Limits{}, mime.DefectEncoding, 0},
		{"Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: base64\r\n\r\n", mime.Limits{}, mime.DefectEncoding, 0},
		{"A: 1\r\nB: 2\r\nC: 3\r\n\r\nx", mime.Limits{Fields: 2}, mime.DefectLimit, 12},
		{"A: 1\r\nB: 2\r\n\r\nx", mime.Limits{HeaderBytes: 8}, mime.DefectLimit, 6},
		{"Content-Type: text/plain; a=1; b=2; c=3\r\n\r\n", mime.Limits{Params: 2}, mime.DefectLimit, 0},
	} {
		p, _ := mime.Parse(strings.NewReader(c.in), int64(len(c.in)), c.l)
		checkStructure(t, p, []byte(c.in))
		if !slices.ContainsFunc(p.Defects, func(d mime.Defect) bool { return d.Kind == c.kind && d.Offset == c.offset }) {
			t.Errorf("%q: %+v, want kind %d at %d", c.in, p.Defects, c.kind, c.offset)
		}
	}
	p := parse([]byte("A: 1\r\nContent-Type: text/plain; name=\"a b\"; charset=utf-8\r\nContent-Disposition: attachment; filename*=utf-8''x\r\n\r\nx\r\n"))
	if p.Defects != nil {
		t.Errorf("%v", p.Defects)
	}
	p, _ = mime.Parse(strings.NewReader("Content-Type: a/b; a=1; b=2; c=3\r\n\r\n"), 37, mime.Limits{Params: 2})
	if len(p.Params) != 2 {
		t.Errorf("%v", p.Params)
	}
}
