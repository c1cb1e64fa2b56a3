package verify

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/arc"
	"github.com/postrider/postrider/auth/authtest"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/dmarc"
)

// zone is a DNS in which each lookup takes wait, or until its context ends.
type zone struct {
	authtest.Zone
	wait time.Duration
}

func (z *zone) pause(ctx context.Context) error {
	if z.wait == 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(z.wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (z *zone) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if err := z.pause(ctx); err != nil {
		return nil, err
	}
	return z.Zone.LookupTXT(ctx, name)
}

func (z *zone) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	if err := z.pause(ctx); err != nil {
		return nil, err
	}
	return z.Zone.LookupMX(ctx, name)
}

func (z *zone) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if err := z.pause(ctx); err != nil {
		return nil, err
	}
	return z.Zone.LookupNetIP(ctx, network, host)
}

func (z *zone) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	if err := z.pause(ctx); err != nil {
		return nil, err
	}
	return z.Zone.LookupAddr(ctx, addr)
}

const plainMessage = "From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: Hi\r\n\r\nHello Bob.\r\n"

var origin = Source(authtest.New("example.org").Source("example.org"))

// world is example.org, which has signed plainMessage, and the policy of
// example.com.
func world(tb testing.TB) (*zone, string) {
	w := authtest.New("example.org")
	w.Zone["_dmarc.example.com"] = []string{"TXT v=DMARC1; p=reject"}
	return &zone{Zone: w.Zone}, sign(tb, w, plainMessage, "example.org")
}

// chained is msg with a seal of example.org in front.
func chained(tb testing.TB, msg string) string {
	tb.Helper()
	s, err := arc.NewSealer(arc.SealOptions{Domain: "example.org", Selector: authtest.Selector, Key: authtest.New().Key("example.org")})
	if err != nil {
		tb.Fatal(err)
	}
	io.WriteString(s, msg)
	set, err := s.Seal(auth.AuthenticationResults{AuthServID: "mail.example.org"})
	if err != nil {
		tb.Fatal(err)
	}
	return set + msg
}

func sign(tb testing.TB, w *authtest.World, msg string, domains ...string) string {
	tb.Helper()
	msg, err := w.Sign(msg, domains...)
	if err != nil {
		tb.Fatal(err)
	}
	return msg
}

