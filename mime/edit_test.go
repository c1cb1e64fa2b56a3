package mime_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/postrider/postrider/mime"
)

func body(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

// TestEditNothing rewrites every message of the corpus unchanged.
func TestEditNothing(t *testing.T) {
	for name, b := range corpus(t) {
		r := bytes.NewReader(b)
		e := mime.Edit{Root: parse(b), Message: r}
		for p := range e.Root.All() {
			h := e.Header(p)
			h.Add("X-New", "1")
			h.Del("X-New")
			if bytes.HasSuffix(p.Header.Bytes(), []byte("\n")) || p.Header.Len() == 0 {
				continue
			}
			*h = p.Header // the last line has its end now
		}
		var out bytes.Buffer
		if n, err := e.WriteTo(&out); err != nil || n != int64(len(b)) || !bytes.Equal(out.Bytes(), b) {
			t.Errorf("%s: %d of %d octets, %v", name, n, len(b), err)
		}
	}
}

// TestEditCorpus changes every message of the corpus and looks whether the
// rest is as it was.
func TestEditCorpus(t *testing.T) {
	changed := 0
	for name, b := range corpus(t) {
		root := parse(b)
		if root.Header.Len() == 0 {
			continue
		}
		e := mime.Edit{Root: root, Message: bytes.NewReader(b)}
		e.Header(root).Prepend("X-New", "1")
		var out bytes.Buffer
		if _, err := e.WriteTo(&out); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		again := parse(out.Bytes())
		if again.Header.Get("X-New") != "1" || !bytes.HasSuffix(out.Bytes(), b[root.BodyOffset:]) {
			t.Errorf("%s: the body was changed", name)
		}
		changed++
	}
	t.Logf("%d messages changed", changed)
}

const signed = "From: ann@example.com\r\nSubject:  odd\r\n  folding\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\npre\r\n" +
	"--b\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n--s\r\nX:  y \r\n\r\nhello \r\n--s\r\n\r\nsig\r\n--s-- \r\n\r\n" +
	"--b\r\n\r\ntwo\r\n" +
	"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Type: text/plain\r\nX-Kept: 1\r\n\r\ninner body\r\n" +
	"--b--\r\nepi"

func TestEdit(t *testing.T) {
	var html mime.Header
	html.Add("Content-Type", "text/html; charset=utf-8")
	for _, c := range []struct {
		name     string
		edit     func(e *mime.Edit)
		old, new string // pairs in signed
	}{
		{"header", func(e *mime.Edit) { e.Header(e.Root).Set("From", "list@example.com") },
			"From: ann@example.com", "From: list@example.com"},
		{"header of a part", func(e *mime.Edit) { e.Header(e.Root.Parts[1]).Add("Content-ID", "<x@y>") },
			"--b\r\n\r\ntwo", "--b\r\nContent-ID: <x@y>\r\n\r\ntwo"},
		{"replaced", func(e *mime.Edit) { e.Replace(e.Root.Parts[1], mime.Content{Header: html, Body: body("<p>ü")}) },
			"--b\r\n\r\ntwo\r\n", "--b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>=C3=BC\r\n\r\n"},
		{"replaced as 8bit", func(e *mime.Edit) {
			e.Allow.EightBit = true
			e.Replace(e.Root.Parts[1], mime.Content{Header: html, Body: body("<p>ü")})
		}, "--b\r\n\r\ntwo\r\n", "--b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n<p>ü\r\n\r\n"},
		{"first removed", func(e *mime.Edit) { e.Remove(e.Root.Parts[0]) },
			"--b\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n--s\r\nX:  y \r\n\r\nhello \r\n--s\r\n\r\nsig\r\n--s-- \r\n\r\n", ""},
		{"middle removed", func(e *mime.Edit) { e.Remove(e.Root.Parts[1]) }, "--b\r\n\r\ntwo\r\n", ""},
		{"last removed", func(e *mime.Edit) { e.Remove(e.Root.Parts[2]) },
			"\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Type: text/plain\r\nX-Kept: 1\r\n\r\ninner body", ""},
		{"two removed", func(e *mime.Edit) { e.Remove(e.Root.Parts[0]); e.Remove(e.Root.Parts[1]) },
			"--b\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n--s\r\nX:  y \r\n\r\nhello \r\n--s\r\n\r\nsig\r\n--s-- \r\n\r\n--b\r\n\r\ntwo\r\n", ""},
		{"added", func(e *mime.Edit) { e.Append(e.Root, mime.Content{Body: body("footer")}) },
			"inner body\r\n--b--", "inner body\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\nfooter\r\n\r\n--b--"},
		{"added after a removed one", func(e *mime.Edit) {
			e.Append(e.Root, mime.Content{Body: body("footer")})
			e.Remove(e.Root.Parts[2])
		},
			"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Type: text/plain\r\nX-Kept: 1\r\n\r\ninner body\r\n",
			"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\nfooter\r\n\r\n"},
		{"inner message", func(e *mime.Edit) { e.Replace(e.Root.Parts[2].Message, mime.Content{Body: body("new")}) },
			"Subject: inner\r\nContent-Type: text/plain\r\nX-Kept: 1\r\n\r\ninner body\r\n",
			"Subject: inner\r\nX-Kept: 1\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\nnew\r\n\r\n"},
		{"entity", func(e *mime.Edit) {
			e.Replace(e.Root.Parts[1], mime.Content{Entity: body("X:   z\r\n\r\nas it stands")})
		},
			"\r\n\r\ntwo\r\n", "\r\nX:   z\r\n\r\nas it stands\r\n"},
	} {
		if strings.Count(signed, c.old) != 1 {
			t.Fatalf("%s: %q", c.name, c.old)
		}
		e := mime.Edit{Root: parse([]byte(signed)), Message: strings.NewReader(signed)}
		c.edit(&e)
		var out bytes.Buffer
		n, err := e.WriteTo(&out)
		if want := strings.Replace(signed, c.old, c.new, 1); err != nil || out.String() != want || n != int64(len(want)) {
			t.Errorf("%s: %v\n%q\nwant\n%q", c.name, err, out.String(), want)
		}
	}
	// Root as a whole keeps its other fields.
	e := mime.Edit{Root: parse([]byte(signed)), Message: strings.NewReader(signed)}
	e.Header(e.Root).Set("Subject", "new")
	e.Replace(e.Root, mime.Content{Body: body("only this")})
	var out bytes.Buffer
	_, err := e.WriteTo(&out)
	if want := "From: ann@example.com\r\nSubject: new\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\nonly this\r\n"; out.String() != want || err != nil {
		t.Errorf("%q %v", out.String(), err)
	}
}

func TestEditRefused(t *testing.T) {
	broken := errors.New("gone")
	var rfc822 mime.Header
	rfc822.Add("Content-Type", "message/rfc822")
	for i, c := range []struct {
		edit func(e *mime.Edit)
		want error
	}{
		{func(e *mime.Edit) { e.Remove(e.Root) }, mime.ErrMessage},
		{func(e *mime.Edit) { e.Remove(e.Root.Parts[2].Message) }, mime.ErrMessage},
		{func(e *mime.Edit) {
			for _, p := range e.Root.Parts {
				e.Remove(p)
			}
		}, mime.ErrMessage},
		{func(e *mime.Edit) { e.Replace(&mime.Part{}, mime.Content{Body: body("x")}) }, mime.ErrMessage},
		{func(e *mime.Edit) { e.Append(e.Root.Parts[1], mime.Content{Body: body("x")}) }, mime.ErrMessage},
		{func(e *mime.Edit) {
			e.Replace(e.Root.Parts[1], mime.Content{Header: rfc822, Body: body("Subject: x\n\n--b--\nevil")})
		}, mime.ErrMessage},
		{func(e *mime.Edit) {
			e.Replace(e.Root.Parts[0].Parts[0], mime.Content{Entity: body("X: y\r\n\r\n--b \r\n")})
		}, mime.ErrMessage},
		{func(e *mime.Edit) {
			e.Replace(e.Root.Parts[1], mime.Content{Body: func() (io.ReadCloser, error) { return nil, broken }})
		}, broken},
	} {
		e := mime.Edit{Root: parse([]byte(signed)), Message: strings.NewReader(signed)}
		c.edit(&e)
		var out bytes.Buffer
		if _, err := e.WriteTo(&out); !errors.Is(err, c.want) || out.Len() > 0 {
			t.Errorf("%d: %v and %d octets, want %v", i, err, out.Len(), c.want)
		}
	}
	e := mime.Edit{Root: parse([]byte(signed)), Message: strings.NewReader(signed[:100])}
	if _, err := e.WriteTo(io.Discard); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}
