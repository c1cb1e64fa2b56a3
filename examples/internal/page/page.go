// Package page prints what the examples do: numbered steps with their time,
// facts, and checks.
package page

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

// Page is what an example prints: numbered steps with their time, facts, and
// checks. It is used from many goroutines.
type Page struct {
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

// New prints in colour only to a terminal, and never with NO_COLOR set.
func New(w *os.File, verbose bool, dir string) *Page {
	info, err := w.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &Page{w: w, colour: terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
		verbose: verbose, dir: dir, begin: time.Now(), logs: map[string]*bytes.Buffer{}}
}

const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
	cyan  = "36"
)

func (p *Page) paint(code, s string) string {
	if !p.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// Title prints what all of it is about.
func (p *Page) Title(s string) {
	fmt.Fprintf(p.w, "\n%s\n", p.paint(bold, s))
}

// Begins starts a step.
func (p *Page) Begins(n int, title string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step = time.Now()
	fmt.Fprintf(p.w, "\n%s  %s\n", p.paint(cyan, fmt.Sprintf("%2d", n)), p.paint(bold, title))
}

// Ends closes a step with the time it took.
func (p *Page) Ends() {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "      %s\n", p.paint(dim, "took "+Span(time.Since(p.step))))
}

// Tell prints a fact.
func (p *Page) Tell(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		fmt.Fprintf(p.w, "      %s\n", line)
	}
}

// Check prints what was checked and counts it.
func (p *Page) Check(ok bool, format string, args ...any) {
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

// Log takes a line of a transcript, such as "C: …" of a client.
func (p *Page) Log(name, line string) {
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

// Save writes a message to the output folder.
func (p *Page) Save(name string, data []byte) error {
	if p.dir == "" {
		return nil
	}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(p.dir, name), data, 0o644)
}

// Checks returns how many checks held and how many failed.
func (p *Page) Checks() (held, failed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.checks - p.failed, p.failed
}

// Finish saves the transcripts and prints the sum behind a word on it. It is
// an error if a check failed.
func (p *Page) Finish(word string) error {
	for _, name := range p.order {
		if err := p.Save(name+".txt", p.logs[name].Bytes()); err != nil {
			return err
		}
	}
	if p.dir != "" {
		p.Tell("\nmessages and transcripts are in %s", p.dir)
	}
	took := Span(time.Since(p.begin))
	if p.failed > 0 {
		return fmt.Errorf("%d of %d checks failed (%s)", p.failed, p.checks, took)
	}
	fmt.Fprintf(p.w, "\n%s\n\n", p.paint(green, fmt.Sprintf("%s %d checks held, %s.", word, p.checks, took)))
	return nil
}

// Span prints a duration with three digits.
func Span(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
