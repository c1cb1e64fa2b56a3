package dane_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/mx/dane"
)

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// authority issues certificates; nil issues itself.
type issued struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func issue(t testing.TB, by *issued, ca bool, cn string, names ...string) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn}, DNSNames: names,
		NotBefore: begin, NotAfter: begin.Add(24 * time.Hour), IsCA: ca, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	parent, signer := tmpl, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issued{cert, key}
}

func record(t testing.TB, u dane.Usage, s dane.Selector, m dane.MatchingType, c *issued) dane.Record {
	t.Helper()
	r, err := dane.New(u, s, m, c.cert)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestVerify(t *testing.T) {
	root := issue(t, nil, true, "root")
	sub := issue(t, root, true, "sub")
	host := issue(t, sub, false, "", "mx.example.test", "*.wild.test")
	cn := issue(t, sub, false, "mx.example.test")
	wildCN := issue(t, sub, false, "*.example.test")
	self := issue(t, nil, true, "", "mx.example.test")
	other := issue(t, nil, true, "root")
	full := []*issued{host, sub, root}
	noon := begin.Add(12 * time.Hour)

	for _, tt := range []struct {
		name    string
		records []dane.Record
		chain   []*issued
		names   string
		now     time.Time
		ok      bool
	}{
		{"EE key", []dane.Record{record(t, 3, 1, 1, host)}, full, "", noon, true},
		{"EE key, SHA-512", []dane.Record{record(t, 3, 1, 2, host)}, full, "", noon, true},
		{"EE certificate", []dane.Record{record(t, 3, 0, 1, host)}, full, "", noon, true},
		{"EE whole key", []dane.Record{record(t, 3, 1, 0, host)}, full, "", noon, true},
		{"EE whole certificate", []dane.Record{record(t, 3, 0, 0, host)}, full, "", noon, true},
		{"EE knows no expiry", []dane.Record{record(t, 3, 1, 1, host)}, full, "", begin.Add(1000 * time.Hour), true},
		{"EE of another", []dane.Record{record(t, 3, 1, 1, other)}, full, "mx.example.test", noon, false},
		{"EE of the authority", []dane.Record{record(t, 3, 1, 1, sub)}, full, "mx.example.test", noon, false},
		{"second record", []dane.Record{record(t, 3, 1, 1, other), record(t, 3, 1, 1, host)}, full, "", noon, true},
		{"TA root", []dane.Record{record(t, 2, 0, 1, root)}, full, "mx.example.test", noon, true},
		{"TA in between", []dane.Record{record(t, 2, 1, 1, sub)}, full, "mx.example.test", noon, true},
		{"TA in between, no root sent", []dane.Record{record(t, 2, 1, 1, sub)}, full[:2], "mx.example.test", noon, true},
		{"TA not sent", []dane.Record{record(t, 2, 1, 1, root)}, full[:2], "mx.example.test", noon, false},
		{"TA not sent, in the record", []dane.Record{record(t, 2, 0, 0, root)}, full[:2], "mx.example.test", noon, true},
		{"TA sent, not its issuer", []dane.Record{record(t, 2, 0, 1, other)}, []*issued{host, sub, other}, "mx.example.test", noon, false},
		{"TA and another name", []dane.Record{record(t, 2, 0, 1, root)}, full, "mx.evil.test", noon, false},
		{"TA and a second name", []dane.Record{record(t, 2, 0, 1, root)}, full, "example.test mx.example.test.", noon, true},
		{"TA and a wildcard", []dane.Record{record(t, 2, 0, 1, root)}, full, "a.wild.test", noon, true},
		{"TA and a wildcard two levels up", []dane.Record{record(t, 2, 0, 1, root)}, full, "a.b.wild.test", noon, false},
		{"TA and no name", []dane.Record{record(t, 2, 0, 1, root)}, full, "", noon, false},
		{"TA knows expiry", []dane.Record{record(t, 2, 0, 1, root)}, full, "mx.example.test", begin.Add(1000 * time.Hour), false},
		{"TA, common name", []dane.Record{record(t, 2, 0, 1, root)}, []*issued{cn, sub, root}, "MX.example.test", noon, true},
		{"TA, wildcard common name", []dane.Record{record(t, 2, 0, 1, root)}, []*issued{wildCN, sub, root}, "mx.example.test", noon, true},
		{"TA, common name of another", []dane.Record{record(t, 2, 0, 1, root)}, []*issued{cn, sub, root}, "mx2.example.test", noon, false},
		{"TA is the host's own", []dane.Record{record(t, 2, 0, 1, self)}, []*issued{self}, "mx.example.test", noon, false},
		{"PKIX usage", []dane.Record{record(t, 1, 1, 1, host)}, full, "mx.example.test", noon, false},
		{"no record", nil, full, "mx.example.test", noon, false},
		{"no certificate", []dane.Record{record(t, 3, 1, 1, host)}, nil, "mx.example.test", noon, false},
	} {
		var state tls.ConnectionState
		for _, c := range tt.chain {
			state.PeerCertificates = append(state.PeerCertificates, c.cert)
		}
		got, err := dane.Verify(tt.records, strings.Fields(tt.names), state, tt.now)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, dane.ErrMismatch) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.ok && got.String() != tt.records[len(tt.records)-1].String() {
			t.Errorf("%s: matched %v", tt.name, got)
		}
	}
}

