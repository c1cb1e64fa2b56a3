package returnpath_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/returnpath"
)

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

func address(t testing.TB, s string) smtp.Address {
	t.Helper()
	a, err := smtp.ParseAddress(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return a
}

func TestVERP(t *testing.T) {
	base := smtp.Address{Local: "bounces", Domain: "lists.example"}
	for rcpt, want := range map[string]string{
		"ann@example.org":         "bounces+ann=example.org",
		"ann+tag@example.org":     "bounces+ann+tag=example.org",
		"a=b@example.org":         "bounces+a%3Db=example.org",
		`"a b@c"@example.org`:     "bounces+a%20b%40c=example.org",
		`"a..b"@example.org`:      "bounces+a.%2Eb=example.org",
		"100%@example.org":        "bounces+100%25=example.org",
		"jürgen@example.org":      "bounces+jürgen=example.org",
		"x@xn--bcher-kva.example": "bounces+x=xn--bcher-kva.example",
	} {
		a := address(t, rcpt)
		v := returnpath.VERP{}.Encode(base, a)
		if v.Local != want || v.Domain != base.Domain {
			t.Errorf("%s: %s", rcpt, v)
		}
		if again, err := smtp.ParseAddress(v.String()); err != nil || again != v {
			t.Errorf("%s: %s, %v", v, again, err)
		}
		for _, on := range []smtp.Address{v, {Local: strings.Replace(v.Local, "bounces", "BOUNCES", 1), Domain: v.Domain}} {
			if got, err := (returnpath.VERP{}).Decode(base, on); err != nil || got != a {
				t.Errorf("%s: %s, %v", on, got, err)
			}
		}
	}
	for _, local := range []string{"", "bounces", "bounces+", "bounces+ann", "bounces+ann=", "bounces-ann=example.org",
		"other+ann=example.org", "bounces+a%=b.test", "bounces+a%zz=b.test", "bounces+a=b c", "bounces+a=.."} {
		if got, err := (returnpath.VERP{}).Decode(base, smtp.Address{Local: local, Domain: base.Domain}); !errors.Is(err, returnpath.ErrNotOurs) {
			t.Errorf("%q: %s, %v", local, got, err)
		}
	}
	if _, err := (returnpath.VERP{}).Decode(base, smtp.Address{Local: "bounces+a=b.test", Domain: "other.test"}); !errors.Is(err, returnpath.ErrNotOurs) {
		t.Error(err)
	}
	v := returnpath.VERP{Delimiter: '-'}.Encode(base, address(t, strings.Repeat("a", 60)+"@example.org"))
	if !strings.HasPrefix(v.Local, "bounces-a") || returnpath.Fits(v) || !returnpath.Fits(base) {
		t.Error(v)
	}
}

func TestSRS(t *testing.T) {
	secret := [][]byte{[]byte("s3cret")}
	first, second, third := returnpath.SRS{Domain: "fwd.test", Secrets: secret}, returnpath.SRS{Domain: "second.test", Secrets: secret}, returnpath.SRS{Domain: "third.test", Secrets: secret}
	ann := smtp.Address{Local: "ann", Domain: "Example.org"}
	forward := func(s returnpath.SRS, a smtp.Address) smtp.Address {
		t.Helper()
		out, err := s.Forward(a, now)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	// What Mail::SRS makes of the same.
	zero := forward(first, ann)
	if zero.String() != "SRS0=hvg7=JO=Example.org=ann@fwd.test" {
		t.Error(zero)
	}
	one := forward(second, zero)
	if one.String() != "SRS1=Z43j=fwd.test==hvg7=JO=Example.org=ann@second.test" {
		t.Error(one)
	}
	again := forward(third, one)
	if again.String() != "SRS1=Z43j=fwd.test==hvg7=JO=Example.org=ann@third.test" {
		t.Error(again)
	}
	if a, err := third.Reverse(again, now); err != nil || a != zero {
		t.Error(a, err)
	}
	if a, err := second.Reverse(one, now); err != nil || a != zero {
		t.Error(a, err)
	}
	for _, z := range []smtp.Address{zero, {Local: strings.ToLower(zero.Local), Domain: "FWD.test"}} {
		if a, err := first.Reverse(z, now.Add(20*day)); err != nil || !strings.EqualFold(a.String(), "ann@example.org") {
			t.Error(a, err)
		}
	}
	if a := forward(first, smtp.Address{}); !a.IsZero() {
		t.Error(a)
	}
	if own := (smtp.Address{Local: "x", Domain: "FWD.test"}); forward(first, own) != own {
		t.Error("an address of ours was rewritten")
	}
	// Another form of separator, a local part with "=" in it.
	plus := returnpath.SRS{Domain: "fwd.test", Secrets: secret, Separator: '+', HashLength: 10}
	odd := smtp.Address{Local: "a=b=c", Domain: "x.test"}
	if a, err := plus.Reverse(forward(plus, odd), now); err != nil || a != odd {
		t.Error(a, err)
	}
	if a, err := second.Reverse(forward(second, forward(plus, odd)), now); err != nil || a != forward(plus, odd) {
		t.Error(a, err)
	}

	// Secrets can change.
	turned := returnpath.SRS{Domain: "fwd.test", Secrets: [][]byte{[]byte("new"), []byte("s3cret")}}
	if _, err := turned.Reverse(zero, now); err != nil {
		t.Error(err)
	}
	if a := forward(turned, ann); a == zero {
		t.Error("the first secret does not make addresses")
	}
	for name, tt := range map[string]struct {
		local string
		at    time.Time
		want  error
	}{
		"another secret":  {"SRS0=AAAA=JO=Example.org=ann", now, returnpath.ErrNotOurs},
		"another address": {"SRS0=hvg7=JO=Example.org=bob", now, returnpath.ErrNotOurs},
		"another day":     {"SRS0=hvg7=JP=Example.org=ann", now, returnpath.ErrNotOurs},
		"short hash":      {"SRS0=hvg=JO=Example.org=ann", now, returnpath.ErrNotOurs},
		"no hash":         {"SRS0==JO=Example.org=ann", now, returnpath.ErrNotOurs},
		"cut":             {"SRS0=hvg7=JO=Example.org", now, returnpath.ErrNotOurs},
		"nothing":         {"SRS0=", now, returnpath.ErrNotOurs},
		"the word":        {"SRS0", now, returnpath.ErrNotOurs},
		"SRS1 cut":        {"SRS1=Z43j=fwd.test", now, returnpath.ErrNotOurs},
		"SRS1 forged":     {"SRS1=AAAA=fwd.test==hvg7=JO=Example.org=ann", now, returnpath.ErrNotOurs},
		"no SRS":          {"ann", now, returnpath.ErrNotOurs},
		"old":             {"SRS0=hvg7=JO=Example.org=ann", now.Add(22 * day), returnpath.ErrExpired},
		"very old":        {"SRS0=hvg7=JO=Example.org=ann", now.Add(600 * day), returnpath.ErrExpired},
		"of tomorrow":     {"SRS0=hvg7=JO=Example.org=ann", now.Add(-day), nil},
		"of next week":    {"SRS0=hvg7=JO=Example.org=ann", now.Add(-7 * day), returnpath.ErrExpired},
	} {
		a, err := first.Reverse(smtp.Address{Local: tt.local, Domain: "fwd.test"}, tt.at)
		if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %s, %v", name, a, err)
		}
	}
	if _, err := first.Reverse(smtp.Address{Local: zero.Local, Domain: "other.test"}, now); !errors.Is(err, returnpath.ErrNotOurs) {
		t.Error(err)
	}
	if _, err := (returnpath.SRS{Domain: "x.test"}).Forward(ann, now); !errors.Is(err, returnpath.ErrSecret) {
		t.Error(err)
	}
	if _, err := first.Forward(smtp.Address{Local: strings.Repeat("a", 300), Domain: "x.test"}, now); !errors.Is(err, returnpath.ErrTooLong) {
		t.Error(err)
	}
}

func TestBATV(t *testing.T) {
	b := returnpath.BATV{Secrets: map[int][]byte{1: []byte("one"), 2: []byte("two")}, Key: 1}
	ann := smtp.Address{Local: "ann", Domain: "example.org"}
	tagged, err := b.Sign(ann, now)
	if err != nil || !strings.HasPrefix(tagged.Local, "prvs=1") || !strings.HasSuffix(tagged.String(), "=ann@example.org") {
		t.Fatal(tagged, err)
	}
	for _, at := range []time.Time{now, now.Add(7 * day), now.Add(-400 * day)} {
		if a, err := b.Verify(tagged, at); err != nil || a != ann {
			t.Errorf("%v: %s %v", at, a, err)
		}
	}
	if _, err := b.Verify(tagged, now.Add(8*day)); !errors.Is(err, returnpath.ErrExpired) {
		t.Error(err)
	}
	b.Key = 2
	if a, err := b.Verify(tagged, now); err != nil || a != ann {
		t.Error("the old key is not read:", err)
	}
	if a, err := b.Verify(smtp.Address{Local: strings.ToUpper(tagged.Local), Domain: "EXAMPLE.org"}, now); err != nil || !strings.EqualFold(a.String(), ann.String()) {
		t.Error(a, err)
	}
	for _, local := range []string{"", "ann", "prvs=", "prvs=1", "prvs=1000abcdef", "prvs=1000abcdef=", "prvs=1000abcdef=ann", "prvs=x000abcdef=ann",
		"prvs=1xxxabcdef=ann", "prvs=9000abcdef=ann", strings.Replace(tagged.Local, "=ann", "=bob", 1)} {
		if a, err := b.Verify(smtp.Address{Local: local, Domain: "example.org"}, now); !errors.Is(err, returnpath.ErrNotOurs) {
			t.Errorf("%q: %s %v", local, a, err)
		}
	}
	for _, b := range []returnpath.BATV{{}, {Key: 10, Secrets: map[int][]byte{10: []byte("x")}}} {
		if _, err := b.Sign(ann, now); !errors.Is(err, returnpath.ErrSecret) {
			t.Error(err)
		}
	}
}

func FuzzReverse(f *testing.F) {
	s := returnpath.SRS{Domain: "fwd.test", Secrets: [][]byte{[]byte("s3cret")}}
	b := returnpath.BATV{Secrets: map[int][]byte{1: []byte("one")}, Key: 1}
	base := smtp.Address{Local: "bounces", Domain: "fwd.test"}
	for _, l := range []string{"ann", "SRS0=hvg7=JO=Example.org=ann", "SRS1=Z43j=fwd.test==hvg7=JO=Example.org=ann", "bounces+a%20b=c.test", "prvs=1000abcdef=ann"} {
		f.Add(l, "x.test")
	}
	f.Fuzz(func(t *testing.T, local, domain string) {
		ours := smtp.Address{Local: local, Domain: "fwd.test"}
		s.Reverse(ours, now)
		b.Verify(ours, now)
		returnpath.VERP{}.Decode(base, ours)
		a, err := smtp.ParseAddress(smtp.Address{Local: local, Domain: domain}.String())
		if err != nil || a.Domain == "" || strings.EqualFold(a.Domain, "fwd.test") {
			return
		}
		if got, err := (returnpath.VERP{}).Decode(base, returnpath.VERP{}.Encode(base, a)); err != nil || got != a {
			t.Errorf("VERP of %s: %s %v", a, got, err)
		}
		fwd, err := s.Forward(a, now)
		if err != nil || s.IsSRS(a) || strings.HasPrefix(strings.ToUpper(a.Local), "SRS") {
			return
		}
		if got, err := s.Reverse(fwd, now); err != nil || got != a {
			t.Errorf("SRS of %s: %s, %s %v", a, fwd, got, err)
		}
		tagged, err := b.Sign(a, now)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := b.Verify(tagged, now); err != nil || got != a {
			t.Errorf("BATV of %s: %s %v", a, got, err)
		}
	})
}

func ExampleSRS() {
	s := returnpath.SRS{Domain: "forwarder.example", Secrets: [][]byte{[]byte("a secret of your own")}}
	now := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	from, err := s.Forward(smtp.Address{Local: "ann", Domain: "example.org"}, now)
	fmt.Println(from, err)
	to, err := s.Reverse(from, now.Add(48*time.Hour))
	fmt.Println(to, err)
	// Output:
	// SRS0=gR//=JO=example.org=ann@forwarder.example <nil>
	// ann@example.org <nil>
}

func BenchmarkSRS(b *testing.B) {
	s := returnpath.SRS{Domain: "fwd.test", Secrets: [][]byte{[]byte("s3cret")}}
	ann := smtp.Address{Local: "ann", Domain: "example.org"}
	b.ReportAllocs()
	for b.Loop() {
		a, _ := s.Forward(ann, now)
		if _, err := s.Reverse(a, now); err != nil {
			b.Fatal(err)
		}
	}
}
