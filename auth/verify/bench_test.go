//go:build unix

package verify

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/arc"
	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/auth/spf"
)

// answers is a resolver that costs next to nothing, as one with a warm cache.
type answers struct {
	txt  map[string][]string
	ips  []netip.Addr
	name []string
}

var errNone = &net.DNSError{Err: "no such host", IsNotFound: true}

func (a *answers) LookupTXT(_ context.Context, name string) ([]string, error) {
	if t, ok := a.txt[name]; ok {
		return t, nil
	}
	return nil, errNone
}
func (a *answers) CachedTXT(name string) ([]string, bool, error) {
	txt, err := a.LookupTXT(context.Background(), name)
	return txt, true, err
}
func (a *answers) LookupMX(context.Context, string) ([]*net.MX, error) { return nil, errNone }
func (a *answers) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return a.ips, nil
}
func (a *answers) LookupAddr(context.Context, string) ([]string, error) { return a.name, nil }

const benchHeader = "Received: from mail.example.org (mail.example.org [192.0.2.1])\r\n\tby mx.example.net with ESMTPS id 4XyZ; Tue, 3 Mar 2026 10:00:00 +0000\r\n" +
	"From: Alice Example <alice@example.org>\r\nTo: Bob Example <bob@example.net>, Carol <carol@example.net>\r\n" +
	"Subject: Minutes of the meeting, and what is to be done until\r\n the next one\r\nDate: Tue, 3 Mar 2026 10:00:00 +0000\r\n" +
	"Message-ID: <20260303100000.12345@mail.example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n" +
	"Content-Transfer-Encoding: 8bit\r\n\r\n"

func textBody(size int) string {
	const text = "It was agreed that the minutes of the last meeting are right. The committee\r\n" +
		"will see to it that  the hall is heated, and that somebody brings a kettle.\r\n\r\n"
	return strings.Repeat(text, size/len(text)+1)[:size-2] + "\r\n"
}

// signed is a message with two signatures, RSA and Ed25519 or RSA twice, and
// what crypto alone does with it: a hash of header and body for both, and the
// keys.
func signed(b *testing.B, size int, second string, r *answers) (msg []byte, crypt func() bool, opts []dkim.SignOptions) {
	b.Helper()
	body := textBody(size)
	text := []byte(benchHeader + body)
	sum := sha256.Sum256(text[:len(benchHeader)])
	checks := make([]func() bool, 0, 2)
	for i, alg := range []string{dkim.RSASHA256, second} {
		key, err := dkim.GenerateKey(alg, 0)
		if err != nil {
			b.Fatal(err)
		}
		o := dkim.SignOptions{Domain: "example.org", Selector: fmt.Sprintf("s%d", i), Key: key}
		record, err := dkim.NewRecord(key.Public())
		if err != nil {
			b.Fatal(err)
		}
		r.txt[dkim.RecordName(o.Selector, o.Domain)+"."] = []string{record.String()}
		opts = append(opts, o)
		switch public := key.Public().(type) {
		case *rsa.PublicKey:
			sig, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
			if err != nil {
				b.Fatal(err)
			}
			checks = append(checks, func() bool { return rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], sig) == nil })
		case ed25519.PublicKey:
			sig, err := key.Sign(nil, sum[:], crypto.Hash(0))
			if err != nil {
				b.Fatal(err)
			}
			checks = append(checks, func() bool { return ed25519.Verify(public, sum[:], sig) })
		}
	}
	s, err := dkim.NewSigner(opts...)
	if err != nil {
		b.Fatal(err)
	}
	s.Write(text)
	field, err := s.Signature()
	if err != nil {
		b.Fatal(err)
	}
	return append([]byte(field), text...), func() bool {
		sha256.Sum256(text[len(benchHeader):])
		for _, ok := range checks {
			sha256.Sum256(text[:len(benchHeader)])
			if !ok() {
				return false
			}
		}
		return true
	}, opts
}

