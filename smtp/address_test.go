package smtp

import (
	"errors"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	label := strings.Repeat("l", 63)
	long := label + "." + label + "." + label + "." + label // 255 octets
	tests := []struct {
		in   string
		want Address
		out  string // String, when it differs from in
	}{
		{"", Address{}, ""},
		{"<>", Address{}, ""},
		{"a@b.test", Address{"a", "b.test"}, ""},
		{" <a@b.test> ", Address{"a", "b.test"}, "a@b.test"},
		{"A.b+c=d/e!f#g$h%i&j'k*l-m?n^o_p`q{r|s}t~@B.Test", Address{"A.b+c=d/e!f#g$h%i&j'k*l-m?n^o_p`q{r|s}t~", "b.test"}, "A.b+c=d/e!f#g$h%i&j'k*l-m?n^o_p`q{r|s}t~@b.test"},
		{`"a b"@b.test`, Address{"a b", "b.test"}, ""},
		{`"a\"b\\c"@b.test`, Address{`a"b\c`, "b.test"}, ""},
		{`"\a@"@b.test`, Address{"a@", "b.test"}, `"a@"@b.test`},
		{`""@b.test`, Address{"", "b.test"}, ""},
		{`"dot.string"@b.test`, Address{"dot.string", "b.test"}, "dot.string@b.test"},
		{`".a"@b.test`, Address{".a", "b.test"}, ""},
		{"a@b.test.", Address{"a", "b.test"}, "a@b.test"},
		{"a@localhost", Address{"a", "localhost"}, ""},
		{"a@my_host.test", Address{"a", "my_host.test"}, ""},
		{"a@My_Host.test", Address{"a", "my_host.test"}, "a@my_host.test"},
		{"a@r3---sn.test", Address{"a", "r3---sn.test"}, ""},
		{"a@bücher.test", Address{"a", "xn--bcher-kva.test"}, "a@xn--bcher-kva.test"},
		{"a@BÜCHER。test", Address{"a", "xn--bcher-kva.test"}, "a@xn--bcher-kva.test"},
		{"a@xn--bcher-kva.test", Address{"a", "xn--bcher-kva.test"}, ""},
		{"ü@b.test", Address{"ü", "b.test"}, ""},
		{"a@[192.0.2.1]", Address{"a", "[192.0.2.1]"}, ""},
		{"a@[IPv6:2001:DB8:0::1]", Address{"a", "[IPv6:2001:db8::1]"}, "a@[IPv6:2001:db8::1]"},
		{"a@[ipv6:::ffff:192.0.2.1]", Address{"a", "[IPv6:::ffff:192.0.2.1]"}, "a@[IPv6:::ffff:192.0.2.1]"},
		{"postmaster", Address{"postmaster", ""}, ""},
		{"<POSTmaster>", Address{"POSTmaster", ""}, "POSTmaster"},
		{strings.Repeat("x", 256) + "@b.test", Address{strings.Repeat("x", 256), "b.test"}, ""},
		{"a@" + long[:253], Address{"a", long[:253]}, ""},
	}
	for _, tt := range tests {
		a, err := ParseAddress(tt.in)
		if err != nil || a != tt.want {
			t.Errorf("%q: %+v, %v; want %+v", tt.in, a, err, tt.want)
			continue
		}
		want := tt.out
		if want == "" {
			want = strings.Trim(tt.in, "<>")
		}
		if a.String() != want {
			t.Errorf("%q: String %q, want %q", tt.in, a, want)
		}
		if !a.Valid() {
			t.Errorf("%q: not Valid", tt.in)
		}
		if b, err := ParseAddress(a.Path()); err != nil || a != b {
			t.Errorf("%q: back from %s: %+v, %v", tt.in, a.Path(), b, err)
		}
	}
	for _, in := range []string{
		"a", "@b.test", "a@", "a b@c.test", "a@b c.test", ".a@b.test", "a.@b.test", "a..b@c.test", `"a@b.test`, `"a"b@c.test`,
		"a@-b.test", "a@b..test", "a@.b.test", "a@b.test..", "a@[192.0.2]", "a@[192.0.2.1", "a@[IPv6:x]", "a@[IPv6:fe80::1%eth0]", "a@[]",
		"a@[tag:x]", "a@b@c.test", "a@b.test>", "a(comment)@b.test", "\"a\rb\"@c.test", "\"a\x00b\"@c.test", "\"a\x7f\"@c.test", "a\n@b.test", "a@b\n.test",
		"\xff@b.test", "a@\xff.test", "\"\\", strings.Repeat("x", 257) + "@b.test", "a@" + strings.Repeat("l", 64) + ".test", "a@" + long + ".test",
		"a@" + strings.Repeat("ü", 2000) + ".test", "a,b@c.test", "a;b@c.test", "a:b@c.test", "<a@b.test", "\"\"",
	} {
		if a, err := ParseAddress(in); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %+v, %v; want ErrAddress", in, a, err)
		}
	}
}

