package dkim

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/internal/canon"
)

// slow answers after a while, or when its context ends.
type slow struct {
	zone
	wait time.Duration
}

func (s slow) LookupTXT(ctx context.Context, name string) ([]string, error) {
	select {
	case <-time.After(s.wait):
		return s.zone.LookupTXT(ctx, name)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func signed(t testing.TB) (zone, string) {
	k := benchKeys(t)[1]
	o := SignOptions{Domain: "example.org", Selector: "s", Key: k.key}
	z := zone{}
	publish(t, z, o)
	msg := "From: a@example.org\r\nSubject: s\r\n\r\nHello\r\n"
	return z, sign(t, msg, o) + msg
}

func TestSlowDNS(t *testing.T) {
	var z zone
	var msg string
	synctest.Test(t, func(t *testing.T) { z, msg = signed(t) }) // at the time of bubbles
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := (&Verifier{Resolver: slow{z, 5 * time.Second}}).Begin(t.Context())
		for i := range msg {
			p.Write([]byte{msg[i]})
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("Write waited %v", d)
		}
		r, err := p.Results()
		if err != nil || r[0].Result != auth.Pass || time.Since(begin) != 5*time.Second {
			t.Errorf("%+v, %v after %v", r, err, time.Since(begin))
		}
		p.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p := (&Verifier{Resolver: slow{z, time.Hour}}).Begin(ctx)
		io.WriteString(p, msg)
		r, _ := p.Results()
		if r[0].Result != auth.TempError || !errors.Is(r[0].Err, ErrKeyLookup) || !errors.Is(r[0].Err, context.DeadlineExceeded) {
			t.Errorf("%+v", r[0])
		}
	})
	// Close in any state: synctest fails when a goroutine is left.
	for n := range len(msg) + 1 {
		synctest.Test(t, func(t *testing.T) {
			p := (&Verifier{Resolver: slow{z, time.Hour}}).Begin(context.Background())
			io.WriteString(p, msg[:n])
			p.Close()
			p.Close()
			if r, err := p.Results(); err != nil || len(r) > 0 && r[0].Result == auth.Pass {
				t.Errorf("after Close: %+v, %v", r, err)
			}
		})
	}
}

// knowing knows some answers at once, and counts how often the DNS is asked.
type knowing struct {
	zone
	known map[string]error
	asked *atomic.Int32
}

func (k knowing) LookupTXT(ctx context.Context, name string) ([]string, error) {
	k.asked.Add(1)
	return k.zone.LookupTXT(ctx, name)
}

func (k knowing) CachedTXT(name string) ([]string, bool, error) {
	err, known := k.known[name]
	if !known {
		return nil, false, nil
	}
	if err == io.ErrUnexpectedEOF {
		panic(err)
	}
	return []string{k.zone[strings.TrimSuffix(name, ".")]}, true, err
}

func TestCached(t *testing.T) {
	z, msg := signed(t)
	const name = "s._domainkey.example.org."
	for what, c := range map[string]struct {
		known map[string]error
		want  auth.Result
		err   error
		asked int32
	}{
		"known":        {map[string]error{name: nil}, auth.Pass, nil, 0},
		"not known":    {nil, auth.Pass, nil, 1},
		"known absent": {map[string]error{name: &net.DNSError{IsNotFound: true}}, auth.PermError, ErrKeyMissing, 0},
		"known broken": {map[string]error{name: &net.DNSError{IsTimeout: true}}, auth.TempError, ErrKeyLookup, 0},
		"panic":        {map[string]error{name: io.ErrUnexpectedEOF}, auth.Pass, nil, 1},
	} {
		asked := new(atomic.Int32)
		p := (&Verifier{Resolver: knowing{z, c.known, asked}}).Begin(t.Context())
		io.WriteString(p, msg)
		r, err := p.Results()
		if err != nil || len(r) != 1 || r[0].Result != c.want || !errors.Is(r[0].Err, c.err) || asked.Load() != c.asked {
			t.Errorf("%s: %+v, %v, asked %d times", what, r, err, asked.Load())
		}
	}
}

