package verify

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/arc"
	"github.com/postrider/postrider/auth/authtest"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/dmarc"
	"github.com/postrider/postrider/auth/spf"
)

// counted counts lookups.
type counted struct {
	Resolver
	mu sync.Mutex
	n  int
}

func (c *counted) count() {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
}

func (c *counted) LookupTXT(ctx context.Context, name string) ([]string, error) {
	c.count()
	return c.Resolver.LookupTXT(ctx, name)
}

func (c *counted) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	c.count()
	return c.Resolver.LookupMX(ctx, name)
}

func (c *counted) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	c.count()
	return c.Resolver.LookupNetIP(ctx, network, host)
}

func (c *counted) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	c.count()
	return c.Resolver.LookupAddr(ctx, addr)
}

// TestHostile has what strangers send and publish that is far too much. It costs
// no more than so many lookups and so much memory, and comes out as the RFCs
// have it.
func TestHostile(t *testing.T) {
	const huge = 64 << 10
	signature := func(i int) string {
		return fmt.Sprintf("DKIM-Signature: v=1; a=rsa-sha256; d=d%d.example; s=s%d; h=from; bh=%s; b=aaaa\r\n", i, i, strings.Repeat("A", 43)+"=")
	}
	set := func(i int) string {
		return fmt.Sprintf("ARC-Seal: i=%d; a=rsa-sha256; cv=pass; d=d%d.example; s=s; b=aaaa\r\n"+
			"ARC-Message-Signature: i=%d; a=rsa-sha256; d=e%d.example; s=s; h=from; bh=%s; b=aaaa\r\nARC-Authentication-Results: i=%d; x; none\r\n",
			i, i, i, i, strings.Repeat("A", 43)+"=", i)
	}
	repeat := func(n int, f func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(f(i + 1))
		}
		return b.String()
	}
	plain := authtest.New("example.org").Message("example.org")
	for name, c := range map[string]struct {
		message string            // before plain
		body    string            // after it
		zone    map[string]string // TXT records
		spf     error
		key     error // of the first signature
		dmarc   auth.Result
		arc     error
		err     error
		lookups int   // at most; beside them 1 for SPF, 2 for iprev, 3 for DMARC
		memory  int64 // at most, of all allocations, in MiB
	}{
		"1,000 signatures":      {message: repeat(1000, signature), dmarc: auth.Pass, key: dkim.ErrKeyMissing, lookups: 5, memory: 4},
		"1,000 signatures, one": {message: strings.Repeat(signature(1), 1000), dmarc: auth.Pass, key: dkim.ErrKeyMissing, lookups: 1, memory: 4},
		"header of 10 MB":       {message: "X: " + strings.Repeat("x", 10<<20) + "\r\n", dmarc: auth.PermError, arc: dkim.ErrHeader, err: dkim.ErrHeader, memory: 20},
		"10 MB of fields":       {message: strings.Repeat("X: y\r\n", 10<<20/6), dmarc: auth.PermError, arc: dkim.ErrHeader, err: dkim.ErrHeader, memory: 20},
		"body of 10 MB":         {body: strings.Repeat("x \r\n", 10<<20/4), dmarc: auth.Pass, memory: 2},
		"sets with a gap":       {message: repeat(50, set)[len(set(1)):], dmarc: auth.Pass, arc: arc.ErrStructure, memory: 4},
		"50 forged sets":        {message: strings.Replace(repeat(50, set), "cv=pass", "cv=none", 1), dmarc: auth.Pass, arc: dkim.ErrKeyMissing, lookups: 2, memory: 4},
		"10,000 sets":           {message: repeat(1300, set), dmarc: auth.Pass, arc: arc.ErrStructure, memory: 8},
		"SPF record of 64 KB": {zone: map[string]string{"example.org": "v=spf1 " + strings.Repeat("ip4:198.51.100.1 ", huge/17) + "ip4:192.0.2.1 -all"},
			dmarc: auth.Pass, memory: 4},
		"64 KB of lookups": {zone: map[string]string{"example.org": "v=spf1 " + strings.Repeat("exists:%{i}.x.example.org ", huge/26) + "-all"},
			spf: spf.ErrVoid, dmarc: auth.Fail, lookups: 3, memory: 8},
		"64 KB of garbage": {zone: map[string]string{"example.org": "v=spf1 " + strings.Repeat("\x00\xff%", huge/3)}, spf: spf.ErrSyntax, dmarc: auth.Fail, memory: 2},
		"include of itself": {zone: map[string]string{"example.org": "v=spf1 include:example.org -all"},
			spf: spf.ErrLimit, dmarc: auth.Fail, lookups: 10, memory: 2},
		"redirect in a circle": {zone: map[string]string{"example.org": "v=spf1 redirect=b.example", "b.example": "v=spf1 redirect=example.org"},
			spf: spf.ErrLimit, dmarc: auth.Fail, lookups: 10, memory: 2},
		"a tree of includes": {zone: map[string]string{"example.org": "v=spf1 include:a.example include:a.example -all",
			"a.example": "v=spf1 include:b.example include:b.example ?all", "b.example": "v=spf1 include:c.example include:c.example ?all",
			"c.example": "v=spf1 include:d.example include:d.example ?all", "d.example": "v=spf1 ?all"},
			spf: spf.ErrLimit, dmarc: auth.Fail, lookups: 10, memory: 2},
		"2,000 macros": {zone: map[string]string{"example.org": "v=spf1 exists:" + strings.Repeat("%{s100r.-+,/_=}", 2000) + ".example.org -all"},
			dmarc: auth.Fail, lookups: 1, memory: 4},
		"macros of p": {zone: map[string]string{"example.org": "v=spf1 " + strings.Repeat("exists:"+strings.Repeat("%{p}", 200)+".example.org ", 10) + "-all"},
			spf: spf.ErrVoid, dmarc: auth.Fail, lookups: 8, memory: 8},
		"explanation of 64 KB": {zone: map[string]string{"example.org": "v=spf1 exp=e.example -all", "e.example": strings.Repeat("%{s} ", huge/5)},
			dmarc: auth.Fail, lookups: 2, memory: 4},
		"key of 64 KB": {message: signature(1), zone: map[string]string{"s1._domainkey.d1.example": "v=DKIM1; p=" + strings.Repeat("A", huge)},
			key: dkim.ErrSyntax, dmarc: auth.Pass, lookups: 1, memory: 4},
		"key with 64 KB of tags": {message: signature(1), zone: map[string]string{"s1._domainkey.d1.example": strings.Repeat("a=b;", huge/4)},
			key: dkim.ErrSyntax, dmarc: auth.Pass, lookups: 1, memory: 2},
		"policy of 64 KB": {zone: map[string]string{"_dmarc.example.org": "v=DMARC1; p=reject; " + strings.Repeat("rua=mailto:a@example.org,", huge/25), "example.org": "v=spf1 -all"},
			dmarc: auth.Fail, memory: 8},
		"a policy of tags": {zone: map[string]string{"_dmarc.example.org": "v=DMARC1; p=reject; " + strings.Repeat("x=y;", huge/4), "example.org": "v=spf1 -all"},
			dmarc: auth.Fail, memory: 8},
	} {
		t.Run(name, func(t *testing.T) {
			w := authtest.New("example.org")
			for n, txt := range c.zone {
				w.Zone[n] = []string{"TXT " + txt}
			}
			dns := &counted{Resolver: w.Zone}
			v := &Verifier{Resolver: dns, AuthServID: "mx.example.net", ARC: new(arc.Verifier)}
			msg := []byte(c.message + plain + c.body)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			p := v.Begin(t.Context(), Source(w.Source("example.org")))
			for rest := msg; len(rest) > 0; {
				n := min(len(rest), 32<<10)
				p.Write(rest[:n])
				rest = rest[n:]
			}
			r, err := p.Result()
			p.Close()
			runtime.ReadMemStats(&after)
			if !errors.Is(err, c.err) || c.err == nil && err != nil {
				t.Fatal(err)
			}
			if !errors.Is(r.SPF.Err, c.spf) || c.spf != nil && r.SPF.Result != auth.PermError {
				t.Errorf("SPF: %s, %v, want %v", r.SPF.Result, r.SPF.Err, c.spf)
			}
			if c.key != nil && (len(r.DKIM) == 0 || len(r.DKIM) > 5 || !errors.Is(r.DKIM[0].Err, c.key) || r.DKIM[0].Result != auth.PermError) {
				t.Errorf("DKIM: %+v, want %v", r.DKIM, c.key)
			}
			if r.DMARC.Result != c.dmarc {
				t.Errorf("DMARC: %s, want %s", r.DMARC, c.dmarc)
			}
			if !errors.Is(r.ARC.Err, c.arc) || c.arc == nil && r.ARC.Err != nil {
				t.Errorf("ARC: %v, want %v", r.ARC.Err, c.arc)
			}
			if most := c.lookups + 8; dns.n > most {
				t.Errorf("%d lookups, want at most %d", dns.n, most)
			}
			if used := int64(after.TotalAlloc-before.TotalAlloc) >> 20; used > c.memory {
				t.Errorf("%d MiB allocated, want at most %d", used, c.memory)
			}
			if field := r.AuthenticationResults.String(); len(field) > 8<<10 {
				t.Errorf("the field has %d octets", len(field))
			} else if _, err := auth.Parse(strings.TrimPrefix(field, auth.FieldName+":")); err != nil {
				t.Error(err)
			}
		})
	}
}

