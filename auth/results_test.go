package auth

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func ar(results ...MethodResult) *AuthenticationResults {
	return &AuthenticationResults{AuthServID: "mx.example.org", Results: results}
}

// TestString shows what is written, and that it reads back as it was.
func TestString(t *testing.T) {
	for _, c := range []struct {
		a    *AuthenticationResults
		want string
	}{
		{ar(), "Authentication-Results: mx.example.org; none\r\n"},
		{&AuthenticationResults{AuthServID: "mx.example.org", Version: 1}, "Authentication-Results: mx.example.org 1; none\r\n"},
		{ar(MethodResult{Method: "auth", Result: Pass, Comment: "cram-md5", Props: []Property{{"smtp", "auth", "sender@example.net"}}}),
			"Authentication-Results: mx.example.org; auth=pass (cram-md5)\r\n smtp.auth=sender@example.net\r\n"},
		{ar(MethodResult{Method: "spf", Result: Fail, Props: []Property{{"smtp", "mailfrom", "a@example.net"}}},
			MethodResult{Method: "dkim", Version: 1, Result: PermError, Reason: "no key", Props: []Property{{"header", "d", "example.net"}, {"header", "b", "ab/c+d="}}}),
			"Authentication-Results: mx.example.org;\r\n spf=fail smtp.mailfrom=a@example.net;\r\n" +
				" dkim/1=permerror reason=\"no key\" header.d=example.net header.b=\"ab/c+d=\"\r\n"},
		{ar(MethodResult{Method: "iprev", Result: Pass, Comment: `a (b) \ c`, Props: []Property{{"policy", "iprev", "2001:db8::1"}}}),
			`Authentication-Results: mx.example.org; iprev=pass (a \(b\) \\ c)` + "\r\n" + ` policy.iprev="2001:db8::1"` + "\r\n"},
	} {
		got := c.a.String()
		if got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
		value, ok := strings.CutPrefix(got, FieldName+":")
		if !ok {
			t.Fatalf("no name: %q", got)
		}
		back, err := Parse(value)
		if err != nil || !reflect.DeepEqual(back, c.a) {
			t.Errorf("%q reads back as %+v, %v", got, back, err)
		}
	}
}

func TestHostileValues(t *testing.T) {
	evil := "x\r\nBcc: y\x00\"\\;(" + strings.Repeat("z", 5000) + "\xff\u2028"
	a := &AuthenticationResults{AuthServID: evil, Results: []MethodResult{
		{Method: evil, Result: Result(evil), Reason: evil, Comment: evil, Props: []Property{{evil, evil, evil}, {"", "", ""}, {"smtp", "mailfrom", `a"b@c d`}}}, {}}}
	got := a.String()
	for line := range strings.SplitSeq(strings.TrimSuffix(got, "\r\n"), "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\r\n\x00") || line == "" ||
			!strings.HasPrefix(line, " ") && !strings.HasPrefix(line, FieldName) {
			t.Errorf("line %.60q of %d octets", line, len(line))
		}
	}
	if _, err := Parse(strings.TrimPrefix(got, FieldName+":")); err != nil {
		t.Error(err)
	}
}