// TestTampering changes each octet of a signed message; nothing may pass
// unless canonicalization says that it is the same message.
func TestTampering(t *testing.T) {
	z, msg := signed(t)
	good := verify(t, z, msg)[0].Signature.Signature
	for i := range len(msg) {
		for _, c := range []byte{'x', ' ', ';', '=', ':', '\r', '\n', 0} {
			b := []byte(msg)
			if b[i] == c {
				continue
			}
			b[i] = c
			for _, r := range verify(t, z, string(b)) {
				// The last digit of base64 has bits that mean nothing.
				same := sameRelaxed(msg, string(b)) || bytes.Equal(r.Signature.Signature, good) && strings.HasPrefix(msg[i+1:], "==")
				if r.Result == auth.Pass && !same {
					t.Errorf("octet %d made %q: still passes:\n%s", i, c, b)
				}
			}
		}
	}
}

// sameRelaxed reports whether two messages differ in white space, or in the
// case of field names, only.
func sameRelaxed(a, b string) bool {
	squeeze := func(s string) string { return strings.ToLower(strings.Join(strings.Fields(s), "")) }
	return squeeze(a) == squeeze(b)
}

func TestHostile(t *testing.T) {
	z, msg := signed(t)
	field := msg[:strings.Index(msg, "\r\nFrom: ")+2]
	rest := msg[len(field):]
	for name, c := range map[string]struct {
		msg  string
		want int
	}{
		"1,000 signatures": {strings.Repeat(field, 1000) + rest, 5},
		"unsigned":         {rest, 0},
		"empty":            {"", 0},
		"only CRLF":        {"\r\n", 0},
		"binary":           {string(bytes.Repeat([]byte{0xff, 0, '\r', ':'}, 5000)), 0},
		"tags":             {FieldName + ": " + strings.Repeat("a=1;", 100000) + "\r\n" + rest, 1},
		"names":            {FieldName + ": v=1; h=" + strings.Repeat("from:", 50000) + "\r\n" + rest, 1},
		"colons":           {strings.Repeat(":\r\n", 10000) + "\r\n", 0},
	} {
		if got := verify(t, z, c.msg); len(got) != c.want {
			t.Errorf("%s: %d results, want %d", name, len(got), c.want)
		}
	}
	p := (&Verifier{Resolver: z, MaxSignatures: -1}).Begin(t.Context())
	io.WriteString(p, strings.Repeat(field, 30)+rest)
	if r, err := p.Results(); len(r) != 30 || err != nil {
		t.Errorf("no limit: %d results, %v", len(r), err)
	}
	for range 3 {
		p := (&Verifier{Resolver: z}).Begin(t.Context())
		for range 11 {
			p.Write(bytes.Repeat([]byte("X: a long header field\r\n"), 1<<20/24))
		}
		if len(p.head.Buf) > canon.MaxHeader {
			t.Errorf("%d octets kept", len(p.head.Buf))
		}
		if _, err := p.Results(); !errors.Is(err, ErrHeader) {
			t.Errorf("large header: %v", err)
		}
	}
}

func TestReasons(t *testing.T) {
	z, msg := signed(t)
	name := "s._domainkey.example.org"
	for record, want := range map[string]struct {
		result auth.Result
		err    error
		reason string
	}{
		"NXDOMAIN":                 {auth.PermError, ErrKeyMissing, "no key for signature"},
		"SERVFAIL":                 {auth.TempError, ErrKeyLookup, "key lookup failed"},
		"v=DKIM1; p=":              {auth.PermError, ErrKeyRevoked, "key revoked"},
		"v=DKIM1; k=dsa; p=QQ==":   {auth.PermError, ErrAlgorithm, "algorithm not supported"},
		z[name] + "; h=sha1":       {auth.PermError, ErrKeyUnfit, "key is not for this signature"},
		z[name] + "; s=tlsrpt":     {auth.PermError, ErrKeyUnfit, "key is not for this signature"},
		z[name] + "; t=y:s; s=\t*": {auth.Pass, nil, ""},
	} {
		r := verify(t, zone{name: record}, msg)[0]
		if r.Result != want.result || !errors.Is(r.Err, want.err) || r.Reason() != want.reason {
			t.Errorf("%s: %s, %v, %q", record, r.Result, r.Err, r.Reason())
		}
		m := r.MethodResult()
		if m.Prop("header", "d") != "example.org" || m.Prop("header", "s") != "s" || len(m.Prop("header", "b")) != 8 || m.Result != r.Result {
			t.Errorf("%+v", m)
		}
	}
	r := verify(t, z, strings.Replace(msg, "Hello", "Hallo", 1))[0]
	if r.Result != auth.Fail || !errors.Is(r.Err, ErrBodyHash) {
		t.Errorf("%+v", r)
	}
}

