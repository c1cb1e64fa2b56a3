// Command peerbench measures Postrider against its peers: peer and Postrider
// in turn, in one run on one machine, as ratios.
//
//	go run . [-quick] [-rounds N] SECTION...
//
// A section is one of those that -help lists, or "all". It ends with
// "goals met: N of M, S skipped" and exits 0 only if every goal is met; a peer
// that is not installed is a skipped row and its goal is not met. With -quick
// it does less, once, and exits 0 when every row ran, whatever the ratio.
//
// It is a module of its own, so that no peer is a dependency of the library.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// sections are what can be measured, in the order of "all".
var sections = []struct {
	name string
	rows func(*run) ([]row, error)
}{
	{"auth", authRows},
	{"mime", mimeRows},
	{"mx", mxRows},
	{"smtp", smtpRows},
	{"queue", queueRows},
	{"pgqueue", pgqueueRows},
	{"pgstore", pgStoreRows},
	{"store", storeRows},
}

func main() {
	if kind := os.Getenv(smtpChildEnv); kind != "" {
		smtpChild(kind)
		return
	}
	testing.Init() // for the benchmarks' own flags
	r := &run{}
	flag.BoolVar(&r.quick, "quick", false, "do less, once; fail only when a row cannot run")
	flag.IntVar(&r.rounds, "rounds", 3, "how often peer and Postrider are measured in turn")
	flag.Usage = func() {
		var names []string
		for _, s := range sections {
			names = append(names, s.name)
		}
		fmt.Fprintf(os.Stderr, "usage: peerbench [flags] SECTION...\nsections: %s, all\n", strings.Join(names, ", "))
		flag.PrintDefaults()
	}
	flag.Parse()
	want := flag.Args()
	if len(want) == 0 {
		flag.Usage()
		os.Exit(2)
	}
	benchTime := "1s"
	if r.quick {
		r.rounds, benchTime = 1, "50ms"
	}
	if err := flag.Set("test.benchtime", benchTime); err != nil {
		fmt.Fprintln(os.Stderr, "peerbench:", err)
		os.Exit(2)
	}
	all := slices.Contains(want, "all")
	t := newTally()
	for _, s := range sections {
		i := slices.Index(want, s.name)
		if i < 0 && !all {
			continue
		}
		if i >= 0 {
			want = slices.Delete(want, i, i+1)
		}
		rows, err := s.rows(r)
		if err != nil {
			fmt.Fprintf(os.Stderr, "peerbench: section %s: %v\n", s.name, err)
			t.failed++
			continue
		}
		t.measure(r, s.name, rows)
	}
	for _, w := range want {
		if w != "all" {
			fmt.Fprintf(os.Stderr, "peerbench: no section %q\n", w)
			t.failed++
		}
	}
	t.end()
	if t.failed > 0 || !r.quick && t.met < t.goals {
		os.Exit(1)
	}
}
