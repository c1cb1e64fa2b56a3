package spf

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/smtp"
)

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func mx(hosts ...string) (out []*net.MX) {
	for _, h := range hosts {
		out = append(out, &net.MX{Host: h + "."})
	}
	return out
}

// surveyZone has one of everything.
func surveyZone() records {
	z := records{
		"example.org": {txt: []string{"v=spf1 a mx include:_a.%{d} ip4:192.0.2.0/25 ip4:192.0.2.128/25 exists:%{i}.x.org include:_d.example.org -all exp=why.%{d}"},
			a: addrs("198.51.100.1", "2001:db8::1"), mx: mx("mx1.example.org", "mx2.example.org", "")},
		"mx1.example.org":   {a: addrs("198.51.100.2")},
		"mx2.example.org":   {a: addrs("198.51.100.3", "2001:db8::2")},
		"_a.example.org":    txt("v=spf1 -ip4:203.0.113.7 ip4:203.0.113.0/29 include:_b.example.net ?all"),
		"_b.example.net":    txt("v=spf1 redirect=_c.example.net"),
		"_c.example.net":    txt("v=spf1 ip4:203.0.113.8/30 ip6:2001:db8:1::/48 ~all"),
		"_d.example.org":    txt("v=spf1 ip4:8.8.8.8 ptr:example.org -all"),
		"loop.example":      txt("v=spf1 include:back.example a -all"),
		"back.example":      txt("v=spf1 redirect=loop.example"),
		"r.example":         txt("v=spf1 ip4:8.8.4.4 redirect=t.example x=y"),
		"t.example":         txt("v=spf1 ip4:8.8.4.5 -all exp=w.%{d} t=z"),
		"keep.example":      txt("v=spf1 ip4:8.8.4.4 redirect=ptr.example exp=own.example"),
		"ptr.example":       txt("v=spf1 ptr ~all exp=other.example"),
		"who.example":       txt("v=spf1 redirect=says.example"),
		"says.example":      txt("v=spf1 -all exp=%{i}.%{d}"),
		"absent.example":    txt("v=spf1 include:gone.example include:two.example include:bad.example include:slow.example a:slow.example mx:slow.example include:gone.example ?all"),
		"two.example":       txt("v=spf1 -all", "v=spf1 ~all"),
		"bad.example":       txt("v=spf1 ip:8.8.8.8 -all"),
		"slow.example":      {timeout: true},
		"void.example":      txt("v=spf1 a:v1.example mx:v2.example a:v3.example mx:v4.example ip4:8.8.8.8 -all"),
		"v3.example":        {a: addrs("8.8.4.4")},
		"v4.example":        {mx: mx("v3.example")},
		"order.example":     txt("v=spf1 -ip4:8.8.8.8 ip4:8.8.8.0/24 ~ip4:8.8.8.0/25 ~ip4:8.8.8.0/23 ip4:8.8.8.4 ip4:9.9.9.9 ip4:9.9.9.8 ip6:2001:db8::/33 ip6:2001:db8:8000::/33 ?all"),
		"passall.example":   txt("v=spf1 -ip4:8.8.8.8 ip4:9.9.9.9 include:anybody.example -all"),
		"anybody.example":   txt("v=spf1 -ip4:0.0.0.0/1 -ip6:::/1 +all"),
		"dotless.example":   txt("v=spf1 include:%{d1}" + strings.Repeat("a", 70) + ".org a:%{l}.org include:%{l}.org -all"),
		"noname.example":    txt("v=spf1 ip4:8.8.8.8 a:" + strings.Repeat("a", 70) + ".org mx:" + strings.Repeat("a", 70) + ".org -all"),
		"huge.example":      txt("v=spf1 mx -all"),
		"double.example":    txt("v=spf1 include:x0.example include:x0.example -all"),
		"uncounted.example": txt("v=spf1 -all include:gone.example a:v1.example redirect=gone.example"),
	}
	var many []string
	for i := range 30 {
		z[fmt.Sprintf("x%d.example", i)] = txt(fmt.Sprintf("v=spf1 include:x%d.example include:x%d.example ip4:8.8.8.%d -all", i+1, i+1, i))
		many = append(many, fmt.Sprintf("h%d.example", i))
		z[many[i]] = &recordSet{a: addrs(fmt.Sprintf("8.8.8.%d", i))}
	}
	z["x30.example"] = txt("v=spf1 -all")
	z["huge.example"].mx = mx(many...)
	return z
}

