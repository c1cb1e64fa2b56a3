package mime_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/mime"
)

func TestHeaderKeepsBytes(t *testing.T) {
	for _, s := range []string{
		"",
		"A: 1\r\nb : two\r\n\tmore\r\nA:3",
		"From ann Sat Feb  3 2024\nSubject:  x \n\ty\n",
		"junk\r\nA: 1\r\nmore junk\r\n: nothing\r\n",
		"A: \xff\xfe\r\n",
		"A: bare\rcr\r\n",
	} {
		h := mime.ParseHeader([]byte(s + "\r\n"))
		if s == "" || s[len(s)-1] == '\n' {
			if got := string(h.Bytes()); got != s {
				t.Errorf("%q became %q", s, got)
			}
		}
		h = mime.ParseHeader([]byte(s))
		if got := string(h.Bytes()); got != s {
			t.Errorf("%q became %q", s, got)
		}
		var all string
		for f := range h.Fields() {
			all += string(f.Raw)
		}
		if len(h.Defects()) == 0 && all != s {
			t.Errorf("fields of %q are %q", s, all)
		}
	}
}

func TestHeaderLookup(t *testing.T) {
	h := mime.ParseHeader([]byte("From ann\r\nSubject: one\r\nX-A : a\r\n b\r\nsUBJECT: two\r\nempty:\r\n\r\nBody: no\r\n"))
	if h.Len() != 4 || h.Get("subject") != "one" || h.Get("x-a") != "a b" || h.Get("Body") != "" || !h.Has("Empty") || h.Has("None") {
		t.Errorf("%d %q %q", h.Len(), h.Get("subject"), h.Get("x-a"))
	}
	var all []string
	for f := range h.All("Subject") {
		all = append(all, f.Name+"="+f.Value)
	}
	if got := strings.Join(all, " "); got != "Subject=one sUBJECT=two" {
		t.Error(got)
	}
	if d := h.Defects(); len(d) != 1 || d[0].Offset != 0 {
		t.Errorf("defects %v", d)
	}
	if n := testing.AllocsPerRun(100, func() { h.Get("subject"); h.Has("Empty") }); n != 0 {
		t.Errorf("%v allocations for a lookup", n)
	}
}

func TestHeaderEdit(t *testing.T) {
	h := mime.ParseHeader([]byte("From x\nA: 1\n\tfolded\nB: 2\nA: 3"))
	kept := h
	steps := []struct {
		do   func() error
		want string
	}{
		{func() error { return h.Add("C", "4") }, "From x\nA: 1\n\tfolded\nB: 2\nA: 3\r\nC: 4\r\n"},
		{func() error { return h.Prepend("P", "0") }, "From x\nP: 0\r\nA: 1\n\tfolded\nB: 2\nA: 3\r\nC: 4\r\n"},
		{func() error { return h.Set("a", "new") }, "From x\nP: 0\r\na: new\r\nB: 2\nC: 4\r\n"},
		{func() error { h.Del("B"); return nil }, "From x\nP: 0\r\na: new\r\nC: 4\r\n"},
		{func() error { return h.Set("D", "5") }, "From x\nP: 0\r\na: new\r\nC: 4\r\nD: 5\r\n"},
	}
	for i, s := range steps {
		if err := s.do(); err != nil {
			t.Fatal(i, err)
		}
		if got := string(h.Bytes()); got != s.want {
			t.Errorf("%d: %q, want %q", i, got, s.want)
		}
	}
	if got := string(kept.Bytes()); got != "From x\nA: 1\n\tfolded\nB: 2\nA: 3" {
		t.Errorf("the copy changed: %q", got)
	}
}

