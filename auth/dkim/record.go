package dkim

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/postrider/postrider/auth/internal/canon"
)

// minRSA is the smallest RSA key, in bits, that may sign and that counts
// (RFC 8301 §3.2), maxRSA the largest that is worth the time.
const (
	minRSA = 1024
	maxRSA = 8192
)

// Record is a public key as it is published in the DNS (RFC 6376 §3.6.1).
// To publish one, print it.
type Record struct {
	PublicKey crypto.PublicKey // *rsa.PublicKey or ed25519.PublicKey
	// Hashes are the hash algorithms that may be used, h=; nil = any.
	Hashes []string
	// Services are the service types, s=; nil = any.
	Services []string
	Notes    string // n=
	// Granularity is g= of RFC 4871, which RFC 6376 has taken out: reported,
	// and without any effect; "" = absent.
	Granularity string
	// Testing is the flag y: the domain tries DKIM out. Such a message is to
	// be treated no worse than an unsigned one.
	Testing bool
	// Strict is the flag s: the domain of i= must be d= itself.
	Strict bool
}

// NewRecord returns the record to publish for a key. Errors are those of
// ParsePrivateKey.
func NewRecord(key crypto.PublicKey) (*Record, error) {
	if _, err := algorithmOf(key); err != nil {
		return nil, err
	}
	return &Record{PublicKey: key}, nil
}

// ParseRecord parses the text of a key record. Errors wrap ErrSyntax,
// ErrKeyRevoked (an empty p=), ErrAlgorithm (a k= not known here) or
// ErrKeyWeak (RSA under 1024 bits, RFC 8301 §3.2).
func ParseRecord(text string) (*Record, error) {
	r, err := parseRecord(text)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// parseRecord returns the record beside ErrKeyWeak too.
func parseRecord(text string) (*Record, error) {
	var room [maxTags]canon.Tag
	tags, err := appendTags(room[:0], text)
	if err != nil {
		return nil, err
	}
	r := new(Record)
	kind, p, found := "rsa", "", false
	for i, t := range tags {
		switch t.Name {
		case "v":
			if i != 0 || t.Value != "DKIM1" {
				return nil, fmt.Errorf("%w: v= of the key record", ErrSyntax)
			}
		case "k":
			kind = strings.ToLower(t.Value)
		case "p":
			p, found = t.Value, true
		case "h":
			r.Hashes = canon.SplitColon(strings.ToLower(t.Value))
		case "s":
			r.Services = canon.SplitColon(strings.ToLower(t.Value))
		case "g":
			r.Granularity = t.Value
		case "n":
			if r.Notes, err = canon.DecodeQP(strings.ReplaceAll(t.Value, " ", "=20")); err != nil {
				r.Notes = t.Value // for humans only
			}
		case "t":
			r.Testing = listHas(t.Value, "y")
			r.Strict = listHas(t.Value, "s")
		}
	}
	switch {
	case !found:
		return nil, fmt.Errorf("%w: no p= in the key record", ErrSyntax)
	case canon.TrimFWS(p) == "":
		return nil, ErrKeyRevoked
	}
	der, err := canon.DecodeBase64(p)
	if err != nil {
		return nil, fmt.Errorf("%w: p= of the key record is not base64", ErrSyntax)
	}
	switch kind {
	case "rsa":
		var key *rsa.PublicKey
		if key, err = parseRSA(der); key != nil {
			r.PublicKey = key
		}
	case "ed25519":
		if len(der) != ed25519.PublicKeySize {
			err = fmt.Errorf("%w: Ed25519 key of %d octets", ErrSyntax, len(der))
		}
		r.PublicKey = ed25519.PublicKey(der)
	default:
		err = fmt.Errorf("%w: k=%.40q", ErrAlgorithm, kind)
	}
	if err != nil && !errors.Is(err, ErrKeyWeak) {
		return nil, err
	}
	return r, err
}

// parseRSA reads what RFC 6376 §3.6.1 says, an RSAPublicKey, and what
// everybody publishes, a SubjectPublicKeyInfo.
func parseRSA(der []byte) (*rsa.PublicKey, error) {
	key := readRSA(der)
	if key != nil {
		return key, checkRSA(key)
	}
	if k, err := x509.ParsePKIXPublicKey(der); err == nil {
		var ok bool
		if key, ok = k.(*rsa.PublicKey); !ok {
			return nil, fmt.Errorf("%w: the key is not RSA", ErrSyntax)
		}
	} else if key, err = x509.ParsePKCS1PublicKey(der); err != nil {
		return nil, fmt.Errorf("%w: p= of the key record is no RSA key", ErrSyntax)
	}
	return key, checkRSA(key)
}

// rsaEncryption is the AlgorithmIdentifier of RSA keys (RFC 8017 appendix C).
const rsaEncryption = "\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00"

// readRSA reads a SubjectPublicKeyInfo of RSA as nearly all are, in a third of
// the time of the general parser; nil leaves the judgement to that.
func readRSA(der []byte) *rsa.PublicKey {
	info, rest := readDER(0x30, der)
	if len(rest) > 0 || !bytes.HasPrefix(info, []byte(rsaEncryption)) {
		return nil
	}
	bits, rest := readDER(0x03, info[len(rsaEncryption):])
	if len(rest) > 0 || len(bits) == 0 || bits[0] != 0 {
		return nil
	}
	numbers, rest := readDER(0x30, bits[1:])
	if len(rest) > 0 {
		return nil
	}
	n, rest := readDER(0x02, numbers)
	e, rest := readDER(0x02, rest)
	if len(rest) > 0 || !isPositive(n) || !isPositive(e) || len(e) > 3 {
		return nil
	}
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(n)}
	for _, b := range e {
		key.E = key.E<<8 | int(b)
	}
	return key
}

