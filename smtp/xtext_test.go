package smtp

import "testing"

func TestXText(t *testing.T) {
	for plain, coded := range map[string]string{
		"": "", "abc": "abc", "a+b=c": "a+2Bb+3Dc", "a b\r\n": "a+20b+0D+0A", "ü": "+C3+BC", "~!": "~!",
	} {
		if got := EncodeXText(plain); got != coded {
			t.Errorf("EncodeXText(%q) = %q", plain, got)
		}
		if got, err := DecodeXText(coded); got != plain || err != nil {
			t.Errorf("DecodeXText(%q) = %q, %v", coded, got, err)
		}
	}
	for _, s := range []string{"+", "+2", "+2b", "+GG", "a b", "a=b", "ü", "\x00", "a+"} {
		if got, err := DecodeXText(s); err == nil {
			t.Errorf("DecodeXText(%q) = %q", s, got)
		}
	}
}

func TestOriginalRecipient(t *testing.T) {
	tests := []struct {
		o       RcptOptions
		utf8    bool
		want    string
		decoded string // the type that comes back, if not o's
	}{
		{RcptOptions{}, false, "", ""},
		{RcptOptions{Original: "a+b@c.test"}, false, "rfc822;a+2Bb@c.test", "rfc822"},
		{RcptOptions{OriginalType: "x400", Original: "/C=x/"}, true, "x400;/C+3Dx/", ""},
		{RcptOptions{OriginalType: "utf-8", Original: `ü+\ =@c.test`}, false, `utf-8;\x{FC}\x{2B}\x{5C}\x{20}\x{3D}@c.test`, ""},
		{RcptOptions{OriginalType: "utf-8", Original: `ü+\ =@c.test`}, true, `utf-8;ü\x{2B}\x{5C}\x{20}\x{3D}@c.test`, ""},
		{RcptOptions{OriginalType: "utf-8", Original: "\U0001F600"}, false, `utf-8;\x{1F600}`, ""},
	}
	for _, tt := range tests {
		got := tt.o.OriginalRecipient(tt.utf8)
		if got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.o, got, tt.want)
		}
		if got == "" {
			continue
		}
		typ, addr, err := ParseOriginalRecipient(got)
		wantType := tt.decoded
		if wantType == "" {
			wantType = tt.o.OriginalType
		}
		if typ != wantType || addr != tt.o.Original || err != nil {
			t.Errorf("%q: %q, %q, %v", got, typ, addr, err)
		}
	}
	for _, s := range []string{
		"", ";", "rfc822", "rfc822;", ";a", "rfc 822;a", "rfc822;a b", "rfc822;a+0A", "utf-8;\\", `utf-8;\x{}`, `utf-8;\x{D800}`, `utf-8;\x{110000}`,
		`utf-8;\x{FFFFFFFFFF}`, `utf-8;\x{0A}`, `utf-8;\u{FC}`, "utf-8;\xff", `utf-8;\x{FC`, "utf-8;a=b", "ü;a",
	} {
		if typ, addr, err := ParseOriginalRecipient(s); err == nil {
			t.Errorf("%q: %q, %q", s, typ, addr)
		}
	}
}

func FuzzXText(f *testing.F) {
	f.Add("a+2Bb")
	f.Add("rfc822;a+2Bb@c.test")
	f.Add(`utf-8;\x{FC}ü+C3+BC`)
	f.Fuzz(func(t *testing.T, s string) {
		if back, err := DecodeXText(EncodeXText(s)); err != nil || back != s {
			t.Fatalf("%q: %q, %v", s, back, err)
		}
		typ, addr, err := ParseOriginalRecipient(s)
		if err != nil {
			return
		}
		for _, utf8 := range []bool{false, true} {
			again := RcptOptions{OriginalType: typ, Original: addr}.OriginalRecipient(utf8)
			typ2, addr2, err := ParseOriginalRecipient(again)
			if err != nil || typ2 != typ || addr2 != addr {
				t.Fatalf("%q: %q, %q; again %q: %q, %q, %v", s, typ, addr, again, typ2, addr2, err)
			}
		}
	})
}
