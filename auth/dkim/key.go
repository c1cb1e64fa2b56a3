package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// GenerateKey makes a new private key for an algorithm, RSASHA256 or
// Ed25519SHA256. bits is for RSA: 0 = 2048, which RFC 8301 §3.2 recommends;
// less than 1024 is ErrKeyWeak. Publish NewRecord(key.Public()), and keep what
// MarshalPrivateKey returns.
func GenerateKey(algorithm string, bits int) (crypto.Signer, error) {
	switch algorithm {
	case RSASHA256:
		if bits == 0 {
			bits = 2048
		}
		if bits < minRSA {
			return nil, fmt.Errorf("%w: %d bits", ErrKeyWeak, bits)
		}
		if bits > maxRSA {
			return nil, fmt.Errorf("%w: RSA key of %d bits", ErrAlgorithm, bits)
		}
		return rsa.GenerateKey(rand.Reader, bits)
	case Ed25519SHA256:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("%w: %q", ErrAlgorithm, algorithm)
}

// MarshalPrivateKey returns a key as a PEM file (PKCS #8), which
// ParsePrivateKey and other programs read. Keys in hardware cannot be had:
// ErrAlgorithm.
func MarshalPrivateKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAlgorithm, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
