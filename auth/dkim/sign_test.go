package dkim

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/internal/canon"
	"github.com/postrider/postrider/internal/conformance"
)

func sign(t testing.TB, msg string, opts ...SignOptions) string {
	t.Helper()
	s, err := NewSigner(opts...)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(s, msg)
	field, err := s.Signature()
	if err != nil {
		t.Fatal(err)
	}
	return field
}

func verify(t testing.TB, z zone, msg string) []Verification {
	t.Helper()
	p := (&Verifier{Resolver: z}).Begin(t.Context())
	defer p.Close()
	io.WriteString(p, msg)
	r, err := p.Results()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func publish(t testing.TB, z zone, o SignOptions) {
	t.Helper()
	r, err := NewRecord(o.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	z[RecordName(o.Selector, o.Domain)] = r.String()
}

// TestRoundTrip signs messages of every shape with every key and
// canonicalization and verifies them.
func TestRoundTrip(t *testing.T) {
	long := strings.Repeat("x", 5000)
	messages := map[string]string{
		"plain":      "From: a@example.org\r\nTo: b@example.net\r\nSubject: s\r\n\r\nHello\r\n",
		"empty":      "From: a@example.org\r\n\r\n",
		"no body":    "From: a@example.org\r\n",
		"cut header": "From: a@example.org",
		"no CRLF":    "From: a@example.org\r\n\r\nHello",
		"blank":      "From: a@example.org\r\n\r\n\r\n\r\n \r\n\t\r\n",
		"white":      "From:a@example.org  \r\nSubject :  a \t b\r\n\t c\r\n\r\n  a  b\t\r\n\r\n\tc \r\n\r\n\r\n",
		"long line":  "From: a@example.org\r\nSubject: " + long + "\r\n\r\n" + long + "\r\n",
		"8bit, NUL":  "From: a@example.org\r\nSubject: gr\xfc\xdfe\r\n\r\n\x00\xff\r\rx\n\n\r\n.\r\n",
		"odd fields": "From: a@example.org\r\nno field\r\n folded\r\nX-\xff: y\r\nFrom: c@example.org\r\n\r\nx\r\n",
		"dots":       "From: a@example.org\r\n\r\n.\r\n..\r\n",
	}
	for _, k := range benchKeys(t) {
		for _, c := range []Canonicalization{Simple, Relaxed} {
			for _, body := range []Canonicalization{Simple, Relaxed} {
				o := SignOptions{Domain: "example.org", Selector: "s1", Key: k.key, Header: c, Body: body, Identity: "a b;c@mail.example.org", Lifetime: time.Hour}
				z := zone{}
				publish(t, z, o)
				for name, msg := range messages {
					field := sign(t, msg, o)
					for line := range strings.SplitSeq(strings.TrimSuffix(field, crlf), crlf) {
						if len(line) > lineLength {
							t.Errorf("line of %d octets: %s", len(line), line)
						}
					}
					r := verify(t, z, field+msg)
					if len(r) != 1 || r[0].Result != auth.Pass {
						t.Errorf("%s %s/%s %s: %+v\n%s", k.name, c, body, name, r, field)
						continue
					}
					if s := r[0].Signature; s.Identity != "a b;c@mail.example.org" || s.Time.IsZero() || s.Expires.Sub(s.Time) != time.Hour {
						t.Errorf("%s: %+v", name, s)
					}
					if r := verify(t, z, field+"From: evil@example.com\r\n"+msg); r[0].Result != auth.Fail {
						t.Errorf("%s: a From added above: %s", name, r[0].Result)
					}
				}
			}
		}
	}
}

func TestSeveralSignatures(t *testing.T) {
	var opts []SignOptions
	z := zone{}
	for i, k := range benchKeys(t) {
		o := SignOptions{Domain: "example.org", Selector: string(rune('a' + i)), Key: k.key}
		if i == 1 {
			o.Body = Simple
		}
		publish(t, z, o)
		opts = append(opts, o)
	}
	msg := "From: a@example.org\r\nSubject: x\r\n\r\nHello  there \r\n"
	field := sign(t, msg, opts...)
	r := verify(t, z, field+msg)
	if len(r) != 2 || r[0].Result != auth.Pass || r[1].Result != auth.Pass ||
		r[0].Signature.Selector != "a" || r[1].Signature.Selector != "b" {
		t.Errorf("%+v\n%s", r, field)
	}
}

func TestSignPieces(t *testing.T) {
	k := benchKeys(t)[1]
	msg := "From: a@example.org\r\nSubject: x\r\n y\r\n\r\nHello  there \r\n\r\nx\t\r\n\r\n"
	o := SignOptions{Domain: "example.org", Selector: "s", Key: k.key}
	z := zone{}
	publish(t, z, o)
	for size := 1; size < len(msg); size++ {
		s, err := NewSigner(o)
		if err != nil {
			t.Fatal(err)
		}
		for piece := range slices.Chunk([]byte(msg), size) {
			s.Write(piece)
		}
		field, err := s.Signature()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.Signature(); err != nil || again != field {
			t.Error("the second call differs")
		}
		if r := verify(t, z, field+msg); r[0].Result != auth.Pass {
			t.Errorf("pieces of %d: %v", size, r[0].Err)
		}
	}
}

func TestSignFields(t *testing.T) {
	k := benchKeys(t)[1]
	msg := "From: a@example.org\r\nX-A: 1\r\nX-A: 2\r\nX-B: 3\r\nSubject: s\r\n\r\n"
	for _, c := range []struct {
		fields, oversign []string
		want             string
	}{
		{nil, nil, "From From Reply-To To Cc Subject Subject Date Message-ID MIME-Version Content-Type Content-Transfer-Encoding"},
		{[]string{"x-a", "From"}, []string{}, "x-a x-a From From"},
		{[]string{"X-A"}, []string{"x-a", "X-B", "X-C"}, "From From X-A X-A X-A X-B X-B X-C"},
	} {
		s, err := ParseSignature(strings.TrimPrefix(sign(t, msg, SignOptions{Domain: "example.org", Selector: "s", Key: k.key, Fields: c.fields, Oversign: c.oversign}), FieldName+":"))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(s.Fields, " "); got != c.want {
			t.Errorf("%v, %v: h= %s, want %s", c.fields, c.oversign, got, c.want)
		}
	}
}

type failingKey struct{ crypto.Signer }

var errKey = errors.New("the token is locked")

func (failingKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, errKey }

func TestSignErrors(t *testing.T) {
	k := benchKeys(t)[1].key
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := SignOptions{Domain: "example.org", Selector: "s", Key: k}
	for name, c := range map[string]struct {
		change func(*SignOptions)
		want   error
	}{
		"domain":   {func(o *SignOptions) { o.Domain = "exa mple" }, ErrSyntax},
		"literal":  {func(o *SignOptions) { o.Domain = "[192.0.2.1]" }, ErrSyntax},
		"selector": {func(o *SignOptions) { o.Selector = "a;b" }, ErrSyntax},
		"identity": {func(o *SignOptions) { o.Identity = "a@example.com" }, ErrSyntax},
		"c":        {func(o *SignOptions) { o.Body = "nofws" }, ErrAlgorithm},
		"field":    {func(o *SignOptions) { o.Fields = []string{"a:b"} }, ErrSyntax},
		"key":      {func(o *SignOptions) { o.Key = ec }, ErrAlgorithm},
	} {
		o := good
		c.change(&o)
		if _, err := NewSigner(o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := NewSigner(); err == nil {
		t.Error("no options: no error")
	}
	for name, c := range map[string]struct {
		msg  string
		key  crypto.Signer
		want error
	}{
		"no From":     {"To: a@example.org\r\n\r\n", k, ErrNoFrom},
		"large":       {"From: a@example.org\r\nX: " + strings.Repeat("x", canon.MaxHeader) + "\r\n\r\n", k, ErrHeader},
		"many fields": {"From: a@example.org\r\n" + strings.Repeat("a:\r\n", canon.MaxFields) + "\r\n", k, ErrHeader},
		"key fails":   {"From: a@example.org\r\n\r\n", failingKey{k}, errKey},
	} {
		o := good
		o.Key = c.key
		s, err := NewSigner(o)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(s, c.msg)
		if _, err := s.Signature(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestPrivateKeys(t *testing.T) {
	for _, c := range []struct {
		file string
		want error
	}{{"rsa2048.pem", nil}, {"rsa1024.pem", nil}, {"rsa512.pem", ErrKeyWeak}} {
		b, err := os.ReadFile(conformance.Path(t, "dkim", "keys", c.file))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParsePrivateKey(b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.file, err, c.want)
		}
	}
	for _, k := range benchKeys(t) {
		der, err := x509.MarshalPKCS8PrivateKey(k.key)
		if err != nil {
			t.Fatal(err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}})
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
		got, err := ParsePrivateKey(text)
		if err != nil {
			t.Fatal(err)
		}
		if r, ok := k.key.(*rsa.PrivateKey); ok {
			if !r.Equal(got) {
				t.Error("another key")
			}
			text = pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(r)})
			if got, err := ParsePrivateKey(text); err != nil || !r.Equal(got) {
				t.Error("PKCS #1:", err)
			}
		}
		record, err := NewRecord(k.key.Public())
		if err != nil {
			t.Fatal(err)
		}
		record.Testing, record.Strict, record.Notes, record.Services = true, true, "a note; two", []string{"email"}
		again, err := ParseRecord(record.String())
		if err != nil || !again.Testing || !again.Strict || again.Notes != record.Notes || again.String() != record.String() {
			t.Errorf("%v %+v", err, again)
		}
		for s := range strings.SplitSeq(record.Zone("s", "example.org"), `"`) {
			if len(s) > 255 {
				t.Errorf("string of %d octets", len(s))
			}
		}
	}
	for _, text := range []string{"", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if _, err := ParsePrivateKey([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}
