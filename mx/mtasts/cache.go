package mtasts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Entry is a policy as it was fetched.
type Entry struct {
	ID      string // of the record that announced it
	Policy  *Policy
	Fetched time.Time
}

func (e *Entry) policy() *Policy {
	if e == nil {
		return nil
	}
	return e.Policy
}

// Cache keeps policies by domain, an A-label in lower case. It is used from
// many goroutines. What is kept should outlive the process: a policy that is
// forgotten protects nobody.
type Cache interface {
	// Get returns nil without an error for a domain that is not kept. What
	// it returns is not changed any more.
	Get(ctx context.Context, domain string) (*Entry, error)
	Put(ctx context.Context, domain string, e *Entry) error
	// All yields what is kept, in no order. No lock is held while it is
	// consumed.
	All(ctx context.Context) iter.Seq2[string, *Entry]
}

// Memory is a Cache in memory. The zero Memory is ready.
type Memory struct {
	// Max is how many policies are kept; 0 = 10,000. When there are more,
	// one that ends soon is forgotten.
	Max int

	mu      sync.RWMutex
	entries map[string]*Entry
}

// Get implements Cache.
func (m *Memory) Get(_ context.Context, domain string) (*Entry, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.entries[domain], nil
}

// Put implements Cache.
func (m *Memory) Put(_ context.Context, domain string, e *Entry) error {
	most := m.Max
	if most <= 0 {
		most = 10_000
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entries == nil {
		m.entries = map[string]*Entry{}
	}
	if _, ok := m.entries[domain]; !ok && len(m.entries) >= most {
		// Of a few that chance picks.
		var soonest string
		var at time.Time
		n := 0
		for d, e := range m.entries {
			if end := e.Fetched.Add(e.Policy.MaxAge); n == 0 || end.Before(at) {
				soonest, at = d, end
			}
			if n++; n == 16 {
				break
			}
		}
		delete(m.entries, soonest)
	}
	m.entries[domain] = e
	return nil
}

// All implements Cache.
func (m *Memory) All(context.Context) iter.Seq2[string, *Entry] {
	return func(yield func(string, *Entry) bool) {
		m.mu.RLock()
		all := make(map[string]*Entry, len(m.entries))
		for d, e := range m.entries {
			all[d] = e
		}
		m.mu.RUnlock()
		for d, e := range all {
			if !yield(d, e) {
				return
			}
		}
	}
}

// Dir is a Cache of one small file for each domain in a folder, which must
// exist.
type Dir string

// stored is the form of a file.
type stored struct {
	ID      string    `json:"id"`
	Fetched time.Time `json:"fetched"`
	Policy  string    `json:"policy"` // the policy file
}

var errDomain = errors.New("mtasts: not a domain")

const fileSuffix = ".sts"

// path is the file of a domain. Nothing that could be another path is one.
func (d Dir) path(domain string) (string, error) {
	odd := func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.'
	}
	if domain == "" || domain[0] == '.' || len(domain) > 253-len(fileSuffix) || strings.ContainsFunc(domain, odd) {
		return "", fmt.Errorf("%w: %q", errDomain, domain)
	}
	return filepath.Join(string(d), domain+fileSuffix), nil
}

// Get implements Cache.
func (d Dir) Get(_ context.Context, domain string) (*Entry, error) {
	name, err := d.path(domain)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s stored
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("mtasts: %s: %w", name, err)
	}
	p, err := ParsePolicy(s.Policy)
	if err != nil {
		return nil, fmt.Errorf("mtasts: %s: %w", name, err)
	}
	return &Entry{s.ID, p, s.Fetched}, nil
}

// Put implements Cache. A file is replaced whole or not at all.
func (d Dir) Put(_ context.Context, domain string, e *Entry) error {
	name, err := d.path(domain)
	if err != nil {
		return err
	}
	b, err := json.Marshal(stored{e.ID, e.Fetched, e.Policy.String()})
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(string(d), ".sts-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// All implements Cache. Files that cannot be read are passed over.
func (d Dir) All(ctx context.Context) iter.Seq2[string, *Entry] {
	return func(yield func(string, *Entry) bool) {
		files, err := os.ReadDir(string(d))
		if err != nil {
			return
		}
		for _, f := range files {
			domain, ok := strings.CutSuffix(f.Name(), fileSuffix)
			if !ok {
				continue
			}
			if e, err := d.Get(ctx, domain); err == nil && e != nil && !yield(domain, e) {
				return
			}
		}
	}
}
