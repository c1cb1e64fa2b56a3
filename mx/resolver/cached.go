package resolver

import (
	"slices"
	"time"

	"github.com/miekg/dns"
)

// CachedTXT returns what LookupTXT would say if that is in the cache; known is
// false when a server would have to be asked. It does not wait.
func (r *Resolver) CachedTXT(name string) (txt []string, known bool, err error) {
	fqdn, err := absolute(name)
	if err != nil {
		return nil, false, nil // LookupTXT says why
	}
	a, err, known := r.cache.get(cacheKey{fqdn, dns.TypeTXT}, time.Now())
	if !known || err != nil {
		return nil, known, err
	}
	return slices.Clone(a.TXT), true, nil
}
