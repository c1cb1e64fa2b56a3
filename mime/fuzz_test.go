package mime_test

import (
	"bytes"
	"encoding/base64"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/postrider/postrider/mime"
)

func FuzzHeader(f *testing.F) {
	f.Add([]byte("From x\nA: 1\r\n\tb\r\njunk\r\nSubject: =?utf-8?q?x?=\r\n\r\nbody"), "Subject", "välue")
	f.Add([]byte("\xef\xbb\xbfTo: a@b\r\nContent-Type: text/plain; name*0*=utf-8''a; name*1=b\r\n"), "To", strings.Repeat("a b ", 100))
	f.Fuzz(func(t *testing.T, block []byte, name, value string) {
		h := mime.ParseHeader(block)
		raw := h.Bytes()
		if !bytes.HasPrefix(block, raw) {
			t.Fatalf("%q is not how %q begins", raw, block)
		}
		n := 0
		for f := range h.Fields() {
			n++
			h.Text(f.Name)
			if _, ok := strings.CutPrefix(string(f.Raw), f.Name); !ok {
				t.Fatalf("%q does not begin with %q", f.Raw, f.Name)
			}
			if strings.Contains(f.Value, "\n") {
				t.Fatalf("value %q", f.Value)
			}
		}
		if n != h.Len() {
			t.Fatal(n, h.Len())
		}
		h.Addresses("to")
		h.Date()
		h.MessageIDs("References")
		if h.Add(name, value) != nil {
			return
		}
		if !bytes.HasPrefix(h.Bytes(), raw) || h.Len() != n+1 {
			t.Fatalf("%q after %q: %d fields of %d", h.Bytes(), raw, h.Len(), n)
		}
		var alone mime.Header
		if err := alone.Add(name, value); err != nil || alone.Len() != 1 {
			t.Fatalf("%v %q", err, alone.Bytes())
		}
		b := alone.Bytes()
		for line := range bytes.Lines(b) {
			if len(line) > 1000 || len(bytes.TrimSpace(line)) == 0 {
				t.Fatalf("line %q", line)
			}
		}
		if p := mime.ParseHeader(append(b, "\r\nx"...)); !bytes.Equal(p.Bytes(), b) {
			t.Fatalf("%q ends the header", b)
		}
	})
}

func FuzzAddressList(f *testing.F) {
	f.Add(`"A, B" <a@b.example>, G: c@d (e), <f@g>;, =?utf-8?q?h?= <@i,@j:k@l>`)
	f.Add("a@b c@d <<>> ((( [1] \\\" :;:;,@@@")
	f.Fuzz(func(t *testing.T, s string) {
		list, _ := mime.ParseAddressList(s)
		for _, a := range list {
			w := a.String()
			b, err := mime.ParseAddress(w)
			if err != nil {
				// Local parts and names that cannot be written as they are.
				if strings.ContainsFunc(a.Local, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
					continue
				}
				t.Fatalf("%q of %q: %v", w, s, err)
			}
			if b.Address != a.Address {
				t.Fatalf("%q of %q is %+v, was %+v", w, s, b, a)
			}
		}
		if strings.ContainsAny(s, "\r\n") {
			return
		}
		// The envelope sees the same addresses.
		p := parse([]byte("To: " + s + "\r\n\r\n"))
		depth := 0
		for _, a := range p.Envelope.To {
			if a.Host == "" && a.Mailbox == "" {
				depth--
			} else if a.Host == "" {
				depth++
			}
			if depth < 0 || depth > 1 {
				t.Fatalf("groups of %q: %+v", s, p.Envelope.To)
			}
		}
		if depth != 0 {
			t.Fatalf("groups of %q: %+v", s, p.Envelope.To)
		}
	})
}

func FuzzDate(f *testing.F) {
	f.Add("Sat, 3 Feb 2024 04:05:06 +0100 (c)")
	f.Add("Sat Feb  3 04:05:06 PST 2024")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := mime.ParseDate(s)
		if err != nil {
			return
		}
		if back, err := mime.ParseDate(mime.FormatDate(d)); d.Year() >= 1900 && (err != nil || !back.Equal(d)) {
			t.Fatalf("%q: %v, %v %v", s, d, back, err)
		}
	})
}