func FuzzVerify(f *testing.F) {
	z, msg := signed(f)
	f.Add([]byte(msg), 7)
	f.Add([]byte("DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; l=3; c=simple/relaxed;\r\n h=from : from; bh=AAAA; b=\r\n AAAA\r\nFrom: a@b\r\n\r\nx \r\n\r\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		size = max(1, min(size, 1<<16))
		var all [2][]Verification
		var errs [2]error
		for i := range all {
			p := (&Verifier{Resolver: z}).Begin(t.Context())
			for rest := b; len(rest) > 0; {
				n := len(rest)
				if i == 1 {
					n = min(n, size)
				}
				p.Write(rest[:n])
				rest = rest[n:]
			}
			all[i], errs[i] = p.Results()
			p.Close()
		}
		if len(all[0]) != len(all[1]) || (errs[0] == nil) != (errs[1] == nil) {
			t.Fatalf("%d results at once, %d in pieces", len(all[0]), len(all[1]))
		}
		for i, r := range all[0] {
			if r.Result != all[1][i].Result {
				t.Fatalf("%s at once, %s in pieces", r.Result, all[1][i].Result)
			}
			if r.Signature == nil || (r.Err == nil) != (r.Result == auth.Pass) {
				t.Fatalf("%+v", r)
			}
			a := auth.AuthenticationResults{AuthServID: "x", Results: []auth.MethodResult{r.MethodResult()}}
			if _, err := auth.Parse(strings.TrimPrefix(a.String(), auth.FieldName+":")); err != nil {
				t.Fatalf("%q: %v", a.String(), err)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("v=1; a=rsa-sha256; d=example.org; s=s; h=From:To; bh=AAAA; b=AAAA; i=a=20b@x.example.org; t=1; x=2; l=1; q=dns/txt; z=a:b")
	f.Add("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=; t=y:s; h=sha256; s=email; n=a=20b")
	f.Fuzz(func(t *testing.T, s string) {
		if sig, err := ParseSignature(s); sig == nil || err == nil && (sig.Domain == "" || len(sig.Fields) == 0) {
			t.Fatalf("%+v, %v", sig, err)
		}
		r, err := ParseRecord(s)
		if err != nil {
			return
		}
		if again, err := ParseRecord(r.String()); err != nil || again.String() != r.String() {
			t.Fatalf("%q printed and parsed again: %v", r, err)
		}
	})
}

// TestReadRSA has the usual keys read without the general parser, and nothing
// that is not quite DER.
func TestReadRSA(t *testing.T) {
	for _, bits := range []uint{1024, 2048, 4096} {
		n := new(big.Int).Lsh(big.NewInt(1), bits)
		want := &rsa.PublicKey{N: n.Sub(n, big.NewInt(1)), E: 65537}
		der, err := x509.MarshalPKIXPublicKey(want)
		if err != nil {
			t.Fatal(err)
		}
		if got := readRSA(der); got == nil || !got.Equal(want) {
			t.Errorf("%d bits: %v", bits, got)
		}
		if got := readRSA(append(bytes.Clone(der), 0)); got != nil {
			t.Errorf("%d bits and more: %v", bits, got)
		}
		for i := range der {
			if got := readRSA(der[:i]); got != nil {
				t.Errorf("%d bits, %d octets: %v", bits, i, got)
			}
		}
		// The older form goes to the general parser.
		if got := readRSA(x509.MarshalPKCS1PublicKey(want)); got != nil {
			t.Errorf("%v", got)
		}
		if got, err := parseRSA(x509.MarshalPKCS1PublicKey(want)); err != nil || !got.Equal(want) {
			t.Errorf("%v, %v", got, err)
		}
	}
}

// FuzzRSA holds the reader of RSA keys against that of crypto/x509.
func FuzzRSA(f *testing.F) {
	for _, bits := range []int{512, 1024, 2048} {
		n := new(big.Int).Lsh(big.NewInt(1), uint(bits))
		for _, e := range []int{3, 65537, 1<<31 - 1} {
			der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n.Sub(n, big.NewInt(1)), E: e})
			if err != nil {
				f.Fatal(err)
			}
			f.Add(der)
		}
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		key := readRSA(der)
		if key == nil {
			return
		}
		k, err := x509.ParsePKIXPublicKey(der)
		if theirs, ok := k.(*rsa.PublicKey); err != nil || !ok || !theirs.Equal(key) {
			t.Fatalf("%x: %v, but %v (%v)", der, key, k, err)
		}
	})
}