func TestHeaderWrite(t *testing.T) {
	long := strings.Repeat("word ", 40)
	for _, c := range []struct{ name, value, want string }{
		{"A", "  x  ", "A: x\r\n"},
		{"A", "", "A: \r\n"},
		{"Subject", "two  spaces\there", "Subject: two  spaces\there\r\n"},
		{"Subject", "Grüße", "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"},
		{"Subject", "a é é b", "Subject: a =?utf-8?b?w6kgw6k=?= b\r\n"},
		{"Subject", "bell\x07", "Subject: =?utf-8?q?bell=07?=\r\n"},
		{"To", "ü@example.com", "To: ü@example.com\r\n"},
	} {
		var h mime.Header
		if err := h.Add(c.name, c.value); err != nil || string(h.Bytes()) != c.want {
			t.Errorf("%q: %q %v, want %q", c.value, h.Bytes(), err, c.want)
		}
	}
	for _, value := range []string{
		long, strings.Repeat("größer ", 60), strings.Repeat("長い件名", 50), strings.Repeat("x", 3000), "a " + strings.Repeat("y", 996) + " b",
		"mixed ascii und viel mehr Täxt " + strings.Repeat("z", 70) + " größer",
	} {
		var h mime.Header
		if err := h.Add("Subject", value); err != nil {
			t.Errorf("%.20q: %v", value, err)
			continue
		}
		for line := range strings.Lines(string(h.Bytes())) {
			if n := len(line) - 2; n > 998 || n > 78 && strings.ContainsAny(line[1:], " ") && !strings.Contains(line, "yyy") && !strings.Contains(line, "zzz") {
				t.Errorf("line of %d: %q", n, line)
			}
			if strings.TrimSpace(line) == "" {
				t.Errorf("line of white space in %q", h.Bytes())
			}
		}
		if got := h.Text("Subject"); got != strings.TrimSpace(value) {
			t.Errorf("%q came back as %q", value, got)
		}
	}
	var h mime.Header
	for _, c := range []struct {
		name, value string
		want        error
	}{
		{"A", "x\r\nB: y", mime.ErrInjection},
		{"A", "x\n", mime.ErrInjection},
		{"A", "x\x00", mime.ErrInjection},
		{"A: b", "x", mime.ErrInjection},
		{"", "x", mime.ErrInjection},
		{"Ä", "x", mime.ErrInjection},
		{"References", strings.Repeat("x", 2000), mime.ErrLineLength},
	} {
		for _, f := range []func(string, string) error{h.Add, h.Set, h.Prepend} {
			if err := f(c.name, c.value); !errors.Is(err, c.want) || h.Len() != 0 {
				t.Errorf("%q %q: %v", c.name, c.value, err)
			}
		}
	}
}