func TestPass(t *testing.T) {
	z, msg := world(t)
	v := &Verifier{Resolver: z, AuthServID: "mx.example.net"}
	var first *Result
	for _, size := range []int{len(msg), 1, 7} {
		p := v.Begin(t.Context(), origin)
		for rest := []byte(msg); len(rest) > 0; {
			n := min(size, len(rest))
			p.Write(rest[:n])
			rest = rest[n:]
		}
		r, err := p.Result()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := p.Result(); again != r || err != nil {
			t.Error("the second call differs")
		}
		p.Close()
		if r.SPF.Result != auth.Pass || len(r.DKIM) != 1 || r.DKIM[0].Result != auth.Pass || r.DMARC.Result != auth.Pass ||
			!r.DMARC.SPFAligned || !r.DMARC.DKIMAligned || r.IPRev.Result != auth.Pass || r.IPRev.Name != "mail.example.org" {
			t.Errorf("pieces of %d: %+v", size, r)
		}
		if first == nil {
			first = r
		} else if !reflect.DeepEqual(r.AuthenticationResults, first.AuthenticationResults) {
			t.Errorf("pieces of %d: %+v", size, r.AuthenticationResults)
		}
	}
	want := "Authentication-Results: mx.example.net;\r\n" +
		" dkim=pass header.d=example.org header.s=test header.a=ed25519-sha256\r\n header.b=" + first.AuthenticationResults.Results[0].Prop("header", "b") + ";\r\n" +
		" spf=pass smtp.mailfrom=alice@example.org;\r\n dmarc=pass (p=reject) header.from=example.org;\r\n" +
		" iprev=pass (mail.example.org) policy.iprev=192.0.2.1\r\n"
	got := first.AuthenticationResults.String()
	unquoted := strings.ReplaceAll(got, `"`, "") // the prefix of b= may need quotes
	if unquoted != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestVerdicts(t *testing.T) {
	z, msg := world(t)
	v := &Verifier{Resolver: z}
	noIP := origin
	noIP.IP = netip.Addr{}
	elsewhere := origin
	elsewhere.IP = netip.MustParseAddr("198.51.100.7")
	for name, c := range map[string]struct {
		source      Source
		msg         string
		dmarc       auth.Result
		disposition dmarc.Policy
		err         error
	}{
		"forwarded":     {elsewhere, msg, auth.Pass, dmarc.NoPolicy, nil},
		"unsigned":      {origin, plainMessage, auth.Pass, dmarc.NoPolicy, nil},
		"neither":       {elsewhere, plainMessage, auth.Fail, dmarc.Reject, nil},
		"changed":       {elsewhere, msg + "PS\r\n", auth.Fail, dmarc.Reject, nil},
		"no IP":         {noIP, msg, auth.Pass, dmarc.NoPolicy, nil},
		"no policy":     {origin, "From: a@example.net\r\n\r\n", auth.None, dmarc.NoPolicy, nil},
		"no From":       {origin, "To: a@example.net\r\n\r\n", auth.PermError, dmarc.NoPolicy, nil},
		"empty":         {origin, "", auth.PermError, dmarc.NoPolicy, nil},
		"two From":      {origin, "From: a@example.com\r\n" + plainMessage, auth.Fail, dmarc.Reject, nil},
		"half a From":   {origin, "From: a@example.org, bank at example com\r\n\r\n", auth.PermError, dmarc.NoPolicy, nil},
		"sealed":        {elsewhere, chained(t, msg), auth.Pass, dmarc.NoPolicy, nil},
		"header only":   {origin, "From: a@example.org\r\n", auth.Pass, dmarc.NoPolicy, nil},
		"large header":  {origin, "From: a@example.org\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n", auth.PermError, dmarc.NoPolicy, dkim.ErrHeader},
		"null, no HELO": {Source{IP: origin.IP}, plainMessage, auth.Fail, dmarc.Reject, nil},
	} {
		p := v.Begin(t.Context(), c.source)
		io.WriteString(p, c.msg)
		r, err := p.Result()
		p.Close()
		if !errors.Is(err, c.err) || r.DMARC.Result != c.dmarc || r.DMARC.Disposition != c.disposition {
			t.Errorf("%s: %s, %s (%v), %v", name, r.DMARC.Result, r.DMARC.Disposition, r.DMARC.Err, err)
		}
		if (r.SPF == nil) != !c.source.IP.IsValid() || (r.IPRev == nil) != (r.SPF == nil) {
			t.Errorf("%s: %+v", name, r)
		}
		if _, err := auth.Parse(strings.TrimPrefix(r.AuthenticationResults.String(), auth.FieldName+":")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSlowDNS(t *testing.T) {
	var z *zone
	var msg string
	synctest.Test(t, func(t *testing.T) { z, msg = world(t) }) // at the time of bubbles
	z.wait = 3 * time.Second
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := (&Verifier{Resolver: z}).Begin(t.Context(), origin)
		defer p.Close()
		for i := range msg {
			p.Write([]byte{msg[i]})
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("Write waited %v", d)
		}
		r, err := p.Result()
		// SPF needs two lookups, one after the other; the rest runs beside it.
		if err != nil || r.DMARC.Result != auth.Pass || time.Since(begin) != 6*time.Second {
			t.Errorf("%+v, %v after %v", r.DMARC, err, time.Since(begin))
		}
	})
	z.wait = time.Hour
	for timeout, want := range map[time.Duration]time.Duration{0: 20 * time.Second, time.Second: time.Second, -1: 2 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			p := (&Verifier{Resolver: z, Timeout: timeout}).Begin(t.Context(), origin)
			defer p.Close()
			io.WriteString(p, msg)
			r, err := p.Result()
			if err != nil || time.Since(begin) != want {
				t.Errorf("Timeout %v: %v after %v", timeout, err, time.Since(begin))
			}
			temp := r.SPF.Result == auth.TempError && r.DKIM[0].Result == auth.TempError &&
				r.DMARC.Result == auth.TempError && r.IPRev.Result == auth.TempError
			if temp != (timeout >= 0) || timeout < 0 && r.SPF.Result != auth.Pass {
				t.Errorf("Timeout %v: %s", timeout, &r.AuthenticationResults)
			}
		})
	}
}