// TestParse has the examples of RFC 8601 appendix B and what is seen in practice.
func TestParse(t *testing.T) {
	for value, want := range map[string]*AuthenticationResults{
		" example.org 1; none": {AuthServID: "example.org", Version: 1},
		" example.com;\r\n          auth=pass (cram-md5) smtp.auth=sender@example.net;\r\n          spf=pass smtp.mailfrom=example.net": {AuthServID: "example.com", Results: []MethodResult{
			{Method: "auth", Result: Pass, Comment: "cram-md5", Props: []Property{{"smtp", "auth", "sender@example.net"}}},
			{Method: "spf", Result: Pass, Props: []Property{{"smtp", "mailfrom", "example.net"}}}}},
		" foo.example.net (foobar) 1 (baz);\r\n    dkim (Because I like it) / 1 (One yay) = (wait for it) fail\r\n      policy (A dot can go here) . (like that) expired\r\n      (this surprised me) = (as I wasn't expecting it) 1362471462": {AuthServID: "foo.example.net", Version: 1, Results: []MethodResult{
			{Method: "dkim", Version: 1, Result: Fail, Props: []Property{{"policy", "expired", "1362471462"}}}}},
		"mx.google.com; dkim=pass header.i=@gmail.com header.s=20230601 header.b=aB/c+d=;": {AuthServID: "mx.google.com", Results: []MethodResult{
			{Method: "dkim", Result: Pass, Props: []Property{{"header", "i", "@gmail.com"}, {"header", "s", "20230601"}, {"header", "b", "aB/c+d="}}}}},
		`a; dkim=FAIL reason="body \"hash\"" header.D="x y"`: {AuthServID: "a", Results: []MethodResult{
			{Method: "dkim", Result: Fail, Reason: `body "hash"`, Props: []Property{{"header", "d", "x y"}}}}},
		`"a b"; auth=pass smtp.auth="x y"@example.org`: {AuthServID: "a b", Results: []MethodResult{
			{Method: "auth", Result: Pass, Props: []Property{{"smtp", "auth", `"x y"@example.org`}}}}},
	} {
		got, err := Parse(value)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", value, got, err)
		}
	}
	for _, value := range []string{"", ";", "a", "a; ;x=y", "a; spf", "a; spf=", "a; spf=pass smtp", "a; spf=pass smtp.x", "a 2; none",
		"a; none; spf=pass", "a; spf=pass; none", "a b; none", `a; x=y z.w="`, `"a; none`, "a; x/=y", "a; spf=pass,dkim=pass",
		"a" + strings.Repeat("; x=y", 300)} {
		if got, err := Parse(value); !errors.Is(err, ErrSyntax) {
			t.Errorf("%.40q: %+v, %v", value, got, err)
		}
	}
}

func TestClaims(t *testing.T) {
	for value, want := range map[string]bool{
		" mx.example.org; spf=pass":             true,
		" MX.Example.ORG.; spf=pass":            true,
		" (c (d)) mx.example.org 1; none":       true,
		` "mx.example.org"; none`:               true,
		" mx2.example.org; none":                true,
		" mx.example.net; none":                 false,
		" mx.example.net (mx.example.org); x=y": false,
		" spf=pass":                             false, // whose it is cannot be told
		" spf=pass (mx.Example.org)":            true,  // here neither, but it may be meant
		" mx.example.org":                       true,
		"":                                      false,
	} {
		if got := Claims(value, "mx.example.org", "mx2.example.org"); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(` foo.example.net (foobar) 1 (baz); dkim (x) / 1 = fail (y) reason="a\"b" policy . expired = 1; spf=pass smtp.mailfrom="a b"@c`)
	f.Add("a; none")
	f.Fuzz(func(t *testing.T, value string) {
		a, err := Parse(value)
		if err != nil {
			if !errors.Is(err, ErrSyntax) {
				t.Fatal(err)
			}
			return
		}
		text := a.String()
		if strings.Count(text, "\n") != strings.Count(text, "\r\n") {
			t.Fatalf("bare line end in %q", text)
		}
		again, err := Parse(strings.TrimPrefix(text, FieldName+":"))
		if err != nil || again.String() != text {
			t.Fatalf("%q\nreads back as %+v, %v", text, again, err)
		}
	})
}

func BenchmarkString(b *testing.B) {
	a := ar(MethodResult{Method: "spf", Result: Pass, Props: []Property{{"smtp", "mailfrom", "a@example.net"}}},
		MethodResult{Method: "dkim", Result: Pass, Props: []Property{{"header", "d", "example.net"}, {"header", "s", "s1"}, {"header", "a", "rsa-sha256"}, {"header", "b", "abcdefgh"}}},
		MethodResult{Method: "dmarc", Result: Pass, Comment: "p=reject", Props: []Property{{"header", "from", "example.net"}}})
	b.ReportAllocs()
	for b.Loop() {
		_ = a.String()
	}
}

func BenchmarkParse(b *testing.B) {
	value := " mx.example.org;\r\n spf=pass smtp.mailfrom=a@example.net;\r\n dkim=pass (2048) header.d=example.net header.s=s1;\r\n dmarc=pass header.from=example.net"
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(value); err != nil {
			b.Fatal(err)
		}
	}
}