func TestDecodeText(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                              "plain",
		"=?utf-8?q?a?=":                      "a",
		"=?utf-8?q?a?= =?utf-8?q?b?=":        "ab",
		"=?utf-8?q?a?=\r\n\t=?utf-8?q?b?= c": "ab c",
		"=?utf-8?q?=C3?= =?utf-8?q?=A9?=":    "é",
		"=?iso-2022-jp?b?GyRCRnxLXBsoQg==?=": "日本",
		"=?us-ascii*en?q?x?=":                "x",
		"=?x-nobody-knows?q?abc?=":           "abc",
		"=?utf-8?z?abc?=":                    "=?utf-8?z?abc?=",
		"=?utf-8?q?abc":                      "=?utf-8?q?abc",
		"a=?utf-8?q?b?=c":                    "abc",
		"=?utf-8?q?a?b?=":                    "a?b",
		"=?utf-8?q?x=0D=0ABcc:_y?=":          "x Bcc: y",
		"=?utf-8?q?nul=00?=":                 "nul ",
		"gr\xfc\xdfe":                        "grüße",
		"grüße":                              "grüße",
		"folded\r\n text":                    "folded text",
		"=?":                                 "=?",
		"=?=?=?=?":                           "=?=?=?=?",
		"=?utf-8?q??=":                       "",
		"=?utf-8?Q?caf=E9?=":                 "caf\ufffd",
		"=?windows-1252?Q?caf=E9?= =?utf-8?Q?=C3=A9?=":  "caféé",
		"=?utf-8?q?bad=zz=4?=":                          "bad=zz=4",
		"=?UTF-8?B?4oKsIA==?==?UTF-8?B?4oKs?= and text": "€ € and text",
	} {
		if got := mime.DecodeText(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestEncodeWord(t *testing.T) {
	for _, s := range []string{"plain", "Grüße", "=?utf-8?q?no?=", strings.Repeat("長い", 100), strings.Repeat("aé", 200), "a\xffb", "😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀"} {
		w := mime.EncodeWord(s)
		for word := range strings.FieldsSeq(w) {
			if len(word) > 75 {
				t.Errorf("word of %d octets", len(word))
			}
		}
		if got := mime.DecodeText(w); got != strings.ToValidUTF8(s, "\ufffd") {
			t.Errorf("%q became %q by %q", s, got, w)
		}
	}
}

func TestAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "",
		"a@example.com":                 "a@example.com",
		"Ann B. Cee <a@EXAMPLE.com>":    "Ann B. Cee|a@example.com",
		"a@example.com (Ann (the) Bee)": "Ann (the) Bee|a@example.com",
		`"Bee, Ann" <a@x.example>,,b@x.example;c@x.example`: "Bee, Ann|a@x.example b@x.example c@x.example",
		"=?utf-8?q?=C3=9C_a?= =?utf-8?q?b?= <a@x.example>":  "Ü ab|a@x.example",
		"<@a.example,@b.example:c@d.example>":               "c@d.example",
		`"q q"@x.example, "a\"b"@x.example`:                 `"q q"@x.example "a\"b"@x.example`,
		"a . b @ x . example":                               "a.b@x.example",
		"Group: a@x.example, B <b@x.example>;, c@x.example": "a@x.example B|b@x.example c@x.example",
		"undisclosed-recipients:;":                          "",
		"Ann ann@x.example":                                 "Ann|ann@x.example",
		"a@x.example b@x.example":                           "a@x.example b@x.example",
		"ü@bücher.example":                                  "ü@xn--bcher-kva.example",
		"a@[192.0.2.1], b@[IPv6:2001:db8::1]":               "a@[192.0.2.1] b@[IPv6:2001:db8::1]",
		`"unclosed <a@x.example>`:                           `"unclosed|a@x.example`,
		"(only a comment)":                                  "",
		"<a@x.example> trailing":                            "a@x.example",
		`"a@y.example" <b@x.example>`:                       "a@y.example|b@x.example",
		"a@y.example <b@x.example>":                         "a@y.example|b@x.example",
		`=?utf-8?q?x=2C_<evil@x.example>?= <b@x.example>`:   "x, <evil@x.example>|b@x.example",
		"J\xf6rg <j@x.example>":                             "Jörg|j@x.example",
	} {
		list, err := mime.ParseAddressList(in)
		var got []string
		for _, a := range list {
			s := a.Address.String()
			if a.Name != "" {
				s = a.Name + "|" + s
			}
			got = append(got, s)
		}
		if g := strings.Join(got, " "); g != want || err != nil {
			t.Errorf("%q: %q %v, want %q", in, g, err, want)
		}
	}
	for _, in := range []string{"ann", "John Doe", "<>", "a@", "@b.example", "<a@b..c>", "a@b c@", "a@[nonsense]"} {
		list, err := mime.ParseAddressList(in)
		if !errors.Is(err, mime.ErrAddress) {
			t.Errorf("%q: %v %v", in, list, err)
		}
	}
	list, err := mime.ParseAddressList("a@x.example, nonsense, b@x.example")
	if len(list) != 2 || !errors.Is(err, mime.ErrAddress) || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("%v %v", list, err)
	}
	for _, name := range []string{"", "Ann", "Ann B. Cee", "Bee, Ann", `q"u\o`, "Grüße", "=?utf-8?q?no?=", " space ", "a  b", "new\nline", strings.Repeat("ö", 100)} {
		a := ann
		a.Name = name
		s := a.String()
		got, err := mime.ParseAddress(s)
		want := strings.ReplaceAll(name, "\n", " ")
		if err != nil || got.Name != want || got.Address != a.Address {
			t.Errorf("%q by %q: %+v %v", name, s, got, err)
		}
	}
}

