package spf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/smtp"
)

func source(ip string) Source {
	return Source{IP: netip.MustParseAddr(ip), Hello: "mail.example.org", From: smtp.Address{Local: "a", Domain: "example.org"}}
}

func txt(s ...string) *recordSet { return &recordSet{txt: s} }

func TestIdentities(t *testing.T) {
	z := records{"example.org": txt("v=spf1 ip4:192.0.2.1 -all"), "mail.example.org": txt("v=spf1 a -all")}
	z["mail.example.org"].a = []netip.Addr{netip.MustParseAddr("192.0.2.9")}
	c := &Checker{Resolver: z}
	e := c.Check(t.Context(), source("192.0.2.1"))
	if e.Result != auth.Pass || e.Mechanism != "ip4:192.0.2.1" || e.RecordDomain != "example.org" || e.Identity != MailFrom || e.Sender != "a@example.org" {
		t.Errorf("%+v", e)
	}
	if m := e.MethodResult(); m.Prop("smtp", "mailfrom") != "a@example.org" {
		t.Errorf("%+v", m)
	}
	null := source("192.0.2.9")
	null.From = smtp.Address{}
	for _, e := range []*Evaluation{c.Check(t.Context(), null), c.CheckHello(t.Context(), source("192.0.2.9"))} {
		if e.Result != auth.Pass || e.Mechanism != "a" || e.Identity != Hello || e.Sender != "postmaster@mail.example.org" {
			t.Errorf("%+v", e)
		}
		if m := e.MethodResult(); m.Prop("smtp", "helo") != "mail.example.org" {
			t.Errorf("%+v", m)
		}
	}
	// An IPv4 client on an IPv6 socket.
	if e := c.Check(t.Context(), source("::ffff:192.0.2.1")); e.Result != auth.Pass {
		t.Errorf("mapped: %+v", e)
	}
	if e := c.Check(t.Context(), Source{From: smtp.Address{Local: "a", Domain: "example.org"}}); e.Result != auth.None {
		t.Errorf("no IP: %+v", e)
	}
	// A U-label, as EAI has it.
	z["xn--mnchen-3ya.example"] = txt("v=spf1 exists:%{l}.x.example -all")
	z["jörg.x.example"] = &recordSet{a: []netip.Addr{netip.MustParseAddr("127.0.0.2")}}
	s := source("192.0.2.1")
	s.From = smtp.Address{Local: "jörg", Domain: "München.example"}
	if e := c.Check(t.Context(), s); e.Result != auth.Pass || e.Domain != "xn--mnchen-3ya.example" {
		t.Errorf("%+v", e)
	}
}

func TestErrors(t *testing.T) {
	z := records{"loop.example": txt("v=spf1 include:loop.example -all"), "two.example": txt("v=spf1 -all", "v=spf1 -all"),
		"bad.example": txt("v=spf1 ip5:x -all"), "gone.example": txt("v=spf1 include:absent.example -all"),
		"void.example":  txt("v=spf1 a:a.absent.example a:b.absent.example a:c.absent.example -all"),
		"slow.example":  txt("v=spf1 a:timeout.example -all"),
		"redir.example": txt("v=spf1 redirect=absent.example"), "timeout.example": {timeout: true}}
	for domain, want := range map[string]struct {
		result auth.Result
		err    error
	}{
		"loop.example": {auth.PermError, ErrLimit}, "two.example": {auth.PermError, ErrMultiple}, "bad.example": {auth.PermError, ErrSyntax},
		"gone.example": {auth.PermError, ErrNoRecord}, "redir.example": {auth.PermError, ErrNoRecord},
		"void.example": {auth.PermError, ErrVoid}, "slow.example": {auth.TempError, ErrLookup},
	} {
		s := source("192.0.2.1")
		s.From.Domain = domain
		e := (&Checker{Resolver: z}).Check(t.Context(), s)
		if e.Result != want.result || !errors.Is(e.Err, want.err) {
			t.Errorf("%s: %s, %v", domain, e.Result, e.Err)
		}
		if m := e.MethodResult(); m.Reason == "" || strings.Contains(m.Reason, "example") {
			t.Errorf("%s: reason %q", domain, m.Reason)
		}
	}
	// A lookup that is cut short is no verdict.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if e := (&Checker{Resolver: cancelled{z}}).Check(ctx, source("192.0.2.1")); e.Result != auth.TempError || !errors.Is(e.Err, context.Canceled) {
		t.Errorf("%+v", e)
	}
}

type cancelled struct{ records }

func (c cancelled) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return nil, &net.DNSError{Err: "canceled", UnwrapErr: ctx.Err(), Name: name}
}

