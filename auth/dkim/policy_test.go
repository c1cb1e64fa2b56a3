package dkim

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/internal/conformance"
)

func verifyWith(t testing.TB, v *Verifier, msg string) []Verification {
	t.Helper()
	p := v.Begin(t.Context())
	defer p.Close()
	io.WriteString(p, msg)
	r, err := p.Results()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestClock holds t= and x= against clocks that go wrong by more and by less
// than the skew.
func TestClock(t *testing.T) {
	k := benchKeys(t)[1]
	o := SignOptions{Domain: "example.org", Selector: "s", Key: k.key, Lifetime: time.Hour}
	z := zone{}
	publish(t, z, o)
	msg := "From: a@example.org\r\n\r\nHello\r\n"
	now := time.Now()
	msg = sign(t, msg, o) + msg
	for _, c := range []struct {
		skew, at time.Duration
		want     error
	}{
		{0, 0, nil}, {0, -4 * time.Minute, nil}, {0, -6 * time.Minute, ErrFuture},
		{0, time.Hour + 4*time.Minute, nil}, {0, time.Hour + 6*time.Minute, ErrExpired},
		{-1, -time.Minute, ErrFuture}, {-1, time.Hour + time.Minute, ErrExpired}, {time.Hour, 110 * time.Minute, nil},
	} {
		v := &Verifier{Resolver: z, Skew: c.skew, Now: func() time.Time { return now.Add(c.at) }}
		r := verifyWith(t, v, msg)[0]
		if !errors.Is(r.Err, c.want) || (r.Result == auth.Pass) != (c.want == nil) || c.want != nil && (r.Result != auth.PermError || r.Reason() == "") {
			t.Errorf("skew %v at %v: %s, %v", c.skew, c.at, r.Result, r.Err)
		}
	}
}

// weakMessage signs by hand what Signer refuses to.
func weakMessage(t *testing.T, algorithm, file string) (zone, string) {
	t.Helper()
	b, err := os.ReadFile(conformance.Path(t, "dkim", "keys", file))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	var k *rsa.PrivateKey
	if block.Type == "PRIVATE KEY" {
		var key any
		if key, err = x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			k = key.(*rsa.PrivateKey)
		}
	} else {
		k, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	n, d := k.N, k.D
	info, sum := sha256Info, func(b string) []byte { s := sha256.Sum256([]byte(b)); return s[:] }
	if algorithm == rsaSHA1 {
		info, sum = sha1Info, func(b string) []byte { s := sha1.Sum([]byte(b)); return s[:] }
	}
	field := FieldName + ": v=1; a=" + algorithm + "; c=simple/simple; d=example.org; s=w; h=From; bh=" +
		base64.StdEncoding.EncodeToString(sum("Hello\r\n")) + "; b="
	digest := sum("From: a@example.org\r\n" + field)
	size := (n.BitLen() + 7) / 8
	em := append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, size-3-len(info)-len(digest))...)
	em = append(append(append(em, 0), info...), digest...)
	m := new(big.Int).SetBytes(em)
	sig := m.Exp(m, d, n).FillBytes(make([]byte, size))
	return zone{"w._domainkey.example.org": "v=DKIM1; p=" + base64.StdEncoding.EncodeToString(public)},
		field + base64.StdEncoding.EncodeToString(sig) + "\r\nFrom: a@example.org\r\n\r\nHello\r\n"
}