func TestSurvey(t *testing.T) {
	for domain, want := range map[string]struct {
		lookups, voids int
		problems       string
		flat           string
		kept           string
	}{
		"example.org": {8, 1, "?discouraged _d.example.org ptr:example.org",
			"v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.1 ip4:198.51.100.2/31 ip4:203.0.113.0/30 ip4:203.0.113.4/31 ip4:203.0.113.6 ip4:203.0.113.8/30 " +
				"ip6:2001:db8::1 ip6:2001:db8::2 ip6:2001:db8:1::/48 exists:%{i}.x.org include:_d.example.org -all exp=why.%{d}",
			"?dynamic example.org exists:%{i}.x.org\n?dynamic example.org include:_d.example.org"},
		"EXAMPLE.org.": {8, 1, "?discouraged _d.example.org ptr:example.org", "", "?dynamic example.org exists:%{i}.x.org\n?dynamic example.org include:_d.example.org"},
		"loop.example": {maxCount, 1, "!loop back.example redirect=loop.example\n?no-answer loop.example a\n!too-many-lookups loop.example", "v=spf1 include:back.example -all", "?dynamic loop.example include:back.example"},
		"r.example":    {1, 0, "?unknown-modifier r.example x=y\n?unknown-modifier t.example t=z", "v=spf1 ip4:8.8.4.4/31 -all exp=w.t.example t=z", ""},
		"keep.example": {2, 0, "?discouraged ptr.example ptr", "v=spf1 ip4:8.8.4.4 redirect=ptr.example exp=own.example", "?dynamic keep.example redirect=ptr.example"},
		"who.example":  {1, 0, "", "v=spf1 redirect=says.example", "?dynamic who.example redirect=says.example"},
		"absent.example": {7, 0, "?duplicate absent.example include:gone.example\n?weak-all absent.example ?all\n!no-record absent.example include:gone.example\n!no-record absent.example include:two.example\n" +
			"!malformed bad.example ip:8.8.8.8\n!no-record absent.example include:bad.example\n?lookup-failed absent.example include:slow.example\n?lookup-failed absent.example a:slow.example\n" +
			"?lookup-failed absent.example mx:slow.example\n!no-record absent.example include:gone.example",
			"v=spf1 include:gone.example include:two.example include:bad.example include:slow.example a:slow.example mx:slow.example include:gone.example ?all",
			"?dynamic absent.example include:gone.example\n?dynamic absent.example include:two.example\n?dynamic absent.example include:bad.example\n?dynamic absent.example include:slow.example\n" +
				"?dynamic absent.example a:slow.example\n?dynamic absent.example mx:slow.example\n?dynamic absent.example include:gone.example"},
		"void.example": {4, 4, "?no-answer void.example a:v1.example\n?no-answer void.example mx:v2.example\n!too-many-voids void.example", "v=spf1 ip4:8.8.4.4 ip4:8.8.8.8 -all", ""},
		"order.example": {0, 0, "?duplicate order.example ~ip4:8.8.8.0/25\n?duplicate order.example ip4:8.8.8.4\n?weak-all order.example ?all",
			"v=spf1 -ip4:8.8.8.8 ip4:8.8.8.0/24 ~ip4:8.8.8.0/23 ip4:9.9.9.8/31 ip6:2001:db8::/32 ?all", ""},
		"passall.example": {1, 0, "?weak-all anybody.example +all", "v=spf1 -ip4:8.8.8.8 ip4:9.9.9.9 ip4:128.0.0.0/1 ip6:8000::/1 -all", ""},
		"dotless.example": {3, 0, "!no-record dotless.example include:%{d1}" + strings.Repeat("a", 70) + ".org", "v=spf1 include:%{d1}" + strings.Repeat("a", 70) + ".org a:%{l}.org include:%{l}.org -all",
			"?dynamic dotless.example include:%{d1}" + strings.Repeat("a", 70) + ".org\n?dynamic dotless.example a:%{l}.org\n?dynamic dotless.example include:%{l}.org"},
		"huge.example":   {1, 30, "!too-many-lookups huge.example mx\n!too-many-voids huge.example", "v=spf1 ip4:8.8.8.0/28 ip4:8.8.8.16/29 ip4:8.8.8.24/30 ip4:8.8.8.28/31 -all", ""},
		"double.example": {maxCount, 0, "?duplicate double.example include:x0.example\n*\n!too-many-lookups double.example", "v=spf1 ip4:8.8.8.0/28 ip4:8.8.8.16/29 ip4:8.8.8.24/30 ip4:8.8.8.28/31 -all", ""},
		"uncounted.example": {0, 0, "!unreachable uncounted.example include:gone.example\n!unreachable uncounted.example a:v1.example\n!unreachable uncounted.example redirect=gone.example",
			"v=spf1 -all", ""},
	} {
		s, err := (&Checker{Resolver: surveyZone()}).Survey(t.Context(), domain)
		if err != nil {
			t.Errorf("%s: %v", domain, err)
			continue
		}
		got := lines(s.Problems)
		if before, after, ok := strings.Cut(want.problems, "\n*\n"); ok && strings.HasPrefix(got, before) && strings.HasSuffix(got, after) {
			got = want.problems
		}
		if s.Lookups != want.lookups || s.Voids != want.voids || got != want.problems {
			t.Errorf("%s: %d lookups, %d without an answer\n%s\nwant\n%s", domain, s.Lookups, s.Voids, got, want.problems)
		}
		flat, kept := s.Flatten()
		if got := flat.String(); got != want.flat && want.flat != "" {
			t.Errorf("%s: %s\nwant %s", domain, got, want.flat)
		}
		if got := lines(kept); got != want.kept {
			t.Errorf("%s: kept\n%s\nwant\n%s", domain, got, want.kept)
		}
		again, _ := s.Flatten()
		if again.String() != flat.String() {
			t.Errorf("%s: flattened again it is %s", domain, again)
		}
	}
	for domain, want := range map[string]error{"gone.example": ErrNoRecord, "two.example": ErrMultiple, "bad.example": ErrSyntax, "slow.example": ErrLookup, "": ErrNoRecord, "localhost": ErrNoRecord} {
		if s, err := (&Checker{Resolver: surveyZone()}).Survey(t.Context(), domain); !errors.Is(err, want) || s != nil {
			t.Errorf("%s: %v, %v", domain, s, err)
		}
	}
	s, err := (&Checker{Resolver: surveyZone()}).Survey(t.Context(), "_a.example.org")
	if want := []string{"_a.example.org", "_b.example.net", "_c.example.net"}; err != nil || !slices.EqualFunc(s.Records, want, func(p Published, d string) bool { return p.Domain == d && strings.HasPrefix(p.Text, "v=spf1 ") }) {
		t.Errorf("%+v, %v", s, err)
	}
	if r, problems := new(Survey).Flatten(); r.String() != "v=spf1" || problems != nil {
		t.Errorf("%s, %v", r, problems)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&Checker{Resolver: surveyZone()}).Survey(ctx, "example.org"); !errors.Is(err, ErrLookup) || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// endless has a record with includes of ever new names for every name.
type endless struct {
	records
	asked *int
}

func (e endless) LookupTXT(_ context.Context, name string) ([]string, error) {
	*e.asked++
	return []string{fmt.Sprintf("v=spf1 include:a%d.example a:b%d.example mx:c%d.example include:d%d.example -all", *e.asked, *e.asked, *e.asked, *e.asked)}, nil
}

func (e endless) LookupMX(context.Context, string) ([]*net.MX, error) {
	*e.asked++
	var hosts []string
	for i := range 1000 {
		hosts = append(hosts, fmt.Sprintf("h%d-%d.example", *e.asked, i))
	}
	return mx(hosts...), nil
}

func TestSurveyBounded(t *testing.T) {
	asked := 0
	s, err := (&Checker{Resolver: endless{records{}, &asked}}).Survey(t.Context(), "example.org")
	if err != nil || asked > maxSurveyLookups || len(s.Records) > maxSurveyRecords || len(s.Problems) > 20*maxSurveyLookups || s.Lookups < 11 {
		t.Errorf("%d asked, %d records, %d problems, %v", asked, len(s.Records), len(s.Problems), err)
	}
	if flat, kept := s.Flatten(); len(flat.Mechanisms) == 0 || len(kept) == 0 {
		t.Errorf("%s, %v", flat, kept)
	}
}

// random makes a zone without anything that depends on a message, of domains
// d0 to d7, each of which refers to later ones only.
func random(r *rand.Rand) records {
	z := make(records)
	ip := func() netip.Addr {
		if r.IntN(3) == 0 {
			return netip.AddrFrom16([16]byte{0x20, 1, 15: byte(r.IntN(32))})
		}
		return netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(32))})
	}
	for d := range 8 {
		domain := fmt.Sprintf("d%d.example", d)
		rs := &recordSet{}
		for range r.IntN(3) {
			rs.a = append(rs.a, ip())
		}
		if r.IntN(2) == 0 {
			rs.mx = mx(fmt.Sprintf("d%d.example", r.IntN(8)))
		}
		text := "v=spf1"
		ends := false
		for range r.IntN(7) {
			qualifier := []string{"", "", "", "-", "~", "?"}[r.IntN(6)]
			later := fmt.Sprintf("d%d.example", min(d+1+r.IntN(3), 8))
			switch r.IntN(6) {
			case 0, 1:
				if a := ip(); a.Is4() {
					text += fmt.Sprintf(" %sip4:%s/%d", qualifier, a, 27+r.IntN(6))
				} else {
					text += fmt.Sprintf(" %sip6:%s/%d", qualifier, a, 123+r.IntN(6))
				}
			case 2:
				text += fmt.Sprintf(" %sa:%s/%d//%d", qualifier, later, 27+r.IntN(6), 123+r.IntN(6))
			case 3:
				text += fmt.Sprintf(" %smx/%d", qualifier, 27+r.IntN(6))
			case 4:
				text += " " + qualifier + "include:" + later
			case 5:
				if r.IntN(3) == 0 {
					text += " " + qualifier + "all"
					ends = true
				}
			}
		}
		if !ends && r.IntN(2) == 0 {
			text += fmt.Sprintf(" redirect=d%d.example", min(d+1, 8))
		}
		rs.txt = []string{text}
		z[domain] = rs
	}
	z["d8.example"] = txt("v=spf1 ip4:192.0.2.3 ?ip4:192.0.2.4 ~all")
	return z
}

