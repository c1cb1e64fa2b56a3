package dmarcreport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrFull is what Storage.Add returns when it cannot keep one more record: the
// message is not counted.
var ErrFull = errors.New("dmarcreport: too many records")

// Key names what goes into one report: the messages of one policy domain in
// one period.
type Key struct {
	Domain     string
	Begin, End time.Time // UTC, End excluded
}

// Target is the policy of a domain and where its reports go.
type Target struct {
	Policy    Published
	Addresses []string // rua, as published
	Errors    []string // what is wrong with the record
}

// Storage keeps the counters of reports that are still to be sent.
// Implementations are for concurrent use, also by several processes when the
// storage is shared; a counter that Add returned for without error is kept.
// Nobody changes the slices of targets and records that went in or came out.
// Package dmarcreporttest proves an implementation.
type Storage interface {
	// Add adds r.Count to the record of k that equals r in all else, and
	// makes that record when there is none. t replaces the target of k: the
	// last one counts (RFC 9990 §3.1). The error may wrap ErrFull.
	Add(ctx context.Context, k Key, t Target, r Record) error
	// Due returns the keys whose End is not after before, in the order of
	// End; none is no error.
	Due(ctx context.Context, before time.Time) ([]Key, error)
	// Load returns what Add was given for k; no records when there is nothing.
	Load(ctx context.Context, k Key) (Target, []Record, error)
	// Remove forgets k. Removing what is not there is no error.
	Remove(ctx context.Context, k Key) error
}

// Memory is a Storage in memory, for one process: what is not sent when it ends
// is lost. The zero value is ready.
type Memory struct {
	// MaxRecords bounds the records of all keys together; 0 = 100,000,
	// negative = no limit. Anybody can make more of them, with mail from
	// domains without end.
	MaxRecords int

	mu      sync.Mutex
	keys    map[Key]*counters
	records int
}

var _ Storage = (*Memory)(nil)

type counters struct {
	target  Target
	records map[string]*Record
}

// Add implements Storage.
func (m *Memory) Add(_ context.Context, k Key, t Target, r Record) error {
	id := r.identity()
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.keys[k]
	if c != nil {
		if known := c.records[id]; known != nil {
			known.Count = min(known.Count+r.Count, maxCount)
			c.target = t
			return nil
		}
	}
	limit := m.MaxRecords
	if limit == 0 {
		limit = 100_000
	}
	if limit > 0 && m.records >= limit {
		return fmt.Errorf("%w: %d", ErrFull, m.records)
	}
	if c == nil {
		if m.keys == nil {
			m.keys = make(map[Key]*counters)
		}
		c = &counters{records: make(map[string]*Record)}
		m.keys[k] = c
	}
	c.target = t
	c.records[id] = &r
	m.records++
	return nil
}

// identity is a text that is the same for records that differ in Count only.
func (r *Record) identity() string {
	b := make([]byte, 0, 256)
	add := func(parts ...string) {
		for _, s := range parts {
			b = append(append(b, s...), 0)
		}
	}
	b, _ = r.Source.AppendText(b)
	add("", r.SourceText, r.Disposition, string(r.DKIM), string(r.SPF), r.HeaderFrom, r.EnvelopeFrom, r.EnvelopeTo)
	for _, x := range r.Reasons {
		add("r", string(x.Type), x.Comment)
	}
	for _, x := range r.Signatures {
		add("d", x.Domain, x.Selector, string(x.Result), x.Comment)
	}
	for _, x := range r.Hosts {
		add("s", x.Domain, x.Scope, string(x.Result), x.Comment)
	}
	return string(b)
}

// Due implements Storage.
func (m *Memory) Due(_ context.Context, before time.Time) ([]Key, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var due []Key
	for k := range m.keys {
		if !k.End.After(before) {
			due = append(due, k)
		}
	}
	slices.SortFunc(due, func(a, b Key) int {
		return cmp.Or(a.End.Compare(b.End), strings.Compare(a.Domain, b.Domain))
	})
	return due, nil
}

// Load implements Storage. The records are sorted: most messages first.
func (m *Memory) Load(_ context.Context, k Key) (Target, []Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.keys[k]
	if c == nil {
		return Target{}, nil, nil
	}
	records := make([]Record, 0, len(c.records))
	for _, r := range c.records {
		records = append(records, *r)
	}
	slices.SortFunc(records, func(a, b Record) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), a.Source.Compare(b.Source), strings.Compare(a.identity(), b.identity()))
	})
	return c.target, records, nil
}

// Remove implements Storage.
func (m *Memory) Remove(_ context.Context, k Key) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.keys[k]; c != nil {
		m.records -= len(c.records)
		delete(m.keys, k)
	}
	return nil
}