// BenchmarkShare says how much of the work on a message with SPF, two
// signatures, DMARC and the client's name is crypto: its metric crypto-% is to
// be 70 at least. Both are done in turn, on one processor, and what counts is
// the least time of the processor that a batch of either took: other programs
// make it more.
func BenchmarkShare(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, c := range []struct {
		size   int
		second string
	}{{4 << 10, dkim.Ed25519SHA256}, {4 << 10, dkim.RSASHA256}, {100 << 10, dkim.Ed25519SHA256}} {
		b.Run(fmt.Sprintf("%dKB/rsa+%s", c.size>>10, c.second[:3]), func(b *testing.B) {
			r := &answers{txt: map[string][]string{
				"example.org.":        {"v=spf1 a:mail.example.org -all"},
				"_dmarc.example.org.": {"v=DMARC1; p=reject; rua=mailto:reports@example.org"},
			}, ips: []netip.Addr{origin.IP}, name: []string{"mail.example.org."}}
			msg, crypt, _ := signed(b, c.size, c.second, r)
			v := &Verifier{Resolver: r, AuthServID: "mx.example.net"}
			verify := func() {
				p := v.Begin(b.Context(), origin)
				p.Write(msg)
				res, err := p.Result()
				if err != nil || res.DMARC.Result != auth.Pass || !res.DMARC.SPFAligned || !res.DMARC.DKIMAligned || len(res.DKIM) != 2 {
					b.Fatal(res, err)
				}
				p.Close()
			}
			const batch = 20
			whole, part := time.Hour, time.Hour
			for b.Loop() {
				begin := processorTime(b)
				for range batch {
					verify()
				}
				half := processorTime(b)
				for range batch {
					if !crypt() {
						b.Fatal("the floor does not verify")
					}
				}
				whole = min(whole, half-begin)
				part = min(part, processorTime(b)-half)
			}
			b.ReportMetric(100*float64(part)/float64(whole), "crypto-%")
			b.ReportMetric(float64(whole.Nanoseconds())/batch, "ns/whole")
			b.ReportMetric(testing.AllocsPerRun(10, verify), "allocs/whole")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// processorTime is the time that the process has had.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSecond says what more signatures, and ARC, cost over a body of 1 MB:
// its metric is the least time of the processor in that of one signature.
func BenchmarkSecond(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	r := &answers{txt: map[string][]string{}}
	both, _, opts := signed(b, 1<<20, dkim.Ed25519SHA256, r)
	second := strings.Index(string(both[1:]), dkim.FieldName) + 1
	one := append([]byte(nil), both[second:]...)
	s, err := arc.NewSealer(arc.SealOptions{Domain: "example.org", Selector: "s1", Key: opts[1].Key})
	if err != nil {
		b.Fatal(err)
	}
	s.Write(one)
	set, err := s.Seal(auth.AuthenticationResults{AuthServID: "mx"})
	if err != nil {
		b.Fatal(err)
	}
	chain := append([]byte(set), one...)
	time1 := func(v *Verifier, msg []byte, n int) time.Duration {
		begin := processorTime(b)
		p := v.Begin(b.Context(), Source{})
		p.Write(msg)
		res, err := p.Result()
		if err != nil || len(res.DKIM) != n || res.DKIM[n-1].Result != auth.Pass || v.ARC != nil && res.ARC.Result != auth.Pass {
			b.Fatal(res, err)
		}
		p.Close()
		return processorTime(b) - begin
	}
	plain, withARC := &Verifier{Resolver: r}, &Verifier{Resolver: r, ARC: new(arc.Verifier)}
	for _, c := range []struct {
		name string
		v    *Verifier
		msg  []byte
		n    int
	}{{"two signatures", plain, both, 2}, {"signature and ARC", withARC, chain, 1}} {
		b.Run(c.name, func(b *testing.B) {
			base, more := time.Hour, time.Hour
			for b.Loop() {
				base = min(base, time1(plain, one, 1))
				more = min(more, time1(c.v, c.msg, c.n))
			}
			b.ReportMetric(float64(more)/float64(base), "x-one")
		})
	}
}

// BenchmarkSPF is the part of a verification that no crypto is in.
func BenchmarkSPF(b *testing.B) {
	r := &answers{txt: map[string][]string{"example.org.": {"v=spf1 a:mail.example.org -all"}}, ips: []netip.Addr{origin.IP}}
	b.ReportAllocs()
	for b.Loop() {
		if e := (&spf.Checker{Resolver: r}).Check(b.Context(), spf.Source(origin)); e.Result != auth.Pass {
			b.Fatal(e)
		}
	}
}
