// Package psl finds organizational domains as RFC 7489 §3.2 had it, with a
// public suffix list:
//
//	e := &dmarc.Evaluator{Organizational: psl.Organizational}
//
// RFC 9989 replaced that by a walk through the DNS. This package shows what
// receivers do that have not moved on. It is apart from dmarc because the list,
// that of golang.org/x/net/publicsuffix, makes programs larger and grows old.
package psl

import (
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Organizational returns the organizational domain of a domain in A-labels:
// one label below the longest public suffix, or domain itself when it is a
// public suffix.
func Organizational(domain string) string {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	org, err := publicsuffix.EffectiveTLDPlusOne(domain)
	if err != nil {
		return domain
	}
	return org
}