// garbage answers every question with what a source of octets says: the same
// octets give the same answers.
type garbage struct {
	mu   sync.Mutex
	data []byte
	n    int
}

// next returns the octets for the answer to a name.
func (g *garbage) next(name string) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n++
	if len(g.data) == 0 {
		return nil
	}
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	from := int(h % uint32(len(g.data)))
	return append(append([]byte(nil), g.data[from:]...), g.data[:from]...)
}

// pieces cuts octets into a few pieces; fail is the error to give instead.
func pieces(b []byte) (list []string, fail error) {
	if len(b) == 0 {
		return nil, nil
	}
	switch b[0] % 16 {
	case 0:
		return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
	case 1:
		return nil, &net.DNSError{Err: "server misbehaving", IsTemporary: true}
	case 2:
		return nil, nil
	case 3:
		return nil, errors.New("nonsense")
	}
	n := int(b[0]/16)%3 + 1
	b = b[1:]
	for i := range n {
		size := len(b) / (n - i)
		list, b = append(list, string(b[:size])), b[size:]
	}
	return list, nil
}

func (g *garbage) LookupTXT(_ context.Context, name string) ([]string, error) {
	list, err := pieces(g.next(name))
	for i, s := range list {
		// Often enough it is to look like a record.
		switch {
		case strings.Contains(name, "_domainkey") && len(s)%3 > 0:
			list[i] = "v=DKIM1; k=ed25519; p=" + s
		case strings.HasPrefix(name, "_dmarc.") && len(s)%3 > 0:
			list[i] = "v=DMARC1; p=" + [...]string{"reject; ", "none; ", ""}[len(s)%3] + s
		case len(s)%3 > 0:
			list[i] = "v=spf1 " + s
		}
	}
	return list, err
}

