package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// tally counts what came out.
type tally struct{ goals, met, skipped, failed int }

func newTally() *tally {
	cpu := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				cpu = strings.TrimLeft(strings.TrimSpace(name), ": ")
				break
			}
		}
	}
	commit := "unknown"
	if out, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
		commit = strings.TrimSpace(string(out))
	}
	fmt.Printf("%s, %d × %s, %s, Postrider %s\n\n", time.Now().Format(time.DateOnly), runtime.NumCPU(), cpu, runtime.Version(), commit)
	return new(tally)
}

// measure runs the rows of a section and prints them as a table.
func (t *tally) measure(r *run, section string, rows []row) {
	fmt.Printf("## %s\n\n| case | peer | theirs | ours | ratio (min to max) | goal | |\n|---|---|---|---|---|---|---|\n", section)
	for _, row := range rows {
		t.row(r, row)
	}
	fmt.Println()
}

func (t *tally) row(r *run, row row) {
	var theirs, ours, ratios []float64
	var err error
	for range r.rounds {
		var a, b float64
		debug.FreeOSMemory()
		if row.theirs != nil {
			if a, err = row.theirs(); err != nil {
				break
			}
			theirs = append(theirs, a)
		}
		if row.ours != nil {
			if b, err = row.ours(); err != nil {
				break
			}
			ours = append(ours, b)
		}
		switch {
		case row.theirs == nil:
			ratios = append(ratios, b)
		case row.ours != nil:
			ratios = append(ratios, b/a)
		}
	}
	verdict, ratio := "", ""
	if !row.goal.none() {
		t.goals++
	}
	switch {
	case errors.Is(err, errSkip):
		t.skipped++
		verdict = err.Error()
	case err != nil:
		t.failed++
		verdict = "FAILED: " + err.Error()
	case len(ratios) > 0:
		m := median(ratios)
		if row.theirs != nil {
			ratio = fmt.Sprintf("%.2f (%.2f to %.2f)", m, ratios[0], ratios[len(ratios)-1])
		}
		if !row.goal.none() {
			verdict = "missed"
			if row.goal.met(m) {
				t.met++
				verdict = "met"
			}
		}
	}
	fmt.Printf("| %s | %s | %s | %s | %s | %s | %s |\n", row.what, row.peer, figure(theirs, row.unit), figure(ours, row.unit), ratio, row.goal, verdict)
}

// figure writes a median with three significant digits.
func figure(v []float64, unit string) string {
	if len(v) == 0 {
		return ""
	}
	m := median(v)
	switch {
	case m >= 100:
		return fmt.Sprintf("%.0f %s", m, unit)
	case m >= 10:
		return fmt.Sprintf("%.1f %s", m, unit)
	}
	return fmt.Sprintf("%.3g %s", m, unit)
}

func (t *tally) end() {
	fmt.Printf("goals met: %d of %d, %d skipped\n", t.met, t.goals, t.skipped)
}
