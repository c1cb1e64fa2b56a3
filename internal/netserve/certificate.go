package netserve

import (
	"crypto/tls"
	"crypto/x509"
)

// Certificate returns the certificate that a server sent in a handshake that
// has just ended, for channel binding: crypto/tls does not tell. It asks cfg
// once more, so that a certificate that is loaded anew is found; nil where
// cfg chooses by more than the name.
func Certificate(cfg *tls.Config, s *tls.ConnectionState) *x509.Certificate {
	if cfg == nil || cfg.GetConfigForClient != nil {
		return nil
	}
	var cert *tls.Certificate
	if cfg.GetCertificate != nil && (len(cfg.Certificates) == 0 || s.ServerName != "") {
		var err error
		cert, err = cfg.GetCertificate(&tls.ClientHelloInfo{ServerName: s.ServerName, SupportedVersions: []uint16{s.Version}, CipherSuites: []uint16{s.CipherSuite}})
		if err != nil {
			return nil
		}
	}
	if cert == nil && len(cfg.Certificates) == 1 {
		cert = &cfg.Certificates[0]
	}
	switch {
	case cert == nil || len(cert.Certificate) == 0:
		return nil
	case cert.Leaf != nil:
		return cert.Leaf
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil
	}
	return leaf
}
