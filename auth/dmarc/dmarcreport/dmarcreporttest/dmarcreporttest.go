// Package dmarcreporttest proves that a dmarcreport.Storage does what its
// contract says:
//
//	func TestStorage(t *testing.T) {
//		dmarcreporttest.Run(t, func(t *testing.T) dmarcreport.Storage { return open(t) })
//	}
package dmarcreporttest

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/auth"
	"github.com/postrider/postrider/auth/dmarc/dmarcreport"
)

var midnight = time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC)

func key(domain string, day int) dmarcreport.Key {
	return dmarcreport.Key{Domain: domain, Begin: midnight.AddDate(0, 0, day), End: midnight.AddDate(0, 0, day+1)}
}

// record has every field set.
func record() dmarcreport.Record {
	return dmarcreport.Record{
		Source: netip.MustParseAddr("2001:db8::1"), Count: 1, Disposition: "reject", DKIM: auth.Fail, SPF: auth.Pass,
		Reasons:    []dmarcreport.Reason{{Type: dmarcreport.Other, Comment: "why\x00\n\"not\""}},
		HeaderFrom: "example.org", EnvelopeFrom: "bounce.example.org", EnvelopeTo: "example.net",
		Signatures: []dmarcreport.Signature{{Domain: "example.org", Selector: "s", Result: auth.Pass, Comment: "c"}, {Domain: "b.example"}},
		Hosts:      []dmarcreport.Host{{Domain: "bounce.example.org", Scope: "mfrom", Result: auth.SoftFail, Comment: "c"}},
	}
}

// Run tests storages, each of which open gives empty.
func Run(t *testing.T, open func(t *testing.T) dmarcreport.Storage) {
	t.Run("counts", func(t *testing.T) { counts(t, open(t)) })
	t.Run("due", func(t *testing.T) { due(t, open(t)) })
	t.Run("concurrent", func(t *testing.T) { concurrent(t, open(t)) })
}

func add(t *testing.T, s dmarcreport.Storage, k dmarcreport.Key, target dmarcreport.Target, r dmarcreport.Record) {
	t.Helper()
	if err := s.Add(t.Context(), k, target, r); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, s dmarcreport.Storage, k dmarcreport.Key) (dmarcreport.Target, []dmarcreport.Record) {
	t.Helper()
	target, records, err := s.Load(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return target, records
}

// counts: records that are alike are one, those that differ anywhere are not,
// and the last target counts.
func counts(t *testing.T, s dmarcreport.Storage) {
	k := key("example.org", 0)
	target := dmarcreport.Target{Policy: dmarcreport.Published{Domain: "example.org", Policy: "reject", Testing: true}, Addresses: []string{"mailto:a@example.org"}, Errors: []string{"e"}}
	add(t, s, k, dmarcreport.Target{}, record())
	more := record()
	more.Count = 41
	add(t, s, k, target, more)
	got, records := load(t, s, k)
	if len(records) != 1 || records[0].Count != 42 {
		t.Fatalf("%d records: %+v", len(records), records)
	}
	want := record()
	want.Count = 42
	if !reflect.DeepEqual(records[0], want) {
		t.Errorf("record is %+v, want %+v", records[0], want)
	}
	if !reflect.DeepEqual(got, target) {
		t.Errorf("target is %+v, want %+v", got, target)
	}
	changes := []func(r *dmarcreport.Record){
		func(r *dmarcreport.Record) { r.Source = netip.MustParseAddr("192.0.2.1") },
		func(r *dmarcreport.Record) { r.Disposition = "none" },
		func(r *dmarcreport.Record) { r.DKIM = auth.Pass },
		func(r *dmarcreport.Record) { r.SPF = auth.Fail },
		func(r *dmarcreport.Record) { r.Reasons = nil },
		func(r *dmarcreport.Record) { r.HeaderFrom = "a.example.org" },
		func(r *dmarcreport.Record) { r.EnvelopeFrom = "" },
		func(r *dmarcreport.Record) { r.EnvelopeTo = "" },
		func(r *dmarcreport.Record) { r.Signatures = r.Signatures[:1] },
		func(r *dmarcreport.Record) { r.Signatures[0].Selector = "t" },
		func(r *dmarcreport.Record) { r.Hosts = nil },
		func(r *dmarcreport.Record) { r.Hosts[0].Result = auth.Pass },
	}
	for _, change := range changes {
		r := record()
		change(&r)
		add(t, s, k, target, r)
	}
	if _, records := load(t, s, k); len(records) != 1+len(changes) {
		t.Errorf("%d records, want %d", len(records), 1+len(changes))
	}
}

// due: keys whose period is over, in the order of their ends; what is removed
// is gone, and nothing else is.
func due(t *testing.T, s dmarcreport.Storage) {
	keys := []dmarcreport.Key{key("a.example", 1), key("a.example", 0), key("b.example", 2)}
	for _, k := range keys {
		add(t, s, k, dmarcreport.Target{}, record())
	}
	list := func(before time.Time) []dmarcreport.Key {
		t.Helper()
		found, err := s.Due(t.Context(), before)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	equal := func(a, b dmarcreport.Key) bool {
		return a.Domain == b.Domain && a.Begin.Equal(b.Begin) && a.End.Equal(b.End)
	}
	for _, c := range []struct {
		before time.Time
		want   []dmarcreport.Key
	}{
		{midnight, nil},
		{keys[1].End.Add(-time.Second), nil},
		{keys[1].End, []dmarcreport.Key{keys[1]}},
		{keys[2].End, []dmarcreport.Key{keys[1], keys[0], keys[2]}},
	} {
		if got := list(c.before); !slices.EqualFunc(got, c.want, equal) {
			t.Errorf("due before %v: %v, want %v", c.before, got, c.want)
		}
	}
	for range 2 { // removing twice is no error
		if err := s.Remove(t.Context(), keys[1]); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(keys[2].End); !slices.EqualFunc(got, []dmarcreport.Key{keys[0], keys[2]}, equal) {
		t.Errorf("due after one was removed: %v", got)
	}
	if _, records := load(t, s, keys[1]); len(records) != 0 {
		t.Errorf("removed, but there: %v", records)
	}
	if _, records := load(t, s, keys[0]); len(records) != 1 {
		t.Errorf("not removed, but gone: %v", records)
	}
}

// concurrent: no count is lost.
func concurrent(t *testing.T, s dmarcreport.Storage) {
	const workers, each = 8, 50
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				r := record()
				r.HeaderFrom = fmt.Sprintf("%d.example", i%5)
				if err := s.Add(t.Context(), key("example.org", w%2), dmarcreport.Target{}, r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var sum int64
	for day := range 2 {
		_, records := load(t, s, key("example.org", day))
		if len(records) != 5 {
			t.Errorf("%d records, want 5", len(records))
		}
		for _, r := range records {
			sum += r.Count
		}
	}
	if sum != workers*each {
		t.Errorf("%d messages, want %d", sum, workers*each)
	}
}
