package dmarc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/postrider/postrider/internal/dnserr"
)

// ErrLookup is wrapped by the error of an Evaluation whose Result is
// TempError.
var ErrLookup = errors.New("dmarc: DNS lookup failed")

// Resolver looks up policy records; *net.Resolver is one. See package auth for
// how its errors are read.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// tree asks for the records of one evaluation, each name once.
type tree struct {
	ctx      context.Context
	resolver Resolver
	listed   func(domain string) string // nil = walk
	queries  []string
	cache    map[string]found
}

// found is the record at one domain; nil when there is none, or several.
type found struct {
	domain string
	record *Record
	err    error
}

// at returns the record of a domain (RFC 9989 §4.10 steps 1 and 2).
func (t *tree) at(domain string) found {
	if f, ok := t.cache[domain]; ok {
		return f
	}
	f := found{domain: domain}
	txts, err := t.txt("_dmarc." + domain)
	if err != nil {
		f.err = err
	}
	several := false
	for _, txt := range txts {
		if r, err := ParseRecord(txt); err == nil {
			several = f.record != nil
			f.record = r
			if several {
				break
			}
		}
	}
	if several {
		f.record = nil
	}
	if t.cache == nil {
		t.cache = make(map[string]found, 8)
	}
	t.cache[domain] = f
	return f
}

func (t *tree) txt(name string) ([]string, error) {
	t.queries = append(t.queries, name)
	txts, err := t.resolver.LookupTXT(t.ctx, name+".")
	switch {
	case dnserr.NotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%w: TXT %s: %w", ErrLookup, name, err)
	}
	return txts, nil
}

// nonExistent reports whether the DNS says that there is no such name
// (RFC 9989 §3.2.13).
func (t *tree) nonExistent(domain string) (bool, error) {
	t.queries = append(t.queries, domain)
	_, err := t.resolver.LookupTXT(t.ctx, domain+".")
	switch {
	case err == nil:
		return false, nil
	case dnserr.NXDomain(err):
		return true, nil
	case dnserr.NotFound(err):
		return false, nil
	}
	return false, fmt.Errorf("%w: TXT %s: %w", ErrLookup, domain, err)
}

// walk is the DNS tree walk of RFC 9989 §4.10: the domains at or above domain
// that have a record, longest first. At most eight names are asked for.
func (t *tree) walk(domain string) ([]found, error) {
	var all []found
	for name := domain; name != ""; name = parent(name) {
		f := t.at(name)
		if f.err != nil {
			return nil, f.err
		}
		if f.record != nil {
			all = append(all, f)
			if f.record.PSD != PSDUnknown {
				break
			}
		}
		if name == domain {
			for strings.Count(name, ".") >= 8 {
				name = parent(name)
			}
		}
	}
	return all, nil
}

// parent returns a domain without its leftmost label, "" above a top label.
func parent(domain string) string {
	_, up, _ := strings.Cut(domain, ".")
	return up
}

// above returns the record that applies to a domain without one of its own:
// that of its organizational domain, else that of the public suffix domain
// above it (RFC 9989 §4.10.1).
func (t *tree) above(domain string) (found, error) {
	if t.listed != nil {
		f := t.at(t.listed(domain))
		return f, f.err
	}
	walk, err := t.walk(domain)
	if err != nil || len(walk) == 0 {
		return found{}, err
	}
	org := organizational(domain, walk)
	for _, w := range walk {
		if w.domain == org {
			return w, nil
		}
	}
	return walk[len(walk)-1], nil // a public suffix domain ends a walk
}

// organizational returns the organizational domain of a domain.
func (t *tree) organizational(domain string) (string, error) {
	if t.listed != nil {
		return t.listed(domain), nil
	}
	walk, err := t.walk(domain)
	if err != nil {
		return "", err
	}
	return organizational(domain, walk), nil
}

// organizational selects the organizational domain of domain from the records
// of its walk (RFC 9989 §4.10.2).
func organizational(domain string, walk []found) string {
	org := domain
	for _, f := range walk {
		switch {
		case f.record.PSD == PSDNo:
			return f.domain
		case f.record.PSD == PSDYes && f.domain != domain:
			// One label below the public suffix.
			below := strings.TrimSuffix(domain, "."+f.domain)
			return below[strings.LastIndexByte(below, '.')+1:] + "." + f.domain
		}
		org = f.domain
	}
	return org
}
