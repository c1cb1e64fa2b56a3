package dane

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrMismatch is wrapped when no record fits what the host showed.
var ErrMismatch = errors.New("dane: certificate does not match the TLSA records")

// maxChain bounds the certificates of a host that are looked at.
const maxChain = 16

// Verify checks a connection against usable records, and returns the one that
// authenticates it. The first that does is enough.
//
// names are those that the certificate may be for: the TLSA base domain, and
// where the MX is proven, the domain of the recipients (RFC 7672 §3.2.2). They
// count for TA records only: with EE neither name nor validity does (§3.1.1).
// A certificate without names in its subjectAltName may have one as its common
// name.
func Verify(records []Record, names []string, state tls.ConnectionState, now time.Time) (Record, error) {
	chain := state.PeerCertificates
	if len(chain) == 0 {
		return Record{}, fmt.Errorf("%w: no certificate", ErrMismatch)
	}
	chain = chain[:min(len(chain), maxChain)]
	err := ErrMismatch
	for _, r := range records {
		switch r.Usage {
		case UsageEE:
			if r.matches(chain[0]) {
				return r, nil
			}
		case UsageTA:
			verr := r.verifyTA(chain, names, now)
			if verr == nil {
				return r, nil
			}
			if !errors.Is(verr, ErrMismatch) {
				err = fmt.Errorf("%w: %w", ErrMismatch, verr)
			}
		}
	}
	return Record{}, err
}

func (r Record) matches(cert *x509.Certificate) bool {
	part, ok := r.part(cert)
	if !ok {
		return false
	}
	sum, ok := r.digest(part)
	return ok && bytes.Equal(sum, r.Data)
}

// verifyTA looks for the authority among the certificates that came above the
// host's own, or in the record itself (RFC 7671 §5.2).
func (r Record) verifyTA(chain []*x509.Certificate, names []string, now time.Time) error {
	err := ErrMismatch
	if r.MatchingType == MatchingFull && r.Selector == SelectorCert {
		if ta, perr := x509.ParseCertificate(r.Data); perr == nil {
			if err = leadsTo(chain, ta, names, now); err == nil {
				return nil
			}
		}
	}
	for _, ta := range chain[1:] {
		if !r.matches(ta) {
			continue
		}
		if err = leadsTo(chain, ta, names, now); err == nil {
			return nil
		}
	}
	return err
}

func leadsTo(chain []*x509.Certificate, ta *x509.Certificate, names []string, now time.Time) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ta)
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now}); err != nil {
		return err
	}
	for _, n := range names {
		if named(chain[0], strings.TrimSuffix(n, ".")) {
			return nil
		}
	}
	return x509.HostnameError{Certificate: chain[0], Host: strings.Join(names, " or ")}
}

// named reports whether cert is for host.
func named(cert *x509.Certificate, host string) bool {
	if cert.VerifyHostname(host) == nil {
		return true
	}
	if len(cert.DNSNames) > 0 {
		return false
	}
	// RFC 7672 §3.2.3: the common name, when there is no name besides.
	cn, host := strings.ToLower(cert.Subject.CommonName), strings.ToLower(host)
	if rest, ok := strings.CutPrefix(cn, "*."); ok {
		_, above, _ := strings.Cut(host, ".")
		return above != "" && above == rest
	}
	return cn != "" && cn == host
}