// TestWeak: rsa-sha1 and short keys are refused, and with ReportWeak told
// apart from what is forged.
func TestWeak(t *testing.T) {
	for _, c := range []struct {
		algorithm, file string
		want            error
	}{
		{rsaSHA1, "rsa2048.pem", ErrAlgorithm}, {rsaSHA1, "rsa512.pem", ErrAlgorithm}, {RSASHA256, "rsa512.pem", ErrKeyWeak},
	} {
		z, msg := weakMessage(t, c.algorithm, c.file)
		if r := verify(t, z, msg)[0]; r.Result != auth.PermError || !errors.Is(r.Err, c.want) {
			t.Errorf("%s %s: %s, %v", c.algorithm, c.file, r.Result, r.Err)
		}
		v := &Verifier{Resolver: z, ReportWeak: true}
		if r := verifyWith(t, v, msg)[0]; r.Result != auth.Policy || !errors.Is(r.Err, c.want) || r.Key == nil {
			t.Errorf("reported, %s %s: %s, %v", c.algorithm, c.file, r.Result, r.Err)
		}
		for _, forged := range []string{strings.Replace(msg, "From: a", "From: b", 1), strings.Replace(msg, "Hello", "Hallo", 1)} {
			if r := verifyWith(t, v, forged)[0]; r.Result != auth.Fail {
				t.Errorf("forged, %s %s: %s, %v", c.algorithm, c.file, r.Result, r.Err)
			}
		}
	}
}

func TestPrehash(t *testing.T) {
	header, body := "From: a@example.org\r\nSubject: x\r\n\r\n", "Hello  there \r\n\r\n\r\n"
	for _, c := range []Canonicalization{"", Simple, Relaxed} {
		o := SignOptions{Domain: "example.org", Selector: "s", Key: benchKeys(t)[1].key, Body: c}
		z := zone{}
		publish(t, z, o)
		h := NewPrehash(c)
		for _, piece := range []string{header[:9], header[9:] + body[:3], body[3:]} {
			io.WriteString(h, piece)
		}
		o.BodyHash = h.Sum()
		if !bytes.Equal(h.Sum(), o.BodyHash) {
			t.Error("the second Sum differs")
		}
		for _, written := range []string{header, header + "anything", header[:len(header)-2]} {
			if r := verify(t, z, sign(t, written, o)+header+body); r[0].Result != auth.Pass {
				t.Errorf("%q: %v", c, r[0].Err)
			}
		}
	}
	if _, err := NewSigner(SignOptions{Domain: "example.org", Selector: "s", Key: benchKeys(t)[1].key, BodyHash: []byte{1}}); !errors.Is(err, ErrSyntax) {
		t.Error("short hash:", err)
	}
}

func TestGenerateKey(t *testing.T) {
	for _, algorithm := range []string{RSASHA256, Ed25519SHA256} {
		key, err := GenerateKey(algorithm, 0)
		if err != nil {
			t.Fatal(err)
		}
		text, err := MarshalPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParsePrivateKey(text)
		if err != nil || !again.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
			t.Error(algorithm, err)
		}
	}
	if _, err := GenerateKey(RSASHA256, 512); !errors.Is(err, ErrKeyWeak) {
		t.Error(err)
	}
	if _, err := GenerateKey("rsa-sha1", 0); !errors.Is(err, ErrAlgorithm) {
		t.Error(err)
	}
	if _, err := MarshalPrivateKey(hardware{}); !errors.Is(err, ErrAlgorithm) {
		t.Error(err)
	}
	if r, err := ParseRecord("g=a*; p=" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "; k=ed25519"); err != nil || r.Granularity != "a*" {
		t.Errorf("%+v, %v", r, err)
	}
}

// hardware is a key that cannot be had, only used.
type hardware struct{ key ed25519.PrivateKey }

func (h hardware) Public() crypto.PublicKey { return h.key.Public() }
func (h hardware) Sign(_ io.Reader, b []byte, o crypto.SignerOpts) ([]byte, error) {
	return h.key.Sign(rand.Reader, b, o)
}

func TestHardwareKey(t *testing.T) {
	o := SignOptions{Domain: "example.org", Selector: "s", Key: hardware{ed25519.NewKeyFromSeed(make([]byte, 32))}}
	z := zone{}
	publish(t, z, o)
	msg := "From: a@example.org\r\n\r\nHello\r\n"
	if r := verify(t, z, sign(t, msg, o)+msg); r[0].Result != auth.Pass {
		t.Error(r[0].Err)
	}
}
