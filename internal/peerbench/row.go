package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// run is what the flags say.
type run struct {
	quick  bool
	rounds int
}

// row is one comparison, or one figure of ours alone when peer is nil.
type row struct {
	what string // the case, "parse 3 KB"
	peer string // the peer's name and version
	unit string // of both figures: "µs", "msg/s", "MB/s", "allocs"
	// theirs and ours measure once each time they are called.
	theirs, ours func() (float64, error)
	goal         goal
}

// goal bounds ours ÷ theirs, or our figure itself when there is no peer. The
// zero goal is none: the row is information.
type goal struct{ atLeast, atMost float64 }

func (g goal) none() bool { return g == goal{} }

func (g goal) met(v float64) bool {
	return v >= g.atLeast && (g.atMost == 0 || v <= g.atMost)
}

func (g goal) String() string {
	switch {
	case g.atLeast > 0:
		return fmt.Sprintf("≥ %g", g.atLeast)
	case g.atMost > 0:
		return fmt.Sprintf("≤ %g", g.atMost)
	}
	return ""
}

// errSkip marks a row whose peer is not here: wrap it with the reason.
var errSkip = errors.New("skipped")

func allocsPerOp(f func(b *testing.B)) func() (float64, error) {
	return benchmark(f, func(r testing.BenchmarkResult) float64 { return float64(r.AllocsPerOp()) })
}

func benchmark(f func(b *testing.B), figure func(testing.BenchmarkResult) float64) func() (float64, error) {
	return func() (float64, error) {
		r := testing.Benchmark(func(b *testing.B) {
			b.ReportAllocs()
			f(b)
		})
		if r.N == 0 {
			return 0, errors.New("the benchmark failed")
		}
		return figure(r), nil
	}
}

// median sorts v.
func median[T cmp.Ordered](v []T) T {
	slices.Sort(v)
	return v[len(v)/2]
}
