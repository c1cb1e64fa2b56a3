package delivery

import (
	"context"
	"slices"

	"github.com/postrider/postrider/smtp"
	"github.com/postrider/postrider/store"
)

// TargetFunc makes a function a [Target]. It has one answer for all
// recipients, and its message is read to memory and then a temporary file.
type TargetFunc func(ctx context.Context, in *Inbound) error

// Deliver calls f.
func (f TargetFunc) Deliver(ctx context.Context, in *Inbound) []error {
	return slices.Repeat([]error{f(ctx, in)}, len(in.Recipients))
}

// CatchAll returns a Backend's Recipients for a Target that needs no
// mailboxes, as a webhook: every address of the domains is taken, and is its
// own Account. <Postmaster> alone is that of the first domain.
// A domain is one as smtp.ParseDomain returns it.
func CatchAll(domains ...string) func(ctx context.Context, to smtp.Address) ([]store.Target, error) {
	return func(_ context.Context, to smtp.Address) ([]store.Target, error) {
		if to.Domain == "" && len(domains) > 0 {
			to.Domain = domains[0]
		}
		if !slices.Contains(domains, to.Domain) {
			return nil, ErrRelay
		}
		return []store.Target{{Account: to.String()}}, nil
	}
}
