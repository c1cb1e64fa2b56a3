package queue

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/postrider/postrider/smtp"
)

// ErrSuppressed is why a recipient was not written to: a [Suppressor] said so.
var ErrSuppressed = errors.New("queue: recipient is suppressed")

// Suppressor knows who must not be written to: those whose mailbox is gone, who
// complained, or who asked. It is used from many goroutines.
type Suppressor interface {
	// Suppressed returns why each of to must not get a tenant's mail, aligned;
	// "" = it may. nil = all may. The reason is told to nobody but events and
	// logs.
	Suppressed(ctx context.Context, tenant string, to []smtp.Address) (reasons []string, err error)
}

// suppressed asks for the recipients of one envelope. The result is nil or
// aligned, and nil for those who may be written to.
func (q *Queue) suppressed(ctx context.Context, tenant string, to []smtp.Recipient) ([]error, error) {
	if q.Suppressor == nil {
		return nil, nil
	}
	list := make([]smtp.Address, len(to))
	for i := range to {
		list[i] = to[i].Address
	}
	reasons, err := q.Suppressor.Suppressed(ctx, tenant, list)
	if err != nil {
		return nil, err
	}
	var out []error
	for i, r := range reasons[:min(len(reasons), len(to))] {
		if r == "" {
			continue
		}
		if out == nil {
			out = make([]error, len(to))
		}
		out[i] = &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 1}, Text: "Recipient is on the suppression list",
			Err: &suppressedError{r}}
	}
	return out, nil
}

type suppressedError struct{ reason string }

func (e *suppressedError) Error() string        { return ErrSuppressed.Error() + ": " + e.reason }
func (e *suppressedError) Is(target error) bool { return target == ErrSuppressed }

// SuppressionList is a Suppressor in memory. The zero value is ready. The case
// of addresses does not matter. All methods may be called from many goroutines.
type SuppressionList struct {
	mu      sync.RWMutex
	reasons map[suppressionKey]string
}

type suppressionKey struct{ tenant, address string }

func suppress(tenant string, a smtp.Address) suppressionKey {
	return suppressionKey{tenant, strings.ToLower(a.Local) + "@" + a.Domain}
}

// Add puts an address on a tenant's list, "" = that of all tenants. Without a
// Local it is a whole domain. An empty reason is "suppressed".
func (l *SuppressionList) Add(tenant string, a smtp.Address, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reasons == nil {
		l.reasons = make(map[suppressionKey]string)
	}
	l.reasons[suppress(tenant, a)] = or(reason, "suppressed")
}

// Remove takes off what Add put on.
func (l *SuppressionList) Remove(tenant string, a smtp.Address) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.reasons, suppress(tenant, a))
}

// All yields the addresses of one tenant's list and why they are on it, in
// alphabetical order.
func (l *SuppressionList) All(tenant string) iter.Seq2[smtp.Address, string] {
	return func(yield func(smtp.Address, string) bool) {
		l.mu.RLock()
		var found [][2]string
		for k, reason := range l.reasons {
			if k.tenant == tenant {
				found = append(found, [2]string{k.address, reason})
			}
		}
		l.mu.RUnlock()
		slices.SortFunc(found, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
		for _, f := range found {
			i := strings.LastIndexByte(f[0], '@')
			if !yield(smtp.Address{Local: f[0][:i], Domain: f[0][i+1:]}, f[1]) {
				return
			}
		}
	}
}

// Suppressed implements Suppressor.
func (l *SuppressionList) Suppressed(_ context.Context, tenant string, to []smtp.Address) ([]string, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.reasons) == 0 {
		return nil, nil
	}
	reasons := make([]string, len(to))
	for i, a := range to {
		for _, k := range [...]suppressionKey{suppress(tenant, a), suppress("", a),
			suppress(tenant, smtp.Address{Domain: a.Domain}), suppress("", smtp.Address{Domain: a.Domain})} {
			if r := l.reasons[k]; r != "" {
				reasons[i] = r
				break
			}
		}
	}
	return reasons, nil
}