func TestUsable(t *testing.T) {
	c := issue(t, nil, false, "", "mx.example.test")
	key := record(t, 3, 1, 0, c).Data
	sum := func(n int) string { return strings.Repeat("ab", n) }
	for s, want := range map[string]bool{
		"3 1 1 " + sum(32): true, "3 1 2 " + sum(64): true, "2 0 1 " + sum(32): true,
		"3 1 1 " + sum(31): false, "3 1 2 " + sum(32): false, "3 1 1 " + sum(64): false,
		"0 0 1 " + sum(32): false, "1 1 1 " + sum(32): false, "4 1 1 " + sum(32): false, "255 1 1 " + sum(32): false,
		"3 2 1 " + sum(32): false, "3 1 3 " + sum(32): false, "3 1 0 " + sum(32): false, "3 0 0 " + sum(32): false, "3 9 0 " + sum(32): false,
	} {
		r, err := dane.Parse(s)
		if err != nil || r.Usable() != want {
			t.Errorf("%s: %v %v", s, r.Usable(), err)
		}
	}
	if !(dane.Record{Usage: 3, Selector: 1, Data: key}).Usable() || !record(t, 2, 0, 0, c).Usable() {
		t.Error("whole data is not usable")
	}
	// Digest agility.
	all := []dane.Record{record(t, 3, 1, 1, c), record(t, 3, 1, 2, c), record(t, 2, 1, 1, c), record(t, 3, 0, 1, c), record(t, 3, 1, 0, c), record(t, 0, 0, 1, c)}
	var got []string
	for _, r := range dane.Usable(all) {
		got = append(got, r.String()[:5])
	}
	if s := strings.Join(got, ", "); s != "3 1 2, 2 1 1, 3 0 1, 3 1 0" {
		t.Error(s)
	}
	if many := dane.Usable(make([]dane.Record, 100_000)); len(many) != 0 {
		t.Error(len(many))
	}
}

func TestParse(t *testing.T) {
	for _, s := range []string{"", "3 1 1", "3 1 x ab", "3 1 256 ab", "-1 1 1 ab", "3 1 1 abc", "3 1 1 xy"} {
		if r, err := dane.Parse(s); !errors.Is(err, dane.ErrRecord) {
			t.Errorf("%q: %v %v", s, r, err)
		}
	}
	r, err := dane.Parse("3 1 1 ab cd\tEF")
	if err != nil || r.String() != "3 1 1 ABCDEF" {
		t.Error(r, err)
	}
	c := issue(t, nil, false, "", "a.test")
	if _, err := dane.New(3, 2, 1, c.cert); !errors.Is(err, dane.ErrRecord) {
		t.Error(err)
	}
	if _, err := dane.New(3, 1, 3, c.cert); !errors.Is(err, dane.ErrRecord) {
		t.Error(err)
	}
	if n := dane.Name("mx.example.test.", 2525); n != "_2525._tcp.mx.example.test." {
		t.Error(n)
	}
}

// FuzzRecord: what is read is written so that it reads the same, and any data
// can be tried against a certificate.
func FuzzRecord(f *testing.F) {
	c := issue(f, nil, false, "", "a.test")
	for _, s := range []string{"3 1 1 ab", record(f, 3, 0, 0, c).String(), record(f, 2, 1, 0, c).String(), "2 0 0 30"} {
		f.Add(s)
	}
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.cert, c.cert}}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := dane.Parse(s)
		if err != nil {
			return
		}
		again, err := dane.Parse(r.String())
		if len(r.Data) > 0 && (err != nil || again.String() != r.String()) {
			t.Errorf("%v, then %v %v", r, again, err)
		}
		dane.Verify(dane.Usable([]dane.Record{r}), []string{"a.test"}, state, begin)
	})
}

func BenchmarkVerify(b *testing.B) {
	c := issue(b, nil, false, "", "a.test")
	r := []dane.Record{record(b, 3, 1, 1, c)}
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.cert}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := dane.Verify(r, nil, state, begin); err != nil {
			b.Fatal(err)
		}
	}
}