func FuzzWords(f *testing.F) {
	f.Add("Grüße =?utf-8?q?x?= \xff")
	f.Add("=?iso-2022-jp?b?GyRCRnxLXBsoQg==?= =?utf-7?q?+AOk-?=")
	f.Fuzz(func(t *testing.T, s string) {
		if d := mime.DecodeText(s); strings.ContainsAny(d, "\r\n\x00") {
			t.Fatalf("%q", d)
		}
		w := mime.EncodeWord(s)
		want := strings.NewReplacer("\r", " ", "\n", " ", "\x00", " ").Replace(strings.ToValidUTF8(s, "\ufffd"))
		got := mime.DecodeText(w)
		if strings.ContainsAny(s, "\r\n") {
			got, want = strings.ReplaceAll(got, " ", ""), strings.ReplaceAll(want, " ", "")
		}
		if got != want && strings.ToValidUTF8(s, "") == s {
			t.Fatalf("%q by %q: %q", s, w, got)
		}
	})
}

func FuzzParser(f *testing.F) {
	f.Add([]byte("Content-Type: multipart/mixed; boundary=b\r\n\r\npre\r\n--b\r\n\r\none\r\n--b \r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ny\r\n--b--\r\nepi"), uint16(7))
	f.Add([]byte("From x\nContent-Type: multipart/digest; boundary=\"b\"\n--b\n\nTo: a\n--b\nno header\n--bb\n--b--"), uint16(1))
	f.Add(small(), uint16(100))
	f.Fuzz(func(t *testing.T, b []byte, step uint16) {
		l := mime.Limits{HeaderBytes: 4096, Depth: 6, Parts: 30}
		whole := mime.Parser{Limits: l}
		whole.Write(b)
		p := whole.Close()
		checkStructure(t, p, b)
		parts := 0
		walk(p, func(_ *mime.Part, depth int) {
			if parts++; depth >= 6 {
				t.Fatal("too deep")
			}
		})
		if parts > 30 {
			t.Fatalf("%d parts", parts)
		}
		pieces := mime.Parser{Limits: l}
		n := int(step)%50 + 1
		for rest := b; len(rest) > 0; {
			k := min(n, len(rest))
			// The same buffer each time, as a reader has it.
			buf := bytes.Clone(rest[:k])
			pieces.Write(buf)
			clear(buf)
			rest = rest[k:]
		}
		if q := pieces.Close(); !reflect.DeepEqual(p, q) {
			t.Fatalf("in pieces of %d:\n%+v\nwhole:\n%+v", n, q, p)
		}
		s, err := mime.DecodeSummary(p.Summary())
		if err != nil {
			t.Fatal(err)
		}
		sameStructure(t, p, s)
		walk(p, func(p *mime.Part, _ int) { io.Copy(io.Discard, p.Text(bytes.NewReader(b))) })
	})
}

// sameStructure compares what a summary keeps.
func sameStructure(t testing.TB, p, q *mime.Part) {
	t.Helper()
	var strip func(p *mime.Part) *mime.Part
	strip = func(p *mime.Part) *mime.Part {
		c := *p
		c.Header, c.Defects, c.Parts = mime.Header{}, nil, nil
		if len(p.Params) == 0 {
			c.Params = nil
		}
		for _, s := range p.Parts {
			c.Parts = append(c.Parts, strip(s))
		}
		if p.Message != nil {
			c.Message = strip(p.Message)
		}
		return &c
	}
	if a, b := strip(p), strip(q); !reflect.DeepEqual(a, b) {
		t.Fatalf("%+v\n%+v\n%+v\n%+v", a, b, a.Envelope, b.Envelope)
	}
	for f := range p.Header.Fields() {
		if mime.InSummary(f.Name) != q.Header.Has(f.Name) || mime.InSummary(f.Name) && q.Header.Get(f.Name) != p.Header.Get(f.Name) {
			t.Fatalf("field %s: %q, was %q", f.Name, q.Header.Get(f.Name), p.Header.Get(f.Name))
		}
	}
}

