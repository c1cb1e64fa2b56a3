package dmarcreport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/postrider/postrider/auth/dmarc"
	"github.com/postrider/postrider/internal/dnserr"
	"github.com/postrider/postrider/smtp"
)

// maxDestinations bounds the addresses that one report goes to.
const maxDestinations = 10

// Destinations returns the addresses of those URIs of rua that reports for a
// policy domain may be sent to: in its own organization, or in one that has
// agreed in the DNS (RFC 9990 §4), which may also name other addresses. URIs
// that are no mailto: are left out, and so is what comes after ten addresses.
// Where the DNS failed, the error wraps dmarc.ErrLookup and the other addresses
// are returned all the same.
func Destinations(ctx context.Context, e *dmarc.Evaluator, domain string, uris []string) ([]smtp.Address, error) {
	return destinations(ctx, e, domain, uris, func(r *dmarc.Record) []string { return r.AggregateReports })
}

// FailureDestinations is Destinations for ruf (RFC 9991 §5).
func FailureDestinations(ctx context.Context, e *dmarc.Evaluator, domain string, uris []string) ([]smtp.Address, error) {
	return destinations(ctx, e, domain, uris, func(r *dmarc.Record) []string { return r.FailureReports })
}

func destinations(ctx context.Context, e *dmarc.Evaluator, domain string, uris []string, tag func(*dmarc.Record) []string) ([]smtp.Address, error) {
	c := &check{ctx: ctx, e: e, domain: domain, tag: tag}
	var out []smtp.Address
	var failed []error
	tried := 0
	for _, uri := range uris {
		a, err := dmarc.Mailbox(uri)
		if err != nil {
			continue // RFC 9990 §3.5: malformed ones are ignored
		}
		if tried++; tried > maxDestinations {
			break
		}
		agreed, err := c.agreed(a)
		if err != nil {
			failed = append(failed, err)
		}
		for _, a := range agreed {
			if !slices.Contains(out, a) && len(out) < maxDestinations {
				out = append(out, a)
			}
		}
	}
	return out, errors.Join(failed...)
}

// check verifies the destinations of one policy domain.
type check struct {
	ctx    context.Context
	e      *dmarc.Evaluator
	domain string
	org    string // of domain, "" = not known yet
	tag    func(*dmarc.Record) []string
}

// agreed returns the addresses to use for a, none when it is in another
// organization which has not agreed.
func (c *check) agreed(a smtp.Address) ([]smtp.Address, error) {
	host := strings.ToLower(a.Domain)
	if host == c.domain {
		return []smtp.Address{a}, nil
	}
	if host == "" || host[0] == '[' {
		return nil, nil
	}
	if c.org == "" {
		var err error
		if c.org, err = c.e.OrganizationalDomain(c.ctx, c.domain); err != nil {
			return nil, err
		}
	}
	org, err := c.e.OrganizationalDomain(c.ctx, host)
	if err != nil {
		return nil, err
	}
	if org == c.org {
		return []smtp.Address{a}, nil
	}
	name := c.domain + "._report._dmarc." + host
	if len(name) > 253 {
		return nil, nil
	}
	var resolver dmarc.Resolver = net.DefaultResolver
	if c.e.Resolver != nil {
		resolver = c.e.Resolver
	}
	txts, err := resolver.LookupTXT(c.ctx, name+".")
	if err != nil && !dnserr.NotFound(err) {
		return nil, fmt.Errorf("%w: TXT %s: %w", dmarc.ErrLookup, name, err)
	}
	found := false
	var instead []smtp.Address
	for _, txt := range txts {
		r, err := dmarc.ParseRecord(txt)
		if err != nil {
			continue
		}
		found = true
		for _, uri := range c.tag(r) {
			other, err := dmarc.Mailbox(uri)
			if err != nil {
				continue
			}
			if !strings.EqualFold(other.Domain, host) {
				return nil, nil // neither to this nor to that one
			}
			instead = append(instead, other)
		}
	}
	switch {
	case !found:
		return nil, nil
	case len(instead) > 0:
		return instead, nil
	}
	return []smtp.Address{a}, nil
}