// TestClose ends a pass in every state; synctest fails when a goroutine is
// left.
func TestClose(t *testing.T) {
	z, msg := world(t)
	msg = chained(t, msg)
	z.wait = time.Hour
	for n := range len(msg) + 1 {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			p := (&Verifier{Resolver: z, ARC: new(arc.Verifier)}).Begin(context.Background(), origin)
			io.WriteString(p, msg[:n])
			for range 2 {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}
			io.WriteString(p, msg[n:]) // what comes late harms nobody
			if _, err := p.Result(); !errors.Is(err, ErrClosed) {
				t.Errorf("Result after Close: %v", err)
			}
			if time.Since(begin) != 0 {
				t.Errorf("Close waited %v", time.Since(begin))
			}
		})
	}
}

func TestIPRev(t *testing.T) {
	z, _ := world(t)
	z.Zone["2001:db8::1"], z.Zone["six.example.org"] = []string{"PTR six.example.org"}, []string{"AAAA 2001:db8::1"}
	z.Zone["192.0.2.2"] = []string{"PTR mail.example.org"}
	z.Zone["192.0.2.3"] = []string{"PTR gone.example.org"}
	for ip, want := range map[string]auth.Result{"192.0.2.1": auth.Pass, "::ffff:192.0.2.1": auth.Pass, "2001:db8::1": auth.Pass,
		"192.0.2.2": auth.Fail, "192.0.2.3": auth.Fail, "192.0.2.4": auth.PermError} {
		if got := iprev(t.Context(), z, netip.MustParseAddr(ip)); got.Result != want || (got.Name != "") != (want == auth.Pass) {
			t.Errorf("%s: %+v", ip, got)
		}
	}
}

// FuzzPass verifies anything, at once and in pieces.
func FuzzPass(f *testing.F) {
	z, msg := world(f)
	f.Add([]byte(msg), 3)
	f.Add([]byte(chained(f, msg)), 100)
	f.Add([]byte("From: a@example.org, b@example.com\r\nFrom: g:;\r\n\r\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		size = max(1, min(size, 1<<16))
		var text [2]string
		for i := range text {
			p := (&Verifier{Resolver: z, AuthServID: "x", ARC: new(arc.Verifier)}).Begin(t.Context(), origin)
			for rest := b; len(rest) > 0; {
				n := len(rest)
				if i == 1 {
					n = min(n, size)
				}
				p.Write(rest[:n])
				rest = rest[n:]
			}
			r, err := p.Result()
			if err != nil && !errors.Is(err, dkim.ErrHeader) {
				t.Fatal(err)
			}
			text[i] = r.AuthenticationResults.String()
			p.Close()
			if _, err := auth.Parse(strings.TrimPrefix(text[i], auth.FieldName+":")); err != nil {
				t.Fatalf("%q: %v", text[i], err)
			}
		}
		if text[0] != text[1] {
			t.Fatalf("at once %s\nin pieces %s", text[0], text[1])
		}
	})
}

func BenchmarkPass(b *testing.B) {
	z, msg := world(b)
	v := &Verifier{Resolver: z, AuthServID: "mx.example.net"}
	data := []byte(msg)
	b.ReportAllocs()
	for b.Loop() {
		p := v.Begin(b.Context(), origin)
		p.Write(data)
		if r, err := p.Result(); err != nil || r.DMARC.Result != auth.Pass {
			b.Fatal(r, err)
		}
		p.Close()
	}
}