// TestFlattenSame holds flat records against what they were made from: for
// every client the result is the same.
func TestFlattenSame(t *testing.T) {
	compared := 0
	for seed := range uint64(200) {
		compared += flattenSame(t, random(rand.New(rand.NewPCG(seed, 7))))
	}
	if compared < 2500 {
		t.Errorf("only %d results compared", compared)
	}
}

func flattenSame(t *testing.T, z records) (compared int) {
	t.Helper()
	s, err := (&Checker{Resolver: z}).Survey(t.Context(), "d0.example")
	if err != nil {
		t.Fatal(err)
	}
	flat, kept := s.Flatten()
	if len(kept) > 0 {
		t.Fatalf("%s: %v", z["d0.example"].txt, kept)
	}
	again, err := ParseRecord(strings.Join(flat.Strings(), ""))
	if err != nil || again.String() != flat.String() {
		t.Fatalf("%s: %v", flat, err)
	}
	whole := &Checker{Resolver: z}
	made := &Checker{Resolver: records{"d0.example": txt(flat.String())}}
	for i := range 80 {
		ip := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
		if i >= 40 {
			ip = netip.AddrFrom16([16]byte{0x20, 1, 15: byte(i - 40)})
		}
		source := Source{IP: ip, Hello: "x.example", From: smtp.Address{Local: "a", Domain: "d0.example"}}
		a, b := whole.Check(t.Context(), source), made.Check(t.Context(), source)
		if a.Result == auth.PermError { // limits, which the flat one does not reach
			continue
		}
		compared++
		if a.Result != b.Result || len(b.Lookups) != 1 {
			t.Fatalf("%s: %s by %s of %s, but flat %s by %s\n%s\nflat %s", ip, a.Result, a.Mechanism, a.RecordDomain, b.Result, b.Mechanism, z["d0.example"].txt, flat)
		}
	}
	return compared
}

