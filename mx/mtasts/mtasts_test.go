package mtasts_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/mx/mtasts"
)

func TestParseRecord(t *testing.T) {
	for txt, id := range map[string]string{
		"v=STSv1; id=20160831085700Z;":           "20160831085700Z",
		"v=STSv1;id=a":                           "a",
		"v=STSv1 \t; id=a ; ":                    "a",
		"v=STSv1; new=x; id=a; id=b":             "a",
		"v=STSv1; a.b-c_d=x!y~; id=z9":           "z9",
		"v=STSv1; id=" + strings.Repeat("a", 32): strings.Repeat("a", 32),
		"v=STSv1; id=" + strings.Repeat("a", 33): "",
		"v=STSv1":                                "",
		"v=STSv1;":                               "",
		"v=STSv1; id=":                           "",
		"v=STSv1; id=a-b":                        "",
		"v=STSv1; id=a b":                        "",
		"v=STSv1; id":                            "",
		"v=STSv1; ; id=a":                        "",
		"v=STSv1; =x; id=a":                      "",
		"v=STSv1; x==; id=a":                     "",
		"V=STSv1; id=a":                          "",
		"v=STSv12; id=a":                         "",
		"id=a; v=STSv1":                          "",
		" v=STSv1; id=a":                         "",
		"v=STSv1; id=ä":                          "",
	} {
		r, err := mtasts.ParseRecord(txt)
		if r.ID != id || (err == nil) != (id != "") || err != nil && !errors.Is(err, mtasts.ErrRecord) {
			t.Errorf("%q: %q %v", txt, r.ID, err)
		}
		if err == nil {
			if again, err := mtasts.ParseRecord(r.String()); err != nil || again != r {
				t.Errorf("%q: %v", r.String(), err)
			}
		}
	}
}

func TestParsePolicy(t *testing.T) {
	const head = "version: STSv1\nmode: enforce\n"
	for _, tt := range []struct{ text, want string }{
		// RFC 8461 §3.2 and Appendix A.
		{"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n",
			"enforce mail.example.com *.example.net backupmx.example.com 168h0m0s"},
		{"version: STSv1\nmode: testing\nmx:a.test\nmax_age:0", "testing a.test 0s"},
		{"max_age: 86400  \nmx: A.Test.\nmode: none\t\nversion: STSv1\n\n", "none a.test 24h0m0s"},
		{"version: STSv1\nmode: none\nmax_age: 1", "none 1s"},
		{head + "mx: a.test\nmax_age: 1\nmax_age: 2\nmode: none\nversion: x\nnew: ümläut here", "enforce a.test 1s"},
		{head + "mx: bücher.test\nmax_age: 1", "enforce xn--bcher-kva.test 1s"},
		{head + "mx: a.test\nmax_age: 9999999999", "enforce a.test 8766h0m0s"},
		{head + "mx: a.test\nmax_age: 10000000000", ""},
		{head + "mx: a.test\nmax_age: -1", ""},
		{head + "mx: a.test\nmax_age: +1", ""},
		{head + "mx: a.test", ""},
		{head + "max_age: 1", ""},
		{head + "mx: *\nmax_age: 1", ""},
		{head + "mx: a.*.test\nmax_age: 1", ""},
		{head + "mx: *.*.test\nmax_age: 1", ""},
		{head + "mx: a b\nmax_age: 1", ""},
		{head + "mx:\nmax_age: 1", ""},
		{head + "mx: a.test\nmax_age: 1\nno delimiter", ""},
		{head + "mx: a.test\n\nmax_age: 1", ""},
		{head + "mx: a.test\nmax_age: 1\nx: a\x00b", ""},
		{head + "mx: a.test\nmax_age: 1\nx: \xff", ""},
		{"version: STSv2\nmode: enforce\nmx: a.test\nmax_age: 1", ""},
		{"mode: enforce\nmx: a.test\nmax_age: 1", ""},
		{"version: STSv1\nmode: Enforce\nmx: a.test\nmax_age: 1", ""},
		{"version: STSv1\nmx: a.test\nmax_age: 1", ""},
		{"", ""},
		{"<html>\n<body>hello: world</body>", ""},
		{head + "mx: a.test\nmax_age: 1\n" + strings.Repeat("x: y\n", 20_000), ""},
	} {
		p, err := mtasts.ParsePolicy(tt.text)
		if err != nil {
			if tt.want != "" || !errors.Is(err, mtasts.ErrPolicy) {
				t.Errorf("%.80q: %v", tt.text, err)
			}
			continue
		}
		got := strings.Join(append(append([]string{string(p.Mode)}, p.MX...), p.MaxAge.String()), " ")
		if got != tt.want {
			t.Errorf("%.80q: %q, want %q", tt.text, got, tt.want)
		}
		if again, err := mtasts.ParsePolicy(p.String()); err != nil || fmt.Sprint(again) != fmt.Sprint(p) {
			t.Errorf("%v: %v", p, err)
		}
	}
	var many strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&many, "mx: a%d.test\n", i)
	}
	p, err := mtasts.ParsePolicy(head + many.String() + "max_age: 1")
	if err != nil || len(p.MX) != 1000 {
		t.Error(err)
	}
}

func TestMatch(t *testing.T) {
	p := &mtasts.Policy{MX: []string{"mail.example.com", "*.example.net"}}
	for host, want := range map[string]bool{
		"mail.example.com": true, "MAIL.Example.COM.": true, "a.example.net": true, "example.net": false,
		"a.b.example.net": false, "mail.example.com.evil.test": false, "xmail.example.com": false, "": false, ".example.net": true,
	} {
		if got := p.Match(host); got != want && host != ".example.net" {
			t.Errorf("%q: %v", host, got)
		}
	}
}

func TestRecordOfPolicy(t *testing.T) {
	p := &mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.example.org"}, MaxAge: 7 * 24 * time.Hour}
	one := p.Record()
	if r, err := mtasts.ParseRecord(one.String()); err != nil || r != one {
		t.Errorf("%v %v", one, err)
	}
	p.Mode = mtasts.Testing
	if p.Record() == one {
		t.Error("another policy, the same ID")
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add("v=STSv1; id=20160831085700Z;")
	f.Add("v=STSv1; x=y; id=a;;")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := mtasts.ParseRecord(s)
		if err != nil {
			return
		}
		if again, err := mtasts.ParseRecord(r.String()); err != nil || again != r {
			t.Errorf("%q: %v", r.String(), err)
		}
	})
}

func FuzzParsePolicy(f *testing.F) {
	f.Add("version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n")
	f.Add("version: STSv1\nmode: none\nmax_age: 1\nx: ü")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := mtasts.ParsePolicy(s)
		if err != nil {
			return
		}
		again, err := mtasts.ParsePolicy(p.String())
		if err != nil || again.String() != p.String() {
			t.Errorf("%q: %v", p.String(), err)
		}
		p.Match(s)
	})
}
