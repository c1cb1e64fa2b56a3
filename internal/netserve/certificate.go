package netserve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
)

// TLS is a server's side of TLS that knows which certificate it has sent, for
// channel binding: crypto/tls does not tell. The zero value is ready. It may
// be used from many goroutines.
type TLS struct {
	once sync.Once
	cfg  *tls.Config
}

// Handshake makes nc TLS. cfg is the same at each call. cert is the
// certificate that was sent, nil if that is not known: when a session was
// resumed and cfg does not have exactly one.
func (t *TLS) Handshake(ctx context.Context, nc net.Conn, cfg *tls.Config) (c *tls.Conn, cert *x509.Certificate, err error) {
	t.once.Do(func() { t.cfg = recording(cfg) })
	var sent *tls.Certificate
	c = tls.Server(nc, t.cfg)
	if err := c.HandshakeContext(context.WithValue(ctx, sentKey{}, &sent)); err != nil {
		return c, nil, err
	}
	if sent == nil {
		sent = resumed(cfg, c.ConnectionState())
	}
	return c, leaf(sent), nil
}

// sentKey is the key of a **tls.Certificate in the context of a handshake.
type sentKey struct{}

// recording returns cfg with a GetCertificate that notes what is sent. A
// certificate that is loaded anew is found, and tickets are those of cfg,
// whose keys may change. cfg itself is returned where there is no choice.
func recording(cfg *tls.Config) *tls.Config {
	get := cfg.GetConfigForClient
	if get == nil && cfg.GetCertificate == nil && len(cfg.Certificates) == 1 {
		return cfg
	}
	r := noting(cfg)
	if cfg.WrapSession == nil && cfg.UnwrapSession == nil {
		r.WrapSession = cfg.EncryptTicket
		r.UnwrapSession = cfg.DecryptTicket
	}
	if get != nil {
		r.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			c, err := get(h)
			if c == nil || err != nil {
				return nil, err
			}
			return noting(c), nil
		}
	}
	return r
}

func noting(cfg *tls.Config) *tls.Config {
	r := cfg.Clone()
	r.Certificates = nil // or GetCertificate is not asked for a client that names no host
	r.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := choose(cfg, h)
		if sent, ok := h.Context().Value(sentKey{}).(**tls.Certificate); ok && err == nil {
			*sent = cert
		}
		return cert, err
	}
	return r
}

// choose is how crypto/tls chooses, as the documentation of tls.Config says.
func choose(cfg *tls.Config, h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cfg.GetCertificate != nil && (len(cfg.Certificates) == 0 || h.ServerName != "") {
		if cert, err := cfg.GetCertificate(h); cert != nil || err != nil {
			return cert, err
		}
	}
	for i := range cfg.Certificates {
		if len(cfg.Certificates) == 1 || h.SupportsCertificate(&cfg.Certificates[i]) == nil {
			return &cfg.Certificates[i], nil
		}
	}
	if len(cfg.Certificates) == 0 {
		return nil, nil // crypto/tls has the words for it
	}
	return &cfg.Certificates[0], nil
}

// resumed is the certificate of a session that began earlier: nothing was
// sent. In TLS 1.3 a client binds to the session instead, and the question
// could not be put as it was then.
func resumed(cfg *tls.Config, s tls.ConnectionState) *tls.Certificate {
	switch {
	case cfg.GetConfigForClient != nil:
	case cfg.GetCertificate == nil && len(cfg.Certificates) == 1:
		return &cfg.Certificates[0]
	case cfg.GetCertificate != nil && s.Version < tls.VersionTLS13:
		cert, err := choose(cfg, &tls.ClientHelloInfo{ServerName: s.ServerName, SupportedVersions: []uint16{s.Version}, CipherSuites: []uint16{s.CipherSuite}})
		if err == nil {
			return cert
		}
	}
	return nil
}

func leaf(cert *tls.Certificate) *x509.Certificate {
	switch {
	case cert == nil || len(cert.Certificate) == 0:
		return nil
	case cert.Leaf != nil:
		return cert.Leaf
	}
	x, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil
	}
	return x
}
