package netserve

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

func testCertificate(t *testing.T, name string, key any) tls.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	var public any
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		public = &key.PublicKey
	case *rsa.PrivateKey:
		public = &key.PublicKey
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func nameOf(cert *x509.Certificate) string {
	if cert == nil {
		return ""
	}
	return cert.DNSNames[0]
}

// tcpPipe is net.Pipe with buffers: both sides of TLS may write at once.
func tcpPipe(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if b, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if a, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// shake does one handshake and returns the certificate that the server says
// it sent, and the one that the client got.
func shake(t *testing.T, server *TLS, cfg, client *tls.Config) (sent, got string, resumed bool, err error) {
	t.Helper()
	a, b := tcpPipe(t)
	defer a.Close()
	defer b.Close()
	client = client.Clone()
	client.InsecureSkipVerify = true
	done := make(chan *tls.ConnectionState, 1)
	go func() {
		c := tls.Client(b, client)
		if c.Handshake() != nil {
			b.Close()
			done <- nil
			return
		}
		io.ReadFull(c, make([]byte, 1)) // and so the tickets of TLS 1.3 before it
		s := c.ConnectionState()
		done <- &s
	}()
	c, cert, err := server.Handshake(context.Background(), a, cfg)
	if err != nil {
		a.Close()
		<-done
		return "", "", false, err
	}
	c.Write([]byte("x"))
	s := <-done
	return nameOf(cert), nameOf(s.PeerCertificates[0]), s.DidResume, nil
}

func TestHandshakeCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	one, two := testCertificate(t, "one.test", key), testCertificate(t, "two.test", key)
	old := testCertificate(t, "rsa.test", rsaKey)
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
	by := func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		switch h.ServerName {
		case "two.test":
			return &tls.Config{Certificates: []tls.Certificate{two}}, nil
		case "bad.test":
			return nil, errors.New("no")
		}
		return nil, nil
	}
	for _, tt := range []struct {
		name, host, want string // want "" = the handshake fails
		cfg              *tls.Config
		client           *tls.Config
	}{
		{name: "one", want: "one.test", cfg: &tls.Config{Certificates: []tls.Certificate{one}}},
		{name: "one, parsed", want: "one.test", cfg: &tls.Config{Certificates: []tls.Certificate{parsed}}},
		{name: "none", cfg: &tls.Config{}},
		{name: "two, by name", host: "two.test", want: "two.test", cfg: &tls.Config{Certificates: []tls.Certificate{one, two}}},
		{name: "two, without a name", want: "one.test", cfg: &tls.Config{Certificates: []tls.Certificate{one, two}}},
		{name: "two, by another name", host: "x.test", want: "one.test", cfg: &tls.Config{Certificates: []tls.Certificate{one, two}}},
		{name: "two kinds, by what the client knows", want: "rsa.test", cfg: &tls.Config{Certificates: []tls.Certificate{one, old}},
			client: &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}},
		{name: "func", host: "two.test", want: "two.test", cfg: &tls.Config{GetCertificate: get}},
		{name: "func that knows nothing", host: "x.test", cfg: &tls.Config{GetCertificate: get}},
		{name: "func that fails", host: "bad.test", cfg: &tls.Config{GetCertificate: get, Certificates: []tls.Certificate{one}}},
		{name: "func beside one", host: "two.test", want: "two.test", cfg: &tls.Config{GetCertificate: get, Certificates: []tls.Certificate{one}}},
		{name: "func beside one, no name", want: "one.test", cfg: &tls.Config{GetCertificate: get, Certificates: []tls.Certificate{one}}},
		{name: "func that knows nothing, beside one", host: "x.test", want: "one.test", cfg: &tls.Config{GetCertificate: get, Certificates: []tls.Certificate{one}}},
		{name: "config by client", host: "two.test", want: "two.test", cfg: &tls.Config{GetConfigForClient: by, Certificates: []tls.Certificate{one}}},
		{name: "config by client, not for this", want: "one.test", cfg: &tls.Config{GetConfigForClient: by, Certificates: []tls.Certificate{one}}},
		{name: "config by client that fails", host: "bad.test", cfg: &tls.Config{GetConfigForClient: by, Certificates: []tls.Certificate{one}}},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			client := new(tls.Config)
			if tt.client != nil {
				client = tt.client.Clone()
			}
			client.ServerName = tt.host
			if client.MaxVersion == 0 {
				client.MinVersion, client.MaxVersion = version, version
			}
			var server TLS
			sent, got, _, err := shake(t, &server, tt.cfg, client)
			if (err != nil) != (tt.want == "") || got != tt.want || sent != tt.want {
				t.Errorf("%s, %s: sent %q, client got %q, want %q; %v", tt.name, tls.VersionName(version), sent, got, tt.want, err)
			}
		}
	}
}

// The certificate of a session that is resumed is not sent, and what is known
// of it depends on the configuration. Tickets stay those of the configuration
// that was given, whose keys may change.
func TestHandshakeResumed(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	one := testCertificate(t, "one.test", key)
	var asked atomic.Int32
	get := func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		asked.Add(1)
		if len(h.CipherSuites) == 0 || h.SupportedVersions == nil {
			return nil, fmt.Errorf("a question that nobody can answer: %+v", h)
		}
		return &one, nil
	}
	for _, tt := range []struct {
		name    string
		cfg     *tls.Config
		version uint16
		want    string
		asked   int32 // at the resumption
	}{
		{"one, 1.2", &tls.Config{Certificates: []tls.Certificate{one}}, tls.VersionTLS12, "one.test", 0},
		{"one, 1.3", &tls.Config{Certificates: []tls.Certificate{one}}, tls.VersionTLS13, "one.test", 0},
		{"func, 1.2", &tls.Config{GetCertificate: get}, tls.VersionTLS12, "one.test", 1},
		{"func, 1.3", &tls.Config{GetCertificate: get}, tls.VersionTLS13, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client := &tls.Config{ServerName: "one.test", MinVersion: tt.version, MaxVersion: tt.version, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
			var server TLS
			if sent, _, resumed, err := shake(t, &server, tt.cfg, client); sent != "one.test" || resumed || err != nil {
				t.Fatal(sent, resumed, err)
			}
			asked.Store(0)
			sent, _, resumed, err := shake(t, &server, tt.cfg, client)
			if !resumed || err != nil || sent != tt.want || asked.Load() != tt.asked {
				t.Errorf("resumed %v, sent %q, asked %d times, %v", resumed, sent, asked.Load(), err)
			}
			// Another process with the same keys knows the ticket too, and
			// with new keys nobody does.
			tt.cfg.SetSessionTicketKeys([][32]byte{{1}})
			if _, _, resumed, err := shake(t, &server, tt.cfg, client); resumed || err != nil {
				t.Errorf("with new keys: resumed %v, %v", resumed, err)
			}
			if _, _, resumed, err := shake(t, new(TLS), tt.cfg, client); !resumed || err != nil {
				t.Errorf("by another server: resumed %v, %v", resumed, err)
			}
		})
	}
}