func FuzzDecodeSummary(f *testing.F) {
	f.Add(parse(small()).Summary())
	f.Add(parse([]byte("Content-Type: message/rfc822\r\n\r\nTo: a:b;\r\n\r\n")).Summary())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := mime.DecodeSummary(b)
		if err != nil {
			return
		}
		q, err := mime.DecodeSummary(p.Summary())
		if err != nil {
			t.Fatal(err)
		}
		sameStructure(t, p, q)
	})
}

func FuzzDecoders(f *testing.F) {
	f.Add([]byte("YWJj\r\nZGVm=\nZ*GVm"), true)
	f.Add([]byte("a=3D=\r\nb  \r\n=zz\t=\n \n="), false)
	f.Fuzz(func(t *testing.T, b []byte, is64 bool) {
		decode := mime.NewQuotedPrintableReader
		if is64 {
			decode = mime.NewBase64Reader
		}
		whole, err := io.ReadAll(decode(bytes.NewReader(b)))
		if err != nil || len(whole) > len(b) {
			t.Fatal(len(whole), err)
		}
		pieces, err := io.ReadAll(iotest.OneByteReader(decode(iotest.OneByteReader(bytes.NewReader(b)))))
		if err != nil || !bytes.Equal(whole, pieces) {
			t.Fatalf("%q %q %v", whole, pieces, err)
		}
		if is64 {
			if want, err := base64.StdEncoding.DecodeString(string(b)); err == nil && !bytes.Equal(whole, want) {
				t.Fatalf("%q, want %q", whole, want)
			}
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add("Grüße", "text\r\n.\nFrom x\n", "<p>é", "naïve.txt", []byte("data"), "id")
	f.Fuzz(func(t *testing.T, subject, text, html, name string, data []byte, id string) {
		m := &mime.Message{From: []mime.Address{ann}, To: []mime.Address{bob}, Subject: subject, Text: text, HTML: html,
			Attachments: []mime.File{{Name: name, ContentID: id, Data: data}}}
		var b bytes.Buffer
		if _, err := m.WriteTo(&b); err != nil {
			return
		}
		checkWire(t, b.Bytes())
		p := parse(b.Bytes())
		last := p.Parts[len(p.Parts)-1]
		if last.Type != "message" {
			got, _ := io.ReadAll(last.Decoded(bytes.NewReader(b.Bytes())))
			if !bytes.Equal(got, data) {
				t.Fatalf("%q, want %q", got, data)
			}
		}
	})
}

func FuzzParams(f *testing.F) {
	f.Add("text/plain; charset=utf-8; name*0*=utf-8''a%20; name*1=b; format = flowed (c)")
	f.Add("a/b; x=\"y; z=1; n*=''; *=; =; q=\"a\\\"b\";;; name==?utf-8?q?x?= w")
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsAny(s, "\r\n") {
			return
		}
		p := parse([]byte("Content-Type: " + s + "\r\nContent-Disposition: " + s + "\r\n\r\n"))
		size := 0
		for k, v := range p.Params {
			size += len(k) + len(v)
			if k == "" || strings.ContainsAny(k, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
				t.Fatalf("name %q of %q", k, s)
			}
		}
		if size > 4*len(s)+100 {
			t.Fatalf("%d octets of parameters of %q", size, s)
		}
		if !reflect.DeepEqual(p.Params, p.DispositionParams) {
			t.Fatalf("%q: %q, %q", s, p.Params, p.DispositionParams)
		}
		p.FileName()
		// What was read can be written, and is read the same.
		name := p.Params["name"]
		if strings.ContainsAny(name, "\x00") || strings.ToValidUTF8(name, "") != name {
			return
		}
		m := &mime.Message{From: []mime.Address{ann}, Attachments: []mime.File{{Name: name}}}
		var b bytes.Buffer
		if _, err := m.WriteTo(&b); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if got := parse(b.Bytes()).Parts[0].DispositionParams["filename"]; got != name {
			t.Fatalf("%q, was %q", got, name)
		}
	})
}
