package imap_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/postrider/postrider/imap"
)

func TestNumSet(t *testing.T) {
	for _, c := range []struct {
		in, out, resolved string // resolved with 10 as the largest
	}{
		{"1", "1", "1"},
		{"*", "*", "10"},
		{"3:1", "3:1", "1:3"},
		{"1:3,2:5,7,6", "1:3,2:5,7,6", "1:7"},
		{"9:*", "9:*", "9:10"},
		{"12:*", "12:*", "10:12"},
		{"*:4,1", "*:4,1", "1,4:10"},
		{"4294967295,1:4294967295", "4294967295,1:4294967295", "1:4294967295"},
	} {
		s, err := imap.ParseNumSet(c.in)
		if err != nil || s.String() != c.out || s.Resolve(10).String() != c.resolved {
			t.Errorf("%s: %v, %v, %v", c.in, s, s.Resolve(10), err)
		}
	}
	for _, bad := range []string{"", "0", "1,", ",1", "1:", ":1", "a", "01", "-1", "4294967296", "1:2:3", "1 2", "$", "**"} {
		if s, err := imap.ParseNumSet(bad); !errors.Is(err, imap.ErrNumSet) {
			t.Errorf("%q: %v, %v", bad, s, err)
		}
	}
	s := imap.NumSetOf(1, 2, 3, 5)
	if s.String() != "1:3,5" || s.Len() != 4 || !s.Contains(2, 9) || s.Contains(4, 9) || !slices.Equal(s.Nums(3), []uint32{1, 2, 3}) {
		t.Errorf("got %v", s)
	}
	if all := (imap.NumSet{{First: 1, Last: math.MaxUint32}}); all.Len() != math.MaxUint32 || len(all.Nums(5)) != 5 {
		t.Error("the whole range is not handled")
	}
	if got := (imap.NumSet{{First: 1, Last: imap.Star}}).Resolve(0); len(got) != 1 || got.String() != "1" {
		t.Errorf("1:* of nothing is %v", got)
	}
}

func TestUTF7(t *testing.T) {
	for utf8, utf7 := range map[string]string{
		"":                   "",
		"INBOX":              "INBOX",
		"a&b":                "a&-b",
		"Entwürfe":           "Entw&APw-rfe",
		"~peter/mail/台北/日本語": "~peter/mail/&U,BTFw-/&ZeVnLIqe-",
		"😀":                  "&2D3eAA-",
		"Ä&Ö":                "&AMQ-&-&ANY-",
		"\t":                 "&AAk-",
	} {
		if got := imap.EncodeUTF7(utf8); got != utf7 {
			t.Errorf("%q: got %q, want %q", utf8, got, utf7)
		}
		if got, err := imap.DecodeUTF7(utf7); err != nil || got != utf8 {
			t.Errorf("%q: got %q, %v", utf7, got, err)
		}
	}
	for _, bad := range []string{"&", "&AOQ", "&A-", "&AOQA-", "&AGE-", "&2D0-", "&3gA-", "&2D0AYQ-", "&AOQ-&AOQ-", "ä", "a\tb", "&AOQ=-", "&A!Q-", "&AOR-"} {
		if got, err := imap.DecodeUTF7(bad); !errors.Is(err, imap.ErrUTF7) {
			t.Errorf("%q was taken as %q", bad, got)
		}
	}
}

func FuzzUTF7(f *testing.F) {
	for _, s := range []string{"", "a&b", "Entw&APw-rfe", "&AOQ-&-", "\xff", "&2D3eAA-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := imap.DecodeUTF7(s); err == nil && imap.EncodeUTF7(u) != s {
			t.Errorf("%q is read as %q and written as %q", s, u, imap.EncodeUTF7(u))
		}
		enc := imap.EncodeUTF7(s)
		if back, err := imap.DecodeUTF7(enc); err != nil || imap.EncodeUTF7(back) != enc {
			t.Errorf("%q is written as %q, which gives %q, %v", s, enc, back, err)
		}
	})
}

func FuzzNumSet(f *testing.F) {
	for _, s := range []string{"1", "1:*,3", "5:2,*", "4294967295:1"} {
		f.Add(s, uint32(7))
	}
	f.Fuzz(func(t *testing.T, text string, largest uint32) {
		s, err := imap.ParseNumSet(text)
		if err != nil {
			return
		}
		if again, err := imap.ParseNumSet(s.String()); err != nil || !slices.Equal(s, again) {
			t.Fatalf("%q gives %v, then %v", text, s, again)
		}
		r := s.Resolve(largest)
		for i, x := range r {
			if x.First == 0 || x.First > x.Last || i > 0 && uint64(r[i-1].Last)+1 >= uint64(x.First) {
				t.Fatalf("%q resolved is %v", text, r)
			}
		}
		for _, x := range s {
			for _, n := range []uint32{x.First, x.Last} {
				if n != 0 && largest != 0 && !r.Contains(n, largest) {
					t.Fatalf("%d of %q is not in %v", n, text, r)
				}
			}
		}
	})
}

func TestCaps(t *testing.T) {
	c := imap.Caps{"imap4rev2", "AUTH=plain", "LITERAL+"}
	if !c.Has(imap.CapMove) || !c.Has(imap.CapLiteralMinus) || c.Has(imap.CapCondStore) || c.Lists(imap.CapMove) || !slices.Equal(c.Mechanisms(), []string{"PLAIN"}) {
		t.Errorf("got %v %v", c, c.Mechanisms())
	}
}

func TestWalk(t *testing.T) {
	leaf := func() *imap.BodyStructure { return &imap.BodyStructure{Type: "text", Subtype: "plain"} }
	b := &imap.BodyStructure{Type: "multipart", Parts: []*imap.BodyStructure{
		leaf(),
		{Type: "message", Subtype: "rfc822", Message: &imap.BodyStructure{Type: "multipart", Parts: []*imap.BodyStructure{leaf(), leaf()}}},
		{Type: "message", Subtype: "rfc822", Message: leaf()},
	}}
	var got []string
	b.Walk(func(part []int, b *imap.BodyStructure) bool {
		got = append(got, fmt.Sprint(part))
		return true
	})
	if want := []string{"[]", "[1]", "[2]", "[2 1]", "[2 2]", "[3]", "[3 1]"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
