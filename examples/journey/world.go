package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"time"

	"github.com/postrider/postrider/auth/dkim"
	"github.com/postrider/postrider/mx/mxtest"
)

// The two domains of the journey (RFC 6761 keeps .example free).
const (
	north = "north.example"
	south = "south.example"
)

// world is what both domains share: DNS and a certification authority.
type world struct {
	dns     *mxtest.DNS
	dnsAddr string
	ca      *x509.Certificate
	caKey   *ecdsa.PrivateKey
	roots   *x509.CertPool
}

func newWorld() (*world, error) {
	w := &world{dns: mxtest.NewDNS(mxtest.Zone{}), roots: x509.NewCertPool()}
	for _, d := range []string{north, south} {
		err := errors.Join(
			w.dns.Set(d, "MX 10 mx."+d, "TXT v=spf1 ip4:127.0.0.1 -all"),
			// Bounces have no reverse-path: SPF looks at the host's name.
			w.dns.Set("mx."+d, "A 127.0.0.1", "TXT v=spf1 a -all"),
			w.dns.Set("_dmarc."+d, "TXT v=DMARC1; p=reject; adkim=s; aspf=s"))
		if err != nil {
			return nil, err
		}
	}
	var err error
	if w.dnsAddr, err = w.dns.Listen(""); err != nil {
		return nil, err
	}
	if w.caKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Journey CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &w.caKey.PublicKey, w.caKey)
	if err != nil {
		return nil, err
	}
	if w.ca, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	w.roots.AddCert(w.ca)
	return w, nil
}

// certificate issues one for a host.
func (w *world) certificate(host string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{host}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, w.ca, &key.PublicKey, w.caKey)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// signers makes an RSA and an Ed25519 key for a domain and publishes them.
func (w *world) signers(domain string) ([]dkim.SignOptions, error) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	var opts []dkim.SignOptions
	for selector, key := range map[string]crypto.Signer{"r1": rsaKey, "e1": edKey} {
		record, err := dkim.NewRecord(key.Public())
		if err != nil {
			return nil, err
		}
		if err := w.dns.Set(dkim.RecordName(selector, domain), "TXT "+record.String()); err != nil {
			return nil, err
		}
		opts = append(opts, dkim.SignOptions{Domain: domain, Selector: selector, Key: key})
	}
	return opts, nil
}

// listen opens a free port of loopback.
func listen(ctx context.Context) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
}