func TestParseDate(t *testing.T) {
	for in, want := range map[string]string{
		"Sat, 3 Feb 2024 04:05:06 +0100":      "2024-02-03T04:05:06+01:00",
		"3 feb 24 4:05 EST":                   "2024-02-03T04:05:00-05:00",
		"Sat Feb  3 04:05:06 2024":            "2024-02-03T04:05:06Z",
		"Sat Feb  3 04:05:06 PST 2024":        "2024-02-03T04:05:06-08:00",
		"3-Feb-2024 04:05:06 +0000":           "2024-02-03T04:05:06Z",
		"Sat, 3 Feb 2024 04:05:06+0100 (CET)": "2024-02-03T04:05:06+01:00",
		"Sat, 3 Feb 2024 04:05:06 GMT+2":      "2024-02-03T04:05:06Z",
		"Sat, 3 Feb 2024 04:05:06 GMT+0200":   "2024-02-03T04:05:06+02:00",
		"Sat, 3 Feb 2024 04:05:06.123 -0000":  "2024-02-03T04:05:06Z",
		"3 Feb 99 00:00:00 Z":                 "1999-02-03T00:00:00Z",
		"3 Feb 124 00:00:00 Z":                "2024-02-03T00:00:00Z",
		"30 Feb 2024 00:00:00 +0000":          "",
		"Sat, 3 Feb 2024 24:05:06 +0000":      "",
		"31 Dec 2016 23:59:60 +0000":          "2017-01-01T00:00:00Z",
		"":                                    "",
		"yesterday":                           "",
		"Sat, 3 Feb 2024":                     "2024-02-03T00:00:00Z",
		"Sat, (a (b) c) 3 Feb 2024 1:2:3 +00": "2024-02-03T01:02:03Z",
	} {
		got, err := mime.ParseDate(in)
		if want == "" {
			if !errors.Is(err, mime.ErrDate) {
				t.Errorf("%q: %v %v", in, got, err)
			}
			continue
		}
		if err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%q: %v %v, want %s", in, got, err, want)
		}
	}
	now := time.Date(2024, 2, 3, 4, 5, 6, 0, time.FixedZone("", -12600))
	if back, err := mime.ParseDate(mime.FormatDate(now)); err != nil || !back.Equal(now) {
		t.Errorf("%v %v", back, err)
	}
}

