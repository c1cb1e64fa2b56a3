package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/postrider/postrider/mx/mxtest"
	"github.com/postrider/postrider/mx/resolver"
)

func zone() mxtest.Zone {
	z := mxtest.Zone{
		"example.test":           {"MX 20 mx2.example.test", "MX 10 MX1.example.test", "TXT v=spf1 mx -all", `TXT "two" " strings \"\\\240"`, "SECURE"},
		"mx1.example.test":       {"A 192.0.2.1", "AAAA 2001:db8::1", "SECURE"},
		"mx2.example.test":       {"30 A 192.0.2.2"},
		"four.test":              {"A 192.0.2.4"},
		"alias.test":             {"CNAME alias2.test"},
		"alias2.test":            {"CNAME mx1.example.test"},
		"dangling.test":          {"CNAME nowhere.test"},
		"loop.test":              {"CNAME loop2.test"},
		"loop2.test":             {"CNAME loop.test"},
		"broken.test":            {"SERVFAIL"},
		"refused.test":           {"REFUSED"},
		"silent.test":            {"TIMEOUT"},
		"half.test":              {"A 192.0.2.5", "TIMEOUT AAAA"},
		"half4.test":             {"AAAA 2001:db8::5", "SERVFAIL A"},
		"halfbad.test":           {"TXT x", "SERVFAIL AAAA"},
		"tcp.test":               {"TRUNCATE", "A 192.0.2.6"},
		"key.test":               {"TXT v=DKIM1; p=" + strings.Repeat("k", 600)},
		"tlsa.test":              {"TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
		"null.test":              {"MX 0 ."},
		"*.wild.test":            {"A 192.0.2.7"},
		"1.2.0.192.in-addr.arpa": {"PTR mx1.example.test"},
		"a.b.empty.test":         {"A 192.0.2.9"},
	}
	for i := range 200 {
		z["big.test"] = append(z["big.test"], "TXT "+strings.Repeat("b", 200)+string(rune('a'+i%26)))
	}
	return z
}

// serve returns resolvers over the same zone: in memory, and through a real
// server, with and without a cache.
func serve(t testing.TB) (*mxtest.DNS, *resolver.Resolver) {
	t.Helper()
	d := mxtest.NewDNS(zone())
	addr, err := d.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, &resolver.Resolver{Servers: []string{addr}, Timeout: 200 * time.Millisecond, Attempts: 1}
}

func TestLookups(t *testing.T) {
	d, r := serve(t)
	ctx := t.Context()
	for _, res := range []interface {
		LookupMX(context.Context, string) ([]*net.MX, error)
		LookupTXT(context.Context, string) ([]string, error)
		LookupNetIP(context.Context, string, string) ([]netip.Addr, error)
		LookupHost(context.Context, string) ([]string, error)
		LookupAddr(context.Context, string) ([]string, error)
	}{d, r, r} { // the last from the cache
		mxs, err := res.LookupMX(ctx, "EXAMPLE.test")
		if err != nil || len(mxs) != 2 || mxs[0].Pref != 10 || !strings.EqualFold(mxs[0].Host, "mx1.example.test.") {
			t.Errorf("MX %v %v", mxs, err)
		}
		mxs[0].Host = "changed" // the copy, not the cache
		if mxs, err := res.LookupMX(ctx, "null.test."); err != nil || len(mxs) != 1 || mxs[0].Host != "." {
			t.Errorf("null MX %v %v", mxs, err)
		}
		txt, err := res.LookupTXT(ctx, "example.test.")
		slices.Sort(txt)
		if err != nil || !slices.Equal(txt, []string{"two strings \"\\\xf0", "v=spf1 mx -all"}) {
			t.Errorf("TXT %q %v", txt, err)
		}
		if txt, err := res.LookupTXT(ctx, "key.test"); err != nil || len(txt) != 1 || len(txt[0]) != 611 {
			t.Errorf("long TXT %d %v", len(txt), err)
		}
		if txt, err := res.LookupTXT(ctx, "big.test"); err != nil || len(txt) != 200 {
			t.Errorf("big TXT %d %v", len(txt), err)
		}
		for _, tt := range []struct{ network, host, want string }{
			{"ip", "mx1.example.test.", "192.0.2.1 2001:db8::1"},
			{"ip4", "mx1.example.test.", "192.0.2.1"},
			{"ip6", "mx1.example.test.", "2001:db8::1"},
			{"ip", "alias.test", "192.0.2.1 2001:db8::1"},
			{"ip", "four.test", "192.0.2.4"},
			{"ip", "half.test", "192.0.2.5"},
			{"ip", "half4.test", "2001:db8::5"},
			{"ip", "tcp.test", "192.0.2.6"},
			{"ip", "x.y.wild.test", "192.0.2.7"},
			{"ip", "192.0.2.77", "192.0.2.77"},
			{"ip", "[2001:db8::77]", "2001:db8::77"},
		} {
			list, err := res.LookupNetIP(ctx, tt.network, tt.host)
			var got []string
			for _, a := range list {
				got = append(got, a.String())
			}
			if err != nil || strings.Join(got, " ") != tt.want {
				t.Errorf("%v: %v %v", tt, got, err)
			}
		}
		if names, err := res.LookupAddr(ctx, "192.0.2.1"); err != nil || len(names) != 1 || names[0] != "mx1.example.test." {
			t.Errorf("PTR %v %v", names, err)
		}
		if hosts, err := res.LookupHost(ctx, "four.test"); err != nil || len(hosts) != 1 || hosts[0] != "192.0.2.4" {
			t.Errorf("host %v %v", hosts, err)
		}
	}
}

func TestErrors(t *testing.T) {
	d, r := serve(t)
	for _, res := range []interface {
		LookupNetIP(context.Context, string, string) ([]netip.Addr, error)
	}{d, r, r} {
		for _, tt := range []struct {
			host                  string
			is                    error
			nx, notFound, timeout bool
		}{
			{"nowhere.test", resolver.ErrNXDomain, true, true, false},
			{"dangling.test", resolver.ErrNXDomain, true, true, false},
			{"key.test", resolver.ErrNoData, false, true, false},
			{"empty.test", resolver.ErrNoData, false, true, false},
			{"b.empty.test", resolver.ErrNoData, false, true, false},
			{"x.empty.test", resolver.ErrNXDomain, true, true, false},
			{"broken.test", resolver.ErrServer, false, false, false},
			{"halfbad.test", resolver.ErrServer, false, false, false},
			{"refused.test", resolver.ErrServer, false, false, false},
			{"silent.test", resolver.ErrTimeout, false, false, true},
			{"loop.test", resolver.ErrMalformed, false, false, false},
			{"", resolver.ErrName, false, false, false},
			{"a b.test", resolver.ErrName, false, false, false},
			{`a\.b.test`, resolver.ErrName, false, false, false},
			{"ä.test", resolver.ErrName, false, false, false},
			{strings.Repeat("a", 64) + ".test", resolver.ErrName, false, false, false},
			{"a..test", resolver.ErrName, false, false, false},
		} {
			_, err := res.LookupNetIP(t.Context(), "ip", tt.host)
			var e *resolver.Error
			var de *net.DNSError
			if !errors.As(err, &e) || !errors.As(err, &de) || !errors.Is(err, tt.is) {
				t.Errorf("%q: %v, want %v", tt.host, err, tt.is)
				continue
			}
			temporary := !tt.notFound && tt.is != resolver.ErrName
			if e.NXDomain() != tt.nx || de.IsNotFound != tt.notFound || e.Timeout() != tt.timeout || de.IsTimeout != tt.timeout ||
				e.Temporary() != temporary || de.IsTemporary != temporary {
				t.Errorf("%q: %+v %+v", tt.host, e, de)
			}
		}
	}
	if _, err := r.LookupNetIP(t.Context(), "tcp", "four.test"); err == nil {
		t.Error("network tcp accepted")
	}
	if _, err := r.LookupAddr(t.Context(), "x"); !errors.Is(err, resolver.ErrName) {
		t.Errorf("LookupAddr: %v", err)
	}
}

func TestQuery(t *testing.T) {
	_, r := serve(t)
	ctx := t.Context()
	a, err := r.Query(ctx, "example.test", dns.TypeMX)
	if err != nil || !a.Secure || a.TTL != time.Minute || a.Name != "example.test." {
		t.Errorf("%+v %v", a, err)
	}
	a, err = r.Query(ctx, "mx2.example.test", dns.TypeA)
	if err != nil || a.Secure || a.TTL != 30*time.Second {
		t.Errorf("%+v %v", a, err)
	}
	a, err = r.Query(ctx, "alias.test", dns.TypeA) // an insecure alias of a secure name
	if err != nil || a.Secure || a.Name != "mx1.example.test." {
		t.Errorf("%+v %v", a, err)
	}
	a, err = r.Query(ctx, "tlsa.test", dns.TypeTLSA)
	if err != nil || len(a.TLSA) != 1 || a.TLSA[0].Usage != 3 || len(a.TLSA[0].Data) != 32 {
		t.Errorf("%+v %v", a, err)
	}
}

func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mxtest.NewDNS(mxtest.Zone{"a.test": {"10 A 192.0.2.1"}, "zero.test": {"0 A 192.0.2.2"}, "bad.test": {"SERVFAIL"}})
		r := &resolver.Resolver{Servers: []string{"127.0.0.1:53"}, DialContext: d.DialContext, CacheSize: 4, Attempts: 1}
		asked := func(host string, want int) {
			t.Helper()
			before := len(d.Questions())
			r.LookupNetIP(t.Context(), "ip4", host)
			if n := len(d.Questions()) - before; n != want {
				t.Errorf("%s: %d questions, want %d", host, n, want)
			}
		}
		asked("a.test", 1)
		asked("A.test.", 0)
		time.Sleep(9 * time.Second)
		asked("a.test", 0)
		time.Sleep(2 * time.Second)
		asked("a.test", 1)
		asked("zero.test", 1)
		asked("zero.test", 1)
		asked("bad.test", 1)
		asked("bad.test", 1)
		asked("none.test", 1) // negative: the SOA says 60 s
		asked("none.test", 0)
		time.Sleep(61 * time.Second)
		asked("none.test", 1)
		// Bounded: what was asked last is still there.
		for i := range 50 {
			host := string(rune('a'+i%26)) + strings.Repeat("x", i/26) + ".none.test"
			asked(host, 1)
			asked(host, 0)
		}
	})
}

