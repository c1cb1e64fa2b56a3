package netserve

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"testing"
)

func TestCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(name string) tls.Certificate {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	one, two := certificate("one.test"), certificate("two.test")
	parsed := one
	parsed.Leaf, _ = x509.ParseCertificate(one.Certificate[0])
	get := func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		switch h.ServerName {
		case "two.test":
			return &two, nil
		case "bad.test":
			return nil, errors.New("no")
		}
		return nil, nil
	}
	named := &tls.ConnectionState{ServerName: "two.test", Version: tls.VersionTLS12}
	for _, tt := range []struct {
		name string
		cfg  *tls.Config
		s    *tls.ConnectionState
		want string
	}{
		{"nil", nil, named, ""},
		{"none", &tls.Config{}, named, ""},
		{"one", &tls.Config{Certificates: []tls.Certificate{one}}, named, "one.test"},
		{"one, parsed", &tls.Config{Certificates: []tls.Certificate{parsed}}, named, "one.test"},
		{"broken", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{{1}}}}}, named, ""},
		{"two", &tls.Config{Certificates: []tls.Certificate{one, two}}, named, ""}, // it depends on more than the name
		{"func", &tls.Config{GetCertificate: get}, named, "two.test"},
		{"func beside one", &tls.Config{GetCertificate: get, Certificates: []tls.Certificate{one}}, named, "two.test"},
		{"func beside one, no name", &tls.Config{GetCertificate: get, Certificates: []tls.Certificate{one}}, &tls.ConnectionState{}, "one.test"},
		{"func that knows nothing, beside one", &tls.Config{GetCertificate: get, Certificates: []tls.Certificate{one}}, &tls.ConnectionState{ServerName: "x.test"}, "one.test"},
		{"func that fails", &tls.Config{GetCertificate: get, Certificates: []tls.Certificate{one}}, &tls.ConnectionState{ServerName: "bad.test"}, ""},
		{"config by client", &tls.Config{Certificates: []tls.Certificate{one}, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }}, named, ""},
	} {
		got := ""
		if c := Certificate(tt.cfg, tt.s); c != nil {
			got = c.DNSNames[0]
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