func TestMessageIDs(t *testing.T) {
	for in, want := range map[string]string{
		"<a@b>":                 "a@b",
		"<a@b> <c@d>\r\n <e@f>": "a@b c@d e@f",
		"(x) <a@b>junk<c@d>":    "a@b c@d",
		"a@b":                   "a@b",
		"no id here":            "",
		"<<a@b>":                "a@b",
		"<a@b":                  "a@b",
		"<>":                    "",
	} {
		h := mime.ParseHeader([]byte("References: " + in + "\r\n"))
		if got := strings.Join(h.MessageIDs("references"), " "); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if a, b := mime.NewMessageID("example.com"), mime.NewMessageID("Bücher.example"); !strings.HasSuffix(a, "@example.com") || !strings.HasSuffix(b, "@xn--bcher-kva.example") || a == b {
		t.Error(a, b)
	}
}

// TestHeaderFields compares with what another parser makes of fields; what
// is a matter of its taste is listed.
func TestHeaderFields(t *testing.T) {
	type address struct{ Name, Address string }
	var addresses []struct {
		Header   string
		Expected struct {
			List  []address
			Group []struct{ Addresses []address }
		}
	}
	readJSON(t, &addresses, "mime", "header-fields", "address.json")
	other := map[string]string{}
	other[" Fwd: \n\tSaying \n Hello\r\n"] = "unfolding keeps white space (RFC 5322 §2.2.3)"
	other[" FWD: \n Saying Hello \nX-Mailer: 123\r\n"] = "unfolding keeps white space (RFC 5322 §2.2.3)"
	other["inva/lid; name=\"   \n    \n"] = "a quote that does not end: white space at the end of the field is no value"
	good, total := 0, 0
	check := func(kind, in string, ok bool, got any) {
		total++
		switch why := other[in]; {
		case ok:
			good++
		case why != "":
			t.Logf("%s %q: %v: %s", kind, in, got, why)
		default:
			t.Errorf("%s %q: %v", kind, in, got)
		}
	}
	for _, c := range addresses {
		if strings.Contains(c.Header, "://") || strings.Contains(c.Header, "mailto:") || strings.Contains(c.Header, "NO (") {
			continue // List-* fields are no addresses
		}
		want := c.Expected.List
		for _, g := range c.Expected.Group {
			want = append(want, g.Addresses...)
		}
		got, _ := mime.ParseAddressList(strings.Split(c.Header, "\ninvalid@")[0])
		ok := true
		n := 0
		for _, w := range want {
			if !strings.Contains(w.Address, "@") {
				continue
			}
			plain := strings.NewReplacer(" ", "").Replace(w.Address)
			if n >= len(got) || !strings.EqualFold(got[n].Address.String(), plain) ||
				got[n].Name != w.Name && !strings.Contains(w.Name, "(") {
				ok = false
			}
			n++
		}
		check("address", c.Header, ok && n == len(got), got)
	}
	var dates []struct {
		Header   string
		Expected *struct {
			Year, Month, Day, Hour, Minute, Second int
			Before                                 bool `json:"tz_before_gmt"`
			H                                      int  `json:"tz_hour"`
			M                                      int  `json:"tz_minute"`
		}
	}
	readJSON(t, &dates, "mime", "header-fields", "date.json")
	other[" 4 8 15 16 23 42, 4 8 15 16 23 42, 4 8 15 16 23 42, "] = "numbers are no date"
	other["Tue, 1 Jul 2003 ((invalid)\ncomment) 10:52:37 +0200"] = "a line that is not folded may be read as if it were"
	for _, c := range dates {
		got, err := mime.ParseDate(c.Header)
		ok := c.Expected == nil && err != nil
		if e := c.Expected; e != nil && err == nil {
			off := e.H*3600 + e.M*60
			if e.Before {
				off = -off
			}
			ok = got.Equal(time.Date(e.Year, time.Month(e.Month), e.Day, e.Hour, e.Minute, e.Second, 0, time.FixedZone("", off)))
		}
		check("date", c.Header, ok, fmt.Sprint(got, err))
	}
	var ids []struct {
		Header   string
		Expected []string
	}
	readJSON(t, &ids, "mime", "header-fields", "id.json")
	for _, c := range ids {
		h := mime.ParseHeader([]byte("Message-ID: " + c.Header))
		got := h.MessageIDs("Message-ID")
		check("id", c.Header, slices.Equal(got, c.Expected), got)
	}
	var texts []struct{ Header, Expected string }
	readJSON(t, &texts, "mime", "header-fields", "unstructured.json")
	for _, c := range texts {
		h := mime.ParseHeader([]byte("Subject: " + c.Header))
		got := h.Text("Subject")
		ok := got == c.Expected || strings.ReplaceAll(got, " ", "") == strings.ReplaceAll(c.Expected, " ", "") && strings.Contains(c.Header, "]=?")
		check("text", c.Header, ok, fmt.Sprintf("%q, want %q", got, c.Expected))
	}
	var types []struct {
		Header   string
		Expected *struct {
			Type       string `json:"c_type"`
			Subtype    *string
			Attributes [][2]string
		}
	}
	readJSON(t, &types, "mime", "header-fields", "content_type.json")
	for _, c := range types {
		p := parse([]byte("Content-Type: " + strings.TrimLeft(c.Header, "\n ")))
		params := p.Params
		if c.Expected != nil && c.Expected.Type != "" && strings.HasPrefix(strings.TrimSpace(c.Header), c.Expected.Type) && !strings.Contains(strings.SplitN(c.Header, ";", 2)[0], "/") {
			p = parse([]byte("Content-Disposition: " + c.Header))
			params = p.DispositionParams
		}
		ok := true
		if c.Expected != nil {
			for _, a := range c.Expected.Attributes {
				if strings.HasSuffix(a[0], "-language") {
					continue
				}
				ok = ok && params[a[0]] == a[1]
			}
		}
		check("type", c.Header, ok, fmt.Sprintf("%s/%s %q", p.Type, p.Subtype, params))
	}
	t.Logf("header fields: %d of %d", good, total)
}