func TestRecordString(t *testing.T) {
	for in, want := range map[string]string{
		"v=spf1": "v=spf1",
		"V=SPF1  +A/24//64 MX:%{d2}.x.org/0 ~ALL":                                              "v=spf1 a/24//64 mx:%{d2}.x.org/0 ~all",
		"v=spf1 exp=x.org ip4:192.0.2.0/24 ip6:2001:DB8::/32 ptr ?exists:a.b a=b REDIRECT=c.d": "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 ptr ?exists:a.b redirect=c.d exp=x.org a=b",
	} {
		r, err := ParseRecord(in)
		if err != nil || r.String() != want {
			t.Errorf("%q: %q, %v", in, r, err)
		}
	}
	for _, in := range []string{"", "v=spf1x", "v=spf1 a/33", "v=spf1 a/08", "v=spf1 a//129", "v=spf1 a/", "v=spf1 ip4:1.2.3", "v=spf1 ip4:::1", "v=spf1 ip6:1.2.3.4",
		"v=spf1 ip6:fe80::1%eth0", "v=spf1 exists:%{x}", "v=spf1 exists:%{d0}.a", "v=spf1 exists:%{d", "v=spf1 exists:%", "v=spf1 include:%{c}.a", "v=spf1 =x", "v=spf1 exp=a.b exp=a.b", "v=spf1 all:x", "v=spf1\ta"} {
		if r, err := ParseRecord(in); !errors.Is(err, ErrSyntax) {
			t.Errorf("%q: %v, %v", in, r, err)
		}
	}
}

// anything answers every question from the text it is made of.
type anything struct{ text string }

func (a anything) LookupTXT(context.Context, string) ([]string, error) { return []string{a.text}, nil }

func (a anything) LookupMX(context.Context, string) ([]*net.MX, error) {
	var out []*net.MX
	for i := range len(a.text) % 30 {
		out = append(out, &net.MX{Host: a.text[i:]})
	}
	return out, nil
}

func (a anything) LookupNetIP(_ context.Context, network, _ string) ([]netip.Addr, error) {
	if len(a.text)%3 == 0 {
		return nil, nil
	}
	return []netip.Addr{netip.IPv6Loopback(), netip.IPv4Unspecified()}, nil
}

func (a anything) LookupAddr(context.Context, string) ([]string, error) {
	return strings.Split(a.text, " "), nil
}

func FuzzCheck(f *testing.F) {
	f.Add("v=spf1 a mx ptr include:%{d} exists:%{ir}.%{v}.%{l1r-}.%{p}.x.org redirect=%{h} exp=%{d}", "a.b+c", "example.org", true)
	f.Add("v=spf1 mx/24//64 ip4:1.2.3.4/5 -all exp=why.x.org", "", "x", false)
	f.Add("v=spf1 "+strings.Repeat("exists:%{s}%{S}%{L}.x.org ", 20), strings.Repeat("é", 200), "e.org", true)
	f.Fuzz(func(t *testing.T, record, local, domain string, four bool) {
		ip := netip.MustParseAddr("2001:db8::1")
		if four {
			ip = netip.MustParseAddr("192.0.2.1")
		}
		e := (&Checker{Resolver: anything{record}}).Check(t.Context(), Source{IP: ip, Hello: domain, From: smtp.Address{Local: local, Domain: domain}})
		if (e.Err != nil) != (e.Result == auth.TempError || e.Result == auth.PermError) {
			t.Fatalf("%s with %v", e.Result, e.Err)
		}
		if len(e.Lookups) > 130 || len(e.Explanation) > maxExpansion {
			t.Fatalf("%d lookups, explanation of %d", len(e.Lookups), len(e.Explanation))
		}
		r, err := ParseRecord(record)
		if err != nil {
			return
		}
		if again, err := ParseRecord(r.String()); err != nil || again.String() != r.String() {
			t.Fatalf("%q is printed as %q, and parsed again: %v", record, r, err)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	include := func(n int) string {
		var s strings.Builder
		s.WriteString("v=spf1")
		for i := range n {
			fmt.Fprintf(&s, " include:i%d.example.org", i)
		}
		return s.String() + " -all"
	}
	z := records{
		"simple.example.org": txt("v=spf1 ip4:192.0.2.0/24 -all"),
		"eight.example.org":  txt(include(7)),
		"macro.example.org":  txt("v=spf1 exists:%{ir}.%{l1r-}.%{d2} -all"),
	}
	for i := range 7 {
		z[fmt.Sprintf("i%d.example.org", i)] = txt("v=spf1 ip4:198.51.100.0/24 ip6:2001:db8::/32 ~all")
	}
	z["i6.example.org"] = txt("v=spf1 ip4:192.0.2.0/24 -all")
	z["1.2.0.192.a.example.org"] = &recordSet{a: []netip.Addr{netip.MustParseAddr("127.0.0.2")}}
	for _, name := range []string{"simple", "eight", "macro"} {
		b.Run(name, func(b *testing.B) {
			c := &Checker{Resolver: z}
			s := source("192.0.2.1")
			s.From.Domain = name + ".example.org"
			b.ReportAllocs()
			for b.Loop() {
				if e := c.Check(b.Context(), s); e.Result != auth.Pass {
					b.Fatal(e)
				}
			}
		})
	}
}
