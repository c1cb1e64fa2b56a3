package login

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
)

// The types of channel binding: RFC 9266, and RFC 5929 §4.
const (
	bindExporter = "tls-exporter"
	bindEndPoint = "tls-server-end-point"
)

var errNoBinding = errors.New("login: no such channel binding here")

// binding returns the data of one type of channel binding. cert is the
// server's certificate, nil if it is not known.
func binding(kind string, s *tls.ConnectionState, cert *x509.Certificate) ([]byte, error) {
	switch {
	case s == nil || !s.HandshakeComplete:
	case kind == bindExporter:
		// crypto/tls refuses where RFC 9266 §4.2 does: TLS 1.2 without
		// extended master secret, and with renegotiation.
		return s.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
	case kind == bindEndPoint && cert != nil:
		return endPoint(cert)
	}
	return nil, errNoBinding
}

// endPoint hashes a certificate with the hash of its signature, SHA-256 at
// least. Where the signature names no hash the binding is not defined.
func endPoint(cert *x509.Certificate) ([]byte, error) {
	switch cert.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.SHA256WithRSA, x509.SHA256WithRSAPSS, x509.ECDSAWithSHA256:
		h := sha256.Sum256(cert.Raw)
		return h[:], nil
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		h := sha512.Sum384(cert.Raw)
		return h[:], nil
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		h := sha512.Sum512(cert.Raw)
		return h[:], nil
	}
	return nil, errNoBinding
}

// bindable reports whether any type of binding works on c.
func bindable(c *Conn) bool {
	if c == nil || c.TLS == nil {
		return false
	}
	for _, kind := range [...]string{bindExporter, bindEndPoint} {
		if _, err := binding(kind, c.TLS, c.Cert); err == nil {
			return true
		}
	}
	return false
}
