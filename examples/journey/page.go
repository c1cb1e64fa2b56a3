package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// page is what the journey prints: numbered steps with their time, facts, and
// checks. It is used from many goroutines.
type page struct {
	mu      sync.Mutex
	w       io.Writer
	colour  bool
	verbose bool
	dir     string // "" = no files
	begin   time.Time
	step    time.Time
	checks  int
	failed  int
	logs    map[string]*bytes.Buffer // transcripts by name
	order   []string
}

// newPage prints in colour only to a terminal, and never with NO_COLOR set.
func newPage(w *os.File, verbose bool, dir string) *page {
	info, err := w.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &page{w: w, colour: terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
		verbose: verbose, dir: dir, begin: time.Now(), logs: map[string]*bytes.Buffer{}}
}

const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
	cyan  = "36"
)

func (p *page) paint(code, s string) string {
	if !p.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p *page) title(s string) {
	fmt.Fprintf(p.w, "\n%s\n", p.paint(bold, s))
}

// begins starts a step.
func (p *page) begins(n int, title string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step = time.Now()
	fmt.Fprintf(p.w, "\n%s  %s\n", p.paint(cyan, fmt.Sprintf("%2d", n)), p.paint(bold, title))
}

// ends closes a step with the time it took.
func (p *page) ends() {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "      %s\n", p.paint(dim, "took "+span(time.Since(p.step))))
}

// tell prints a fact.
func (p *page) tell(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		fmt.Fprintf(p.w, "      %s\n", line)
	}
}

// check prints what was checked and counts it.
func (p *page) check(ok bool, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checks++
	mark := p.paint(green, "✓")
	if !ok {
		p.failed++
		mark = p.paint(red, "✗ FAILED:")
	}
	fmt.Fprintf(p.w, "    %s %s\n", mark, fmt.Sprintf(format, args...))
}

// log takes a line of a conversation: "C: " is the client's, "S: " the
// server's.
func (p *page) log(name, line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.logs[name]
	if b == nil {
		b = &bytes.Buffer{}
		p.logs[name], p.order = b, append(p.order, name)
	}
	fmt.Fprintf(b, "%s\n", line)
	if p.verbose {
		fmt.Fprintf(p.w, "        %s\n", p.paint(dim, name+" "+line))
	}
}

// save writes a message to the output folder.
func (p *page) save(name string, data []byte) error {
	if p.dir == "" {
		return nil
	}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(p.dir, name), data, 0o644)
}

// finish saves the transcripts and prints the sum.
func (p *page) finish() error {
	for _, name := range p.order {
		if err := p.save(name+".txt", p.logs[name].Bytes()); err != nil {
			return err
		}
	}
	if p.dir != "" {
		p.tell("\nmessages and transcripts are in %s", p.dir)
	}
	took := span(time.Since(p.begin))
	if p.failed > 0 {
		return fmt.Errorf("%d of %d checks failed (%s)", p.failed, p.checks, took)
	}
	fmt.Fprintf(p.w, "\n%s\n\n", p.paint(green, fmt.Sprintf("Arrived. %d checks held, %s.", p.checks, took)))
	return nil
}

// span prints a duration with three digits.
func span(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
