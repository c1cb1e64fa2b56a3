package tlsrpt

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// Store counts outcomes by day of UTC and policy domain until they were
// reported. It is used from many goroutines.
type Store interface {
	// Add counts outcomes at the time t. It is called in the middle of a
	// delivery: it should not wait for long.
	Add(ctx context.Context, t time.Time, o ...Outcome) error
	// Days returns the days with something counted, oldest first, as their
	// beginning.
	Days(ctx context.Context) ([]time.Time, error)
	// Domains returns the policy domains that something was counted for.
	Domains(ctx context.Context, day time.Time) ([]string, error)
	// Results returns what was counted for a domain, by policy.
	Results(ctx context.Context, day time.Time, domain string) ([]PolicyResult, error)
	// Forget drops what was counted for a domain.
	Forget(ctx context.Context, day time.Time, domain string) error
}

// Bounds of what Memory keeps for one day.
const (
	maxDomains        = 100_000
	maxDomainPolicies = 100
	maxDomainFailures = 1_000
)

// Memory is a Store in memory. The zero Memory is ready. What is counted for
// more domains than 100,000 a day, and more reasons than 1,000 for one of them,
// is not kept.
type Memory struct {
	mu   sync.Mutex
	days map[time.Time]map[string]*counted
}

type counted struct {
	policies map[string]*PolicyResult
	order    []string
	failures map[failureKey]*Failure
}

type failureKey struct {
	policy string
	f      Failure // without Sessions
}

// Day is the beginning of the UTC day of t.
func Day(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

func key(p Policy) string {
	return string(p.Type) + "\n" + strings.Join(p.String, "\n") + "\n\n" + strings.Join(p.MXHost, "\n")
}

// Add implements Store.
func (m *Memory) Add(_ context.Context, t time.Time, outcomes ...Outcome) error {
	day := Day(t)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range outcomes {
		if m.days == nil {
			m.days = map[time.Time]map[string]*counted{}
		}
		if m.days[day] == nil {
			m.days[day] = map[string]*counted{}
		}
		c := m.days[day][o.Policy.Domain]
		if c == nil {
			if len(m.days[day]) >= maxDomains {
				continue
			}
			c = &counted{policies: map[string]*PolicyResult{}, failures: map[failureKey]*Failure{}}
			m.days[day][o.Policy.Domain] = c
		}
		c.add(o)
	}
	return nil
}

func (c *counted) add(o Outcome) {
	k := key(o.Policy)
	r := c.policies[k]
	if r == nil {
		if len(c.policies) >= maxDomainPolicies {
			return
		}
		r = &PolicyResult{Policy: o.Policy}
		c.policies[k] = r
		c.order = append(c.order, k)
	}
	switch {
	case o.Failure == nil:
		r.Summary.Successful++
		return
	case !o.Only:
		r.Summary.Failed++
	}
	fk := failureKey{k, *o.Failure}
	fk.f.Sessions = 0
	f := c.failures[fk]
	if f == nil {
		if len(c.failures) >= maxDomainFailures {
			return
		}
		f = new(Failure)
		*f = fk.f
		c.failures[fk] = f
	}
	f.Sessions++
}

// Days implements Store.
func (m *Memory) Days(context.Context) ([]time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var days []time.Time
	for d := range m.days {
		days = append(days, d)
	}
	slices.SortFunc(days, time.Time.Compare)
	return days, nil
}

// Domains implements Store.
func (m *Memory) Domains(_ context.Context, day time.Time) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []string
	for d := range m.days[day] {
		list = append(list, d)
	}
	slices.Sort(list)
	return list, nil
}

// Results implements Store.
func (m *Memory) Results(_ context.Context, day time.Time, domain string) ([]PolicyResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.days[day][domain]
	if c == nil {
		return nil, nil
	}
	out := make([]PolicyResult, len(c.order))
	for i, k := range c.order {
		out[i] = *c.policies[k]
		for fk, f := range c.failures {
			if fk.policy == k {
				out[i].Failures = append(out[i].Failures, *f)
			}
		}
		slices.SortFunc(out[i].Failures, func(a, b Failure) int {
			if a.Sessions != b.Sessions {
				return int(b.Sessions - a.Sessions)
			}
			return strings.Compare(string(a.Type)+a.ReceivingMX+a.ReceivingIP+a.Reason, string(b.Type)+b.ReceivingMX+b.ReceivingIP+b.Reason)
		})
	}
	return out, nil
}

// Forget implements Store.
func (m *Memory) Forget(_ context.Context, day time.Time, domain string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.days[day], domain)
	if len(m.days[day]) == 0 {
		delete(m.days, day)
	}
	return nil
}
