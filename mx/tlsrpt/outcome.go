package tlsrpt

import (
	"crypto/tls"
	"crypto/x509"
	"errors"

	"github.com/postrider/postrider/mx"
	"github.com/postrider/postrider/mx/dane"
	"github.com/postrider/postrider/mx/mtasts"
	"github.com/postrider/postrider/smtp/smtpclient"
)

// Outcome is how one session went under one policy.
type Outcome struct {
	Policy Policy
	// Failure is nil for a session that met the policy; its Sessions count
	// is not looked at.
	Failure *Failure
	// Only says that no session was tried: the failure is one of finding
	// the policy.
	Only bool
}

// Outcomes are what an attempt has to tell: one for each policy that was in
// force. Nothing is told of a host that could not be reached (RFC 8460 §4.3.4).
func Outcomes(a mx.Attempt) []Outcome {
	var out []Outcome
	if a.STSErr != nil {
		o := Outcome{Policy: Policy{Type: PolicySTS, Domain: a.Domain}, Failure: &Failure{Type: STSFetchError, Reason: a.STSErr.Error()}, Only: a.STS != nil || a.Hop == nil}
		var e *mtasts.Error
		if errors.As(a.STSErr, &e) {
			o.Failure.Type = ResultType(e.Reason)
			o.Failure.Reason = e.Err.Error()
		}
		out = append(out, o)
	}
	var f *Failure
	if a.TLS != nil {
		f = failure(a)
	} else if a.Hop == nil || a.Hop.TLS == 0 {
		return out // it did not come to TLS
	}
	if a.TLSA != nil {
		tf := f
		if len(a.TLSA) == 0 && (f == nil || f.Type != STARTTLSNotSupported) {
			// TLS is all that DANE asks for then (RFC 7672 §2.2), but its
			// owner meant more.
			tf = newFailure(a, TLSAInvalid, "none of the TLSA records is usable")
		}
		out = append(out, Outcome{Policy: tlsaPolicy(a), Failure: tf})
	}
	switch {
	case len(a.TLSA) > 0:
		// It comes before all others.
	case a.STS != nil && a.STS.Mode != mtasts.None:
		out = append(out, Outcome{Policy: stsPolicy(a), Failure: f})
	case a.STSErr == nil && a.TLSA == nil:
		out = append(out, Outcome{Policy: Policy{Type: PolicyNone, Domain: a.Domain}, Failure: f})
	}
	return out
}

func tlsaPolicy(a mx.Attempt) Policy {
	p := Policy{Type: PolicyTLSA, Domain: a.Domain, MXHost: Strings{a.Host}}
	for _, r := range a.TLSA {
		p.String = append(p.String, r.String())
	}
	return p
}

func stsPolicy(a mx.Attempt) Policy {
	p := Policy{Type: PolicySTS, Domain: a.Domain, MXHost: a.STS.MX}
	line := ""
	for _, c := range a.STS.String() {
		switch c {
		case '\r':
		case '\n':
			p.String = append(p.String, line)
			line = ""
		default:
			line += string(c)
		}
	}
	return p
}

func newFailure(a mx.Attempt, t ResultType, reason string) *Failure {
	f := &Failure{Type: t, ReceivingMX: a.Host, Reason: reason}
	if a.Addr.IsValid() {
		f.ReceivingIP = a.Addr.Addr().String()
	}
	return f
}

// failure turns what was wrong into a result type.
func failure(a mx.Attempt) *Failure {
	f := newFailure(a, ValidationFailure, reason(a.TLS))
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(a.TLS, smtpclient.ErrTLSRequired):
		f.Type = STARTTLSNotSupported
	case errors.As(a.TLS, &host), errors.Is(a.TLS, mx.ErrNotInPolicy):
		f.Type = HostMismatch
	case errors.As(a.TLS, &invalid) && invalid.Reason == x509.Expired:
		f.Type = Expired
	case errors.As(a.TLS, &unknown), errors.As(a.TLS, &invalid), errors.As(a.TLS, &cert):
		f.Type = NotTrusted
	case errors.Is(a.TLS, mx.ErrBogus):
		f.Type = DNSSECInvalid
	case errors.Is(a.TLS, dane.ErrMismatch):
		f.Type = ValidationFailure
	}
	return f
}

// maxReason bounds the text that a report repeats.
const maxReason = 200

func reason(err error) string {
	s := err.Error()
	return s[:min(len(s), maxReason)]
}
