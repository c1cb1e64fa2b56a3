package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/postrider/postrider/smtp"
)

var errNoRedirect = errors.New("delivery: a message is to be redirected, and Backend.Redirect is not set")

var errLoop = &smtp.Error{Code: 554, Enhanced: smtp.EnhancedCode{5, 4, 6}, Scope: smtp.ScopeRecipient,
	Text: "The message has been here before, redirecting it again would be a loop"}

// place asks the filter, redirects, and gives what is left to the Target. The
// errors are index-aligned with in.Recipients.
func (b *Backend) place(ctx context.Context, in *Inbound) ([]error, error) {
	all := in.Recipients
	errs := make([]error, len(all))
	if b.Filter != nil {
		// A recipient's rules change its own copy: what Recipients returned
		// may be shared.
		all = slices.Clone(all)
		for i := range all {
			all[i].Targets = slices.Clone(all[i].Targets)
		}
		in.Recipients = all
		for i := range all {
			if errs[i] = b.Filter(ctx, in, i); errs[i] == nil {
				errs[i] = b.redirect(ctx, in, i)
			}
		}
	}
	// The Target hears only of those that are still to be stored.
	var to []Recipient
	var index []int
	for i := range all {
		if errs[i] == nil && len(all[i].Targets) > 0 {
			to, index = append(to, all[i]), append(index, i)
		}
	}
	if len(to) == 0 {
		return errs, nil
	}
	in.Recipients = to
	stored := b.Target.Deliver(ctx, in)
	in.Recipients = all
	if len(stored) != len(to) {
		return nil, fmt.Errorf("delivery: the target gave %d results for %d recipients", len(stored), len(to))
	}
	for k, err := range stored {
		errs[index[k]] = err
	}
	return errs, nil
}

// redirect sends the message on. It comes before the Target: were it the
// other way round, a failure here would leave a copy that nobody was told of.
func (b *Backend) redirect(ctx context.Context, in *Inbound, i int) error {
	r := &in.Recipients[i]
	if len(r.Redirect) == 0 {
		return nil
	}
	if b.Redirect == nil {
		return errNoRedirect
	}
	own := r.Address.String()
	for f := range in.Message.Header.All("Delivered-To") {
		if strings.EqualFold(strings.TrimSpace(f.Value), own) {
			return errLoop
		}
	}
	return b.Redirect(ctx, in, i, in.digest+"/"+own)
}
