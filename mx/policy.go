package mx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postrider/postrider/internal/dnserr"
	"github.com/postrider/postrider/mx/dane"
	"github.com/postrider/postrider/mx/mtasts"
	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/smtp/smtpclient"
)

// hostPolicy is what security a host has to have.
type hostPolicy struct {
	need     smtpclient.Security
	verifier *smtpclient.Verifier
	tlsa     []TLSA // usable; nil = DANE does not apply
}

// policy finds it: DANE, where the host has TLSA records that are proven, else
// MTA-STS (RFC 8461 §2), else what the Sender asks for. ok is false when the
// host must not be used.
func (d *delivery) policy(ctx context.Context, h Host, port uint16) (p hostPolicy, ok bool) {
	p.need = d.need
	records, base, err := d.lookupTLSA(ctx, h, port)
	if err != nil {
		// RFC 7672 §2.1.2: as if the host could not be reached.
		if d.env.TLSOptional {
			return p, true
		}
		e := &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 7, 5}, Scope: smtp.ScopeHost,
			Text: "TLSA records of " + h.Name + " cannot be looked up", Err: fmt.Errorf("%w: %w", ErrBogus, err)}
		d.note(e)
		d.tell(Attempt{Host: h.Name, TLS: e, Err: e})
		return p, false
	}
	if records != nil {
		p.tlsa = append([]TLSA{}, dane.Usable(records)...)
		switch {
		case d.env.TLSOptional:
			return p, true
		case len(p.tlsa) > 0:
			p.need, p.verifier = smtpclient.Verified, d.verifier(p.tlsa, base)
			return p, true
		}
		p.need = max(p.need, smtpclient.Encrypted) // RFC 7672 §2.2
	}
	if d.sts == nil || d.env.TLSOptional || d.fixed {
		if p.need == smtpclient.Opportunistic && d.route.Auth == nil && d.s.isBroken(h.Name) {
			p.need = smtpclient.Plain
		}
		return p, true
	}
	if !d.sts.Match(h.Name) {
		e := &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 7, 5}, Scope: smtp.ScopeHost,
			Text: "Host " + h.Name + " is not in the MTA-STS policy of " + d.route.Domain, Err: ErrNotInPolicy}
		a := Attempt{Host: h.Name, TLS: e}
		if d.enforced() {
			a.Err = e
			d.note(e)
			d.tell(a)
			return p, false
		}
		d.tell(a) // and go on: it is being tested
	}
	if d.enforced() {
		p.need = smtpclient.Verified
	}
	return p, true
}

// enforced reports whether an MTA-STS policy is to be kept to.
func (d *delivery) enforced() bool {
	return d.sts != nil && d.sts.Mode == mtasts.Enforce
}

// The types that DANE asks for.
const (
	typeA     = 1
	typeCNAME = 5
	typeAAAA  = 28
	typeTLSA  = 52
)

// lookupTLSA finds the TLSA records of a host that DNSSEC proves, and the
// base domain they are of (RFC 7672 §2.2.2, §2.2.3). No records and no error:
// DANE does not apply.
func (d *delivery) lookupTLSA(ctx context.Context, h Host, port uint16) (records []TLSA, base string, err error) {
	q, ok := d.s.resolver().(Querier)
	if !ok || strings.HasPrefix(h.Name, "[") {
		return nil, "", nil
	}
	// The addresses come first: name servers that break on TLSA do not have
	// them in a signed zone. They are known already, and only asked for
	// DNSSEC's word.
	secure, name := true, ""
	for _, t := range [...]uint16{typeA, typeAAAA} {
		if d.s.Network == "ip4" && t == typeAAAA || d.s.Network == "ip6" && t == typeA {
			continue
		}
		a, err := q.Query(ctx, h.Name+".", t)
		switch {
		case err == nil:
			secure = secure && a.Secure
			name = strings.TrimSuffix(a.Name, ".")
		case !dnserr.NotFound(err):
			return nil, "", err
		}
	}
	alias := name != "" && name != h.Name
	bases := []string{h.Name}
	switch {
	case name == "":
		return nil, "", nil
	case secure && alias:
		bases = []string{name, h.Name}
	case !secure && alias:
		// The name itself may be in a signed zone all the same.
		if c, err := q.Query(ctx, h.Name+".", typeCNAME); err != nil || !c.Secure {
			return nil, "", nil
		}
	case !secure:
		return nil, "", nil
	}
	for _, b := range bases {
		a, err := q.Query(ctx, dane.Name(b, port), typeTLSA)
		switch {
		case err != nil && dnserr.NotFound(err), err == nil && !a.Secure:
		case err != nil:
			return nil, "", err
		case len(a.TLSA) > 0:
			return a.TLSA, b, nil
		}
	}
	return nil, "", nil
}

// verifier meets usable TLSA records of base (RFC 7672 §3.2.2).
func (d *delivery) verifier(records []TLSA, base string) *smtpclient.Verifier {
	names := []string{base}
	auth := ""
	if d.route.Secure {
		// A host that an unproven MX record leads to is not proven to be
		// the domain's, whatever its records say (§2.2.1).
		auth = "dane"
		if len(d.joined) == 0 {
			names = append(names, d.route.Domain)
		}
	}
	var key strings.Builder
	key.WriteString("dane " + strings.Join(names, " "))
	for _, r := range records {
		key.WriteString("; " + r.String())
	}
	return &smtpclient.Verifier{Key: key.String(), Auth: auth, Verify: func(s tls.ConnectionState) error {
		_, err := dane.Verify(records, names, s, time.Now())
		return err
	}}
}

// final is e as it is reported: what a message asks for and no host gives is
// a failure for good (RFC 8689 §4.2.1).
func (d *delivery) final(e *smtp.Error) *smtp.Error {
	if d.must && isTLS(e) {
		return &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 10}, Text: "Encryption needed: " + e.Text, Scope: e.Scope, Err: e}
	}
	return e
}

func isTLS(err error) bool {
	var te *smtpclient.TLSError
	return errors.As(err, &te) || errors.Is(err, smtpclient.ErrTLSRequired)
}

// tlsProblem says what was wrong with the security of a connection.
func (d *delivery) tlsProblem(p hostPolicy, hop *smtp.Hop, err error) error {
	switch {
	case err != nil && isTLS(err):
		return err
	case hop != nil && hop.TLSErr != nil:
		return hop.TLSErr
	case hop == nil || d.sts == nil && p.tlsa == nil:
		return nil
	case hop.TLS == 0 && err == nil:
		return fmt.Errorf("mx: no TLS: %w", smtpclient.ErrTLSRequired)
	case d.sts != nil && len(p.tlsa) == 0 && hop.TLS != 0 && hop.Auth == "" && p.need != smtpclient.Verified:
		// The policy is being tested.
		if hop.AuthErr != nil {
			return fmt.Errorf("%w: %w", errUnverified, hop.AuthErr)
		}
		return errUnverified
	}
	return nil
}

var errUnverified = errors.New("mx: the certificate is not one that would be accepted")
