package mime_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	stdmime "mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"testing"

	"github.com/postrider/postrider/mime"
)

// small is an ordinary message of 3 KB: trace fields, signature, two
// alternatives.
func small() []byte {
	var b strings.Builder
	b.WriteString("Return-Path: <ann@example.com>\r\n" +
		"Received: from mx.example.com (mx.example.com [192.0.2.1])\r\n" +
		"\tby in.example.org (Postrider) with ESMTPS id 1234567890\r\n" +
		"\tfor <bob@example.org>; Sat, 03 Feb 2024 04:05:06 +0000\r\n" +
		"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=s1;\r\n" +
		"\th=from:to:subject:date:message-id:mime-version:content-type;\r\n" +
		"\tbh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;\r\n" +
		"\tb=" + strings.Repeat("AbCdEfGhIjKlMnOpQrStUvWxYz0123456789+/", 8) + "==\r\n" +
		"Date: Sat, 03 Feb 2024 05:05:00 +0100\r\n" +
		"From: =?utf-8?q?Ann_=C3=96dmann?= <ann@example.com>\r\n" +
		"To: Bob Builder <bob@example.org>, Eve <eve@example.net>\r\n" +
		"Subject: Re: The figures of last month\r\n" +
		"Message-ID: <20240203040506.1@example.com>\r\n" +
		"In-Reply-To: <20240202040506.9@example.org>\r\n" +
		"References: <20240202040506.9@example.org>\r\n" +
		"MIME-Version: 1.0\r\n" +
		"Content-Type: multipart/alternative; boundary=\"=_b1\"\r\n\r\n")
	for _, t := range []string{"plain", "html"} {
		b.WriteString("--=_b1\r\nContent-Type: text/" + t + "; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")
		for range 10 {
			b.WriteString("All the figures are in the table that I sent you yesterday, see there.\r\n")
		}
	}
	b.WriteString("--=_b1--\r\n")
	return []byte(b.String())
}

func attachment(size int) []byte {
	var b bytes.Buffer
	b.WriteString("From: ann@example.com\r\nSubject: file\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" +
		"--b\r\n\r\nsee there\r\n--b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	s := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("some data 0123456789"), size/20))
	for len(s) > 76 {
		b.WriteString(s[:76] + "\r\n")
		s = s[76:]
	}
	b.WriteString(s + "\r\n--b--\r\n")
	return b.Bytes()
}

func BenchmarkParse(b *testing.B) {
	for _, c := range []struct {
		name string
		msg  []byte
	}{{"3KB", small()}, {"attachment1MB", attachment(1 << 20)}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.msg)))
			b.ReportAllocs()
			for b.Loop() {
				var p mime.Parser
				p.Write(c.msg)
				p.Close()
			}
		})
	}
}

func BenchmarkParseHeader(b *testing.B) {
	msg := small()
	b.ReportAllocs()
	for b.Loop() {
		h := mime.ParseHeader(msg)
		if h.Get("Subject") == "" {
			b.Fatal()
		}
	}
}

func BenchmarkAddresses(b *testing.B) {
	h := mime.ParseHeader(small())
	b.ReportAllocs()
	for b.Loop() {
		if l, err := h.Addresses("To"); len(l) != 2 || err != nil {
			b.Fatal(l, err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	raw := bytes.Repeat([]byte("some data 0123456789"), 1<<20/20)
	qp := bytes.Repeat([]byte("<p class=3D\"a\">Gr=C3=BC=C3=9Fe and so on, some more words in this line =\r\n"), 1700)
	for _, c := range []struct {
		name string
		in   []byte
		f    func(io.Reader) io.Reader
	}{
		{"base64", attachment(len(raw)), mime.NewBase64Reader},
		{"quoted-printable", qp, mime.NewQuotedPrintableReader},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.in)))
			b.ReportAllocs()
			for b.Loop() {
				io.Copy(io.Discard, c.f(bytes.NewReader(c.in)))
			}
		})
	}
}

func BenchmarkCompose(b *testing.B) {
	text := strings.Repeat("All the figures are in the table that I sent you yesterday.\n", 100)
	data := bytes.Repeat([]byte("some data 0123456789"), 1<<20/20)
	for _, c := range []struct {
		name string
		f    func() *mime.Message
	}{
		{"plain6KB", func() *mime.Message { return &mime.Message{Text: text} }},
		{"qp6KB", func() *mime.Message { return &mime.Message{Text: "Grüße\n" + text} }},
		{"attachment1MB", func() *mime.Message {
			return &mime.Message{Text: text, Attachments: []mime.File{{Name: "a.pdf", Data: data}}}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var n int64
			for b.Loop() {
				m := c.f()
				m.From, m.To, m.Subject = []mime.Address{ann}, []mime.Address{bob}, "Grüße aus Köln"
				n, _ = m.WriteTo(io.Discard)
			}
			b.SetBytes(n)
		})
	}
}

func BenchmarkSummary(b *testing.B) {
	p := parse(small())
	s := p.Summary()
	b.Run(fmt.Sprintf("encode-%dB", len(s)), func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.Summary()
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := mime.DecodeSummary(s); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// html is 130 KB of HTML in quoted-printable.
func html() []byte {
	var b strings.Builder
	b.WriteString("From: ann@example.com\r\nSubject: news\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n" +
		"Content-Transfer-Encoding: quoted-printable\r\n\r\n")
	for b.Len() < 130<<10 {
		b.WriteString("<p class=3D\"a\">Gr=C3=BC=C3=9Fe and so on, some more words in this line =\r\n")
	}
	return []byte(b.String())
}

// BenchmarkWhole reads messages with all bodies decoded, text to UTF-8, beside
// what the standard library does without charsets.
func BenchmarkWhole(b *testing.B) {
	for _, c := range []struct {
		name string
		msg  []byte
	}{{"3KB", small()}, {"html130KB", html()}, {"attachment1MB", attachment(1 << 20)}} {
		b.Run(c.name+"/std", func(b *testing.B) {
			b.SetBytes(int64(len(c.msg)))
			b.ReportAllocs()
			for b.Loop() {
				readStd(b, c.msg)
			}
		})
		b.Run(c.name+"/ours", func(b *testing.B) {
			b.SetBytes(int64(len(c.msg)))
			b.ReportAllocs()
			for b.Loop() {
				r := bytes.NewReader(c.msg)
				root, err := mime.Parse(r, r.Size(), mime.Limits{})
				if err != nil {
					b.Fatal(err)
				}
				for p := range root.All() {
					if p.Parts != nil || p.Message != nil {
						continue
					}
					body := p.Decoded(r)
					if p.Type == "text" {
						body = p.Text(r)
					}
					if _, err := io.Copy(io.Discard, body); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func readStd(b *testing.B, msg []byte) {
	m, err := mail.ReadMessage(bytes.NewReader(msg))
	if err != nil {
		b.Fatal(err)
	}
	decode := func(encoding string, r io.Reader) {
		switch strings.ToLower(encoding) {
		case "base64":
			r = base64.NewDecoder(base64.StdEncoding, r)
		case "quoted-printable":
			r = quotedprintable.NewReader(r)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			b.Fatal(err)
		}
	}
	t, params, _ := stdmime.ParseMediaType(m.Header.Get("Content-Type"))
	if !strings.HasPrefix(t, "multipart/") {
		decode(m.Header.Get("Content-Transfer-Encoding"), m.Body)
		return
	}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return
		}
		if err != nil {
			b.Fatal(err)
		}
		decode(p.Header.Get("Content-Transfer-Encoding"), p)
	}
}