// Many ask at once: one question leaves. The one that asked gives up: the
// others do not fail with it.
func TestOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mxtest.NewDNS(mxtest.Zone{"a.test": {"A 192.0.2.1"}})
		slow := make(chan struct{})
		first := true
		var mu sync.Mutex
		r := &resolver.Resolver{Servers: []string{"127.0.0.1:53"}, Timeout: time.Hour, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			mu.Lock()
			wait := first
			first = false
			mu.Unlock()
			if wait {
				select {
				case <-slow:
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			return d.DialContext(ctx, network, addr)
		}}
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			if _, err := r.LookupNetIP(ctx, "ip4", "a.test"); !errors.Is(err, context.Canceled) {
				t.Errorf("leader: %v", err)
			}
		})
		synctest.Wait()
		for range 10 {
			wg.Go(func() {
				if _, err := r.LookupNetIP(t.Context(), "ip4", "a.test"); err != nil {
					t.Error(err)
				}
			})
		}
		impatient, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := r.LookupNetIP(impatient, "ip4", "a.test"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("impatient: %v", err)
		}
		cancel()
		wg.Wait()
		if n := len(d.Questions()); n != 1 {
			t.Errorf("%d questions", n)
		}
	})
}

// A dead server is followed by the next; each is given its time.
func TestSeveralServers(t *testing.T) {
	good := mxtest.NewDNS(mxtest.Zone{"a.test": {"A 192.0.2.1"}})
	addr, err := good.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	bad := mxtest.NewDNS(mxtest.Zone{"a.test": {"SERVFAIL"}})
	badAddr, err := bad.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	r := &resolver.Resolver{Servers: []string{silent.LocalAddr().String(), badAddr, addr}, Timeout: 50 * time.Millisecond}
	if list, err := r.LookupNetIP(t.Context(), "ip4", "a.test"); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}
	r = &resolver.Resolver{Servers: []string{silent.LocalAddr().String()}, Timeout: 20 * time.Millisecond}
	start := time.Now()
	_, err = r.LookupNetIP(t.Context(), "ip4", "a.test")
	if !errors.Is(err, resolver.ErrTimeout) || time.Since(start) > 2*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	r = &resolver.Resolver{Servers: []string{silent.LocalAddr().String()}}
	if _, err = r.LookupNetIP(ctx, "ip4", "a.test"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// The AD bit counts only over a safe path.
func TestTrustAD(t *testing.T) {
	d := mxtest.NewDNS(mxtest.Zone{"a.test": {"SECURE", "A 192.0.2.1"}})
	for _, tt := range []struct {
		server string
		trust  bool
		want   bool
	}{{"127.0.0.1", false, true}, {"[::1]:53", false, true}, {"192.0.2.53", false, false}, {"192.0.2.53", true, true}} {
		r := &resolver.Resolver{Servers: []string{tt.server}, TrustAD: tt.trust, DialContext: d.DialContext}
		a, err := r.Query(t.Context(), "a.test", dns.TypeA)
		if err != nil || a.Secure != tt.want {
			t.Errorf("%v: %+v %v", tt, a, err)
		}
	}
}

func BenchmarkCachedLookup(b *testing.B) {
	d := mxtest.NewDNS(mxtest.Zone{"a.test": {"3600 MX 10 mx.a.test"}})
	r := &resolver.Resolver{Servers: []string{"127.0.0.1:53"}, DialContext: d.DialContext}
	for _, q := range []string{"LookupMX", "Query"} {
		b.Run(q, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if q == "Query" {
					_, err = r.Query(b.Context(), "a.test.", dns.TypeMX)
				} else {
					_, err = r.LookupMX(b.Context(), "a.test.")
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkLookupOverUDP(b *testing.B) {
	_, r := serve(b)
	r.CacheSize = -1
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.LookupNetIP(b.Context(), "ip4", "four.test."); err != nil {
			b.Fatal(err)
		}
	}
}

// An answer far larger than those of honest mail is given, but not kept: a
// stranger who names domains of his own must not fill the memory.
func TestLargeAnswersAreNotKept(t *testing.T) {
	d := mxtest.NewDNS(zone())
	r := &resolver.Resolver{Servers: []string{"127.0.0.1:53"}, DialContext: d.DialContext, Attempts: 1}
	for name, want := range map[string]int{"big.test": 4 /* by UDP and by TCP */, "key.test": 1} {
		before := len(d.Questions())
		for range 2 {
			if txt, err := r.LookupTXT(t.Context(), name); err != nil || len(txt) == 0 {
				t.Fatal(name, err)
			}
		}
		asked := 0
		for _, q := range d.Questions()[before:] {
			if q.Name == name+"." {
				asked++
			}
		}
		if asked != want {
			t.Errorf("%s: asked %d times, want %d", name, asked, want)
		}
	}
}

// TestTXTOf64KB: the largest answer that there can be is read whole, and one
// that claims more is an error.
func TestTXTOf64KB(t *testing.T) {
	one := "TXT " + strings.Repeat("x", 63_000)
	d := mxtest.NewDNS(mxtest.Zone{"one.test": {one}, "more.test": {one, one}})
	r := &resolver.Resolver{Servers: []string{"127.0.0.1:53"}, DialContext: d.DialContext, Attempts: 1}
	if txt, err := r.LookupTXT(t.Context(), "one.test"); err != nil || len(txt) != 1 || len(txt[0]) != 63_000 {
		t.Errorf("%d records, %v", len(txt), err)
	}
	list, err := r.LookupTXTStrings(t.Context(), "one.test")
	if err != nil || len(list) != 1 || len(list[0]) != 248 || len(list[0][0]) != 255 {
		t.Errorf("%d records, %v", len(list), err)
	}
	if _, err := r.LookupTXT(t.Context(), "more.test"); err == nil {
		t.Error("no error for more than a message of the DNS holds")
	}
}

// A TXT record's strings are had as they stand, too.
func TestTXTStrings(t *testing.T) {
	_, r := serve(t)
	list, err := r.LookupTXTStrings(t.Context(), "example.test")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range list {
		got = append(got, strings.Join(s, "|"))
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"two| strings \"\\\xf0", "v=spf1 mx -all"}) {
		t.Errorf("%q", got)
	}
	list[0][0] = "changed" // the copy, not the cache
	if again, err := r.LookupTXTStrings(t.Context(), "example.test"); err != nil || again[0][0] == "changed" {
		t.Errorf("%q %v", again, err)
	}
	if _, err := r.LookupTXTStrings(t.Context(), "four.test"); !errors.Is(err, resolver.ErrNoData) {
		t.Error(err)
	}
}

// TestLameServer: a hint at other servers is no answer; the next is asked.
func TestLameServer(t *testing.T) {
	lame := mxtest.NewDNS(mxtest.Zone{"a.test": {"LAME", "A 192.0.2.1"}})
	good := mxtest.NewDNS(mxtest.Zone{"a.test": {"A 192.0.2.2"}})
	r := &resolver.Resolver{Servers: []string{"10.0.0.1", "10.0.0.2"}, CacheSize: -1}
	r.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == "10.0.0.1:53" {
			return lame.DialContext(ctx, network, addr)
		}
		return good.DialContext(ctx, network, addr)
	}
	if list, err := r.LookupNetIP(t.Context(), "ip4", "a.test"); err != nil || len(list) != 1 || list[0].String() != "192.0.2.2" {
		t.Errorf("%v %v", list, err)
	}
	if _, err := lame.LookupNetIP(t.Context(), "ip4", "a.test"); !errors.Is(err, resolver.ErrServer) {
		t.Error(err)
	}
}

// TestAliases: chains of aliases are followed up to their limit, whoever
// follows them.
func TestAliases(t *testing.T) {
	z := mxtest.Zone{"end.test": {"AAAA 2001:db8::1"}, "text.test": {"TXT x"}, "c0.test": {"CNAME end.test"}}
	for i := 1; i < 20; i++ {
		z[fmt.Sprintf("c%d.test", i)] = []string{fmt.Sprintf("CNAME c%d.test", i-1)}
	}
	d := mxtest.NewDNS(z)
	r := &resolver.Resolver{Servers: []string{"127.0.0.1:53"}, DialContext: d.DialContext, Attempts: 1}
	for _, tt := range []struct {
		host string
		want string
		err  error
	}{
		{"end.test", "end.test.", nil},
		{"C0.test.", "end.test.", nil},
		{"c11.test", "end.test.", nil}, // twelve
		{"c12.test", "", resolver.ErrMalformed},
		{"c19.test", "", resolver.ErrMalformed},
		{"text.test", "", resolver.ErrNoData},
		{"none.test", "", resolver.ErrNXDomain},
	} {
		got, err := r.LookupCNAME(t.Context(), tt.host)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: %q, %v", tt.host, got, err)
		}
	}
}
