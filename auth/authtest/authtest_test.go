package authtest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/arc"
	"github.com/postrider/postrider/auth/authtest"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/verify"
	"github.com/postrider/postrider/internal/dnserr"
)

var _ verify.Resolver = authtest.Zone{}

// TestWorld: every domain passes for itself, and for nobody else.
func TestWorld(t *testing.T) {
	domains := []string{"example.org", "example.net", "sub.example.net"}
	w := authtest.New(domains...)
	v := &verify.Verifier{Resolver: w.Zone}
	for _, from := range append(domains, "example.edu") {
		for _, signer := range domains {
			msg, err := w.Sign(w.Message(from), signer)
			if err != nil {
				t.Fatal(err)
			}
			p := v.Begin(t.Context(), verify.Source(w.Source(from)))
			io.WriteString(p, msg)
			r, err := p.Result()
			p.Close()
			if err != nil {
				t.Fatal(err)
			}
			ours := from != "example.edu"
			if (r.SPF.Result == auth.Pass) != ours || r.DKIM[0].Result != auth.Pass || (r.DMARC.Result == auth.Pass) != ours {
				t.Errorf("%s signed by %s: %s", from, signer, &r.AuthenticationResults)
			}
		}
	}
	if _, err := w.Sign("To: x\r\n\r\n", "example.org"); !errors.Is(err, dkim.ErrNoFrom) {
		t.Error(err)
	}
	if _, err := w.Sign(w.Message("example.org")); err == nil {
		t.Error("signed by nobody")
	}
	s, err := arc.NewSealer(arc.SealOptions{Domain: "example.net", Selector: authtest.Selector, Key: w.Key("example.net")})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(s, w.Message("example.org"))
	set, err := s.Seal(auth.AuthenticationResults{AuthServID: "mail.example.net"})
	if err != nil {
		t.Fatal(err)
	}
	p := (&arc.Verifier{Resolver: w.Zone}).Begin(t.Context())
	defer p.Close()
	io.WriteString(p, set+w.Message("example.org"))
	if c, err := p.Result(); err != nil || c.Result != auth.Pass {
		t.Error(c, err)
	}
}

func TestZone(t *testing.T) {
	z := authtest.Zone{
		"example.org":      {"TXT one two", "TXT three", "MX 10 mx.example.org", "MX 20 other.example.", "A 192.0.2.1", "AAAA 2001:db8::1"},
		"a.b.example.net":  {"A 192.0.2.2"},
		"fail.example.net": {"SERVFAIL", "A 192.0.2.3"},
		"mx.example.net":   {"TIMEOUT MX", "TXT here"},
		"gone.example.net": {"NXDOMAIN", "TXT x"},
		"bad.example.net":  {"MX x", "A y", "MX 70000 z"},
		"192.0.2.1":        {"PTR mail.example.org."},
	}
	ctx := t.Context()
	show := func(v any, err error) string { return fmt.Sprint(v, err != nil) }
	for _, c := range []struct{ got, want string }{
		{show(z.LookupTXT(ctx, "Example.ORG.")), "[one two three] false"},
		{show(z.LookupNetIP(ctx, "ip", "example.org.")), "[192.0.2.1 2001:db8::1] false"},
		{show(z.LookupNetIP(ctx, "ip4", "example.org.")), "[192.0.2.1] false"},
		{show(z.LookupNetIP(ctx, "ip6", "example.org.")), "[2001:db8::1] false"},
		{show(z.LookupNetIP(ctx, "ip6", "a.b.example.net.")), "[] true"},
		{show(z.LookupNetIP(ctx, "ip4", "bad.example.net.")), "[] true"},
		{show(z.LookupAddr(ctx, "192.0.2.1")), "[mail.example.org.] false"},
		{show(z.LookupMX(ctx, "bad.example.net.")), "[] true"},
	} {
		if c.got != c.want {
			t.Errorf("%s, want %s", c.got, c.want)
		}
	}
	mx, err := z.LookupMX(ctx, "example.org.")
	if err != nil || len(mx) != 2 || mx[1].Host != "other.example." || mx[1].Pref != 20 {
		t.Error(mx, err)
	}
	for name, want := range map[string][3]bool{ // not found, no such name, temporary
		"example.com.": {true, true, false}, "b.example.net.": {true, false, false}, "gone.example.net.": {true, true, false},
		"fail.example.net.": {false, false, true}, "mx.example.net.": {false, false, false},
	} {
		_, err := z.LookupTXT(ctx, name)
		var d *net.DNSError
		if got := [3]bool{dnserr.NotFound(err), dnserr.NXDomain(err), errors.As(err, &d) && d.Temporary()}; got != want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := z.LookupMX(ctx, "mx.example.net."); err == nil || dnserr.NotFound(err) {
		t.Error(err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := z.LookupAddr(done, netip.MustParseAddr("192.0.2.1").String()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