func FuzzFlattenSame(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) { flattenSame(t, random(rand.New(rand.NewPCG(a, b)))) })
}

// FuzzSurvey answers every question with the same text.
func FuzzSurvey(f *testing.F) {
	f.Add("v=spf1 a mx ptr include:%{d} include:x.%{d} exists:%{ir}.%{v}.x.org redirect=y.%{d} exp=%{d}")
	f.Add("v=spf1 mx/24//64 ip4:1.2.3.4/5 a:x.%{d1r} -all exp=why.x.org")
	f.Fuzz(func(t *testing.T, record string) {
		s, err := (&Checker{Resolver: anything{record}}).Survey(t.Context(), "example.org")
		if (s == nil) == (err == nil) {
			t.Fatal(s, err)
		}
		if err != nil {
			return
		}
		flat, _ := s.Flatten()
		if again, err := ParseRecord(flat.String()); err != nil || again.String() != flat.String() {
			t.Fatalf("%q: %v", flat, err)
		}
	})
}

func TestRanges(t *testing.T) {
	set := func(list ...string) ranges {
		var r ranges
		for _, p := range list {
			r = append(r, spanOf(netip.MustParsePrefix(p)))
		}
		r.normalize()
		return r
	}
	for _, c := range []struct {
		a, minus ranges
		want     string
	}{
		{set("192.0.2.0/25", "192.0.2.128/25"), nil, "192.0.2.0/24"},
		{set("192.0.2.0/24", "192.0.2.7/32", "::/0", "0.0.0.0/0"), nil, "0.0.0.0/0 ::/0"},
		{set("0.0.0.0/0"), set("0.0.0.0/0"), ""},
		{everything(), set("0.0.0.0/1", "8000::/1"), "128.0.0.0/1 ::/1"},
		{set("255.255.255.254/31", "::/128"), nil, "255.255.255.254/31 ::/128"},
		{set("192.0.2.0/29"), set("192.0.2.0/32", "192.0.2.7/32", "192.0.2.3/32"), "192.0.2.1/32 192.0.2.2/32 192.0.2.4/31 192.0.2.6/32"},
		{set("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0/124"), set("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0/125 ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff8/126 ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/127 ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/128"},
		{set("192.0.2.0/28", "192.0.2.16/30", "192.0.2.20/32"), nil, "192.0.2.0/28 192.0.2.16/30 192.0.2.20/32"},
	} {
		if got := fmt.Sprint(c.a.minus(c.minus).prefixes()); got != "["+c.want+"]" {
			t.Errorf("%v minus %v: %s, want %s", c.a, c.minus, got, c.want)
		}
	}
}
