package dane

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Usage says what a record pins (RFC 6698 §2.1.1).
type Usage uint8

// The usages. Only TA and EE are for SMTP (RFC 7672 §3.1.3).
const (
	UsagePKIXTA Usage = 0
	UsagePKIXEE Usage = 1
	UsageTA     Usage = 2 // DANE-TA: an authority that the chain leads to
	UsageEE     Usage = 3 // DANE-EE: the host's own certificate or key
)

// Selector says which part of the certificate is meant (RFC 6698 §2.1.2).
type Selector uint8

// The selectors.
const (
	SelectorCert Selector = 0 // all of it
	SelectorSPKI Selector = 1 // its public key
)

// MatchingType says how Data stands for that part (RFC 6698 §2.1.3).
type MatchingType uint8

// The matching types.
const (
	MatchingFull   MatchingType = 0
	MatchingSHA256 MatchingType = 1
	MatchingSHA512 MatchingType = 2
)

// Record is a TLSA record (RFC 6698 §2.1).
type Record struct {
	Usage        Usage
	Selector     Selector
	MatchingType MatchingType
	Data         []byte
}

// ErrRecord is wrapped by what [Parse] and [New] return.
var ErrRecord = errors.New("dane: malformed TLSA record")

// New returns the record to publish for a certificate: usually EE, SPKI,
// SHA256 ("3 1 1", RFC 7671 §5.1), whose key may outlive the certificate.
func New(u Usage, s Selector, m MatchingType, cert *x509.Certificate) (Record, error) {
	r := Record{Usage: u, Selector: s, MatchingType: m}
	part, ok := r.part(cert)
	if !ok {
		return Record{}, fmt.Errorf("%w: unknown selector %d", ErrRecord, s)
	}
	if r.Data, ok = r.digest(part); !ok {
		return Record{}, fmt.Errorf("%w: unknown matching type %d", ErrRecord, m)
	}
	return r, nil
}

// Name is where the records of a host stand: "_25._tcp.mx.example.org.".
func Name(host string, port uint16) string {
	return "_" + strconv.Itoa(int(port)) + "._tcp." + strings.TrimSuffix(host, ".") + "."
}

// Parse reads the form of master files, "3 1 1 D2AB…"; the data may have
// white space in it (RFC 6698 §2.2).
func Parse(s string) (Record, error) {
	f := strings.Fields(s)
	if len(f) < 4 {
		return Record{}, fmt.Errorf("%w: want usage, selector, matching type and data", ErrRecord)
	}
	var n [3]uint8
	for i := range n {
		v, err := strconv.ParseUint(f[i], 10, 8)
		if err != nil {
			return Record{}, fmt.Errorf("%w: %q is no number up to 255", ErrRecord, f[i])
		}
		n[i] = uint8(v)
	}
	data, err := hex.DecodeString(strings.Join(f[3:], ""))
	if err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	return Record{Usage(n[0]), Selector(n[1]), MatchingType(n[2]), data}, nil
}

// String returns the form of master files.
func (r Record) String() string {
	return fmt.Sprintf("%d %d %d %X", r.Usage, r.Selector, r.MatchingType, r.Data)
}

// Usable reports whether SMTP can be authenticated by r: its usage is TA or
// EE, the rest is known, and the data can be what it stands for (RFC 6698
// §4.1, RFC 7672 §3.1).
func (r Record) Usable() bool {
	if r.Usage != UsageTA && r.Usage != UsageEE {
		return false
	}
	switch r.MatchingType {
	case MatchingSHA256:
		return r.Selector <= SelectorSPKI && len(r.Data) == sha256.Size
	case MatchingSHA512:
		return r.Selector <= SelectorSPKI && len(r.Data) == sha512.Size
	case MatchingFull:
		var err error
		switch r.Selector {
		case SelectorCert:
			_, err = x509.ParseCertificate(r.Data)
		case SelectorSPKI:
			_, err = x509.ParsePKIXPublicKey(r.Data)
		default:
			return false
		}
		return err == nil
	}
	return false
}

// maxRecords bounds the records of one host that are looked at.
const maxRecords = 32

// Usable returns the records that count: those that are usable, without
// those whose digest is weaker than that of another with the same usage and
// selector (RFC 7671 §9). None of some means: TLS is required, and nothing
// can be authenticated (RFC 7672 §2.2).
func Usable(records []Record) []Record {
	var out []Record
	for _, r := range records[:min(len(records), maxRecords)] {
		if r.Usable() {
			out = append(out, r)
		}
	}
	strong := func(r Record) bool {
		return slices.ContainsFunc(out, func(o Record) bool {
			return o.Usage == r.Usage && o.Selector == r.Selector && o.MatchingType == MatchingSHA512
		})
	}
	kept := out[:0:0]
	for _, r := range out {
		if r.MatchingType != MatchingSHA256 || !strong(r) {
			kept = append(kept, r)
		}
	}
	return kept
}

// part returns what of cert the record is about.
func (r Record) part(cert *x509.Certificate) ([]byte, bool) {
	switch r.Selector {
	case SelectorCert:
		return cert.Raw, true
	case SelectorSPKI:
		return cert.RawSubjectPublicKeyInfo, true
	}
	return nil, false
}

func (r Record) digest(b []byte) ([]byte, bool) {
	switch r.MatchingType {
	case MatchingFull:
		return b, true
	case MatchingSHA256:
		sum := sha256.Sum256(b)
		return sum[:], true
	case MatchingSHA512:
		sum := sha512.Sum512(b)
		return sum[:], true
	}
	return nil, false
}