func (g *garbage) LookupMX(_ context.Context, name string) ([]*net.MX, error) {
	list, err := pieces(g.next("MX " + name))
	var out []*net.MX
	for i, s := range list {
		out = append(out, &net.MX{Host: s, Pref: uint16(i)})
	}
	return out, err
}

func (g *garbage) LookupNetIP(_ context.Context, network, name string) ([]netip.Addr, error) {
	list, err := pieces(g.next(network + name))
	var out []netip.Addr
	for _, s := range list {
		var ip [16]byte
		copy(ip[:], s)
		switch {
		case len(s)%4 == 0:
			out = append(out, netip.AddrFrom16(ip))
		case len(s)%4 == 1:
			out = append(out, netip.Addr{})
		default:
			out = append(out, netip.AddrFrom4([4]byte(ip[:4])))
		}
	}
	return out, err
}

func (g *garbage) LookupAddr(_ context.Context, addr string) ([]string, error) {
	return pieces(g.next(addr))
}

// FuzzAnswers verifies a message against DNS answers made of garbage: whatever
// they are, it ends, with few lookups, nothing that passes for a key it does not
// have, and a field that can be read.
func FuzzAnswers(f *testing.F) {
	w := authtest.New("example.org")
	msg := sign(f, w, w.Message("example.org"), "example.org")
	s, err := arc.NewSealer(arc.SealOptions{Domain: "example.org", Selector: "other", Key: w.Key("example.org")})
	if err != nil {
		f.Fatal(err)
	}
	io.WriteString(s, msg)
	set, err := s.Seal(auth.AuthenticationResults{AuthServID: "x"})
	if err != nil {
		f.Fatal(err)
	}
	msg = set + msg
	f.Add([]byte("\x24a mx include:%{d} exists:%{l1r-}.%{p} ptr redirect=example.net exp=a.example -all"))
	f.Add([]byte("\x15 sp=none; np=reject; rua=mailto:a@example.org!1m; fo=1:d; adkim=s; t=y; psd=u"))
	f.Add([]byte("ip4:192.0.2.1/0 a//0 a:%{ir}.%{v}.example\x00\x10\xff"))
	f.Add(binary.BigEndian.AppendUint64(nil, 0x4041_4243_0010_2030))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			data = data[:4096]
		}
		dns := &garbage{data: data}
		p := (&Verifier{Resolver: dns, AuthServID: "mx", ARC: new(arc.Verifier)}).Begin(t.Context(), Source(w.Source("example.org")))
		defer p.Close()
		io.WriteString(p, msg)
		r, err := p.Result()
		if err != nil {
			t.Fatal(err)
		}
		if len(r.DKIM) != 1 || r.DKIM[0].Result == auth.Pass || r.DKIM[0].Result == auth.Fail && r.DKIM[0].Key == nil {
			t.Fatalf("%+v", r.DKIM)
		}
		if r.ARC.Result == auth.Pass || r.DMARC.DKIMAligned || r.DMARC.Result == auth.Pass && r.SPF.Result != auth.Pass {
			t.Fatalf("%s", &r.AuthenticationResults)
		}
		if (r.Verdict.Action == Reject) != (r.DMARC.Disposition == dmarc.Reject) {
			t.Fatalf("%+v for %s", r.Verdict, r.DMARC)
		}
		// RFC 7208 §4.6.4 and RFC 9989 §4.10 bound them: 10 terms with up to
		// 10 names each and their ptr, three walks of the tree.
		if dns.n > 160 {
			t.Fatalf("%d lookups", dns.n)
		}
		if _, err := auth.Parse(strings.TrimPrefix(r.AuthenticationResults.String(), auth.FieldName+":")); err != nil {
			t.Fatalf("%q: %v", r.AuthenticationResults.String(), err)
		}
	})
}