func TestParsePath(t *testing.T) {
	tests := []struct {
		in   string
		want Address
		rest string
	}{
		{"<>", Address{}, ""},
		{"<> SIZE=1", Address{}, " SIZE=1"},
		{"<a@b.test>", Address{"a", "b.test"}, ""},
		{"<a@b.test> BODY=8BITMIME", Address{"a", "b.test"}, " BODY=8BITMIME"},
		{"<a@[192.0.2.1]>x", Address{"a", "[192.0.2.1]"}, "x"},
		{`<"a> b"@b.test> X`, Address{"a> b", "b.test"}, " X"},
		{"<@one.test:a@b.test>", Address{"a", "b.test"}, ""},
		{"<@one.test,@[192.0.2.1]:a@b.test>", Address{"a", "b.test"}, ""},
		{"<Postmaster>", Address{"Postmaster", ""}, ""},
	}
	for _, tt := range tests {
		a, rest, err := ParsePath(tt.in)
		if err != nil || a != tt.want || rest != tt.rest {
			t.Errorf("%q: %+v, %q, %v", tt.in, a, rest, err)
		}
	}
	for _, in := range []string{
		"", "<", ">", "a@b.test", "<a@b.test", " <a@b.test>", "<a@b.test >", "<@one.test>", "<@one.test,a@b.test>", "<@one.test:>", "<@:a@b.test>",
		"<@one.test,:a@b.test>", "<one.test:a@b.test>", "<<a@b.test>>", "<a@b.test,c@d.test>", "< a@b.test>", "<@\":a@b.test>",
	} {
		if a, rest, err := ParsePath(in); !errors.Is(err, ErrAddress) || rest != in || !a.IsZero() {
			t.Errorf("%q: %+v, %q, %v", in, a, rest, err)
		}
	}
}

func TestAddressValid(t *testing.T) {
	for _, a := range []Address{
		{"a\r\nRCPT TO:<x@y.test>", "b.test"}, {"a", "b.test\r\nX"}, {"a", "B.test"}, {"a", "bücher.test"}, {"a", ""}, {"", "b.test>"}, {"a\x00", "b.test"}, {"\xff", "b.test"},
		{"a", "b.test."}, {"a", "b c"}, {"a", "[192.0.2.01]"},
	} {
		if a.Valid() {
			t.Errorf("%+v is Valid", a)
		}
	}
}

func TestAddressASCII(t *testing.T) {
	for in, want := range map[string]bool{"a@b.test": true, "a@bücher.test": true, "ü@b.test": false, "": true} {
		if a, _ := ParseAddress(in); a.ASCII() != want {
			t.Errorf("%q: ASCII %v", in, a.ASCII())
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"a@b.test", `"a\" b"@[IPv6:::1]`, "<ü@bücher.test>", "postmaster", "a@xn--", "a@XN--BCHER-KVA.test", "a@r3---x", "\"\"@[1.2.3.4]", "a@b。c", "a@ß.test"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			if !errors.Is(err, ErrAddress) {
				t.Fatal(err)
			}
			return
		}
		if !a.Valid() {
			t.Fatalf("%q: %+v is not Valid", s, a)
		}
		b, err := ParseAddress(a.String())
		if err != nil || a != b {
			t.Fatalf("%q: %+v, then %+v, %v", s, a, b, err)
		}
		if strings.ContainsAny(a.String(), "\r\n\x00") {
			t.Fatalf("%q: %q", s, a)
		}
	})
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"<>", "<a@b.test> SIZE=1", "<@one.test,@two.test:a@b.test>", `<"a>b"@[IPv6:::1]>`, "<Postmaster>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, rest, err := ParsePath(s)
		if !strings.HasSuffix(s, rest) {
			t.Fatalf("rest %q of %q", rest, s)
		}
		if err == nil && !a.Valid() {
			t.Fatalf("%q: %+v is not Valid", s, a)
		}
	})
}

func BenchmarkParsePath(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ParsePath("<some.body+tag@mail.example.org> SIZE=4096 BODY=8BITMIME"); err != nil {
			b.Fatal(err)
		}
	}
}