// readDER reads one element of a tag; the value is nil when it is not there or
// not DER.
func readDER(tag byte, der []byte) (value, rest []byte) {
	if len(der) < 2 || der[0] != tag {
		return nil, nil
	}
	n, der := int(der[1]), der[2:]
	switch {
	case n < 0x80:
	case n == 0x81 && len(der) >= 1 && der[0] >= 0x80:
		n, der = int(der[0]), der[1:]
	case n == 0x82 && len(der) >= 2 && der[0] > 0:
		n, der = int(der[0])<<8|int(der[1]), der[2:]
	default:
		return nil, nil
	}
	if n > len(der) {
		return nil, nil
	}
	return der[:n], der[n:]
}

// isPositive reports whether the value of an INTEGER is above zero, in as few
// octets as possible.
func isPositive(b []byte) bool {
	if len(b) == 0 || b[0] >= 0x80 {
		return false
	}
	return b[0] > 0 || len(b) > 1 && b[1] >= 0x80
}

func checkRSA(key *rsa.PublicKey) error {
	switch n := key.N.BitLen(); {
	case n < minRSA:
		return fmt.Errorf("%w: %d bits", ErrKeyWeak, n)
	case n > maxRSA:
		return fmt.Errorf("%w: RSA key of %d bits", ErrAlgorithm, n)
	}
	return nil
}

// String returns the text to publish in a TXT record, "" when PublicKey is of
// another type. It is often longer than the 255 octets of one string of a TXT
// record: see Zone.
func (r *Record) String() string {
	kind, der := "", []byte(nil)
	switch k := r.PublicKey.(type) {
	case *rsa.PublicKey:
		var err error
		if der, err = x509.MarshalPKIXPublicKey(k); err != nil {
			return ""
		}
		kind = "rsa"
	case ed25519.PublicKey:
		kind, der = "ed25519", k
	default:
		return ""
	}
	var b strings.Builder
	b.WriteString("v=DKIM1; k=" + kind)
	if r.Hashes != nil {
		b.WriteString("; h=" + strings.Join(r.Hashes, ":"))
	}
	if r.Services != nil {
		b.WriteString("; s=" + strings.Join(r.Services, ":"))
	}
	if r.Notes != "" {
		b.WriteString("; n=" + canon.EncodeQP(r.Notes))
	}
	switch {
	case r.Testing && r.Strict:
		b.WriteString("; t=y:s")
	case r.Testing:
		b.WriteString("; t=y")
	case r.Strict:
		b.WriteString("; t=s")
	}
	b.WriteString("; p=" + base64.StdEncoding.EncodeToString(der))
	return b.String()
}

// Zone returns the record as a line of a zone file (RFC 1035 §5), its text cut
// into strings of at most 255 octets.
func (r *Record) Zone(selector, domain string) string {
	text := r.String()
	var b strings.Builder
	b.WriteString(RecordName(selector, domain) + ". IN TXT (")
	for len(text) > 0 {
		n := min(len(text), 255)
		b.WriteString(` "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text[:n]) + `"`)
		text = text[n:]
	}
	b.WriteString(" )")
	return b.String()
}

// RecordName returns the name under which the key of a selector is published
// (RFC 6376 §3.6.2.1), without a final dot.
func RecordName(selector, domain string) string {
	return selector + "._domainkey." + domain
}

// ParsePrivateKey reads the first private key of a PEM file: PKCS #8, or the
// older PKCS #1 for RSA. It must be RSA of at least 1024 bits (2048 are
// recommended, RFC 8301 §3.2) or Ed25519.
func ParsePrivateKey(pemFile []byte) (crypto.Signer, error) {
	for {
		block, rest := pem.Decode(pemFile)
		if block == nil {
			return nil, errors.New("dkim: no private key in the PEM file")
		}
		pemFile = rest
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("dkim: private key: %w", err)
		}
		s, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("%w: private key of type %T", ErrAlgorithm, key)
		}
		if _, err := algorithmOf(s.Public()); err != nil {
			return nil, err
		}
		return s, nil
	}
}

// algorithmOf returns what a key signs with.
func algorithmOf(key crypto.PublicKey) (string, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return RSASHA256, checkRSA(k)
	case ed25519.PublicKey:
		return Ed25519SHA256, nil
	default:
		return "", fmt.Errorf("%w: key of type %T", ErrAlgorithm, k)
	}
}
