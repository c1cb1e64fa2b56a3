package dmarc

import (
	"fmt"

	"github.com/postrider/postrider/mime"
)

// AuthorDomains returns the domains of all mailboxes in the From fields of a
// header, in order, A-labels in lower case (RFC 9989 §5.3.1). The error
// wraps ErrNoAuthor: there is no mailbox at all, or part of the text cannot
// be read; the domains of the rest are returned all the same.
func AuthorDomains(h *mime.Header) ([]string, error) {
	addrs, err := h.Addresses("From")
	domains := make([]string, 0, len(addrs))
	for _, a := range addrs {
		if a.Domain == "" {
			err = fmt.Errorf("mailbox without a domain: %.100q", a.Local)
			continue
		}
		domains = append(domains, a.Domain)
	}
	switch {
	case err != nil:
		return domains, fmt.Errorf("%w: %w", ErrNoAuthor, err)
	case len(domains) == 0:
		return nil, ErrNoAuthor
	}
	return domains, nil
}
